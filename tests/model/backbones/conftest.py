"""Weight copying between our backbones and keras.applications'."""

import numpy as np
import pytest


@pytest.fixture
def randomise():
    """A function that gives every variable of a layer random values, variances positive."""

    def fill(layer, seed=0):
        rng = np.random.default_rng(seed)
        for variable in layer.variables:
            values = rng.normal(size=variable.shape)
            if variable.path.endswith(("variance", "gamma")):
                values = 0.5 + np.abs(values) / 2
            elif len(variable.shape) > 1:
                values /= np.sqrt(np.prod(variable.shape[:-1]))
            else:
                values *= 0.1
            variable.assign(values)

    return fill
