"""Ways of running a model on an image: several scales, mirrored, in sliding windows.

Shapes: b images; Y, X their size; y, x a scaled size; h, w a window's; K classes.
"""

from __future__ import annotations

import tensorflow as tf

from sp_transformer.config import resizing
from sp_transformer.model.interpolation import resize_bilinear

SINGLE_SCALE = "single_scale"


def is_plain(mode) -> bool:
    """Whether a mode, an InferenceMode message, sees the whole image once, as the exported model does."""
    return list(mode.scales) in ([], [1.0]) and not mode.flip and not mode.window_height


def labels_function(inference, data_options, mode):
    """The function of a mode: uint8 [b, Y, X, 3] -> int32 [b, Y, X].

    It is kept with the Inference, so that evaluating one model often does not trace it each time.

    Args:
      inference: an Inference.
      data_options: the DataOptions of that Inference.
      mode: an InferenceMode message.
    """
    if is_plain(mode):
        return inference.labels
    known = vars(inference).setdefault("mode_functions", {})
    key = mode.SerializeToString(deterministic=True)
    if key not in known:
        known[key] = _labels_function(inference.model, data_options, mode)
    return known[key]


def _labels_function(model, data_options, mode):

    # Traced once for all scales and windows.
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
    def logits(images):
        return model.semantic_logits(model.features(images, training=False))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def labels(images):
        return tf.argmax(averaged_scores(images, logits, data_options, mode), -1, tf.int32)

    return labels


def averaged_scores(images, logits, data_options, mode):
    """Mean class probabilities of a mode's scales and mirrored images, at the size of the images.

    Args:
      images: uint8 [b, Y, X, 3].
      logits: function of images float32 [b, y, x, 3], 0..255, that gives float32 [b, y, x, K].
      data_options: DataOptions, whose resize fields give the size that scale 1 stands for.
      mode: an InferenceMode message.

    Returns:
      float32 [b, Y, X, K]; the logits themselves where there is one scale and no mirrored image.
    """
    shape = tf.shape(images)
    size = (shape[1], shape[2])
    full_size = resizing.resized_size(*size, data_options, maximum=tf.maximum)
    scales = list(mode.scales) or [1.0]
    images = tf.cast(images, tf.float32)
    scores = []
    for scale in scales:
        scaled = images
        if scale != 1 or resizing.resizes(data_options):
            scaled_size = [scaled_extent(extent, scale) for extent in full_size]
            scaled = resize_bilinear(images, scaled_size)
        for mirror in (False, True) if mode.flip else (False,):
            seen = tf.reverse(scaled, [2]) if mirror else scaled
            found = window_logits(seen, logits, mode)
            found = tf.reverse(found, [2]) if mirror else found
            scores.append(resize_bilinear(found, size))
    if len(scores) == 1:
        return scores[0]
    return tf.add_n([tf.nn.softmax(score) for score in scores]) / len(scores)


def scaled_extent(extent, scale):
    """`extent` times `scale`, rounded to the nearest pixel, halves up, at least 1: an int32 tensor."""
    extent = tf.floor(tf.cast(extent, tf.float64) * scale + 0.5)
    return tf.maximum(tf.cast(extent, tf.int32), 1)


def window_logits(images, logits, mode):
    """Logits of images by the windows of a mode, averaged where they overlap.

    Args:
      images: float32 [b, y, x, 3].
      logits: as for `averaged_scores`.
      mode: an InferenceMode message; without a window the images are seen whole.

    Returns:
      float32 [b, y, x, K].
    """
    if not mode.window_height:
        return logits(images)
    shape = tf.shape(images)
    tops, height = window_starts(shape[1], mode.window_height, mode.stride_height)
    lefts, width = window_starts(shape[2], mode.window_width, mode.stride_width)

    def add_window(index, total):
        top, left = tops[index // tf.size(lefts)], lefts[index % tf.size(lefts)]
        found = logits(images[:, top : top + height, left : left + width])
        below, right = shape[1] - top - height, shape[2] - left - width
        return index + 1, total + tf.pad(found, [[0, 0], [top, below], [left, right], [0, 0]])

    count = tf.size(tops) * tf.size(lefts)
    _, total = add_window(0, 0.0)
    total.set_shape([None, None, None, total.shape[-1]])
    _, total = tf.while_loop(
        lambda index, _: index < count,
        add_window,
        (1, total),
        # One at a time: many windows at once would not fit what one window was chosen to fit.
        parallel_iterations=1,
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None, None, total.shape[-1]])),
    )
    rows, columns = _coverage(tops, height, shape[1]), _coverage(lefts, width, shape[2])
    return total / tf.cast(rows[:, None] * columns, tf.float32)[..., None]


def window_starts(extent, window, stride):
    """Where windows start along an axis, and their length.

    Args:
      extent: length of the axis, int32 scalar tensor.
      window: length of a window; shortened to the axis.
      stride: from one start to the next, 0 for two thirds of the window; the last window ends with
        the axis.

    Returns:
      int32 [number of windows], and an int32 scalar.
    """
    stride = stride or max(1, window * 2 // 3)
    window = tf.minimum(window, extent)
    count = (extent - window + stride - 1) // stride + 1
    return tf.minimum(tf.range(count) * stride, extent - window), window


def _coverage(starts, length, extent):
    """Number of windows over each position of an axis, int32 [extent]."""
    positions = tf.range(extent)[:, None]
    inside = (positions >= starts) & (positions < starts + length)
    return tf.reduce_sum(tf.cast(inside, tf.int32), 1)
