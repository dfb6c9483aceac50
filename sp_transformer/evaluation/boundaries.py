"""Where the regions of a map meet, how far pixels lie from there, and the boundary IoU.

Shapes: Y, X are the height and width of one map in pixels; K classes. Distances are Chebyshev's (of
the larger of both offsets), in pixels, and so whole numbers.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from sp_transformer.evaluation import metrics

# Farther than any pixel of an image; what a map without a boundary is filled with.
FAR = np.int32(2**30)


def edges(ids: np.ndarray, ignore_label: int | None = None) -> np.ndarray:
    """Marks the pixels one of whose 8 neighbours in the map has another id.

    Args:
      ids: integer [Y, X].
      ignore_label: pixels of this id are no edges and make none; None for no such id.

    Returns:
      bool [Y, X], on both sides of a boundary.
    """
    return _differing(ids, ignore_label, ((0, 1), (1, 0), (1, 1), (1, -1)))


def sides(ids: np.ndarray, ignore_label: int | None = None) -> np.ndarray:
    """`edges` by the 4 neighbours that share a side with the pixel."""
    return _differing(ids, ignore_label, ((0, 1), (1, 0)))


def distance_to(marked: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest marked one: int32 [Y, X], FAR if none is marked."""
    if not marked.any():
        return np.full(marked.shape, FAR, np.int32)
    return ndimage.distance_transform_cdt(~marked, metric="chessboard")


def contour_distance(ids: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest pixel of another id, or outside of the map.

    Any square of pixels that holds two ids holds an edge of the pixel's own id or one beside it,
    so that one distance transform serves all ids.

    Returns:
      int32 [Y, X], from 1.
    """
    distance = distance_to(edges(ids)) + 1
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 1 for n in ids.shape)
    return np.minimum(distance, np.minimum(rows[:, None], columns)).astype(np.int32)


def boundary_width(shape, ratio: float) -> int:
    """Pixels of `ratio` times the diagonal of a map [Y, X], rounded, at least 1."""
    return max(1, round(ratio * math.hypot(*shape)))


class BoundaryIou:
    """Boundary IoU: the IoU of each class's inner margins, summed over all images.

    Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021
    (arXiv:2103.16562), Eq. 2, for the regions of a semantic class: of truth G and prediction P of a
    class, only the pixels count that lie in the region at most d pixels inside its own contour; then
    |G_d & P_d| / |G_d | P_d|. d is 2% of the image's diagonal, the image's border is a contour, and
    distances are those of repeated 3x3 erosions, all as in the authors' code. As in `metrics`,
    counts are summed over images before the division and ignored pixels count nowhere; a region's
    contour with an ignored area is one.

    Attributes:
      hits, truth, predicted: int64 [K], pixels of G_d & P_d, G_d and P_d that are not ignored.
    """

    def __init__(self, num_classes: int, ignore_label: int, ratio: float):
        """Starts with no pixels.

        Args:
          num_classes: K.
          ignore_label: value outside [0, K).
          ratio: d as a share of the image's diagonal, above 0.
        """
        self.ratio = ratio
        self._ignore_label = ignore_label
        self.hits, self.truth, self.predicted = np.zeros((3, num_classes), np.int64)

    def update(self, label: np.ndarray, prediction: np.ndarray) -> None:
        """Adds one image: integers [Y, X], both, as ConfusionMatrix.update takes them."""
        width = boundary_width(label.shape, self.ratio)
        counted = label != self._ignore_label
        in_truth = counted & (contour_distance(label) <= width)
        in_prediction = counted & (prediction != self._ignore_label)
        in_prediction &= contour_distance(prediction) <= width
        both = in_truth & in_prediction & (label == prediction)
        for counts, ids in (
            (self.hits, label[both]),
            (self.truth, label[in_truth]),
            (self.predicted, prediction[in_prediction]),
        ):
            counts += np.bincount(ids, minlength=len(counts))

    def arrays(self) -> list[np.ndarray]:
        """The counts, for summing over workers in place."""
        return [self.hits, self.truth, self.predicted]

    def per_class(self) -> list[float | None]:
        """Boundary IoU of each class, None for a class that occurs nowhere."""
        return metrics.ratios(self.hits, self.truth + self.predicted - self.hits)

    def mean(self) -> float | None:
        """Mean over the classes that occur in the truth or in the predictions."""
        return metrics.mean(self.per_class())


def _differing(ids, ignore_label, offsets):
    ids = np.asarray(ids)
    height, width = ids.shape
    found = np.zeros(ids.shape, bool)
    counted = None if ignore_label is None else ids != ignore_label
    for down, right in offsets:
        # The pixels that have such a neighbour, and those neighbours.
        first = (slice(0, height - down), slice(max(0, -right), width - max(0, right)))
        second = (slice(down, height), slice(max(0, right), width - max(0, -right)))
        differs = ids[first] != ids[second]
        if counted is not None:
            differs &= counted[first] & counted[second]
        found[first] |= differs
        found[second] |= differs
    return found
