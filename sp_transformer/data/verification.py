"""Whether records are what they were prepared from, pixel for pixel, by the processes that write them."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence

import numpy as np

from sp_transformer.config import derived
from sp_transformer.data import preparation_plan, records, shard_workers, storage

_MAX_DIFFERENCES = 20

# The records that this worker process made last.
_prepared = {}


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
        plan = preparation_plan.plan_split(data_options, split, len(described["files"]), {})
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
            preparation_plan.Task(
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
        shard_workers.run(
            _verify_shard, tasks, num_workers, lambda done: progress and progress(done, total)
        )
    )
    pixels = collections.defaultdict(int)
    for task in tasks:
        found, counted = results[task]
        faults += found
        pixels[task.plan.split] = pixels[task.plan.split] + counted
    for split, counted in pixels.items():
        described = manifest["splits"][split]
        if described["has_labels"] and shard_workers.histogram(counted, label_map) != (
            described["label_pixels"],
            described["ignored_pixels"],
        ):
            faults.append(f"split {split}: its label histogram is not that of {records.MANIFEST}")
    # A missing file is found once for every shard.
    return list(dict.fromkeys(faults))


def _verify_shard(task, count):
    """Returns what differs in one shard, and the pixels of each class in the records."""
    source, label_map = shard_workers.source_of(task)
    first, end = task.plan.range_of(task.shard)
    pixels = np.zeros(label_map.num_classes + 1, np.int64)
    manifest = records.read_manifest(task.output_dir)
    entry = manifest["splits"][task.plan.split]["files"][task.shard]
    faults = []
    for name_key, sum_key in (("file", "sha256"), ("index", "index_sha256")):
        path = storage.join(task.output_dir, entry[name_key])
        try:
            _, digest = shard_workers.checksum(path)
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
        fault, label = _compare(source, prepared, index, task.encoding in preparation_plan.LOSSY)
        if fault and len(faults) < _MAX_DIFFERENCES:
            faults.append(fault)
        if label is not None:
            pixels += shard_workers.count_pixels(label, label_map)
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
