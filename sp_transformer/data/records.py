"""Prepared data: sharded TFRecords with an index, read by number at random, whole or in parts.

Shapes: Y, X are the size of one image in pixels, n the number of examples of a shard.

A folder of records holds

    records.json                          what it is: format, version, classes, encoding, and of every split the
                                          counts, sizes, label histogram, and each file's length and SHA-256
    NAME-SPLIT.tfrecord-00000-of-00008    the shards: TFRecords of tf.train.Example
    index/SPLIT-00000-of-00008.npz        of each shard, where in it every image and label lies
    dataset_info.json, features.json      for tensorflow_datasets: tfds.builder_from_directory(FOLDER) reads it too

An Example has the features name, image, label (train ids; not in splits without labels), height and width. Images are
in the format of `tiles`, or files of a format that Pillow reads; their first bytes tell which. records.json is written
last: a folder without it is not finished.
"""

from __future__ import annotations

import dataclasses
import io
import json
import posixpath
import struct

import numpy as np

from sp_transformer.config import data_validation
from sp_transformer.config import label_map as label_maps
from sp_transformer.data import image_io, storage, tiles
from sp_transformer.data.source import NamedSource

FORMAT = "sp_transformer records"
VERSION = 1
MANIFEST = data_validation.RECORDS_MANIFEST
UNFINISHED = "unfinished.json"
INDEX_FOLDER = "index"

# TFRecord: uint64 length, uint32 checksum of it, the data, uint32 checksum of them.
RECORD_HEADER = struct.Struct("<QI")
RECORD_FOOTER = struct.Struct("<I")

_MEND = (
    "copy the folder again or prepare the data again (python -m sp_transformer.prepare_data --verify "
    "lists all damage)"
)


@dataclasses.dataclass
class ShardIndex:
    """What lies where in one shard; `save` and `load` turn it into the bytes of an npz file and back.

    Attributes:
      names: str [n].
      sizes: int64 [n, 2], Y and X.
      records: int64 [n + 1], start of each record, and the shard's length.
      images: int64 [n, 2], first byte in the shard and number of bytes.
      labels: int64 [n, 2], likewise; -1 in a split without labels.
      pixels: int64 [K + 1], pixels of each class, and ignored ones.
      sha256: of the shard, hexadecimal.
    """

    names: np.ndarray
    sizes: np.ndarray
    records: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    pixels: np.ndarray
    sha256: str

    def save(self) -> bytes:
        file = io.BytesIO()
        np.savez_compressed(file, version=VERSION, **dataclasses.asdict(self))
        return file.getvalue()

    @classmethod
    def load(cls, path: str) -> ShardIndex:
        """Reads an index.

        Raises:
          ValueError: if the file is missing or damaged.
        """
        try:
            with np.load(io.BytesIO(storage.read_file(path)), allow_pickle=False) as arrays:
                fields = {field.name: arrays[field.name] for field in dataclasses.fields(cls)}
        # A damaged zip raises many kinds of errors.
        except Exception as error:
            raise ValueError(f"cannot read index {path}: {error}; {_MEND}") from error
        return cls(**{**fields, "sha256": str(fields["sha256"])})


def shard_name(name: str, split: str, number: int, count: int) -> str:
    """Returns a shard's file name, which is the one that tfds expects."""
    return f"{name}-{split}.tfrecord-{number:05d}-of-{count:05d}"


def index_name(split: str, number: int, count: int) -> str:
    """Returns the path of a shard's index, relative to the folder."""
    return posixpath.join(INDEX_FOLDER, f"{split}-{number:05d}-of-{count:05d}.npz")


def is_prepared(folder: str) -> bool:
    """Returns whether a folder is, or was to become, one of records."""
    return bool(folder) and any(
        storage.exists(storage.join(folder, name)) for name in (MANIFEST, UNFINISHED)
    )


def read_manifest(folder: str) -> dict:
    """Reads records.json.

    Raises:
      ValueError: if the folder holds no records, unfinished ones, or those of another version.
    """
    path = storage.join(folder, MANIFEST)
    if not storage.exists(path):
        if storage.exists(storage.join(folder, UNFINISHED)):
            raise ValueError(
                f"the records in {folder} are not finished; run the same prepare_data command again, it goes on "
                "where it stopped"
            )
        if storage.exists(storage.join(folder, "dataset_info.json")):
            raise ValueError(
                f"{folder} was prepared by tensorflow_datasets and not by prepare_data (it has no {MANIFEST}); "
                'read it with data.dataset "tfds", or give a folder that prepare_data wrote'
            )
        raise ValueError(
            f"{folder or 'data_dir'} holds no records (there is no {MANIFEST}); give the --output_dir of "
            "python -m sp_transformer.prepare_data by --data_dir"
        )
    try:
        manifest = json.loads(storage.read_file(path))
        found, version = manifest["format"], manifest["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged or not one of records ({type(error).__name__}: {error}); {_MEND}"
        ) from error
    if found != FORMAT or version != VERSION:
        raise ValueError(
            f"{path} is of format {found!r}, version {version}, but this program reads {FORMAT!r}, version "
            f"{VERSION}; prepare the data again with this program"
        )
    return manifest


def describe_label_map(label_map: label_maps.LabelMap) -> dict:
    """Returns what a manifest says of the classes."""
    return {
        "classes": list(label_map.names),
        "ignore_label": label_map.ignore_label,
        "id_map": {str(key): value for key, value in sorted(label_map.id_map.items())},
        "ignore_unlisted_ids": label_map.ignore_unlisted_ids,
    }


def check_label_map(stored: dict, label_map: label_maps.LabelMap, folder: str) -> None:
    """Raises ValueError unless records hold the ids that a config expects.

    The ids in the files were mapped when the data were prepared: a config may leave its id_map out, but not have
    another.
    """
    wanted = describe_label_map(label_map)
    faults = []
    if stored["classes"] != wanted["classes"]:
        faults.append(_class_difference(stored["classes"], wanted["classes"]))
    if stored["ignore_label"] != wanted["ignore_label"]:
        faults.append(f"ignore_label {stored['ignore_label']}, not {wanted['ignore_label']}")
    if wanted["id_map"] and (stored["id_map"], stored["ignore_unlisted_ids"]) != (
        wanted["id_map"],
        wanted["ignore_unlisted_ids"],
    ):
        faults.append("ids mapped by another id_map")
    if faults:
        raise ValueError(
            f"the records in {folder} have {', '.join(faults)}; use the label_map that they were prepared with, "
            "or prepare the data again with this one"
        )


class RecordsSource(NamedSource):
    """One split of a folder of records."""

    def __init__(self, folder: str, split: str, label_map: label_maps.LabelMap):
        """Reads the manifest and the indices, and compares the length of every file with them.

        Raises:
          ValueError: if the folder is none of records, unfinished, incomplete or of another version, has no such
            split, or was prepared with other classes.
        """
        manifest = read_manifest(folder)
        if split not in manifest["splits"]:
            raise ValueError(
                f"split {split!r} is unknown; the records in {folder} have "
                f"{', '.join(manifest['splits'])} (prepare_data --splits={split} adds it)"
            )
        check_label_map(manifest["label_map"], label_map, folder)
        described = manifest["splits"][split]
        self.has_labels = described["has_labels"]
        self._has_small_ids = label_map.num_classes <= 256 and 0 <= label_map.ignore_label <= 255
        self._shards, indices = [], []
        for entry in described["files"]:
            index = ShardIndex.load(storage.join(folder, entry["index"]))
            self._shards.append(_open_shard(storage.join(folder, entry["file"]), index))
            indices.append(index)
        counts = [len(index.names) for index in indices]
        if sum(counts) != described["num_examples"]:
            raise ValueError(
                f"the indices of split {split!r} in {folder} hold {sum(counts)} examples, {MANIFEST} says "
                f"{described['num_examples']}; {_MEND}"
            )
        self._shard_of = np.repeat(np.arange(len(counts)), counts)
        self._names = [str(name) for index in indices for name in index.names]
        self._sizes, self._images, self._labels = (
            np.concatenate(
                [np.zeros((0, 2), np.int64), *(getattr(index, field) for index in indices)]
            )
            for field in ("sizes", "images", "labels")
        )
        # {(index, "image" or "label"): where its tiles lie}; a kilobyte an image.
        self._layouts = {}

    def size(self, index: int) -> tuple[int, int]:
        """Returns (Y, X) of an image, from the index."""
        height, width = self._sizes[index]
        return int(height), int(width)

    def read(self, index):
        """Reads one image and its train ids; see `Source.read`.

        Raises:
          ValueError: if the record is damaged; it names image and shard.
        """
        return self.read_region(index, lambda height, width: (0, 0, height, width))

    def read_region(self, index, choose):
        """Reads and decodes no more than the rows of tiles, and tiles, that hold some of the part.

        Raises:
          ValueError: as `read`.
        """
        return self.decode(index, self.fetch(index, choose))

    def fetch(self, index, choose):
        """The first half of `read_region`: reads bytes and decodes nothing.

        Returns:
          What `decode` takes.

        Raises:
          ValueError: as `read`.
        """
        part = choose(*self.size(index))
        image = self._fetch(index, "image", self._images, part)
        label = self._fetch(index, "label", self._labels, part) if self.has_labels else None
        return image, label

    def decode(self, index, fetched):
        """The second half of `read_region`.

        Args:
          index: of the example.
          fetched: what `fetch` returned for it.

        Returns:
          As `read_region`.

        Raises:
          ValueError: as `read`.
        """
        image, label = fetched
        image = self._decode(index, "image", image)
        if label is None:
            return image, None
        label = self._decode(index, "label", label)
        return image, label.astype(np.uint8 if self._has_small_ids else np.int32, copy=False)

    def _fetch(self, index, kind, spans, part):
        """Returns layout (None for a file of another format), bytes, where in the image they start, and the part."""
        start, count = (int(number) for number in spans[index])
        try:
            layout = self._layouts.get((index, kind))
            if layout is None:
                head = self._read_bytes(index, start, min(count, tiles.MINIMUM_HEADER))
                if not tiles.is_encoded(head):
                    return None, self._read_bytes(index, start, count), 0, part
                header = self._read_bytes(index, start, tiles.header_size(head))
                layout = tiles.read_layout(header)
                if layout.size != self.size(index):
                    raise tiles.TileError(f"is of size {layout.size}, not {self.size(index)}")
                self._layouts[index, kind] = layout
        except tiles.TileError as error:
            raise ValueError(self._damaged(index, kind, error)) from error
        top, _, height, _ = part
        first, last = layout.span(top, height)
        return layout, self._read_bytes(index, start + first, last - first), first, part

    def _decode(self, index, kind, fetched):
        layout, data, first, part = fetched
        try:
            if layout is not None:
                return tiles.decode_region(layout, data, first, *part)
            array = _read_file(kind, self.name(index), data)
        except ValueError as error:
            raise ValueError(self._damaged(index, kind, error)) from error
        if array.shape[:2] != self.size(index):
            error = f"is of size {array.shape[:2]}, not {self.size(index)}"
            raise ValueError(self._damaged(index, kind, error))
        top, left, height, width = part
        return array[top : top + height, left : left + width]

    def _read_bytes(self, index, start, count):
        return self._shards[self._shard_of[index]].read(start, count)

    def _damaged(self, index, kind, error):
        path = self._shards[self._shard_of[index]].path
        return f"{kind} {self.name(index)} in {path} is damaged: {error}; {_MEND}"


def _read_file(kind, name, data):
    """Decodes a file of another format than tiles."""
    if kind == "label":
        return image_io.read_label_ids(name, data)
    # No other JPEG is ever stored: see `shard_workers`.
    is_jpeg = data.startswith(image_io.JPEG_START)
    return (image_io.read_upright_jpeg if is_jpeg else image_io.read_image)(name, data)


def _open_shard(path, index):
    try:
        file = storage.RandomAccessFile(path)
    except Exception as error:
        raise ValueError(f"cannot open {path}: {error}; {_MEND}") from error
    if file.size != index.records[-1]:
        raise ValueError(
            f"{path} has {file.size} bytes where its index says {index.records[-1]}; {_MEND}"
        )
    return file


def _class_difference(stored, wanted):
    if len(stored) != len(wanted):
        return f"{len(stored)} classes, not {len(wanted)}"
    number = next(
        i for i, pair in enumerate(zip(stored, wanted, strict=True)) if pair[0] != pair[1]
    )
    return f"class {number} {stored[number]!r}, not {wanted[number]!r}"
