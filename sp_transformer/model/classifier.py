"""Superpixels -> class logits of superpixels, by global self-attention (paper, section III-C)."""

import math

import keras
from keras import ops

from sp_transformer.model.layer_normalization import LayerNormalization
from sp_transformer.model.projection import FeedForward, dense

# Products of queries and keys at a time, 4 MiB in float32; in no more parts than that, as each costs operations.
_PAIRS = 2**20
_MAX_PARTS = 16


@keras.saving.register_keras_serializable("sp_transformer")
class SelfAttention(keras.layers.Layer):
    """x + Dense(MHSA(LN(x))) over [B, M, E], shapes kept; the softmax is float32 under any policy.

    Args:
      heads: number of heads; divides E.
    """

    def __init__(self, heads=4, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.norm = LayerNormalization(name="norm", dtype=self.dtype_policy)
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
        y = self.norm(x)
        size = x.shape[-1] // self.heads
        queries = dense(self.query, y) * size**-0.5
        keys, values = dense(self.key, y), dense(self.value, y)
        heads = (ops.split(part, self.heads, axis=-1) for part in (queries, keys, values))
        attended = [self._attend_in_parts(*head) for head in zip(*heads, strict=True)]
        return dense(self.output_layer, ops.concatenate(attended, axis=-1), residual=x)

    def _attend_in_parts(self, queries, keys, values):
        """One head: [B, M, D] each -> [B, M, D].

        One head, and some of its queries, after the other: the products of all pairs of tokens would fill memory, and
        leave every cache.
        """
        tokens = queries.shape[1]
        if tokens is None:
            return self._attend(queries, keys, values)
        step = max(_PAIRS // tokens, math.ceil(tokens / _MAX_PARTS))
        if step >= tokens:
            return self._attend(queries, keys, values)
        parts = ops.split(queries, list(range(step, tokens, step)), axis=1)
        return ops.concatenate([self._attend(part, keys, values) for part in parts], axis=1)

    def _attend(self, queries, keys, values):
        """[B, m, D], [B, M, D] twice -> [B, m, D]."""
        weights = self._weights(queries, keys)
        return ops.matmul(ops.cast(weights, values.dtype), values)

    def _weights(self, queries, keys):
        """[B, m, D], [B, M, D] -> float32 [B, m, M]."""
        logits = ops.cast(ops.matmul(queries, ops.swapaxes(keys, 1, 2)), "float32")
        return ops.softmax(logits, axis=-1)

    def weights_of(self, x, token):
        """The softmax of one token's products with all, for pictures: [B, M, E] -> float32 [B, heads, M]."""
        y = self.norm(x)
        queries = dense(self.query, y[:, token : token + 1]) * (x.shape[-1] // self.heads) ** -0.5
        pairs = (ops.split(part, self.heads, axis=-1) for part in (queries, dense(self.key, y)))
        weights = [self._weights(*head) for head in zip(*pairs, strict=True)]
        return ops.concatenate(weights, axis=1)

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
        self.norm = LayerNormalization(name="norm", dtype=self.dtype_policy)
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

    def attention_weights(self, superpixels, layer, token):
        """The weights with which one token attends to all in one layer, for pictures.

        Args:
          superpixels: [B, R, C, E].
          layer: 0 to layers - 1.
          token: r*C + c.

        Returns:
          float32 [B, heads, R*C], each row with the sum 1.
        """
        batch, rows, columns, channels = ops.shape(superpixels)
        x = ops.reshape(superpixels, [batch, rows * columns, channels])
        for index in range(layer):
            x = self.feed_forwards[index](self.self_attentions[index](x))
        return self.self_attentions[layer].weights_of(x, token)

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
