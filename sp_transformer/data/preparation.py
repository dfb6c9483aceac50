"""Writes any source once as sharded records: in parallel, resumable, and verified against the source.

Each shard is written by one process under a temporary name, read back for its checksum and renamed; its index follows,
and marks it as finished. A run that finds finished shards of the same plan goes on with the others. records.json comes
last. See `records` for what is written.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import re
import tempfile
import threading
from collections.abc import Callable, Sequence

import numpy as np
from google.protobuf import json_format

import sp_transformer
from sp_transformer.config import derived
from sp_transformer.data import image_io, records, sources, storage, tiles

ENCODINGS = ("auto", "tiles", "png", "webp", "jpeg")
LOSSY = ("jpeg",)
JPEG_QUALITY = 95

# A shard of 64 Cityscapes images holds 150 MB: tfds's advice is 100 to 200 MB, and no more than that is lost to a kill.
_IMAGES_PER_SHARD = 64
_READ_BACK = 1 << 24
_MAX_DIFFERENCES = 20
# What identifies a source beside its classes: where it lies is not part of it.
_SOURCE_FIELDS = ("folder", "cityscapes", "tfds", "synthetic_streets")

# Of this worker process: the source that it made last, likewise the records, and the counter that all workers share.
_sources, _prepared, _counter = {}, {}, None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be written of one split.

    Attributes:
      split: its name.
      num_examples: how many images it has.
      num_shards: into how many files they go.
      names_sha256: of the names of all images, in order.
      has_labels: whether it has labels.
    """

    split: str
    num_examples: int
    num_shards: int
    names_sha256: str
    has_labels: bool

    def range_of(self, shard: int) -> tuple[int, int]:
        """First example of a shard, and the one after its last."""
        return (
            self.num_examples * shard // self.num_shards,
            self.num_examples * (shard + 1) // self.num_shards,
        )


@dataclasses.dataclass(frozen=True)
class Task:
    """One shard, for a worker process; plain values only.

    Attributes:
      data_options: serialised DataOptions of the source.
      output_dir: the folder of records.
      name: of the data set.
      plan: of the split.
      shard: number of the shard.
      encoding: one of ENCODINGS.
      quality: of JPEG.
    """

    data_options: bytes
    output_dir: str
    name: str
    plan: Plan
    shard: int
    encoding: str
    quality: int


def prepare(
    data_options,
    output_dir: str,
    splits: Sequence[str] = (),
    encoding: str = "auto",
    quality: int = JPEG_QUALITY,
    num_shards: int = 0,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Writes splits of a source as records, or goes on with it.

    Args:
      data_options: a DataOptions message; its dataset may not itself be "records".
      output_dir: folder to write to. One that holds finished records of the same source, classes and encoding gets
        the missing splits.
      splits: which; empty for all that the source has.
      encoding: "tiles", "png", "webp" (all lossless), "jpeg", or "auto": JPEG files stay as they are, and all else
        becomes tiles, which is lossless too.
      quality: of "jpeg".
      num_shards: of each split; 0 for one for every 64 images.
      num_workers: processes.
      progress: called with (images done, images in all) now and then.

    Returns:
      The manifest, as in records.json.

    Raises:
      ValueError: if the source is at fault, or the folder holds something else.
      OSError: if writing fails.
    """
    name = _dataset_name(data_options)
    label_map = derived.data_label_map(data_options)
    identity = {
        "name": name,
        "source": _describe_source(data_options),
        "label_map": records.describe_label_map(label_map),
        "encoding": {
            "images": encoding,
            **({"quality": quality} if encoding in LOSSY else {}),
            "lossless": encoding not in LOSSY,
        },
    }
    manifest, planned = _read_state(output_dir, identity)
    splits = list(splits) or sources.split_names(data_options)
    plans = [
        _plan(data_options, split, num_shards, planned, manifest)
        for split in dict.fromkeys(splits)
        if split not in manifest["splits"]
    ]
    if not plans:
        return manifest
    storage.make_folder(storage.join(output_dir, records.INDEX_FOLDER))
    unfinished = {**_head(identity), "plans": [dataclasses.asdict(plan) for plan in plans]}
    storage.write_file(storage.join(output_dir, records.UNFINISHED), _json(unfinished))

    tasks = [
        Task(data_options.SerializeToString(), output_dir, name, plan, shard, encoding, quality)
        for plan in plans
        for shard in range(plan.num_shards)
    ]
    finished = {task: index for task in tasks if (index := _finished_index(task))}
    missing = [task for task in tasks if task not in finished]
    total = sum(plan.num_examples for plan in plans)
    before = sum(len(index.names) for index in finished.values())
    for task, index in _run(
        _write_shard, missing, num_workers, lambda done: progress and progress(before + done, total)
    ):
        finished[task] = index
    for plan in plans:
        of_split = [finished[task] for task in tasks if task.plan is plan]
        manifest["splits"][plan.split] = _describe_split(
            output_dir, name, plan, of_split, label_map
        )
    _write_tfds_metadata(output_dir, manifest)
    storage.write_file(storage.join(output_dir, records.MANIFEST), _json(manifest))
    storage.remove(storage.join(output_dir, records.UNFINISHED))
    return manifest


def verify(
    data_options,
    output_dir: str,
    splits: Sequence[str] = (),
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Compares records with the source they were prepared from: every file's checksum, every pixel of every image.

    Args:
      data_options: a DataOptions message of the source.
      output_dir: the folder of records.
      splits: which; empty for all that are prepared.
      num_workers: processes.
      progress: called with (images done, images in all) now and then.

    Returns:
      What differs, a line each; empty if nothing does. Images in a lossy encoding are compared in size only, their
      labels pixel for pixel.

    Raises:
      ValueError: if the folder holds no finished records, or the source is at fault.
    """
    manifest = records.read_manifest(output_dir)
    label_map = derived.data_label_map(data_options)
    records.check_label_map(manifest["label_map"], label_map, output_dir)
    faults, tasks = [], []
    for split in list(splits) or list(manifest["splits"]):
        described = manifest["splits"].get(split)
        if described is None:
            faults.append(f"split {split} is not prepared")
            continue
        plan = _plan(data_options, split, len(described["files"]), {}, manifest)
        if (plan.num_examples, plan.names_sha256) != (
            described["num_examples"],
            described["names_sha256"],
        ):
            faults.append(
                f"split {split}: the source has {plan.num_examples} images, the records "
                f"{described['num_examples']}, or their names or order differ"
            )
            continue
        tasks += [
            Task(
                data_options.SerializeToString(),
                output_dir,
                manifest["name"],
                plan,
                shard,
                manifest["encoding"]["images"],
                0,
            )
            for shard in range(plan.num_shards)
        ]
    total = sum(
        task.plan.range_of(task.shard)[1] - task.plan.range_of(task.shard)[0] for task in tasks
    )
    _prepared.clear()
    results = dict(
        _run(_verify_shard, tasks, num_workers, lambda done: progress and progress(done, total))
    )
    pixels = collections.defaultdict(int)
    for task in tasks:
        found, counted = results[task]
        faults += found
        pixels[task.plan.split] = pixels[task.plan.split] + counted
    for split, counted in pixels.items():
        described = manifest["splits"][split]
        if described["has_labels"] and _histogram(counted, label_map) != (
            described["label_pixels"],
            described["ignored_pixels"],
        ):
            faults.append(f"split {split}: its label histogram is not that of {records.MANIFEST}")
    # A missing file is found once for every shard.
    return list(dict.fromkeys(faults))


# ---- what is planned


def _plan(data_options, split, num_shards, planned, manifest):
    source = sources.create_source(data_options, split)
    if not re.fullmatch(r"\w+", split, re.ASCII):
        raise ValueError(
            f"split {split!r} cannot be part of a file name of tfds; rename it with letters, digits and _"
        )
    if not len(source):
        raise ValueError(f"split {split!r} of the source has no images")
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(source.name(index).encode() + b"\0")
    default = math.ceil(len(source) / _IMAGES_PER_SHARD)
    if split in planned and not num_shards:
        # What was begun is gone on with.
        num_shards = planned[split]["num_shards"]
    count = min(num_shards or default, len(source))
    plan = Plan(split, len(source), count, digest.hexdigest(), source.has_labels)
    if split in planned and planned[split] != dataclasses.asdict(plan):
        raise ValueError(
            f"split {split!r} was begun with {planned[split]['num_examples']} images in "
            f"{planned[split]['num_shards']} shards, and is now {plan.num_examples} in {plan.num_shards} "
            "(or their names differ); restore source and --num_shards, or prepare into another --output_dir"
        )
    return plan


def _read_state(output_dir, identity):
    """Returns the manifest so far and {split: plan that was begun} of a folder, new or old."""
    empty = {**_head(identity), "splits": {}}
    unfinished = storage.join(output_dir, records.UNFINISHED)
    manifest, planned = empty, {}
    if storage.exists(storage.join(output_dir, records.MANIFEST)):
        manifest = records.read_manifest(output_dir)
        _check_identity(manifest, identity, output_dir)
    if storage.exists(unfinished):
        try:
            state = json.loads(storage.read_file(unfinished))
            plans = {plan["split"]: plan for plan in state["plans"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{unfinished} is damaged ({error}); remove the folder and prepare the data again"
            ) from error
        _check_identity(state, identity, output_dir)
        planned = plans
    elif manifest is empty and storage.list_folder(output_dir):
        raise ValueError(
            f"--output_dir {output_dir} is not empty and holds no records; give a new or empty folder"
        )
    return manifest, planned


def _check_identity(found, identity, output_dir):
    if (found.get("format"), found.get("version")) != (records.FORMAT, records.VERSION):
        raise ValueError(
            f"{output_dir} holds records of version {found.get('version')}, this program writes "
            f"{records.VERSION}; give another --output_dir"
        )
    for key, wanted in identity.items():
        if found.get(key) != wanted:
            raise ValueError(
                f"{output_dir} holds records with another {key.replace('_', ' ')}: "
                f"{_short(found.get(key))} instead of {_short(wanted)}; give another --output_dir"
            )


def _head(identity):
    return {
        "format": records.FORMAT,
        "version": records.VERSION,
        "made_by": f"sp_transformer {sp_transformer.__version__}",
        **identity,
    }


def _describe_source(data_options):
    described = {"dataset": data_options.dataset}
    for field in _SOURCE_FIELDS:
        if field == data_options.dataset and data_options.HasField(field):
            described["options"] = json_format.MessageToDict(
                getattr(data_options, field), preserving_proto_field_name=True
            )
    # Where tfds keeps what is its own is no more part of the source than data_dir.
    described.get("options", {}).pop("manual_dir", None)
    return described


def _dataset_name(data_options):
    if data_options.dataset == "records":
        raise ValueError(
            'data.dataset "records" is prepared already; give the config of the source they came from'
        )
    if data_options.dataset == "tfds":
        return re.sub(r"\W+", "_", data_options.tfds.name.partition(":")[0], flags=re.ASCII)
    return data_options.dataset


def _finished_index(task):
    """The index of a shard that an earlier run finished, or None."""
    path = _index_path(task)
    if not storage.exists(path):
        return None
    try:
        index = records.ShardIndex.load(path)
    except ValueError:
        return None
    first, end = task.plan.range_of(task.shard)
    is_whole = storage.file_size(_shard_path(task)) == index.records[-1]
    return index if is_whole and len(index.names) == end - first else None


def _shard_path(task):
    name = records.shard_name(task.name, task.plan.split, task.shard, task.plan.num_shards)
    return storage.join(task.output_dir, name)


def _index_path(task):
    name = records.index_name(task.plan.split, task.shard, task.plan.num_shards)
    return storage.join(task.output_dir, name)


# ---- processes


def _run(work, tasks, num_workers, report):
    """Yields (task, result) of all tasks as they are done, and reports the number of images done."""
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
            raise OSError(
                "a worker process was ended from outside (out of memory?); run the same command again, it goes on "
                "where it stopped, perhaps with fewer --num_workers"
            ) from error
        finally:
            # After an error nobody waits for what is left.
            pool.shutdown(wait=False, cancel_futures=True)


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


def _source(task):
    """The source of a task; a worker makes that of a split once."""
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


# ---- writing


def _write_shard(task, count):
    """Writes one shard and its index; returns the index."""
    import tensorflow as tf

    source, label_map = _source(task)
    path = _shard_path(task)
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
    size, digest = _checksum(partial)
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
    storage.write_file(_index_path(task), index.save())
    return index


def encode_image(image, encoding, quality=JPEG_QUALITY, file=None) -> bytes:
    """Encodes uint8 [Y, X, 3].

    Args:
      image: the image.
      encoding: one of ENCODINGS.
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
    raise ValueError(f"encoding {encoding!r} is unknown; choose one of {', '.join(ENCODINGS)}")


def encode_label(label, encoding) -> bytes:
    """Encodes train ids 0..65535, uint8 or int32 [Y, X]: as PNG beside images that tfds decodes, else tiles."""
    if label.dtype != np.uint8:
        label = label.astype(np.uint16)
    return image_io.encode(label, "PNG") if encoding in ("png", "jpeg") else tiles.encode(label)


def count_pixels(label, label_map) -> np.ndarray:
    """Returns int64 [K + 1]: pixels of each class, and ignored ones."""
    of_ids = np.bincount(label.ravel(), minlength=label_map.num_classes)[: label_map.num_classes]
    return np.append(of_ids, label.size - of_ids.sum())


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


def _checksum(path):
    digest, file = hashlib.sha256(), storage.RandomAccessFile(path)
    for start in range(0, file.size, _READ_BACK):
        digest.update(file.read(start, min(_READ_BACK, file.size - start)))
    size = file.size
    file.close()
    return size, digest.hexdigest()


def _describe_split(output_dir, name, plan, indices, label_map):
    files = []
    for shard, index in enumerate(indices):
        index_name = records.index_name(plan.split, shard, plan.num_shards)
        content = storage.read_file(storage.join(output_dir, index_name))
        files.append(
            {
                "file": records.shard_name(name, plan.split, shard, plan.num_shards),
                "num_examples": len(index.names),
                "bytes": int(index.records[-1]),
                "sha256": index.sha256,
                "index": index_name,
                "index_sha256": hashlib.sha256(content).hexdigest(),
            }
        )
    sizes = collections.Counter(
        f"{height}x{width}" for index in indices for height, width in index.sizes
    )
    described = {
        "num_examples": plan.num_examples,
        "has_labels": plan.has_labels,
        "names_sha256": plan.names_sha256,
        "bytes": sum(entry["bytes"] for entry in files),
        "sizes": dict(sizes.most_common()),
    }
    if plan.has_labels:
        pixels = sum(index.pixels for index in indices)
        described["label_pixels"], described["ignored_pixels"] = _histogram(pixels, label_map)
    return {**described, "files": files}


def _histogram(pixels, label_map):
    of_classes = dict(zip(label_map.names, map(int, pixels), strict=False))
    return of_classes, int(pixels[-1])


def _write_tfds_metadata(output_dir, manifest):
    """Writes what tfds.builder_from_directory needs: images decode where they are PNG or JPEG, and are bytes else."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    bytes_feature = tfds.features.Scalar(tf.string)
    features = {
        "name": tfds.features.Text(),
        "height": tfds.features.Scalar(tf.int64),
        "width": tfds.features.Scalar(tf.int64),
    }
    decodes = manifest["encoding"]["images"] in ("png", "jpeg")
    features["image"] = tfds.features.Image(shape=(None, None, 3)) if decodes else bytes_feature
    # tfds knows no feature that only some splits have.
    if all(split["has_labels"] for split in manifest["splits"].values()):
        label_map = manifest["label_map"]
        small = max(len(label_map["classes"]) - 1, label_map["ignore_label"]) <= 255
        label_type = np.uint8 if small else np.uint16
        features["label"] = (
            tfds.features.Image(shape=(None, None, 1), dtype=label_type)
            if decodes
            else bytes_feature
        )
    infos = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[entry["num_examples"] for entry in split["files"]],
            num_bytes=split["bytes"],
        )
        for name, split in manifest["splits"].items()
    ]
    # Made in a local folder of files of the same names, which is all that tfds looks at: it knows fewer schemes.
    with tempfile.TemporaryDirectory() as folder:
        for split in manifest["splits"].values():
            for entry in split["files"]:
                pathlib.Path(folder, entry["file"]).touch()
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=features,
            split_infos=infos,
            check_data=False,
            description=f"Prepared by {manifest['made_by']}; labels are train ids.",
        )
        for path in sorted(pathlib.Path(folder).glob("*.json")):
            storage.write_file(storage.join(output_dir, path.name), path.read_bytes())


# ---- verifying


def _verify_shard(task, count):
    """Returns what differs in one shard, and the pixels of each class in the records."""
    source, label_map = _source(task)
    first, end = task.plan.range_of(task.shard)
    pixels = np.zeros(label_map.num_classes + 1, np.int64)
    manifest = records.read_manifest(task.output_dir)
    entry = manifest["splits"][task.plan.split]["files"][task.shard]
    faults = []
    for name_key, sum_key in (("file", "sha256"), ("index", "index_sha256")):
        path = storage.join(task.output_dir, entry[name_key])
        try:
            _, digest = _checksum(path)
        except Exception as error:
            faults.append(f"{path}: {error}")
        else:
            if digest != entry[sum_key]:
                faults.append(f"{path}: its SHA-256 is not that of {records.MANIFEST}")
    try:
        prepared = _prepared_source(task, label_map)
    except ValueError as error:
        count(end - first)
        return [*faults, str(error)], pixels
    for index in range(first, end):
        fault, label = _compare(source, prepared, index, task.encoding in LOSSY)
        if fault and len(faults) < _MAX_DIFFERENCES:
            faults.append(fault)
        if label is not None:
            pixels += count_pixels(label, label_map)
        count()
    return faults, pixels


def _prepared_source(task, label_map):
    key = task.output_dir, task.plan.split
    if key not in _prepared:
        _prepared.clear()
        _prepared[key] = records.RecordsSource(*key, label_map)
    return _prepared[key]


def _compare(source, prepared, index, lossy):
    """Returns what differs in one example (None if nothing does), and the prepared label."""
    name = source.name(index)
    if prepared.name(index) != name:
        return f"{name}: the records hold {prepared.name(index)} in its place", None
    image, label = source.read(index)
    try:
        prepared_image, prepared_label = prepared.read(index)
    except ValueError as error:
        return str(error), None
    if image.shape != prepared_image.shape:
        return (
            f"{name}: {prepared_image.shape[:2]} in the records, {image.shape[:2]} in the source",
            None,
        )
    if not lossy and not np.array_equal(image, prepared_image):
        differing = int((image != prepared_image).any(-1).sum())
        return f"{name}: {differing} pixels of the image differ from the source", prepared_label
    if label is not None and not np.array_equal(label, prepared_label):
        differing = int((label != prepared_label).sum())
        return f"{name}: {differing} pixels of the label differ from the source", prepared_label
    return None, prepared_label


def _json(value):
    return (json.dumps(value, indent=1) + "\n").encode()


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
