"""What every source of images and labels offers to the input pipeline.

Shapes: Y, X are the height and width of one image in pixels.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from sp_transformer.data.faults import FileFault


class Source(abc.ABC):
    """A finite, ordered collection of images with (or without) labels, read one at a time.

    `read` must be a pure function of the index and safe to call from several threads at once: the
    input pipeline reads examples in parallel and may start in the middle of an epoch.

    Attributes:
      has_labels: whether `read` returns labels. Sources without labels serve prediction only.
      left_out: FileFaults of files that are no part of the source because `data.skip_corrupt` let
        it leave them out.
    """

    has_labels: bool = True
    left_out: Sequence[FileFault] = ()

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of images."""

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """Returns a name, unique in the source; also a relative file name without extension."""

    def names_digest(self) -> str | None:
        """Returns a hash of all names in their order, or None where they cannot be had without reading all examples."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            digest.update(self.name(index).encode() + b"\0")
        return digest.hexdigest()

    @abc.abstractmethod
    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Reads one example.

        Args:
          index: from 0 to len(self) - 1.

        Returns:
          The RGB image, uint8 [Y, X, 3], and its train ids, uint8 or int32 [Y, X], or None where
          `has_labels` is false. Unlabelled pixels hold the label map's ignore label.
        """

    def read_region(self, index: int, choose: Callable[[int, int], tuple[int, int, int, int]]):
        """Reads a part of one example; sources that can do so without decoding the whole override it.

        A function and not numbers, because the size of an image may be known only once its file is open.

        Args:
          index: from 0 to len(self) - 1.
          choose: called once with Y and X; returns first row, first column, height and width of the
            part, which lies inside the image.

        Returns:
          The part of the image, uint8 [height, width, 3], and of its train ids, uint8 or int32
          [height, width], or None where `has_labels` is false; equal to those that `read` returns.
        """
        image, label = self.read(index)
        top, left, height, width = choose(*image.shape[:2])
        rows, columns = slice(top, top + height), slice(left, left + width)
        return image[rows, columns], None if label is None else label[rows, columns]

    def image_file(self, index: int) -> bytes | None:
        """Returns the image's file as it is, or None where there is none of its own.

        Where it is given, `image_io.read_image` of it equals the image that `read` returns.
        """
        return None


class NamedSource(Source):
    """A Source that sets `_names`, the list of its images' names."""

    _names: Sequence[str]

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]
