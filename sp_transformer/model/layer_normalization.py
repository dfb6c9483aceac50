"""Layer normalisation along the last axis, in as few passes over the tensor as TensorFlow allows."""

import keras
import tensorflow as tf
from keras import ops

from sp_transformer.model import cpu_kernels


@keras.saving.register_keras_serializable("sp_transformer")
class LayerNormalization(keras.layers.LayerNormalization):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta along the last axis, shapes kept, computed in float32.

    Keras' own multiplies deviation and gamma to a tensor of the full size first, and takes half as long again for it on
    a CPU. The variables are Keras'.
    """

    def __init__(self, epsilon=1e-6, **kwargs):
        super().__init__(epsilon=epsilon, **kwargs)

    def call(self, x):
        normalize = self._by_cpu_kernel if cpu_kernels.enabled() else self._normalize
        gamma, beta = ops.cast(self.gamma, "float32"), ops.cast(self.beta, "float32")
        return ops.cast(normalize(ops.cast(x, "float32"), gamma, beta), self.compute_dtype)

    def _normalize(self, x, gamma, beta):
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        return centred * ops.rsqrt(variance + self.epsilon) * gamma + beta

    def _by_cpu_kernel(self, x, gamma, beta):
        # TensorFlow's CPU builds have a kernel for layer normalisation that no Python function reaches: the graph
        # optimizer puts it in the place of this pattern around FusedBatchNorm. Where it does not, the pattern still
        # computes the same. GPUs do not take it with an epsilon below 1e-5, and converters do not know it.
        channels = x.shape[-1]
        # The optimizer takes matrices only, and would join this reshape with the next.
        tokens = tf.reshape(x, [-1, channels])
        tokens = tf.ensure_shape(tokens, tokens.shape)
        # It looks for tf.fill, which would have become a constant if the number of tokens were one.
        count = tf.raw_ops.PlaceholderWithDefault(input=tf.shape(tokens)[:1], shape=[1])
        nothing = tf.constant([], tf.float32)
        # Each token is a channel of a batch of one.
        normalized = tf.raw_ops.FusedBatchNormV3(
            x=tf.reshape(tokens, [1, -1, channels, 1]),
            scale=tf.fill(count, 1.0),
            offset=tf.fill(count, 0.0),
            mean=nothing,
            variance=nothing,
            epsilon=self.epsilon,
            data_format="NCHW",
            is_training=True,
        ).y
        normalized = tf.reshape(normalized, [-1, channels]) * gamma + beta
        return tf.reshape(normalized, ops.shape(x))
