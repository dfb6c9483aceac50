"""Files of a data set as its publisher ships it: in folders, or inside the zip archives, which are not unpacked."""

from __future__ import annotations

import abc
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Sequence

from sp_transformer.data import image_io, storage
from sp_transformer.data.faults import unpaired
from sp_transformer.data.source import NamedSource
from sp_transformer.data.train_ids import TrainIds, check_sizes

_LISTED = 5  # Files that an error names before it only counts them.
# Signature and fields of a zip's local header; only the lengths of its last two fields, name and extra, matter.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_SIGNATURE = b"PK\x03\x04"


class FileTree(abc.ABC):
    """Files below one root, named by paths relative to it with "/"."""

    @abc.abstractmethod
    def find(self, folder: str, suffix: str, depth: int) -> list[str]:
        """Returns the sorted paths of the files whose name ends in `suffix`, `depth` folders below `folder`."""

    @abc.abstractmethod
    def read(self, path: str) -> bytes:
        """Reads a file; may be called from several threads at once.

        Raises:
          ValueError: if it is damaged; it names the file.
          OSError: if it cannot be read.
        """

    @abc.abstractmethod
    def describe(self, path: str) -> str:
        """Returns what a person would look for: the full path, or the archive and the path in it."""


class FolderTree(FileTree):
    """Files in a folder."""

    def __init__(self, root: str):
        self._root = root

    def find(self, folder, suffix, depth):
        folders = [folder]
        for _ in range(depth):
            folders = [
                posixpath.join(above, name)
                for above in folders
                for name in storage.list_folder(self.describe(above))
                if storage.is_folder(self.describe(posixpath.join(above, name)))
            ]
        return sorted(
            posixpath.join(above, name)
            for above in folders
            for name in storage.list_folder(self.describe(above))
            # macOS leaves "._NAME" beside NAME where it unpacks.
            if name.endswith(suffix) and not name.startswith(".")
        )

    def read(self, path):
        return storage.read_file(self.describe(path))

    def describe(self, path):
        return storage.join(self._root, *path.split("/"))


class ZipTree(FileTree):
    """Files in a zip archive, each read where it lies: many threads read at once and none waits for another."""

    def __init__(self, path: str):
        """Reads the archive's table of contents.

        Raises:
          ValueError: if the file is no zip archive, or cut off; it names the file.
        """
        self._path = path
        try:
            self._file = storage.RandomAccessFile(path)
            with zipfile.ZipFile(storage.SeekableFile(self._file)) as archive:
                self._members = {member.filename: member for member in archive.infolist()}
        except (zipfile.BadZipFile, OSError, struct.error) as error:
            raise ValueError(
                f"cannot read archive {path}: {error}; its download may be incomplete, get it again"
            ) from error

    def find(self, folder, suffix, depth):
        prefix = f"{folder}/"
        return sorted(
            name
            for name in self._members
            if name.startswith(prefix)
            and name.endswith(suffix)
            and name.count("/") == prefix.count("/") + depth
            and not posixpath.basename(name).startswith(".")
        )

    def read(self, path):
        member = self._members[path]
        head = self._file.read(member.header_offset, _LOCAL_HEADER.size)
        try:
            signature, name_length, extra_length = _LOCAL_HEADER.unpack(head)
            if signature != _LOCAL_SIGNATURE:
                raise ValueError("its header is missing")
            start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
            data = self._file.read(start, member.compress_size)
            if member.compress_type == zipfile.ZIP_DEFLATED:
                data = zlib.decompress(data, -zlib.MAX_WBITS)
            elif member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"compression {member.compress_type} is not supported; unpack it")
            if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
                raise ValueError("its checksum is wrong")
        except (ValueError, struct.error, zlib.error) as error:
            raise ValueError(
                f"cannot read {self.describe(path)}: {error}; the archive is damaged, get it again"
            ) from error
        return data

    def describe(self, path):
        return f"{self._path}:{path}"


class TreeSource(NamedSource):
    """Images and labels of file trees, paired by the caller."""

    def __init__(
        self,
        images: Sequence[tuple[FileTree, str]],
        labels: Sequence[tuple[FileTree, str]] | None,
        names: Sequence[str],
        label_map,
        left_out=(),
    ):
        """Takes the files.

        Args:
          images: tree and path of each image.
          labels: of its label, or None for a split without labels.
          names: unique, of the images.
          label_map: a LabelMap, which says what the ids in label files become.
          left_out: FileFaults of files that are no part of it.
        """
        self.left_out = left_out
        self._images = images
        self._labels = labels
        self._names = names
        self.has_labels = labels is not None
        self._to_train_ids = TrainIds(label_map)

    def image_path(self, index) -> str:
        """Returns the path of an image file, for people."""
        tree, path = self._images[index]
        return tree.describe(path)

    def label_path(self, index) -> str | None:
        """Returns the path of a label file, for people, or None in a split without labels."""
        if not self.has_labels:
            return None
        tree, path = self._labels[index]
        return tree.describe(path)

    def image_file(self, index):
        """Returns the bytes of the image file."""
        tree, path = self._images[index]
        return tree.read(path)

    def label_file(self, index) -> bytes:
        """Returns the bytes of the label file."""
        tree, path = self._labels[index]
        return tree.read(path)

    def read(self, index):
        """Reads one image and its train ids; see `Source.read`.

        Raises:
          ValueError: if a file is unreadable, the sizes differ or an id is neither a class nor ignored; it names the
            file.
        """
        image = image_io.read_image(self.image_path(index), self.image_file(index))
        if not self.has_labels:
            return image, None
        path = self.label_path(index)
        ids = image_io.read_label_ids(path, self.label_file(index))
        check_sizes(image, self.image_path(index), ids, path)
        return image, self._to_train_ids(ids, path)


def pair(images, labels, split: str, where: str):
    """Returns the labels in the order of the images.

    Args:
      images: {key: (tree, path)}.
      labels: likewise; equal keys belong together.
      split: its name, for errors.
      where: what was looked through, for errors.

    Raises:
      ValueError: if an image has no label, or a label no image.
    """
    faults = [
        f"{len(missing)} {kind}: {listed(missing)}"
        for missing, kind in (
            (
                [path for key, (_, path) in images.items() if key not in labels],
                "images without a label",
            ),
            (
                [path for key, (_, path) in labels.items() if key not in images],
                "labels without an image",
            ),
        )
        if missing
    ]
    if faults:
        raise ValueError(
            f"split {split!r} in {where} has {'; '.join(faults)}; a download or its unpacking is incomplete"
        )
    return [labels[key] for key in images]


def drop_unpaired(images, labels):
    """Leaves out what has no partner.

    Args:
      images, labels: as for `pair`.

    Returns:
      Images and labels with the keys that they share, in the order of the images, and FileFaults of
      the others. Without one common key all stay, for `pair` to refuse.
    """
    common = [key for key in images if key in labels]
    if not common:
        return images, labels, []
    faults = [
        unpaired(kind, tree.describe(path))
        for kind, ours, theirs in (
            ("image_without_label", images, labels),
            ("label_without_image", labels, images),
        )
        for key, (tree, path) in ours.items()
        if key not in theirs
    ]
    return {key: images[key] for key in common}, {key: labels[key] for key in common}, faults


def listed(paths) -> str:
    """Names the first of some paths."""
    paths = sorted(paths)
    return ", ".join(paths[:_LISTED]) + (", ..." if len(paths) > _LISTED else "")
