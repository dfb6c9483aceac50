"""Stochastic depth (Huang et al., 2016), per example."""

import keras
from keras import ops


class DropPath(keras.layers.Layer):
    """Zeroes a residual branch for whole examples; scales the kept ones to keep the expectation.

    The random draw and the scaling run in float32 whatever the precision policy: in bfloat16,
    1 / keep would be rounded and the expectation would drift with depth.

    Args:
      rate: Probability in [0, 1) with which an example's branch is dropped while training.
      seed: Optional integer seed of the layer's generator.

    Raises:
      ValueError: `rate` is outside [0, 1).
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(
                f"drop path rate {rate} is not in [0, 1); 0 switches it off, the paper uses 0.2"
            )
        self.rate = float(rate)
        self.seed = seed
        if self.rate > 0.0:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, inputs, training=None):
        """Maps [B,...] to [B,...]; the identity unless training with a positive rate."""
        if not training or self.rate == 0.0:
            return inputs
        keep = 1.0 - self.rate
        mask_shape = (ops.shape(inputs)[0],) + (1,) * (len(inputs.shape) - 1)
        draw = keras.random.uniform(mask_shape, dtype="float32", seed=self.seed_generator)
        factor = ops.cast(draw < keep, "float32") / keep
        return ops.cast(ops.cast(inputs, "float32") * factor, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
