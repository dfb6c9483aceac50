"""The images of a report: the worst, the best, and a small one of many, each within a number of bytes.

Shapes: Y, X are the height and width of one image in pixels.
"""

from __future__ import annotations

import base64
import dataclasses
import heapq
import io

import numpy as np
from PIL import Image

from sp_transformer.data import drawing
from sp_transformer.pictures import panels

MAX_SIDE = 720  # Of a large picture, in pixels: two columns on a wide screen.
LARGE_BYTES = 100_000
SMALL_BYTES = 12_000
# Titles of views with outlines.
SUPERPIXELS, SLIC = "Superpixels", "SLIC, as many"
_SMALL_SIDE = 200
_QUALITIES = (82, 65, 45)


@dataclasses.dataclass
class Shown:
    """An image of the report.

    Attributes:
      name: in its source.
      miou, pixel_accuracy: of this image alone.
      lowest: (class name, IoU) of the classes with the lowest IoU in this image, lowest first.
      size: (height, width) of its pictures.
      views: {title: data URI}, the truth last.
    """

    name: str
    miou: float
    pixel_accuracy: float
    lowest: list[tuple[str, float]]
    size: tuple[int, int]
    views: dict[str, str]


@dataclasses.dataclass
class Small:
    """A small picture: name, mIoU, and its data URI."""

    name: str
    miou: float
    picture: str


class ReportPictures:
    """Takes every image of a split and keeps few: reduced arrays of the worst and best, encoded small ones."""

    def __init__(self, label_map, expected: int, options):
        """Starts with no image.

        Args:
          label_map: a LabelMap.
          expected: images that will come.
          options: ReportOptions.
        """
        self._label_map = label_map
        self._count = options.examples
        self._small_at = set(drawing.evenly_spaced(expected, options.thumbnails))
        self._seen = self._counted = 0
        self._worst, self._best = [], []
        self._small = []

    def add(self, name, image, label, prediction, outlined, confusion) -> None:
        """Takes an image.

        Args:
          name: in its source.
          image: uint8 [Y, X, 3].
          label: integer [Y, X] train ids.
          prediction: integer [Y, X] train ids.
          outlined: {title of a view: superpixels, integer [Y, X], or None where there are none}.
          confusion: the ConfusionMatrix of this image.
        """
        place = self._seen
        self._seen += 1
        miou = confusion.mean_iou()
        if miou is None:
            # Nothing of it counts, so it is neither good nor bad.
            return
        self._counted += 1
        if place in self._small_at:
            overlay = panels.segmentation_overlay(image, prediction, self._label_map, 0.55)
            small = _reduced(overlay, _SMALL_SIDE)
            self._small.append(Small(name, miou, encoded(small, SMALL_BYTES)))
        # Of equals the first are the worst and the last the best, so that both lists differ.
        kept = None
        for heap, key in ((self._worst, (-miou, -place)), (self._best, (miou, place))):
            if len(heap) < self._count or (heap and key > heap[0][0]):
                kept = kept or _Kept(
                    self._label_map, name, image, label, prediction, outlined, confusion
                )
                heapq.heappush(heap, (key, kept))
                if len(heap) > self._count:
                    heapq.heappop(heap)

    def worst(self) -> list[Shown]:
        """The images of the lowest mIoU, lowest first; at most half of all, the middle one included."""
        return [kept.shown() for kept in self._worst_half()]

    def best(self) -> list[Shown]:
        """The images of the highest mIoU, highest first, without those of `worst`."""
        taken = self._worst_half()
        return [kept.shown() for kept in _in_order(self._best) if kept not in taken]

    def _worst_half(self):
        return _in_order(self._worst)[: -(-self._counted // 2)]

    def small(self) -> list[Small]:
        """The small pictures, by mIoU from the lowest."""
        return sorted(self._small, key=lambda small: small.miou)


def _in_order(heap):
    """What is kept, from the most extreme to the least."""
    return [kept for _, kept in sorted(heap, key=lambda entry: entry[0], reverse=True)]


class _Kept:
    """What is needed to draw an image later, at the size of the report."""

    def __init__(self, label_map, name, image, label, prediction, outlined, confusion):
        outlined = {title: ids for title, ids in outlined.items() if ids is not None}
        self._outlined = tuple(outlined)
        maps = [label, prediction, *outlined.values()]
        self._image, maps = panels.fitted(image, maps, MAX_SIDE)
        # Own copies: a view would keep its whole batch.
        self._maps = [np.array(values, np.int32) for values in maps]
        self._label_map, self._name = label_map, name
        self._scores = confusion.mean_iou(), confusion.pixel_accuracy()
        ious = zip(label_map.names, confusion.per_class_iou(), strict=True)
        present = [(class_name, iou) for class_name, iou in ious if iou is not None]
        self._lowest = sorted(present, key=lambda pair: pair[1])[:3]

    def shown(self) -> Shown:
        image, label_map = self._image, self._label_map
        label, prediction, *superpixels = self._maps
        views = {"Prediction": encoded_map(drawing.colorize(prediction, label_map), LARGE_BYTES)}
        for title, ids in zip(self._outlined, superpixels, strict=True):
            views[title] = encoded(drawing.draw_boundaries(image, ids), LARGE_BYTES)
        errors = panels.error_map(label, prediction, label_map.ignore_label, image)
        views["Errors"] = encoded(errors, LARGE_BYTES)
        views["Image"] = encoded(image, LARGE_BYTES)
        views["Ground truth"] = encoded_map(drawing.colorize(label, label_map), LARGE_BYTES)
        return Shown(self._name, *self._scores, self._lowest, image.shape[:2], views)


def encoded(picture: np.ndarray, limit: int) -> str:
    """A photograph, uint8 [Y, X, 3], as a data URI of a JPEG of at most `limit` bytes."""
    return _within(
        picture, limit, [{"format": "JPEG", "quality": quality} for quality in _QUALITIES]
    )


def encoded_map(picture: np.ndarray, limit: int) -> str:
    """A picture of few colours as a data URI of a WebP: exact at its full size if that fits into `limit` bytes."""
    return _within(
        picture, limit, [{"format": "WEBP", "lossless": True, "quality": 60, "method": 3}]
    )


def _within(picture, limit, forms):
    image = Image.fromarray(picture)
    while True:
        for form in forms:
            buffer = io.BytesIO()
            image.save(buffer, **form)
            if buffer.tell() <= limit:
                text = base64.b64encode(buffer.getvalue()).decode()
                return f"data:image/{form['format'].lower()};base64,{text}"
        # Nothing but noise comes here; a browser scales it back.
        image = image.resize([max(1, side // 2) for side in image.size], Image.Resampling.NEAREST)


def _reduced(picture, longer_side):
    image = Image.fromarray(picture)
    image.thumbnail((longer_side, longer_side), Image.Resampling.BOX)
    return np.asarray(image)
