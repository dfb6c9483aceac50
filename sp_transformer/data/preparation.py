"""Writes any source once as sharded records: in parallel and resumable; `verification` compares them with the source.

Each shard is written by one process under a temporary name, read back for its checksum and renamed; its index follows,
and marks it as finished. A run that finds finished shards of the same plan goes on with the others. records.json comes
last. See `records` for what is written, `preparation_plan` for what is gone on with, `shard_workers` for the processes.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from sp_transformer.config import derived
from sp_transformer.data import preparation_plan, records, shard_workers, sources, storage


def prepare(
    data_options,
    output_dir: str,
    splits: Sequence[str] = (),
    encoding: str = "auto",
    quality: int = preparation_plan.JPEG_QUALITY,
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
    identity = preparation_plan.identify(data_options, encoding, quality)
    name, label_map = identity["name"], derived.data_label_map(data_options)
    manifest, planned = preparation_plan.read_state(output_dir, identity)
    splits = list(splits) or sources.split_names(data_options)
    plans = [
        preparation_plan.plan_split(data_options, split, num_shards, planned)
        for split in dict.fromkeys(splits)
        if split not in manifest["splits"]
    ]
    if not plans:
        return manifest
    storage.make_folder(storage.join(output_dir, records.INDEX_FOLDER))
    unfinished = {
        **preparation_plan.head(identity),
        "plans": [dataclasses.asdict(plan) for plan in plans],
    }
    storage.write_file(storage.join(output_dir, records.UNFINISHED), _json(unfinished))

    tasks = [
        preparation_plan.Task(
            data_options.SerializeToString(), output_dir, name, plan, shard, encoding, quality
        )
        for plan in plans
        for shard in range(plan.num_shards)
    ]
    finished = {task: index for task in tasks if (index := preparation_plan.finished_index(task))}
    missing = [task for task in tasks if task not in finished]
    total = sum(plan.num_examples for plan in plans)
    before = sum(len(index.names) for index in finished.values())
    for task, index in shard_workers.run(
        shard_workers.write_shard,
        missing,
        num_workers,
        lambda done: progress and progress(before + done, total),
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
        described["label_pixels"], described["ignored_pixels"] = shard_workers.histogram(
            pixels, label_map
        )
    return {**described, "files": files}


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


def _json(value):
    return (json.dumps(value, indent=1) + "\n").encode()
