"""Random scale, crop, flip and colour policy, each a pure function of its inputs and a seed.

Shapes: Y, X are the size of one source image in pixels, h, w that of the crop. Images are float32
with values 0..255, labels int32. Seeds are integer tensors [2], as tf.random.stateless_* take them.
"""

from __future__ import annotations

import math

import tensorflow as tf

from sp_transformer.data import autoaugment, resize

PAD_VALUE = 127.5


def augment(image, label, seed, options, crop_size, ignore_label):
    """Turns one example into one training example.

    Args:
      image: uint8 or float32 [Y, X, 3], values 0..255.
      label: int32 [Y, X].
      seed: integer [2]; the same seed gives the same example.
      options: an AugmentationOptions message.
      crop_size: (h, w), Python integers.
      ignore_label: what padded pixels of the label hold.

    Returns:
      float32 [h, w, 3] and int32 [h, w].
    """
    if options.color_policy not in COLOR_POLICIES:
        raise ValueError(
            f"data.augmentation.color_policy {options.color_policy!r} is not registered; choose "
            f"one of {', '.join(sorted(COLOR_POLICIES))}"
        )
    scale_seed, crop_seed, flip_seed, color_seed = tf.unstack(
        tf.random.experimental.stateless_split(seed, 4)
    )
    scale = draw_scale(scale_seed, options)
    image, label = scale_and_crop(image, label, scale, crop_seed, crop_size)
    image = COLOR_POLICIES[options.color_policy](image, color_seed, options.color_strength)
    if options.horizontal_flip:
        image, label = random_flip(image, label, flip_seed)
    # Last, so that padding is the same grey whatever the colours went through, and on the same
    # sides whether flipped or not.
    return pad(image, label, crop_size, ignore_label)


def scale_values(options) -> list[float]:
    """Returns the scales that can be drawn: min_scale, min_scale + scale_step, ..., max_scale.

    Counted in whole steps and rounded to 9 decimals, so that 0.5 to 2.0 in steps of 0.1 has all of
    its 16 values and 1.0 is exactly 1.0.
    """
    low, high, step = options.min_scale, options.max_scale, options.scale_step
    steps = math.floor((high - low) / step + 1e-6) if high > low and step > 0 else 0
    return [round(low + k * step, 9) for k in range(steps + 1)]


def draw_scale(seed, options):
    """Returns one of `scale_values`, each as likely as the others: a float64 scalar."""
    values = scale_values(options)
    index = tf.random.stateless_uniform([], seed, 0, len(values), dtype=tf.int32)
    return tf.gather(tf.constant(values, tf.float64), index)


def scale_and_crop(image, label, scale, seed, crop_size):
    """Scales an example and cuts a window at a uniformly drawn place out of it.

    Only the pixels of the window are computed. The image is sampled bilinearly and the label at the
    nearest pixel, both with half-pixel centres and no antialiasing, so that the result equals
    `tf.image.resize` followed by the cut.

    Args:
      image: uint8 or float32 [Y, X, 3].
      label: int32 [Y, X].
      scale: scalar; the scaled size is rounded to whole pixels.
      seed: integer [2].
      crop_size: (h, w), Python integers.

    Returns:
      float32 [h', w', 3] and int32 [h', w']: h' is h, or the scaled height where that is smaller,
      w' likewise.
    """
    size = tf.shape(label)
    scaled = tf.cast(tf.round(tf.cast(size, tf.float64) * tf.cast(scale, tf.float64)), tf.int32)
    scaled = tf.maximum(scaled, 1)
    window_size = tf.minimum(scaled, crop_size)
    room = scaled - window_size
    drawn = tf.random.stateless_uniform([2], seed, dtype=tf.float64)
    # The product can round up to room + 1, hence the minimum.
    offset = tf.minimum(tf.cast(drawn * tf.cast(room + 1, tf.float64), tf.int32), room)

    window = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=window_size,
        scale=tf.cast(scaled / size, tf.float32),
        translation=-tf.cast(offset, tf.float32),
        kernel_type="triangle",
        antialias=False,
    )[0]
    rows, columns = (
        resize.nearest_indices(offset[axis], window_size[axis], size[axis], scaled[axis])
        for axis in (0, 1)
    )
    return window, tf.gather(tf.gather(label, rows), columns, axis=1)


def pad(image, label, crop_size, ignore_label):
    """Pads an example at the bottom and the right (as DeepLab2 does) up to the size of the crop.

    Args:
      image: float32 [h', w', 3], filled up with PAD_VALUE.
      label: int32 [h', w'], filled up with `ignore_label`.
      crop_size: (h, w), Python integers, neither smaller than h', w'.
      ignore_label: Python integer.

    Returns:
      float32 [h, w, 3] and int32 [h, w], of static shape.
    """
    after = tf.constant(crop_size) - tf.shape(label)
    paddings = tf.stack([tf.zeros([2], tf.int32), after], axis=1)
    label = tf.pad(label, paddings, constant_values=ignore_label)
    paddings = tf.concat([paddings, [[0, 0]]], axis=0)
    image = tf.pad(image, paddings, constant_values=PAD_VALUE)
    return tf.ensure_shape(image, [*crop_size, 3]), tf.ensure_shape(label, crop_size)


def random_flip(image, label, seed):
    """Mirrors image [h, w, 3] and label [h, w] left to right with probability one half."""
    return tf.cond(
        tf.random.stateless_uniform([], seed) < 0.5,
        # Not [:, ::-1], which takes 20 times as long.
        lambda: (tf.reverse(image, [1]), tf.reverse(label, [1])),
        lambda: (image, label),
    )


def jitter(image, seed, strength):
    """Draws brightness, contrast, saturation and hue, each centred on identity.

    Brightness, contrast (about the image's own mean luminance) and saturation (about each pixel's
    luminance) are factors drawn from 1 - strength to 1 + strength; hue is turned (in YIQ, about the
    grey axis) by at most strength / 10 of the colour circle. Unlike DeepLab2's "0.2 magnitude"
    policy, an average draw changes nothing.

    Args:
      image: float32 [h, w, 3], values 0..255.
      seed: integer [2].
      strength: from 0 to 1.

    Returns:
      float32 [h, w, 3], clipped to 0..255.
    """
    if strength == 0:
        return image
    draws = tf.random.stateless_uniform([4], seed, -strength, strength)
    brightness, contrast, saturation = 1 + draws[0], 1 + draws[1], 1 + draws[2]
    # All four are linear in the colours, so that one matrix does their work in one pass.
    luminance = tf.constant(autoaugment.LUMINANCE)
    to_grey = tf.tile(luminance[:, None], [1, 3])
    matrix = saturation * tf.eye(3) + (1 - saturation) * to_grey
    matrix = brightness * contrast * tf.matmul(matrix, _hue_matrix(draws[3] / 10))
    mean = tf.tensordot(autoaugment.mean_color(image), luminance, 1)
    colors = tf.matmul(tf.reshape(image, [-1, 3]), matrix) + brightness * (1 - contrast) * mean
    return tf.reshape(tf.clip_by_value(colors, 0, 255), tf.shape(image))


def _hue_matrix(turns):
    """Returns [3, 3], by which RGB rows are multiplied to turn their hue; keeps the luminance."""
    to_yiq = tf.transpose(
        tf.constant([autoaugment.LUMINANCE, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    )
    cosine, sine = tf.cos(2 * math.pi * turns), tf.sin(2 * math.pi * turns)
    turn = tf.stack([[1.0, 0.0, 0.0], [0.0, cosine, sine], [0.0, -sine, cosine]])
    return to_yiq @ turn @ tf.linalg.inv(to_yiq)


def no_color_change(image, seed, strength):
    """Returns the image as it is; takes the arguments of every colour policy."""
    del seed, strength
    return image


COLOR_POLICIES = {
    "autoaugment": autoaugment.autoaugment,
    "jitter": jitter,
    "none": no_color_change,
}
