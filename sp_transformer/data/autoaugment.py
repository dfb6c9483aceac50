"""The colour policy "autoaugment": two photometric operations of AutoAugment's family an image, drawn from a seed.

AutoAugment (arXiv:1805.09501) found sub-policies of two operations; RandAugment (arXiv:1909.13719) showed that drawing
them evenly with one common strength does as well. So does this policy. What differs from DeepLab2's "0.2 magnitude"
policy, which darkens and blurs: every operation takes a magnitude m and is the identity at m = 0, and those that have a
direction (brightness, contrast, colour, sharpness) take m from -strength to strength, so that an average draw changes
nothing. The operations without a direction take |m|; `invert`, which has no magnitude at all, and the geometric ones,
for which the random scale and crop stand in, are left out.

Own stateless operations, because the layers of Keras and keras_cv keep their random state inside: a run that is resumed
at step s would draw what step 0 drew.

Shapes: h, w are the size of an image in pixels. Images are float32 with values 0..255.
"""

from __future__ import annotations

import tensorflow as tf

# Rec. 601 weights of luminance, those of `tf.image.rgb_to_grayscale` and of Pillow's mode "L".
LUMINANCE = (0.299, 0.587, 0.114)

OPERATIONS_PER_IMAGE = 2
_POSTERIZED_BITS = 4  # Dropped at m = 1; AutoAugment's range too.
# Pillow's ImageFilter.SMOOTH, with which its sharpness blends.
_SMOOTH_CENTER, _SMOOTH_SUM = 5.0, 13.0
# Equalize counts the levels of about so many pixels.
_COUNTED_PIXELS = 65536


def autoaugment(image, seed, strength):
    """Applies two operations, each drawn evenly from OPERATIONS with a magnitude up to `strength`.

    Args:
      image: float32 [h, w, 3], values 0..255.
      seed: integer [2]; the same seed gives the same operations.
      strength: from 0 (the identity) to 1.

    Returns:
      float32 [h, w, 3], clipped to 0..255.
    """
    if strength == 0:
        return image
    seeds = tf.random.experimental.stateless_split(seed, 2)
    names = list(OPERATIONS)
    chosen = tf.random.stateless_uniform(
        [OPERATIONS_PER_IMAGE], seeds[0], 0, len(names), dtype=tf.int32
    )
    magnitudes = tf.random.stateless_uniform([OPERATIONS_PER_IMAGE], seeds[1], -strength, strength)
    shape = image.shape
    for index in range(OPERATIONS_PER_IMAGE):
        # Only the chosen branch is computed.
        image = tf.switch_case(
            chosen[index],
            [_branch(OPERATIONS[name], image, magnitudes[index]) for name in names],
        )
        image = tf.ensure_shape(image, shape)
    return image


def _branch(operation, image, magnitude):
    return lambda: operation(image, magnitude)


def brightness(image, magnitude):
    """Multiplies by 1 + m."""
    return clip(image * (1 + magnitude))


def contrast(image, magnitude):
    """Multiplies the distance from the image's mean luminance by 1 + m."""
    mean = tf.tensordot(mean_color(image), tf.constant(LUMINANCE), 1)
    return clip(image * (1 + magnitude) - magnitude * mean)


def color(image, magnitude):
    """Multiplies the distance from each pixel's own luminance by 1 + m."""
    # One matrix, which is faster than a grey image and its blend.
    to_grey = tf.tile(tf.constant(LUMINANCE)[:, None], [1, 3])
    matrix = (1 + magnitude) * tf.eye(3) - magnitude * to_grey
    return clip(tf.reshape(tf.matmul(tf.reshape(image, [-1, 3]), matrix), tf.shape(image)))


def sharpness(image, magnitude):
    """Multiplies the distance from the image smoothed over 3x3 pixels by 1 + m; edges stay."""
    # (1 + m) image - m smooth is itself a filter.
    smooth = tf.fill([3, 3], 1 / _SMOOTH_SUM)
    center = tf.constant([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    smooth += center * (_SMOOTH_CENTER - 1) / _SMOOTH_SUM
    kernel = tf.tile(((1 + magnitude) * center - magnitude * smooth)[..., None, None], [1, 1, 3, 1])

    def sharpened():
        inner = tf.nn.depthwise_conv2d(image[None], kernel, [1, 1, 1, 1], "VALID")[0]
        inner = tf.concat([image[1:-1, :1], clip(inner), image[1:-1, -1:]], axis=1)
        return tf.concat([image[:1], inner, image[-1:]], axis=0)

    # Smaller ones have no inner pixel.
    return tf.cond(tf.reduce_all(tf.shape(image)[:2] >= 3), sharpened, lambda: image)


def posterize(image, magnitude):
    """Drops round(4 |m|) bits of every value and puts the middle of what they held in their place.

    Pillow puts zeros there, which darkens.
    """
    bits = tf.round(_POSTERIZED_BITS * tf.abs(magnitude))
    step = tf.pow(2.0, bits)

    def posterized():
        return tf.floor(image / step + 0.5 / step) * step + (step - 1) / 2

    return tf.cond(bits > 0, posterized, lambda: image)


def solarize(image, magnitude):
    """Inverts the values from 256 (1 - |m|) on."""
    # Not tf.where, which takes three times as long.
    inverted = tf.cast(image >= 256 * (1 - tf.abs(magnitude)), tf.float32)
    return image + inverted * (255 - 2 * image)


def equalize(image, magnitude):
    """Goes |m| of the way to an even histogram of each channel (Pillow's equalize).

    The histogram of a large image is taken from every k-th row and column.
    """
    shape = tf.shape(image)
    pixels = tf.cast(shape[0] * shape[1], tf.float32)
    stride = tf.maximum(tf.cast(tf.sqrt(pixels / _COUNTED_PIXELS), tf.int32), 1)
    counted = image[::stride, ::stride]
    levels = _levels(counted, tf.shape(counted)[1])
    counts = tf.math.bincount(tf.reshape(levels, [-1]), minlength=768, maxlength=768)
    counts = tf.reshape(counts, [3, 256])
    # Level by level as Pillow does, in integers: the pixels below a level, over the pixels that
    # each of 255 even steps would hold.
    last = tf.argmax(
        tf.where(counts > 0, tf.range(256), -1), axis=1, output_type=tf.int32
    )  # The highest level that occurs.
    total = tf.reduce_sum(counts, axis=1)
    step = (total - tf.gather(counts, last, axis=1, batch_dims=1)) // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    even = (below + step[:, None] // 2) // tf.maximum(step[:, None], 1)
    table = tf.where(step[:, None] > 0, tf.minimum(even, 255), tf.range(256))
    # What to add to each level: the fraction of a value that lies between two stays.
    change = tf.abs(magnitude) * tf.cast(table - tf.range(256), tf.float32)
    changes = tf.gather(tf.reshape(change, [-1]), _levels(image, shape[1]))
    return clip(image + tf.reshape(changes, shape))


def autocontrast(image, magnitude):
    """Goes |m| of the way to channels that each span 0 to 255."""
    rows = _flat(image)
    low = tf.reduce_min(tf.reshape(tf.reduce_min(rows, axis=0), [-1, 3]), axis=0)
    high = tf.reduce_max(tf.reshape(tf.reduce_max(rows, axis=0), [-1, 3]), axis=0)
    strength = tf.where(high > low, tf.abs(magnitude), 0.0)
    gain = 255 / tf.maximum(high - low, 1e-6)
    # image + strength ((image - low) gain - image), as one multiplication and one addition.
    width = tf.shape(image)[1]
    rows = rows * _row(1 + strength * (gain - 1), width) - _row(strength * low * gain, width)
    return tf.reshape(rows, tf.shape(image))


def clip(image):
    """Returns values brought into 0..255; `tf.clip_by_value` goes over them twice."""
    return tf.raw_ops.ClipByValue(t=image, clip_value_min=0.0, clip_value_max=255.0)


# Three channels broadcast over an innermost axis of three take three times as long as rows of them.
def _flat(image):
    """Returns [h, w * 3] of [h, w, 3]."""
    shape = tf.shape(image)
    return tf.reshape(image, [shape[0], shape[1] * 3])


def _row(channels, width):
    """Returns [width * 3], [3] repeated."""
    return tf.tile(channels, [width])


def _levels(image, width):
    """Returns int32 [h, w * 3]: values rounded, plus 0, 256 and 512 for the three channels."""
    return tf.cast(_flat(image) + _row(tf.constant([0.5, 256.5, 512.5]), width), tf.int32)


def mean_color(image):
    """Returns the mean colour [3] of float32 [h, w, 3]."""
    # Column by column, then in float64: one float32 sum over 1024x2048 pixels is half a grey level off. A product with
    # ones takes a quarter of the time that a reduction does.
    rows = _flat(image)
    height = tf.shape(rows)[0]
    columns = tf.reshape(tf.matmul(tf.ones([1, height]), rows), [-1, 3])
    total = tf.reduce_mean(tf.cast(columns, tf.float64), axis=0)
    return tf.cast(total / tf.cast(height, tf.float64), tf.float32)


# Each takes float32 [h, w, 3] and a scalar m from -1 to 1, and returns values within 0..255.
OPERATIONS = {
    "autocontrast": autocontrast,
    "brightness": brightness,
    "color": color,
    "contrast": contrast,
    "equalize": equalize,
    "posterize": posterize,
    "sharpness": sharpness,
    "solarize": solarize,
}
