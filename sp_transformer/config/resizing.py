"""The size that `resize_*` of DataOptions gives an image: one rule for training and inference.

It stands below both data/ and model/, which must agree on it and never import each other.
"""

from __future__ import annotations


def resizes(data_options) -> bool:
    """Returns whether images are brought to another size at all."""
    exact = data_options.resize_height > 0 and data_options.resize_width > 0
    return exact or data_options.resize_longer_side > 0


def resized_size(height, width, data_options, maximum=max):
    """Returns the (height, width) that an image of `height` x `width` pixels is resized to.

    `resize_height` and `resize_width` win over `resize_longer_side`. The shorter side is rounded to
    the nearest pixel, halves up, and never below 1.

    Args:
      height: image height in pixels, a Python integer or a scalar integer tensor.
      width: image width, likewise.
      data_options: a DataOptions message.
      maximum: takes two values of that kind and returns the larger; `tf.maximum` for tensors.
    """
    if data_options.resize_height > 0 and data_options.resize_width > 0:
        return data_options.resize_height, data_options.resize_width
    longer = data_options.resize_longer_side
    if longer <= 0:
        return height, width
    side = maximum(height, width)

    def scaled(extent):
        return maximum((extent * longer + side // 2) // side, 1)

    return scaled(height), scaled(width)
