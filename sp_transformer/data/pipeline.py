"""From a source to batches: an endless, resumable training stream and one exact pass to evaluate.

Shapes: b is the number of images in a batch, Y, X the size of an image, h, w that of a crop.

Example n of the training stream is a pure function of (data.seed, n): its place in the epoch comes
from a pseudo-random permutation of the indices that is computed, not stored, and its augmentation
from seeds derived of n. A run resumed at step s therefore starts at n = s * batch_size and sees
what the uninterrupted run would have seen, without reading what came before. (With
`data.deterministic` off the examples are the same, but not the order in which they come.)
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import itertools
import math
import os
import re

import numpy as np
import tensorflow as tf

from sp_transformer.config import derived
from sp_transformer.data import augmentation, data_service, skipping, transient, window_reader

# Told apart so that the order and the augmentation of one number never share random bits.
_ORDER_STREAM, _AUGMENTATION_STREAM = 0, 1

# What tf.data makes of an exception in Python code.
SOURCE_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.UnknownError)

# A batch of full-size Cityscapes crops is 0.8 GB; more than two ahead buys memory, not speed.
_PREFETCHED_BATCHES = 2


def train_dataset(config, source, first_step=0, input_context=None, skipped=None):
    """Returns the endless stream of training batches.

    With `data.cache_in_memory` every decoded and resized example stays in memory after it was first
    read: 4 bytes a pixel with uint8 labels (7 with int32), e.g. 25 GB for Cityscapes' train split.
    With `data.data_service` the workers of that service compute the batches.

    Args:
      config: an ExperimentOptions message.
      source: a Source with labels.
      first_step: number of batches that have already been trained on.
      input_context: a tf.distribute.InputContext, as `distribute_datasets_from_function` passes it.
        Each input pipeline then yields its share of every global batch, in batches of one replica.
      skipped: a SkippedFiles that images are noted in which `data.skip_corrupt` replaces by the
        next one; default: one that nobody reads.

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
    reader = window_reader.WindowReader(source, data, crop_size, skipped)
    read_window = data_service.python_op(
        config, reader.read_window, [tf.uint8, tf.int32, tf.float64]
    )
    num_images = len(source)

    def example(position):
        # Position m of this pipeline -> number n in the global stream.
        number = position // share * global_batch + first + position % share
        index = shuffled_index(number, num_images, data.seed)
        seed = example_seed(data.seed, number)
        # Scale and place are drawn before anything is read, so that no more is decoded than the crop shows.
        region, label, sampling = read_window(
            index, *augmentation.draw_window(seed, data.augmentation)
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

    # A range and not a counter, which a data service could not divide among its workers.
    start = np.int64(first_step) * share
    dataset = tf.data.Dataset.range(start, np.iinfo(np.int64).max, output_type=tf.int64)
    dataset = dataset.map(
        example,
        num_parallel_calls=data.parallel_calls or tf.data.AUTOTUNE,
        deterministic=data.deterministic,
    )
    dataset = dataset.batch(batch, drop_remainder=True)
    dataset = data_service.distribute(dataset, data.data_service)
    options = tf.data.Options()
    options.deterministic = data.deterministic
    # The thread that made an example copies it into its batch; one thread would do so for all.
    options.experimental_optimization.map_and_batch_fusion = True
    return dataset.prefetch(_PREFETCHED_BATCHES).with_options(options)


def register_reader(config, source, skipped=None) -> None:
    """Lets this process, a worker of the tf.data service, read for those that train by `config`."""
    crop_size = (config.data.crop_height, config.data.crop_width)
    reader = window_reader.WindowReader(source, config.data, crop_size, skipped)
    data_service.register_reader(config, reader.read_window)


def eval_dataset(
    config,
    source,
    batch_size,
    max_images=0,
    *,
    input_context=None,
    static_size=None,
    skipped=None,
    needs_labels=True,
):
    """Returns every image of a source once, at its own size and in the source's order.

    A batch is a run of consecutive images of one size; it ends at `batch_size` images, where the
    size changes and at the end. Reading goes on in threads while a batch is in use.

    Args:
      config: an ExperimentOptions message.
      source: a Source, with labels unless `needs_labels` is off.
      batch_size: largest number of images in a batch.
      max_images: takes only so many images from the start; 0 takes all.
      input_context: a tf.distribute.InputContext: this pipeline then yields every N-th image, and
        all N pipelines together each image once.
      static_size: (height, width) for batches of one shape, as XLA and replicas in step need them:
        each holds exactly `batch_size` examples, and every pipeline yields as many batches as the
        others. What is missing is filled up by examples of index -1 whose label is ignored
        everywhere; smaller images are padded at the bottom and the right with grey and ignored
        labels.
      skipped: a SkippedFiles that images are noted in which `data.skip_corrupt` leaves out;
        default: one that nobody reads.
      needs_labels: whether a source without labels is refused; otherwise its labels are ignored
        everywhere.

    Returns:
      A tf.data.Dataset of {"image": uint8 [b, Y, X, 3], "label": int32 [b, Y, X], "index": int64
      [b], "size": int64 [b, 2], the image's own}, b from 1 to batch_size; with a static_size, b =
      batch_size and (Y, X) = static_size.

    Raises:
      ValueError: if the source is empty or without labels, or batch_size is below 1.
    """
    _check_source(source, "evaluation", needs_labels)
    if batch_size < 1:
        raise ValueError(f"evaluation batch_size {batch_size} is below 1")
    count = min(len(source), max_images) if max_images > 0 else len(source)
    pipelines = input_context.num_input_pipelines if input_context else 1
    pipeline_id = input_context.input_pipeline_id if input_context else 0
    indices = range(pipeline_id, count, pipelines)
    workers = config.data.parallel_calls or min(8, os.cpu_count() or 1)
    skipped = (skipped or skipping.SkippedFiles()) if config.data.skip_corrupt else None

    def examples():
        for index, image, label in _read_in_order(source, indices, workers, skipped):
            if label is None:
                label = np.full(image.shape[:2], derived.label_map(config).ignore_label)
            yield {
                "image": image,
                "label": label.astype(np.int32),
                "index": np.int64(index),
                "size": np.array(image.shape[:2], np.int64),
            }

    def batches():
        run = []
        for example in examples():
            if run and (len(run) == batch_size or run[0]["image"].shape != example["image"].shape):
                yield _stack(run)
                run = []
            run.append(example)
        if run:
            yield _stack(run)

    def static_batches():
        ignore_label = derived.label_map(config).ignore_label
        filling = _ignored_example(static_size, ignore_label)
        padded = (
            _padded_example(example, static_size, ignore_label, source.name)
            for example in examples()
        )
        # Those of the first pipeline, which has the most images.
        num_batches = math.ceil(math.ceil(count / pipelines) / batch_size)
        for _ in range(num_batches):
            run = list(itertools.islice(padded, batch_size))
            yield _stack(run + [filling] * (batch_size - len(run)))

    batch, (height, width) = (batch_size, static_size) if static_size else (None, (None, None))
    signature = {
        "image": tf.TensorSpec([batch, height, width, 3], tf.uint8),
        "label": tf.TensorSpec([batch, height, width], tf.int32),
        "index": tf.TensorSpec([batch], tf.int64),
        "size": tf.TensorSpec([batch, 2], tf.int64),
    }
    generator = static_batches if static_size else batches
    return tf.data.Dataset.from_generator(generator, output_signature=signature).prefetch(1)


def _ignored_example(size, ignore_label):
    """Returns an example of nothing, which no metric counts."""
    return {
        "image": np.full((*size, 3), round(augmentation.PAD_VALUE), np.uint8),
        "label": np.full(size, ignore_label, np.int32),
        "index": np.int64(-1),
        "size": np.zeros(2, np.int64),
    }


def _padded_example(example, size, ignore_label, name):
    """Returns the example filled up to `size` at the bottom and the right."""
    height, width = example["label"].shape
    if height > size[0] or width > size[1]:
        raise ValueError(
            f"image {name(example['index'])} is {height}x{width} pixels, larger than the "
            f"static_size {size[0]}x{size[1]}; give the size of the largest image"
        )
    padded = _ignored_example(size, ignore_label)
    padded["image"][:height, :width] = example["image"]
    padded["label"][:height, :width] = example["label"]
    return {**padded, "index": example["index"], "size": example["size"]}


def plain_error(error):
    """What a source raised inside tf.data, with its own text again.

    tf.data turns it into an OpError whose text buries the name of the faulty file in a traceback.

    Args:
      error: a tf.errors.OpError.

    Returns:
      A LostStorageError where another try may go well, else a ValueError; None if it was no source that failed.
    """
    text = error.message or str(error)
    if f"Could not find callback with key={data_service.READER}" in text:
        return ValueError(
            "the workers of data.data_service read for another config; start them with the config "
            "and the overrides of this run, as far as they concern data"
        )
    text = text.partition("\nTraceback")[0]
    if transient.says_transient(text):
        return transient.LostStorageError(re.sub(r"^.*?\b\w*Error: ", "", text, flags=re.DOTALL))
    match = re.search(r"\b(?:ValueError|OSError|FileFault): (.*)", text, re.DOTALL)
    return ValueError(match[1]) if match else None


@contextlib.contextmanager
def plain_errors():
    """Raises `plain_error` in place of what a source's error became inside it."""
    try:
        yield
    except SOURCE_ERRORS as error:
        plain = plain_error(error)
        if plain is None:
            raise
        try:
            raise plain from error
        finally:
            # Its traceback holds this frame: a cycle with the iterator in it. If the garbage collector destroys that in
            # one of tf.data's threads, while a call for it is still running there, it waits for itself, for ever.
            del plain


def with_plain_errors(dataset):
    """Yields the batches of a dataset, with `plain_error` for what its source raises."""
    batches = iter(dataset)
    while True:
        with plain_errors():
            batch = next(batches, None)
        if batch is None:
            return
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


def _check_source(source, purpose, needs_labels=True):
    if len(source) == 0:
        raise ValueError(f"the source for {purpose} holds no images")
    if needs_labels and not source.has_labels:
        raise ValueError(
            f"the split for {purpose} has no labels (first image: {source.name(0)}); add globs of "
            "labels to it in data.folder.splits or choose a split that has them"
        )


def _read_in_order(source, indices, workers, skipped):
    """Yields (index, image, label) of the examples `indices`, read ahead in threads.

    Faulty ones are left out and noted in `skipped`, or raised where that is None.

    Not a tf.data map: iterating one inside from_generator holds a thread of the very pool that the
    map needs, which can block a machine with few cores.
    """
    indices = iter(indices)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = collections.deque()
        for index in itertools.islice(indices, 2 * workers):
            pending.append((index, pool.submit(source.read, index)))
        while pending:
            index, future = pending.popleft()
            for following in itertools.islice(indices, 1):
                pending.append((following, pool.submit(source.read, following)))
            try:
                image, label = future.result()
            except ValueError as error:
                if skipped is None or transient.is_transient(error):
                    raise
                skipped.add(source.name(index), str(error))
                continue
            yield index, image, label


def _stack(run):
    return {key: np.stack([example[key] for example in run]) for key in run[0]}
