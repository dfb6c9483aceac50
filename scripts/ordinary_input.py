"""An ordinary input pipeline of tensorflow_datasets, to measure ours against.

PNGs in TFRecords, decoded whole by tfds, resized whole by tf.image.resize, cropped, jittered and flipped, all by
TensorFlow's own ops. The outputs have the distribution of ours: each scale, place and flip is drawn alike, and with
`colour="equal"` each colour too, so that without `colour="tf_image"` an example equals ours.

Shapes: Y, X are the size of one source image in pixels, h, w that of the crop.
"""

import tensorflow as tf
import tensorflow_datasets as tfds

from sp_transformer.config import derived, resizing
from sp_transformer.data import augmentation

READ, DECODE, RESIZE = "read", "decode", "resize and crop"
FINISH, COLOUR = "flip, pad and batch", "colour"
COLOURS = ("equal", "tf_image")


def datasets(config, folder: str, images: int, batch_size: int, calls: int, colour: str) -> dict:
    """The pipelines that end after each step, in order; each yields the first `images` examples.

    Args:
      config: a validated ExperimentOptions.
      folder: that prepare_data wrote with --encoding=png, which tfds reads as its own.
      images: how many examples, at most those of the training split.
      batch_size: of the batches, which divides `images`.
      calls: parallel calls.
      colour: one of COLOURS; "tf_image" for tf.image's own brightness, contrast, saturation and hue.
    """
    builder = tfds.builder_from_directory(folder)
    split = config.data.train_split
    skip = tfds.decode.SkipDecoding()
    options = tf.data.Options()
    options.deterministic = True

    def read(decoders):
        dataset = builder.as_dataset(
            split,
            decoders=decoders,
            read_config=tfds.ReadConfig(
                num_parallel_calls_for_decode=calls,
                options=options,
                # Data sets small enough to measure with would be decoded once and kept.
                try_autocache=False,
            ),
        )
        return dataset.repeat().take(images)

    def example(number, features, steps):
        seed = tf.stack([tf.constant(config.data.seed, tf.int64), number])
        image, label = features["image"], tf.cast(features["label"][..., 0], tf.int32)
        return augment(image, label, seed, config, steps, colour)

    def mapped(steps):
        dataset = read(None).enumerate()
        return dataset.map(lambda n, f: example(n, f, steps), num_parallel_calls=calls)

    result = {
        READ: read({"image": skip, "label": skip}),
        DECODE: read(None),
        RESIZE: mapped((RESIZE,)),
        FINISH: mapped((RESIZE, FINISH)).batch(batch_size, drop_remainder=True).prefetch(2),
    }
    if config.data.augmentation.color_policy != "none":
        whole = mapped((RESIZE, COLOUR, FINISH))
        result[COLOUR] = whole.batch(batch_size, drop_remainder=True).prefetch(2)
    return result


def augment(image, label, seed, config, steps=(RESIZE, COLOUR, FINISH), colour="equal"):
    """What `sp_transformer.data.augmentation.augment` does, in the ordinary way.

    Args:
      image: uint8 [Y, X, 3].
      label: int32 [Y, X].
      seed: int64 [2].
      config: a validated ExperimentOptions.
      steps: of RESIZE, COLOUR and FINISH, which to take.
      colour: one of COLOURS.

    Returns:
      float32 and int32, [h, w, 3] and [h, w] where FINISH is among the steps.
    """
    data = config.data
    crop_size = (data.crop_height, data.crop_width)
    _, _, flip_seed, color_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    label = label[..., None]
    if resizing.resizes(data):
        size = tf.shape(image)
        size = resizing.resized_size(size[0], size[1], data, maximum=tf.maximum)
        image = tf.cast(tf.round(tf.image.resize(image, size)), tf.uint8)
        label = tf.image.resize(label, size, method="nearest")
    scale, position = augmentation.draw_window(seed, data.augmentation)
    size = tf.cast(tf.shape(image)[:2], tf.float64)
    scaled = tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)
    image = tf.image.resize(image, scaled)
    label = tf.image.resize(label, scaled, method="nearest")
    window = tf.minimum(scaled, crop_size)
    room = scaled - window
    offset = tf.minimum(tf.cast(position * tf.cast(room + 1, tf.float64), tf.int32), room)
    image = tf.image.crop_to_bounding_box(image, offset[0], offset[1], window[0], window[1])
    label = tf.image.crop_to_bounding_box(label, offset[0], offset[1], window[0], window[1])
    if COLOUR in steps:
        image = _jitter(image, color_seed, data.augmentation, colour)
    if FINISH not in steps:
        return image, label[..., 0]
    if data.augmentation.horizontal_flip:
        flips = tf.random.stateless_uniform([], flip_seed) < 0.5
        image = tf.cond(flips, lambda: tf.image.flip_left_right(image), lambda: image)
        label = tf.cond(flips, lambda: tf.image.flip_left_right(label), lambda: label)
    beyond = [[0, crop_size[0] - window[0]], [0, crop_size[1] - window[1]], [0, 0]]
    ignore_label = derived.label_map(config).ignore_label
    image = tf.pad(image, beyond, constant_values=augmentation.PAD_VALUE)
    label = tf.pad(label, beyond, constant_values=ignore_label)[..., 0]
    return tf.ensure_shape(image, [*crop_size, 3]), tf.ensure_shape(label, crop_size)


def _jitter(image, seed, options, colour):
    strength = options.color_strength
    if colour == "equal":
        return augmentation.COLOR_POLICIES[options.color_policy](image, seed, strength)
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    low, high = 1 - strength, 1 + strength
    image = tf.image.stateless_random_brightness(image / 255, strength, seeds[0])
    image = tf.image.stateless_random_contrast(image, low, high, seeds[1])
    image = tf.image.stateless_random_saturation(image, low, high, seeds[2])
    image = tf.image.stateless_random_hue(image, strength / 10, seeds[3])
    return tf.clip_by_value(image * 255, 0, 255)
