"""The small networks that act on each pixel or superpixel by itself."""

import math

import keras
from keras import ops

from sp_transformer.model import cpu_kernels
from sp_transformer.model.layer_normalization import LayerNormalization


def gelu(x):
    """x/2 * (1 + erf(x / sqrt(2))), the exact GELU, shape kept.

    keras.activations.gelu computes it by erfc, which takes 1.5 times as long on CPUs and whose gradient XLA does not
    compile in bfloat16.
    """
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))


def _as_matrix(x):
    """[..., C] -> [M, C]: TensorFlow's CPU kernels take a product and what follows it in one pass, but not around a
    reshape."""
    return ops.reshape(x, [-1, x.shape[-1]])


def _like(x, tokens):
    """[M, C] -> [..., C], as `x` has them."""
    return ops.reshape(tokens, [*ops.shape(x)[:-1], tokens.shape[-1]])


def dense(layer, x, residual=None):
    """A Dense layer, [..., C] -> [..., units], plus `residual` of that shape."""
    tokens = layer(_as_matrix(x))
    if residual is not None:
        tokens = _as_matrix(residual) + tokens
    return _like(x, tokens)


@keras.saving.register_keras_serializable("sp_transformer")
class Projection(keras.layers.Layer):
    """Dense, GELU, Dense along the last axis; one Dense if there is no hidden layer.

    Args:
      units: output channels.
      hidden_units: channels of the hidden layer; 0 for a linear projection.
    """

    def __init__(self, units, hidden_units=0, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden_units = hidden_units
        self.hidden = None
        if hidden_units:
            self.hidden = keras.layers.Dense(hidden_units, name="hidden", dtype=self.dtype_policy)
        self.output_layer = keras.layers.Dense(units, name="output", dtype=self.dtype_policy)

    def build(self, input_shape):
        if self.hidden is not None:
            self.hidden.build(input_shape)
            input_shape = (*input_shape[:-1], self.hidden_units)
        self.output_layer.build(input_shape)

    def call(self, x, residual=None):
        """[..., C] -> [..., units], plus `residual` of that shape."""
        return self.after_hidden_layer(self.hidden_units_of(x), residual)

    def hidden_units_of(self, x):
        """What the output layer multiplies: the hidden units after their GELU, or `x` if there are none."""
        if self.hidden is None:
            return x
        return _like(x, gelu(self.hidden(_as_matrix(x))))

    @property
    def first_layer(self):
        """The Dense layer that `x` meets first."""
        return self.output_layer if self.hidden is None else self.hidden

    def after_first_layer(self, x, residual=None):
        """The rest of the projection, for outputs of `first_layer`, plus `residual`."""
        if self.hidden is None:
            return x if residual is None else residual + x
        # No Dense layer in front, whose kernel would take the GELU with it.
        return self.after_hidden_layer(cpu_kernels.fused(gelu, x), residual)

    def after_hidden_layer(self, x, residual=None):
        """The output layer alone, for what `hidden_units_of` gives, plus `residual`."""
        return dense(self.output_layer, x, residual)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "hidden_units": self.hidden_units,
        }


@keras.saving.register_keras_serializable("sp_transformer")
class FeedForward(keras.layers.Layer):
    """x + Dense(GELU(Dense(LN(x)))), shapes kept.

    Args:
      width: channels of the hidden layer.
    """

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.norm = LayerNormalization(name="norm", dtype=self.dtype_policy)
        self.network = None

    def build(self, input_shape):
        self.network = Projection(
            input_shape[-1], self.width, name="network", dtype=self.dtype_policy
        )
        self.norm.build(input_shape)
        self.network.build(input_shape)

    def call(self, x):
        return self.network(self.norm(x), residual=x)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "width": self.width}
