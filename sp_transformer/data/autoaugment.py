"""The colour policy "autoaugment": two photometric operations of AutoAugment's family an image, drawn from a seed.

AutoAugment (arXiv:1805.09501) found sub-policies of two operations; RandAugment (arXiv:1909.13719) showed that drawing
them evenly with one common strength does as well. So does this policy. What differs from DeepLab2's "0.2 magnitude"
policy, which darkens and blurs: every operation takes a magnitude m and is the identity at m = 0, and those that have a
direction (brightness, contrast, colour, sharpness) take m from -strength to strength, so that an average draw changes
nothing. The operations without a direction take |m|; `invert`, which has no magnitude at all, and the geometric ones,
for which the random scale and crop stand in, are left out.

Own stateless operations, because the layers of Keras and keras_cv keep their random state inside (a run that is resumed
at step s would draw what step 0 drew), and evaluate all operations to take one.

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
        image = tf.ensure_shape(tf.clip_by_value(image, 0, 255), shape)
    return image


def _branch(operation, image, magnitude):
    return lambda: operation(image, magnitude)


def brightness(image, magnitude):
    """Multiplies by 1 + m."""
    return image * (1 + magnitude)


def contrast(image, magnitude):
    """Multiplies the distance from the image's mean luminance by 1 + m."""
    mean = tf.tensordot(mean_color(image), tf.constant(LUMINANCE), 1)
    return mean + (1 + magnitude) * (image - mean)


def color(image, magnitude):
    """Multiplies the distance from each pixel's own luminance by 1 + m."""
    # One matrix, which is faster than a grey image and its blend.
    to_grey = tf.tile(tf.constant(LUMINANCE)[:, None], [1, 3])
    matrix = (1 + magnitude) * tf.eye(3) - magnitude * to_grey
    return tf.reshape(tf.matmul(tf.reshape(image, [-1, 3]), matrix), tf.shape(image))


def sharpness(image, magnitude):
    """Multiplies the distance from the image smoothed over 3x3 pixels by 1 + m; edges stay."""
    columns = image[:, :-2] + image[:, 1:-1] + image[:, 2:]
    summed = columns[:-2] + columns[1:-1] + columns[2:]
    inner = image[1:-1, 1:-1]
    smooth = (summed + (_SMOOTH_CENTER - 1) * inner) / _SMOOTH_SUM
    sharpened = smooth + (1 + magnitude) * (inner - smooth)
    # Images of fewer than 3 pixels on a side have no inner pixel to put back.
    sharpened = tf.concat([image[1:-1, :1], sharpened, image[1:-1, -1:]], axis=1)
    return tf.cond(
        tf.reduce_all(tf.shape(image)[:2] >= 3),
        lambda: tf.concat([image[:1], sharpened, image[-1:]], axis=0),
        lambda: image,
    )


def posterize(image, magnitude):
    """Drops round(4 |m|) bits of every value and puts the middle of what they held in their place.

    Pillow puts zeros there, which darkens.
    """
    bits = tf.round(_POSTERIZED_BITS * tf.abs(magnitude))
    step = tf.pow(2.0, bits)
    levels = tf.floor(tf.round(image) / step) * step + (step - 1) / 2
    return tf.where(bits > 0, levels, image)


def solarize(image, magnitude):
    """Inverts the values from 256 (1 - |m|) on."""
    return tf.where(image < 256 * (1 - tf.abs(magnitude)), image, 255 - image)


def equalize(image, magnitude):
    """Goes |m| of the way to an even histogram of each channel (Pillow's equalize)."""
    levels = tf.clip_by_value(tf.cast(tf.round(image), tf.int32), 0, 255)
    channel = levels + tf.constant([0, 256, 512])
    counts = tf.math.bincount(tf.reshape(channel, [-1]), minlength=768, maxlength=768)
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
    equalized = tf.gather(tf.reshape(tf.cast(table, tf.float32), [-1]), channel)
    return image + tf.abs(magnitude) * (equalized - image)


def autocontrast(image, magnitude):
    """Goes |m| of the way to channels that each span 0 to 255."""
    low = tf.reduce_min(image, axis=[0, 1])
    high = tf.reduce_max(image, axis=[0, 1])
    stretched = tf.where(high > low, (image - low) * (255 / tf.maximum(high - low, 1e-6)), image)
    return image + tf.abs(magnitude) * (stretched - image)


def mean_color(image):
    """Returns the mean colour [3] of float32 [h, w, 3]."""
    # Row by row, then in float64: one float32 sum over 1024x2048 pixels is half a grey level off.
    rows = tf.reduce_mean(image, axis=1)
    return tf.cast(tf.reduce_mean(tf.cast(rows, tf.float64), axis=0), tf.float32)


# Each takes float32 [h, w, 3] and a scalar m from -1 to 1; values may leave 0..255.
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
