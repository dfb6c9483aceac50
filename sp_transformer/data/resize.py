"""Brings images and labels to the size that `resize_*` of DataOptions asks for.

Shapes: Y, X are the height and width of one image in pixels.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sp_transformer.config import resizing


def target_size(height, width, data_options):
    """Returns the (height, width) an image is resized to, of Python integers or scalar tensors."""
    is_tensor = tf.is_tensor(height) or tf.is_tensor(width)
    return resizing.resized_size(
        height, width, data_options, maximum=tf.maximum if is_tensor else max
    )


def resize_image(image, size):
    """Resizes bilinearly, with half-pixel centres and no antialiasing.

    Inference does the same but for the rounding to integers.

    Args:
      image: uint8 [Y, X, 3] (NumPy).
      size: (height, width) in pixels.

    Returns:
      uint8 [height, width, 3] (NumPy), rounded to the nearest integer.
    """
    if image.shape[:2] == tuple(size):
        return image
    # Runs inside the input pipeline: an accelerator must not be handed single images.
    with tf.device("CPU:0"):
        resized = tf.image.resize(image, size, method="bilinear", antialias=False)
        return tf.cast(tf.round(resized), tf.uint8).numpy()


def nearest_indices(first, count, extent, scaled_extent):
    """Returns where nearest resizing with half-pixel centres reads `count` pixels from `first` on.

    Pixel i of an axis of `scaled_extent` pixels has its centre at (i + 1/2) * extent /
    scaled_extent of the original axis. Integer arithmetic, so that no rounding error moves a label.

    Args:
      first: index of the first wanted pixel in the resized axis; Python integer or scalar tensor.
      count: number of wanted pixels, a Python integer.
      extent: pixels of the original axis, likewise.
      scaled_extent: pixels of the resized axis, likewise.

    Returns:
      int64 [count] indices into the original axis, clipped to it.
    """
    as_int64 = [tf.cast(value, tf.int64) for value in (first, extent, scaled_extent)]
    first, extent, scaled_extent = as_int64
    indices = (2 * (first + tf.range(count, dtype=tf.int64)) + 1) * extent // (2 * scaled_extent)
    return tf.clip_by_value(indices, 0, extent - 1)


def resize_label(label, size):
    """Resizes labels [Y, X] to `size`, each pixel taking the nearest one's; keeps the type."""
    if label.shape == tuple(size):
        return label
    rows, columns = (
        (2 * np.arange(new, dtype=np.int64) + 1) * old // (2 * new)
        for new, old in zip(size, label.shape, strict=True)
    )
    return label[rows[:, None], columns]
