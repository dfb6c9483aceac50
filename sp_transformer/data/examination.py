"""Looks at one image and its label: everything that is wrong with them, and what an inspection sums up.

Shapes: Y, X are the height and width of one image in pixels, K the number of classes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io

import numpy as np
from PIL import Image

from sp_transformer.data import image_io, train_ids
from sp_transformer.data.faults import FileFault

_EXIF_ORIENTATION = 0x0112
_FILE_METHODS = ("image_path", "image_file", "label_path", "label_file")
_MAX_COUNTED_ID = 65535  # Larger ids than those of 16-bit files are not counted by a table.


@dataclasses.dataclass
class Examination:
    """What was found in one example.

    Attributes:
      index: place in the source.
      name: the source's name of it; image, label: paths, or None where the source has no files.
      faults: FileFaults, empty for an example that can be used.
      size: (Y, X) of the image, or None if it cannot be read.
      digest: hash of the image's pixels; equal for equal pictures, however they are stored.
      color_sum, color_squares: float64 [3], sums over the pixels of the values and their squares.
      id_counts: {id in the label file: pixels}, of all ids, also of faulty ones; where the source
        has no files, of train ids.
      train_counts: int64 [K + 1], pixels of each class and, last, ignored ones; None without a
        usable label.
      traits: set of texts on what is unusual about the files but no fault ("grey", "alpha", ...).
    """

    index: int
    name: str
    image: str | None = None
    label: str | None = None
    faults: list[FileFault] = dataclasses.field(default_factory=list)
    size: tuple[int, int] | None = None
    digest: str | None = None
    color_sum: np.ndarray | None = None
    color_squares: np.ndarray | None = None
    id_counts: dict[int, int] = dataclasses.field(default_factory=dict)
    train_counts: np.ndarray | None = None
    traits: set[str] = dataclasses.field(default_factory=set)

    @property
    def ignored_share(self) -> float | None:
        """Share of the label's pixels that are ignored."""
        if self.train_counts is None:
            return None
        return float(self.train_counts[-1] / max(1, self.train_counts.sum()))


def examine(source, index, label_map) -> Examination:
    """Reads example `index` of a source and lists all its faults instead of raising the first.

    Args:
      source: a Source. If it has image_file and label_file (the bytes) beside image_path and
        label_path, the files themselves are looked at.
      index: from 0 to len(source) - 1.
      label_map: a LabelMap.
    """
    found = Examination(index, source.name(index))
    if has_files(source):
        _examine_files(source, index, label_map, found)
    else:
        _examine_example(source, index, label_map, found)
    return found


def has_files(source) -> bool:
    """Whether a source's labels are looked at as files hold them; else as train ids, which need no map any more."""
    return all(hasattr(source, name) for name in _FILE_METHODS)


def _examine_files(source, index, label_map, found):
    found.image = source.image_path(index)
    image = None
    data = _collect(found, "image", source.image_file, index)
    if data is not None:
        image = _collect(found, "image", image_io.read_image, found.image, data)
    if image is not None:
        _take_image(found, image)
        found.traits |= _traits(data, "image")
    if not source.has_labels:
        return
    found.label = source.label_path(index)
    ids = None
    data = _collect(found, "label", source.label_file, index)
    if data is not None:
        ids = _collect(found, "label", image_io.read_label_ids, found.label, data)
    if ids is None:
        return
    found.traits |= _traits(data, "label")
    found.id_counts = _counts(ids)
    if _collect(found, "label", _mapping(label_map), ids, found.label) is not None:
        found.train_counts = _train_counts(found.id_counts, label_map)
    if image is not None:
        _collect(found, "label", train_ids.check_sizes, image, found.image, ids, found.label)


# Its tables are made once for a label map, not for every file.
_mapping = functools.lru_cache(maxsize=4)(train_ids.TrainIds)


def _examine_example(source, index, label_map, found):
    example = _collect(found, "image", source.read, index)
    if example is None:
        return
    image, label = example
    _take_image(found, image)
    if label is None:
        return
    found.id_counts = _counts(label.astype(np.int32))
    counts = np.zeros(label_map.num_classes + 1, np.int64)
    for train_id, count in found.id_counts.items():
        if 0 <= train_id < label_map.num_classes:
            counts[train_id] += count
        elif train_id == label_map.ignore_label:
            counts[-1] += count
        else:
            text = (
                f"example {found.name} holds train id {train_id}, which is neither one of the "
                f"{label_map.num_classes} classes nor ignore_label {label_map.ignore_label}"
            )
            found.faults.append(FileFault("unknown_ids", found.name, text))
    found.train_counts = counts


def _collect(found, kind, function, *arguments):
    """Returns what the function does, or None with its fault noted; kind is "image" or "label"."""
    try:
        return function(*arguments)
    except FileFault as fault:
        found.faults.append(fault)
    except (ValueError, OSError) as error:
        # A source that does not say what kind of fault it met.
        file = getattr(found, kind) or found.name
        text = str(error) if file in str(error) else f"cannot read {kind} {file}: {error}"
        fault = FileFault(f"unreadable_{kind}", file, text)
        fault.__cause__ = error
        found.faults.append(fault)
    return None


def _take_image(found, image):
    found.size = image.shape[:2]
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image))
    found.digest = digest.hexdigest()
    # From the 256 counts of each channel: exact, and without a float copy of the image.
    values = np.arange(256, dtype=np.float64)
    counts = np.stack([np.bincount(image[..., c].ravel(), minlength=256) for c in range(3)])
    found.color_sum, found.color_squares = counts @ values, counts @ values**2


def _counts(ids):
    """Returns {id: pixels} of int32 [Y, X]."""
    if ids.size and ids.min() >= 0 and ids.max() <= _MAX_COUNTED_ID:
        counts = np.bincount(ids.ravel())
        return {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    values, counts = np.unique(ids, return_counts=True)
    return {int(i): int(n) for i, n in zip(values, counts, strict=True)}


def _train_counts(id_counts, label_map):
    """Returns int64 [K + 1] of ids that are all classes or ignored."""
    counts = np.zeros(label_map.num_classes + 1, np.int64)
    for file_id, count in id_counts.items():
        train_id = train_id_of(file_id, label_map)
        counts[train_id if 0 <= train_id < label_map.num_classes else -1] += count
    return counts


def train_id_of(file_id, label_map) -> int:
    """Returns what an id in a label file becomes; possibly neither a class nor ignored."""
    if file_id in label_map.id_map:
        return label_map.id_map[file_id]
    if label_map.id_map and label_map.ignore_unlisted_ids:
        return label_map.ignore_label
    return file_id


def _traits(data, kind):
    """Returns what is unusual about the bytes of a readable file."""
    traits = set()
    with Image.open(io.BytesIO(data)) as picture:
        mode = picture.mode
        if picture.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            traits.add(f"{kind} turned by its EXIF orientation")
    if mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        traits.add(f"{kind} with alpha")
    if kind == "image" and mode in ("1", "L", "LA"):
        traits.add("grey image")
    if mode.startswith("I"):
        traits.add(f"16-bit {kind}")
    if kind == "label" and mode == "P":
        traits.add("palette label")
    return traits
