"""Images and labels in folders, paired by the text that the wildcards of their globs match.

Shapes: Y, X are the height and width of one image in pixels.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import posixpath
import re
from collections import Counter

from sp_transformer.data import image_io, storage
from sp_transformer.data.faults import unpaired
from sp_transformer.data.source import NamedSource
from sp_transformer.data.train_ids import TrainIds, check_sizes

_LISTED = 5  # Files and ids that an error names before it only counts them.


class FolderSource(NamedSource):
    """One split of a data set of image files and label PNGs.

    The order is that of the images' paths. All faults that need no pixel to be read (nothing found,
    images without labels, labels without images) are raised at construction.
    """

    def __init__(self, split_options, data_dir, label_map, skip_unpaired=False):
        """Finds and pairs the files.

        Args:
          split_options: a SplitOptions message; its globs may hold `*`, `?`, `[...]` and `**`.
          data_dir: folder that the globs are relative to.
          label_map: a LabelMap, which says what the ids in label files become.
          skip_unpaired: whether images without labels and labels without images are left out and
            listed in `left_out` instead of raised.

        Raises:
          ValueError: if no glob of a kind matches anything, or a file has no counterpart or several.
        """
        split = split_options.name
        if not data_dir or not os.path.isdir(data_dir):
            raise ValueError(
                f"data_dir {data_dir!r} of split {split!r} is not a folder; give the root of the "
                "data set by --data_dir or data { data_dir: ... }"
            )
        if not split_options.images:
            raise ValueError(f"split {split!r} has no glob of images; add folder.splits.images")
        self._data_dir = os.fspath(data_dir)
        self.has_labels = bool(split_options.labels)

        images = _find(split_options.images, self._data_dir, split, "images")
        self._images = sorted(images)
        self._names = _unique_names(self._images)
        self._labels = None
        if self.has_labels:
            labels = _find(split_options.labels, self._data_dir, split, "labels")
            paired = _pair(images, labels, split)
            if not skip_unpaired or not paired.label_of:
                paired.check(split, self._data_dir)
            self.left_out = paired.faults(self._data_dir)
            self._images = sorted(paired.label_of)
            self._names = _unique_names(self._images)
            self._labels = [paired.label_of[path] for path in self._images]
            self._to_train_ids = TrainIds(label_map)

    def image_path(self, index) -> str:
        """Returns the path of an image file."""
        return os.path.join(self._data_dir, self._images[index])

    def label_path(self, index) -> str | None:
        """Returns the path of a label file, or None in a split without labels."""
        return os.path.join(self._data_dir, self._labels[index]) if self.has_labels else None

    def read(self, index):
        """Reads one image and its train ids; see `Source.read`.

        Raises:
          FileFault: if a file is unreadable, the sizes differ or an id is neither a class nor
            ignored; it names the file.
        """
        image = image_io.read_image(self.image_path(index))
        if not self.has_labels:
            return image, None
        path = self.label_path(index)
        ids = image_io.read_label_ids(path)
        check_sizes(image, self.image_path(index), ids, path)
        return image, self._to_train_ids(ids, path)

    def image_file(self, index) -> bytes:
        """Returns the bytes of the image file."""
        return storage.read_file(self.image_path(index))

    def label_file(self, index) -> bytes:
        """Returns the bytes of the label file."""
        return storage.read_file(self.label_path(index))


def _find(patterns, data_dir, split, kind):
    """Returns {path relative to data_dir: text that the wildcards matched} of all globs."""
    found = {}
    for pattern in patterns:
        if posixpath.isabs(pattern):
            raise ValueError(
                f"glob {pattern!r} of the {kind} of split {split!r} is absolute; "
                "write it relative to data_dir"
            )
        pattern = posixpath.normpath(pattern)
        expression = _wildcards(pattern)
        for path in glob.glob(pattern, root_dir=data_dir, recursive=True):
            path = path.replace(os.sep, "/")
            match = expression.fullmatch(path)
            if match and os.path.isfile(os.path.join(data_dir, path)):
                found.setdefault(path, tuple(text.strip("/") for text in match.groups()))
    if not found:
        quoted = " and ".join(repr(pattern) for pattern in patterns)
        raise ValueError(
            f"glob {quoted} of the {kind} of split {split!r} matches no file in {data_dir}; "
            "correct the glob or data_dir"
        )
    return found


def _wildcards(pattern):
    """Returns the regular expression of a glob, with a group for each of its wildcards."""
    parts = pattern.split("/")
    text = ""
    for i, part in enumerate(parts):
        is_last = i == len(parts) - 1
        if part == "**":
            text += "(.*)" if is_last else "((?:[^/]+/)*)"
            continue
        text += re.sub(r"\*+|\?|\[!?\]?[^\]]*\]|[^*?\[]+|\[", _translate, part)
        text += "" if is_last else "/"
    return re.compile(text)


def _translate(match):
    token = match.group()
    if token[0] == "*":
        return "([^/]*)"
    if token == "?":
        return "([^/])"
    if token[0] == "[" and len(token) > 2:
        negated = token[1] == "!"
        content = token[1 + negated : -1].replace("\\", "\\\\")
        content = re.sub(r"[\[\]^&~|]", r"\\\g<0>", content)
        return f"([{'^/' if negated else ''}{content}])"
    return re.escape(token)


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """The images of a split with their labels, and what has no partner.

    Attributes:
      label_of: {image: label}; unlabelled, orphans: lists of images and of labels; all are paths
        relative to data_dir.
      example: text with the matched parts of one image and one label.
    """

    label_of: dict[str, str]
    unlabelled: list[str]
    orphans: list[str]
    example: str

    def check(self, split, data_dir):
        """Raises a ValueError that lists the files without a partner."""
        faults = []
        if self.unlabelled:
            faults.append(
                f"{len(self.unlabelled)} images without a label: {_listed(self.unlabelled)}"
            )
        if self.orphans:
            faults.append(f"{len(self.orphans)} labels without an image: {_listed(self.orphans)}")
        if faults:
            raise ValueError(
                f"split {split!r} in {data_dir} has {'; '.join(faults)}. An image and a label pair "
                "when the parts matched by their wildcards are equal, e.g. "
                f"{self.example}; correct the globs or the folder, or set data.skip_corrupt to "
                "leave such files out"
            )

    def faults(self, data_dir):
        """Returns a FileFault for every file without a partner."""
        return [
            unpaired(kind, os.path.join(data_dir, path))
            for kind, paths in (
                ("image_without_label", self.unlabelled),
                ("label_without_image", self.orphans),
            )
            for path in sorted(paths)
        ]


def _pair(images, labels, split):
    """Returns the _Pairs of files whose wildcards matched the same text."""
    image_of, label_of = _by_key(images, split, "images"), _by_key(labels, split, "labels")
    return _Pairs(
        label_of={path: label_of[key] for key, path in image_of.items() if key in label_of},
        unlabelled=[path for key, path in image_of.items() if key not in label_of],
        orphans=[path for key, path in label_of.items() if key not in image_of],
        example=f"{_example(image_of)} and {_example(label_of)}",
    )


def _by_key(found, split, kind):
    by_key = {}
    for path, key in sorted(found.items()):
        if key in by_key:
            raise ValueError(
                f"{by_key[key]} and {path} are both {kind} of split {split!r} whose wildcards "
                f"match {'/'.join(key)!r}, so they cannot be told apart; "
                "put a wildcard where they differ"
            )
        by_key[key] = path
    return by_key


def _listed(paths):
    paths = sorted(paths)
    return ", ".join(paths[:_LISTED]) + (", ..." if len(paths) > _LISTED else "")


def _example(by_key):
    key, path = min(by_key.items(), key=lambda item: item[1])
    return f"{path} (matched: {' | '.join(key)})"


def _unique_names(paths):
    """Returns the paths without extension; those that would be equal keep it, as `name_ext`."""
    stems = [posixpath.splitext(path)[0] for path in paths]
    count = Counter(stems)
    names, taken = [], set()
    for path, stem in zip(paths, stems, strict=True):
        name = stem if count[stem] == 1 else "_".join(path.rsplit(".", 1))
        # A name must stay below the folder that results are written to.
        name = "/".join(part for part in name.split("/") if part not in ("", ".", ".."))
        while name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
    return names
