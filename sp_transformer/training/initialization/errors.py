"""What is wrong with the weights that a run is to start from."""


class InitializationError(ValueError):
    """A file of weights is missing, unreadable, or does not fit the model; the model is unchanged."""
