"""The moving average of a run's weights (training.ema_decay)."""

import contextlib

import tensorflow as tf

from sp_transformer.model import weights


class WeightAverages:
    """An exponential moving average of all of a model's weights, BatchNorm's statistics among them.

    After step t (the first is 1) the average moves by 1 - min(decay, (1 + t) / (10 + t)) towards the weights, so that
    the random start is soon forgotten.

    Args:
      model: a built model, created in the scope of `strategy`.
      decay: in [0, 1).
      strategy: the tf.distribute.Strategy.

    Attributes:
      by_name: {name as weights.named_variables has it: tf.Variable}.
    """

    def __init__(self, model, decay, strategy):
        self._decay = decay
        self._strategy = strategy
        self._weights = {
            name: variable.value
            for name, variable in weights.named_variables(model).items()
            if variable.value.dtype.is_floating
        }
        self.by_name = {}
        with strategy.scope():
            for name, variable in self._weights.items():
                with strategy.extended.colocate_vars_with(variable):
                    # Read from the variable, as a replica's part of it cannot be read in all scopes.
                    self.by_name[name] = tf.Variable(
                        tf.convert_to_tensor(variable), trainable=False, name="average"
                    )

    def start(self):
        """Makes the averages those of the weights as they are: after weights were loaded."""
        for name, average in self.by_name.items():
            average.assign(tf.identity(self._weights[name]))

    def trackable(self):
        """The averages under the names of the weights, for a tf.train.Checkpoint."""
        return tf.train.Checkpoint(**self.by_name)

    def update(self, step):
        """Moves the averages; called by all replicas after the update of the weights.

        Args:
          step: scalar, number of steps taken, this one counted.
        """
        step = tf.cast(step, tf.float32)
        share = 1.0 - tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        current = [tf.convert_to_tensor(variable) for variable in self._weights.values()]
        # One call for all of them: each costs a meeting of the replicas.
        tf.__internal__.distribute.interim.maybe_merge_call(
            self._move, self._strategy, current, share
        )

    def _move(self, strategy, current, share):
        def move(average, value, share):
            average.assign_sub((average - value) * tf.cast(share, average.dtype))

        for average, value in zip(self.by_name.values(), current, strict=True):
            strategy.extended.update(average, move, args=(value, share), group=False)

    @contextlib.contextmanager
    def in_place(self):
        """While this lasts, the model has the averages for weights."""
        kept = [tf.identity(variable) for variable in self._weights.values()]
        for variable, average in zip(self._weights.values(), self.by_name.values(), strict=True):
            variable.assign(tf.identity(average))
        try:
            yield
        finally:
            for variable, value in zip(self._weights.values(), kept, strict=True):
                variable.assign(value)
