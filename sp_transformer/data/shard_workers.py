"""The worker processes of preparation: one task a shard, each of which encodes, writes and checks its shard."""

from __future__ import annotations

import concurrent.futures
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import threading

import numpy as np

from sp_transformer.config import derived
from sp_transformer.data import image_io, preparation_plan, records, sources, storage, tiles

_READ_BACK = 1 << 24

# Of this worker process: the source that it made last, and the counter that all workers share.
_sources, _counter = {}, None


def run(work, tasks, num_workers, report):
    """Does a piece of work for every task, in this process or in several.

    Args:
      work: a function of a module, called as work(task, count); it calls count(images=1) as it goes on.
      tasks: preparation_plan.Tasks.
      num_workers: processes; 1 for none but this one.
      report: called with the number of images done now and then.

    Yields:
      (task, what work returned), as they are done.

    Raises:
      OSError: if a process was ended from outside.
    """
    if not tasks:
        return
    if num_workers == 1:
        done = 0
        for task in tasks:

            def count(images=1):
                nonlocal done
                done += images
                report(done)

            yield task, work(task, count)
        return
    # Not forked: TensorFlow's threads do not survive that.
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    workers = min(num_workers, len(tasks))
    with concurrent.futures.ProcessPoolExecutor(
        workers, context, initializer=_initialize_worker, initargs=(counter,)
    ) as pool:
        futures = {pool.submit(_call, work, task): task for task in tasks}
        waiting = set(futures)
        try:
            while waiting:
                ready, waiting = concurrent.futures.wait(
                    waiting, timeout=0.2, return_when=concurrent.futures.FIRST_COMPLETED
                )
                report(counter.value)
                for future in ready:
                    yield futures[future], future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            pool.shutdown(wait=False, cancel_futures=True)
            raise OSError(
                "a worker process was ended from outside (out of memory?); run the same command again, it goes on "
                "where it stopped, perhaps with fewer --num_workers"
            ) from error
        except BaseException:
            # Nobody waits for what is left. Otherwise the pool waits: a worker that is still starting, because others
            # had done all the work, needs the counter.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _initialize_worker(counter):
    global _counter
    _counter = counter
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    """Ends this worker when the process that started it is gone, however that ended; a worker would wait for ever."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _call(work, task):
    def count(images=1):
        with _counter.get_lock():
            _counter.value += images

    return work(task, count)


def source_of(task):
    """The source of a task and its label map; a worker makes those of a split once."""
    key = task.data_options, task.plan.split
    if key not in _sources:
        from sp_transformer.protos import data_pb2

        _sources.clear()
        options = data_pb2.DataOptions.FromString(task.data_options)
        _sources[key] = (
            sources.create_source(options, task.plan.split),
            derived.data_label_map(options),
        )
    return _sources[key]


def write_shard(task, count):
    """Writes one shard and its index; returns the index."""
    import tensorflow as tf

    source, label_map = source_of(task)
    path = preparation_plan.shard_path(task)
    partial = storage.partial_name(path)
    first, end = task.plan.range_of(task.shard)
    names, sizes, starts, images, labels = [], [], [0], [], []
    pixels = np.zeros(label_map.num_classes + 1, np.int64)
    with tf.io.TFRecordWriter(partial) as writer:
        for index in range(first, end):
            image, label = source.read(index)
            data = encode_image(image, task.encoding, task.quality, source.image_file(index))
            label_data = None
            if label is not None:
                label_data = encode_label(label, task.encoding)
                pixels += count_pixels(label, label_map)
            example = _example(tf, source.name(index), image.shape[:2], data, label_data)
            start = starts[-1] + records.RECORD_HEADER.size
            images.append((start + example.index(data), len(data)))
            labels.append(
                (-1, -1)
                if label_data is None
                else (start + example.index(label_data), len(label_data))
            )
            writer.write(example)
            names.append(source.name(index))
            sizes.append(image.shape[:2])
            starts.append(start + len(example) + records.RECORD_FOOTER.size)
            count()
    size, digest = checksum(partial)
    if size != starts[-1]:
        raise OSError(
            f"{partial} has {size} bytes where {starts[-1]} were written; is the disk full?"
        )
    storage.rename(partial, path)
    index = records.ShardIndex(
        np.array(names),
        np.array(sizes, np.int64),
        np.array(starts, np.int64),
        np.array(images, np.int64),
        np.array(labels, np.int64),
        pixels,
        digest,
    )
    storage.write_file(preparation_plan.index_path(task), index.save())
    return index


def encode_image(image, encoding, quality=preparation_plan.JPEG_QUALITY, file=None) -> bytes:
    """Encodes uint8 [Y, X, 3].

    Args:
      image: the image.
      encoding: one of preparation_plan.ENCODINGS.
      quality: of JPEG, which is written without subsampling of colours.
      file: bytes of the file it came from, if there was one.

    Raises:
      ValueError: for another encoding.
    """
    if encoding == "auto" and file is not None and image_io.is_upright_jpeg(file):
        return file
    if encoding in ("auto", "tiles"):
        return tiles.encode(image)
    if encoding == "png":
        return image_io.encode(image, "PNG")
    if encoding == "webp":
        return image_io.encode(image, "WEBP", lossless=True, quality=50, exact=True)
    if encoding == "jpeg":
        return image_io.encode(image, "JPEG", quality=quality, subsampling=0)
    raise ValueError(
        f"encoding {encoding!r} is unknown; choose one of {', '.join(preparation_plan.ENCODINGS)}"
    )


def encode_label(label, encoding) -> bytes:
    """Encodes train ids 0..65535, uint8 or int32 [Y, X]: as PNG beside images that tfds decodes, else tiles."""
    if label.dtype != np.uint8:
        label = label.astype(np.uint16)
    return image_io.encode(label, "PNG") if encoding in ("png", "jpeg") else tiles.encode(label)


def count_pixels(label, label_map) -> np.ndarray:
    """Returns int64 [K + 1]: pixels of each class, and ignored ones."""
    of_ids = np.bincount(label.ravel(), minlength=label_map.num_classes)[: label_map.num_classes]
    return np.append(of_ids, label.size - of_ids.sum())


def histogram(pixels, label_map) -> tuple[dict[str, int], int]:
    """{class: pixels} and the number of ignored pixels, from sums of `count_pixels`."""
    of_classes = dict(zip(label_map.names, map(int, pixels), strict=False))
    return of_classes, int(pixels[-1])


def _example(tf, name, size, image, label):
    def feature(*values):
        if isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    features = {
        "name": feature(name.encode()),
        "height": feature(size[0]),
        "width": feature(size[1]),
        "image": feature(image),
    }
    if label is not None:
        features["label"] = feature(label)
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # The same data give the same bytes.
    return example.SerializeToString(deterministic=True)


def checksum(path: str) -> tuple[int, str]:
    """Returns a file's size in bytes and its SHA-256, hexadecimal."""
    digest, file = hashlib.sha256(), storage.RandomAccessFile(path)
    for start in range(0, file.size, _READ_BACK):
        digest.update(file.read(start, min(_READ_BACK, file.size - start)))
    size = file.size
    file.close()
    return size, digest.hexdigest()
