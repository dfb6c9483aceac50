"""The pixels that each pair of classes has, counted where the model runs: nothing of an image's size leaves the device.

Shapes: b images; Y, X their height and width in pixels; K classes.
"""

import tensorflow as tf


def pair_counts(labels, predictions, num_classes: int, ignore_label: int):
    """Counts (truth, prediction) of each image, exactly, in shapes that are known beforehand.

    Args:
      labels: int32 [b, Y, X], each in [0, K) or `ignore_label`; padding is ignored pixels.
      predictions: int32 [b, Y, X], each in [0, K): a model predicts nothing else.
      num_classes: K.
      ignore_label: truth of the pixels that are not counted.

    Returns:
      int32 [b, K, K]; rows are the truth. Images of up to 2^31 pixels are counted right.
    """
    batch, pixels = labels.shape[0], labels.shape[1] * labels.shape[2]
    cells = num_classes * num_classes
    labels = tf.reshape(labels, [batch, pixels])
    predictions = tf.reshape(predictions, [batch, pixels])
    # Ignored pixels go to a cell of their own behind the others: leaving them out would make the shape depend on them.
    cell = tf.where(labels == ignore_label, cells, labels * num_classes + predictions)
    first = tf.range(batch)[:, None] * (cells + 1)
    counts = tf.math.unsorted_segment_sum(
        tf.ones([batch * pixels], tf.int32), tf.reshape(cell + first, [-1]), batch * (cells + 1)
    )
    counts = tf.reshape(counts, [batch, cells + 1])[:, :cells]
    return tf.reshape(counts, [batch, num_classes, num_classes])
