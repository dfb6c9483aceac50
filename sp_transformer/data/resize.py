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
        # tf.image.resize without what it does around the kernel, which takes as long for a small image; and the
        # kernel is twice as fast on float32.
        resized = tf.raw_ops.ResizeBilinear(
            images=image[None].astype(np.float32), size=size, half_pixel_centers=True
        )
        return np.rint(resized.numpy()[0]).astype(np.uint8)


def resize_label(label, size):
    """Resizes labels [Y, X] to `size`, each pixel taking the nearest one's; keeps the type."""
    if label.shape == tuple(size):
        return label
    rows, columns = (
        (2 * np.arange(new, dtype=np.int64) + 1) * old // (2 * new)
        for new, old in zip(size, label.shape, strict=True)
    )
    # A quarter of the time that label[rows[:, None], columns] takes.
    return label.take(rows, axis=0).take(columns, axis=1)
