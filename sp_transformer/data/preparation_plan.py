"""What preparation is to write, what of it an earlier run has written, and whether the two belong together."""

from __future__ import annotations

import dataclasses
import json
import math
import re

from google.protobuf import json_format

import sp_transformer
from sp_transformer.config import derived
from sp_transformer.data import records, sources, storage
from sp_transformer.data.source import Source

ENCODINGS = ("auto", "tiles", "png", "webp", "jpeg")
LOSSY = ("jpeg",)
JPEG_QUALITY = 95

# A shard of 64 Cityscapes images holds 150 MB: tfds's advice is 100 to 200 MB, and no more than that is lost to a kill.
_IMAGES_PER_SHARD = 64
# What identifies a source beside its classes: where it lies is not part of it.
_SOURCE_FIELDS = ("folder", "cityscapes", "tfds", "synthetic_streets")


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


def identify(data_options, encoding: str, quality: int) -> dict:
    """What records of a source are told apart by: its name, itself, its classes and how images are encoded."""
    return {
        "name": _dataset_name(data_options),
        "source": _describe_source(data_options),
        "label_map": records.describe_label_map(derived.data_label_map(data_options)),
        "encoding": {
            "images": encoding,
            **({"quality": quality} if encoding in LOSSY else {}),
            "lossless": encoding not in LOSSY,
        },
    }


def read_state(output_dir: str, identity: dict) -> tuple[dict, dict]:
    """Returns the manifest so far and {split: plan that was begun} of a folder, new or old.

    Raises:
      ValueError: if the folder holds records of another identity, damaged ones or something else.
    """
    empty = {**head(identity), "splits": {}}
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


def head(identity: dict) -> dict:
    """What both records.json and the file of an unfinished run open with."""
    return {
        "format": records.FORMAT,
        "version": records.VERSION,
        "made_by": f"sp_transformer {sp_transformer.__version__}",
        **identity,
    }


def plan_split(data_options, split: str, num_shards: int, planned: dict) -> Plan:
    """Looks at a split of the source, and at what was begun of it.

    Args:
      data_options: a DataOptions message of the source.
      split: its name.
      num_shards: into how many files it is to go; 0 for what was begun, or one for every 64 images.
      planned: {split: plan that was begun}, as `read_state` returns it.

    Raises:
      ValueError: if the split is empty, cannot be prepared by its name, or is not what was begun.
    """
    source = sources.create_source(data_options, split)
    if not re.fullmatch(r"\w+", split, re.ASCII):
        raise ValueError(
            f"split {split!r} cannot be part of a file name of tfds; rename it with letters, digits and _"
        )
    if not len(source):
        raise ValueError(f"split {split!r} of the source has no images")
    # Of all names whatever they cost: whoever prepares reads all examples anyway.
    digest = Source.names_digest(source)
    default = math.ceil(len(source) / _IMAGES_PER_SHARD)
    if split in planned and not num_shards:
        # What was begun is gone on with.
        num_shards = planned[split]["num_shards"]
    count = min(num_shards or default, len(source))
    plan = Plan(split, len(source), count, digest, source.has_labels)
    if split in planned and planned[split] != dataclasses.asdict(plan):
        raise ValueError(
            f"split {split!r} was begun with {planned[split]['num_examples']} images in "
            f"{planned[split]['num_shards']} shards, and is now {plan.num_examples} in {plan.num_shards} "
            "(or their names differ); restore source and --num_shards, or prepare into another --output_dir"
        )
    return plan


def finished_index(task: Task) -> records.ShardIndex | None:
    """The index of a shard that an earlier run finished, or None."""
    path = index_path(task)
    if not storage.exists(path):
        return None
    try:
        index = records.ShardIndex.load(path)
    except ValueError:
        return None
    first, end = task.plan.range_of(task.shard)
    is_whole = storage.file_size(shard_path(task)) == index.records[-1]
    return index if is_whole and len(index.names) == end - first else None


def shard_path(task: Task) -> str:
    """Where the shard of a task lies once it is finished."""
    name = records.shard_name(task.name, task.plan.split, task.shard, task.plan.num_shards)
    return storage.join(task.output_dir, name)


def index_path(task: Task) -> str:
    """Where the index lies that marks the shard of a task as finished."""
    name = records.index_name(task.plan.split, task.shard, task.plan.num_shards)
    return storage.join(task.output_dir, name)


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


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
