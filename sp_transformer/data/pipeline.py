"""From a source to batches: an endless, resumable training stream and one exact pass to evaluate.

Shapes: b is the number of images in a batch, Y, X the size of an image, h, w that of a crop.

Example n of the training stream is a pure function of (data.seed, n): its place in the epoch comes
from a pseudo-random permutation of the indices that is computed, not stored, and its augmentation
from seeds derived of n. A run resumed at step s therefore starts at n = s * batch_size and sees
what the uninterrupted run would have seen, without reading what came before.
"""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import os
import re

import numpy as np
import tensorflow as tf

from sp_transformer.config import derived, resizing
from sp_transformer.data import augmentation, resize, window

# Told apart so that the order and the augmentation of one number never share random bits.
_ORDER_STREAM, _AUGMENTATION_STREAM = 0, 1

# What tf.data makes of an exception in Python code.
SOURCE_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.UnknownError)

# A batch of full-size Cityscapes crops is 0.8 GB; more than two ahead buys memory, not speed.
_PREFETCHED_BATCHES = 2


def train_dataset(config, source, first_step=0, input_context=None):
    """Returns the endless stream of training batches.

    With `data.cache_in_memory` every decoded and resized example stays in memory after it was first
    read: 4 bytes a pixel with uint8 labels (7 with int32), e.g. 25 GB for Cityscapes' train split.

    Args:
      config: an ExperimentOptions message.
      source: a Source with labels.
      first_step: number of batches that have already been trained on.
      input_context: a tf.distribute.InputContext, as `distribute_datasets_from_function` passes it.
        Each input pipeline then yields its share of every global batch, in batches of one replica.

    Returns:
      A tf.data.Dataset of {"image": float32 [b, h, w, 3] with values 0..255, "label": int32
      [b, h, w]}. b is training.batch_size, or with an input_context that over its replicas.

    Raises:
      ValueError: if the source is empty or without labels, or the batch cannot be shared evenly.
    """
    _check_source(source, "training")
    data = config.data
    crop_size = (data.crop_height, data.crop_width)
    ignore_label = derived.label_map(config).ignore_label
    global_batch = config.training.batch_size
    first, share, batch = _share_of_batch(global_batch, input_context)
    reader = WindowReader(source, data, crop_size)
    num_images = len(source)

    def example(position):
        # Position m of this pipeline -> number n in the global stream.
        number = position // share * global_batch + first + position % share
        index = shuffled_index(number, num_images, data.seed)
        seed = example_seed(data.seed, number)
        # Scale and place are drawn before anything is read, so that no more is decoded than the crop shows.
        region, label, sampling = tf.numpy_function(
            reader.read_window,
            [index, *augmentation.draw_window(seed, data.augmentation)],
            [tf.uint8, tf.int32, tf.float64],
            stateful=False,
        )
        image, label = augmentation.augment_window(
            tf.ensure_shape(region, [None, None, 3]),
            tf.ensure_shape(label, [None, None]),
            tf.ensure_shape(sampling, [4, 2]),
            seed,
            data.augmentation,
            crop_size,
            ignore_label,
        )
        return {"image": image, "label": label}

    dataset = tf.data.Dataset.counter(start=np.int64(first_step) * share, dtype=tf.int64)
    dataset = dataset.map(
        example, num_parallel_calls=data.parallel_calls or tf.data.AUTOTUNE, deterministic=True
    )
    dataset = dataset.batch(batch, drop_remainder=True).prefetch(_PREFETCHED_BATCHES)
    options = tf.data.Options()
    options.deterministic = True
    return dataset.with_options(options)


def eval_dataset(config, source, batch_size, max_images=0):
    """Returns every image of a source once, at its own size and in the source's order.

    A batch is a run of consecutive images of one size; it ends at `batch_size` images, where the
    size changes and at the end. Reading goes on in threads while a batch is in use.

    Args:
      config: an ExperimentOptions message.
      source: a Source with labels.
      batch_size: largest number of images in a batch.
      max_images: takes only so many images from the start; 0 takes all.

    Returns:
      A tf.data.Dataset of {"image": uint8 [b, Y, X, 3], "label": int32 [b, Y, X], "index": int64
      [b]}, b from 1 to batch_size.

    Raises:
      ValueError: if the source is empty or without labels, or batch_size is below 1.
    """
    _check_source(source, "evaluation")
    if batch_size < 1:
        raise ValueError(f"evaluation batch_size {batch_size} is below 1")
    count = min(len(source), max_images) if max_images > 0 else len(source)
    workers = config.data.parallel_calls or min(8, os.cpu_count() or 1)

    def batches():
        run = []
        for index, image, label in _read_in_order(source, count, workers):
            if run and (len(run) == batch_size or run[0]["image"].shape != image.shape):
                yield _stack(run)
                run = []
            run.append({"image": image, "label": label.astype(np.int32), "index": np.int64(index)})
        if run:
            yield _stack(run)

    signature = {
        "image": tf.TensorSpec([None, None, None, 3], tf.uint8),
        "label": tf.TensorSpec([None, None, None], tf.int32),
        "index": tf.TensorSpec([None], tf.int64),
    }
    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(1)


def plain_error(error):
    """What a source raised inside tf.data, as a ValueError with its own text again.

    tf.data turns it into an OpError whose text buries the name of the faulty file in a traceback.

    Args:
      error: a tf.errors.OpError.

    Returns:
      The ValueError, or None if it was no source that failed.
    """
    text = (error.message or str(error)).partition("\nTraceback")[0]
    match = re.search(r"\b(?:ValueError|OSError): (.*)", text, re.DOTALL)
    return ValueError(match[1]) if match else None


def with_plain_errors(dataset):
    """Yields the batches of a dataset, with `plain_error` for what its source raises."""
    batches = iter(dataset)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except SOURCE_ERRORS as error:
            plain = plain_error(error)
            if plain is None:
                raise
            raise plain from error
        yield batch


def shuffled_index(number, num_images, seed):
    """Returns which image example `number` of the global stream shows.

    Every epoch (num_images consecutive numbers) is another permutation of the images.

    Args:
      number: int64 scalar tensor.
      num_images: Python integer.
      seed: data.seed.

    Returns:
      int64 scalar tensor from 0 to num_images - 1.
    """
    return tf.random.experimental.index_shuffle(
        number % num_images,
        seed=_seed(seed, number // num_images, _ORDER_STREAM),
        max_index=tf.constant(num_images - 1, tf.int64),
    )


def example_seed(seed, number):
    """Returns the seed of the augmentation of example `number` of the global stream: int64 [2]."""
    return _seed(seed, number, _AUGMENTATION_STREAM)


def _seed(seed, number, stream):
    base = tf.stack([tf.constant(seed, tf.int64), tf.cast(number, tf.int64)])
    return tf.random.experimental.stateless_fold_in(base, stream)


def _share_of_batch(global_batch, input_context):
    """Returns where this pipeline's share of a global batch starts, its size and its batch size."""
    if input_context is None:
        return 0, global_batch, global_batch
    pipelines = input_context.num_input_pipelines
    replicas = max(input_context.num_replicas_in_sync, pipelines)
    if global_batch % replicas or replicas % pipelines:
        raise ValueError(
            f"training.batch_size {global_batch} cannot be shared evenly by {replicas} replicas on "
            f"{pipelines} input pipelines; use a multiple of {replicas}"
        )
    share = global_batch // pipelines
    return input_context.input_pipeline_id * share, share, global_batch // replicas


def _check_source(source, purpose):
    if len(source) == 0:
        raise ValueError(f"the source for {purpose} holds no images")
    if not source.has_labels:
        raise ValueError(
            f"the split for {purpose} has no labels (first image: {source.name(0)}); add globs of "
            "labels to it in data.folder.splits or choose a split that has them"
        )


class WindowReader:
    """Reads the windows that training shows; remembers whole examples if the config asks for it.

    Threads that miss the same index at once read it twice and store equal arrays, which is harmless
    and cheaper than a lock around reading.
    """

    def __init__(self, source, data_options, crop_size):
        self._source = source
        self._data_options = data_options
        self._crop_size = crop_size
        self._cache = {} if data_options.cache_in_memory else None
        # What is resized first, or remembered, has to be whole.
        self._reads_whole = self._cache is not None or resizing.resizes(data_options)

    def read_window(self, index, scale, position):
        """Reads what one training example shows of an image.

        Args:
          index: of the image in the source.
          scale, position: as `window.place_window` takes them.

        Returns:
          uint8 [?, ?, 3], int32 [h', w'] and float64 [4, 2], as `augmentation.augment_window` takes them.
        """
        index = int(index)
        if self._reads_whole:
            image, label = self._read_whole(index)
            place = window.place_window(label.shape, scale, position, self._crop_size)
            image, label = place.cut(image), place.cut(label)
        else:
            placed, choose = self.chooser(scale, position)
            image, label = self._source.read_region(index, choose)
            (place,) = placed
        image = np.ascontiguousarray(place.pad_region(image))
        return image, place.sample_label(label).astype(np.int32), place.sampling()

    def chooser(self, scale, position):
        """Returns what `Source.read_region` asks for a part, and the list that it leaves its Window in."""
        placed = []

        def choose(*size):
            place = window.place_window(size, scale, position, self._crop_size)
            placed.append(place)
            return *place.region, *place.region_shape

        return placed, choose

    def _read_whole(self, index):
        """Returns uint8 [Y, X, 3] and integer [Y, X] of the example, resized as the config says."""
        example = self._cache.get(index) if self._cache is not None else None
        if example is None:
            image, label = self._source.read(index)
            size = resize.target_size(*image.shape[:2], self._data_options)
            example = resize.resize_image(image, size), resize.resize_label(label, size)
            if self._cache is not None:
                self._cache[index] = example
        return example


def _read_in_order(source, count, workers):
    """Yields (index, image, label) of the first `count` examples, read ahead in threads.

    Not a tf.data map: iterating one inside from_generator holds a thread of the very pool that the
    map needs, which can block a machine with few cores.
    """
    indices = iter(range(count))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = collections.deque()
        for index in itertools.islice(indices, 2 * workers):
            pending.append((index, pool.submit(source.read, index)))
        while pending:
            index, future = pending.popleft()
            image, label = future.result()
            for following in itertools.islice(indices, 1):
                pending.append((following, pool.submit(source.read, following)))
            yield index, image, label


def _stack(run):
    return {key: np.stack([example[key] for example in run]) for key in run[0]}
