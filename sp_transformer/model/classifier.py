"""Superpixels -> class logits of superpixels, by global self-attention (paper, section III-C)."""

import keras
from keras import ops

from sp_transformer.model.projection import FeedForward


@keras.saving.register_keras_serializable("sp_transformer")
class SelfAttention(keras.layers.Layer):
    """x + Dense(MHSA(LN(x))) over [B, M, E], shapes kept; the softmax is float32 under any policy.

    Args:
      heads: number of heads; divides E.
    """

    def __init__(self, heads=4, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.norm = keras.layers.LayerNormalization(
            epsilon=1e-6, name="norm", dtype=self.dtype_policy
        )
        self.query = self.key = self.value = self.output_layer = None

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels % self.heads:
            raise ValueError(
                f"heads must divide channels; got {self.heads} heads, {channels} channels"
            )
        self.norm.build(input_shape)
        self.query, self.key, self.value, self.output_layer = (
            keras.layers.Dense(channels, name=name, dtype=self.dtype_policy)
            for name in ("query", "key", "value", "output")
        )
        for layer in (self.query, self.key, self.value, self.output_layer):
            layer.build(input_shape)

    def call(self, x):
        batch, tokens, channels = ops.shape(x)
        size = x.shape[-1] // self.heads

        def split(projected):
            projected = ops.reshape(projected, [batch, tokens, self.heads, size])
            return ops.transpose(projected, (0, 2, 1, 3))

        y = self.norm(x)
        queries, keys, values = split(self.query(y)), split(self.key(y)), split(self.value(y))
        logits = ops.matmul(queries * size**-0.5, ops.swapaxes(keys, 2, 3))
        weights = ops.softmax(ops.cast(logits, "float32"), axis=-1)
        attended = ops.matmul(ops.cast(weights, values.dtype), values)
        attended = ops.reshape(ops.transpose(attended, (0, 2, 1, 3)), [batch, tokens, channels])
        return x + self.output_layer(attended)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}


@keras.saving.register_keras_serializable("sp_transformer")
class SuperpixelClassifier(keras.layers.Layer):
    """Self-attention and feed-forward layers over all superpixels, then their class logits.

    Call with superpixels [B, R, C, E]; the result is float32 [B, R, C, num_classes].

    Args:
      num_classes: number of classes.
      layers: number of self-attention layers, each followed by a feed-forward layer.
      heads: number of heads; divides E.
      feed_forward_width: hidden channels of the feed-forward layers.
    """

    def __init__(self, num_classes, layers=4, heads=4, feed_forward_width=512, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.layers = layers
        self.heads = heads
        self.feed_forward_width = feed_forward_width
        # Tuples: tf.train.Checkpoint does not see layers in lists.
        self.self_attentions = tuple(
            SelfAttention(heads, name=f"self_attention_{index}", dtype=self.dtype_policy)
            for index in range(layers)
        )
        self.feed_forwards = tuple(
            FeedForward(feed_forward_width, name=f"feed_forward_{index}", dtype=self.dtype_policy)
            for index in range(layers)
        )
        self.norm = keras.layers.LayerNormalization(
            epsilon=1e-6, name="norm", dtype=self.dtype_policy
        )
        # Logits stay float32: bfloat16 has 8 bits, too few to tell close classes apart.
        self.logits = keras.layers.Dense(num_classes, name="logits", dtype="float32")

    def build(self, input_shape):
        tokens_shape = (input_shape[0], None, input_shape[-1])
        for attention, feed_forward in zip(self.self_attentions, self.feed_forwards, strict=True):
            attention.build(tokens_shape)
            feed_forward.build(tokens_shape)
        self.norm.build(tokens_shape)
        self.logits.build(tokens_shape)

    def call(self, superpixels):
        batch, rows, columns, channels = ops.shape(superpixels)
        x = ops.reshape(superpixels, [batch, rows * columns, channels])
        for attention, feed_forward in zip(self.self_attentions, self.feed_forwards, strict=True):
            x = feed_forward(attention(x))
        return ops.reshape(self.logits(self.norm(x)), [batch, rows, columns, self.num_classes])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_classes)

    def compute_output_spec(self, superpixels):
        return keras.KerasTensor(self.compute_output_shape(superpixels.shape), dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "layers": self.layers,
            "heads": self.heads,
            "feed_forward_width": self.feed_forward_width,
        }
