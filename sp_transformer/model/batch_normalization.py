"""BatchNorm whose statistics are those of the global batch."""

import keras
import tensorflow as tf

from sp_transformer.model import replica_sums


@keras.saving.register_keras_serializable("sp_transformer")
class SynchronizedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization(synchronized=True)`: the same numbers, with less work.

    Keras sums three times over the replicas, counts a tensor of ones of the input's size, and lets TensorFlow search
    the graph of all other replicas at each sum, which takes minutes to trace (see custom_gradient.py). Here there is
    one sum of 2 C + 1 numbers.

    Args:
      **kwargs: those of `keras.layers.BatchNormalization`; `synchronized` is always true.
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "synchronized": True})

    def _moments(self, inputs, mask):
        if mask is not None:
            return super()._moments(inputs, mask)
        axes = self._reduction_axes
        channels = inputs.shape[self.axis]
        # Replicas need not have the same number of elements.
        count = tf.cast(tf.size(inputs) // channels, inputs.dtype)
        sums = [tf.reduce_sum(inputs, axes), tf.reduce_sum(tf.square(inputs), axes), [count]]
        sums = replica_sums.differentiable(tf.concat(sums, 0))
        total, total_of_squares, count = tf.split(sums, [channels, channels, 1])
        mean = tf.math.divide_no_nan(total, count)
        variance = tf.math.divide_no_nan(total_of_squares, count) - tf.square(mean)
        return mean, tf.maximum(variance, 0.0)


__all__ = ["SynchronizedBatchNormalization"]
