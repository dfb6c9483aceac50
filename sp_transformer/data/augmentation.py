"""Random scale, crop, flip and colour policy, each a pure function of its inputs and a seed.

Shapes: Y, X are the size of one source image in pixels, h, w that of the crop, h', w' that of the part of it that shows
the image (see `window`). Images are float32 with values 0..255, labels int32. Seeds are integer tensors [2], as
tf.random.stateless_* take them.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from sp_transformer.data import autoaugment, window

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
    scale, position = draw_window(seed, options)
    image, label, sampling = _window_of_whole(image, label, scale, position, crop_size)
    return augment_window(image, label, sampling, seed, options, crop_size, ignore_label)


def draw_window(seed, options):
    """Draws scale and place of the crop of one example, before any pixel of it is known.

    Args:
      seed: integer [2], the one that `augment_window` is given afterwards.
      options: an AugmentationOptions message.

    Returns:
      The scale, a float64 scalar, and the place, float64 [2] from [0, 1), as
      `window.place_window` takes them.
    """
    scale_seed, position_seed = _seeds(seed)[:2]
    return draw_scale(scale_seed, options), _draw_position(position_seed)


def augment_window(region, label, sampling, seed, options, crop_size, ignore_label):
    """`augment` for an example of which only the region under the drawn window was read.

    Args:
      region: uint8 or float32 [?, ?, 3], the padded region of a `window.Window`.
      label: int32 [h', w'], the labels of the window.
      sampling: float64 [4, 2], its `sampling()`.
      seed, options, crop_size, ignore_label: as for `augment`.

    Returns:
      float32 [h, w, 3] and int32 [h, w].
    """
    if options.color_policy not in COLOR_POLICIES:
        raise ValueError(
            f"data.augmentation.color_policy {options.color_policy!r} is not registered; choose "
            f"one of {', '.join(sorted(COLOR_POLICIES))}"
        )
    _, _, flip_seed, color_seed = _seeds(seed)
    image = scale_window(region, sampling)
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
    image, label, sampling = _window_of_whole(image, label, scale, _draw_position(seed), crop_size)
    return scale_window(image, sampling), label


def scale_window(region, sampling):
    """Makes the window of a scaled image out of the region of the source image under it.

    Args:
      region: uint8 or float32 [?, ?, 3], the padded region of a `window.Window`.
      sampling: float64 [4, 2], its `sampling()`.

    Returns:
      float32 [h', w', 3].
    """
    method = tf.cast(sampling[0, 0], tf.int32)
    shape = tf.cast(sampling[1], tf.int32)
    branches = {
        window.COPY: lambda: tf.cast(region, tf.float32),
        window.RESIZE: lambda: _resize_and_cut(region, shape, sampling[2], sampling[3]),
        window.RESAMPLE: lambda: _resample(region, shape, sampling[2], sampling[3]),
    }
    return tf.switch_case(method, branches)


def _resize_and_cut(region, shape, offset, scaled):
    """Resizes a whole image [Y, X, 3] to the size `scaled` and cuts the window at `offset` out of it."""
    offset, scaled = tf.cast(offset, tf.int32), tf.cast(scaled, tf.int32)
    # float32 first: the kernels would convert each pixel four times.
    whole = tf.image.resize(tf.cast(region, tf.float32), scaled, antialias=False)
    begin, size = tf.concat([offset, [0]], 0), tf.concat([shape, [3]], 0)
    return tf.ensure_shape(tf.slice(whole, begin, size), [None, None, 3])


def _resample(region, shape, first, last):
    """Samples a region [?, ?, 3] evenly from the positions `first` to `last` of each axis."""
    # In pixels between the centres of the first and the last pixel, which are 0 and 1 of a box. At
    # least one apart: a region has margins.
    extent = tf.cast(tf.shape(region)[:2] - 1, tf.float64)
    box = tf.cast(tf.concat([first / extent, last / extent], axis=0), tf.float32)
    region = tf.cast(region, tf.float32)
    window_image = tf.raw_ops.CropAndResize(
        image=region[None], boxes=box[None], box_ind=[0], crop_size=shape, method="bilinear"
    )[0]
    return tf.ensure_shape(window_image, [None, None, 3])


def _window_of_whole(image, label, scale, position, crop_size):
    """Returns region, labels and sampling of a window of a whole example."""

    def cut(image, label, scale, position):
        place = window.place_window(label.shape, scale, position, crop_size)
        region = np.ascontiguousarray(place.pad_region(place.cut(image)))
        return region, place.sample_label(place.cut(label)), place.sampling()

    image, label = tf.convert_to_tensor(image), tf.convert_to_tensor(label)
    region, crop_label, sampling = tf.numpy_function(
        cut,
        [image, label, scale, position],
        [image.dtype, label.dtype, tf.float64],
        stateful=False,
    )
    return (
        tf.ensure_shape(region, [None, None, 3]),
        tf.ensure_shape(crop_label, [None, None]),
        tf.ensure_shape(sampling, [4, 2]),
    )


def _seeds(seed):
    """Returns the seeds of scale, place, flip and colour."""
    return tf.unstack(tf.random.experimental.stateless_split(seed, 4))


def _draw_position(seed):
    return tf.random.stateless_uniform([2], seed, dtype=tf.float64)


def pad(image, label, crop_size, ignore_label):
    """Pads an example at the bottom and the right up to the size of the crop.

    That place is ours: DeepLab2 puts a training example that is smaller than the crop at a random place in it.

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
    return tf.reshape(autoaugment.clip(colors), tf.shape(image))


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
