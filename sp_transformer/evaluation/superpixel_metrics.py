"""How good superpixels are: by the regions of the truth, by its boundaries, by colour and by shape.

The measures and their names are those of Stutz, Hermans, Leibe, "Superpixels: An Evaluation of the
State-of-the-Art", CVIU 2018 (arXiv:1612.01601), which collects them; each function names its origin.

Where nobody labelled, no truth can be hit or missed: the measures that ask for the truth (achievable
segmentation accuracy, undersegmentation error, boundary recall and precision) count as if ignored
pixels were not there, in superpixels and in classes alike. Those that ask for image and shape alone
(explained variation, compactness, counts) take all pixels.

The regions of the truth are its classes: two cars are one region, as for a semantic segmentation.

Shapes: Y, X are the height and width of one image in pixels; S superpixels; K classes.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse

from sp_transformer.evaluation import boundaries, metrics, regions

# Boundary tolerance as a share of the image's diagonal: Stutz et al., section 5.1.
DEFAULT_TOLERANCE = 0.0025
# What `measure` returns, in the order of tables.
MEASURES = (
    "superpixels",
    "components",
    "achievable_accuracy",
    "undersegmentation_error",
    "boundary_recall",
    "boundary_precision",
    "explained_variation",
    "compactness",
)


class SuperpixelTruth:
    """One image with its truth, against which any number of superpixel maps are measured."""

    def __init__(self, image, label, num_classes, ignore_label, tolerance=DEFAULT_TOLERANCE):
        """Prepares what all maps share.

        Args:
          image: uint8 [Y, X, 3].
          label: integer [Y, X], classes 0 to num_classes - 1 or the ignore label.
          num_classes: K.
          ignore_label: value outside [0, K).
          tolerance: r of boundary recall and precision as a share of the image's diagonal; rounded
            to whole pixels.

        Raises:
          ValueError: if image and label differ in size.
        """
        label = np.asarray(label)
        if image.shape[:2] != label.shape:
            raise ValueError(
                f"image {list(image.shape)} and label {list(label.shape)} differ in size; both "
                "must have one height and width"
            )
        self.tolerance = round(tolerance * math.hypot(*label.shape))
        self._image, self._label, self._num_classes = image, label, num_classes
        self._counted = label != ignore_label
        self._edges = boundaries.sides(label, ignore_label)
        self._edge_distance = boundaries.distance_to(self._edges)
        pixels = image.reshape(-1, image.shape[-1]).astype(np.int64)
        self._sums, squares = pixels.sum(0), (pixels**2).sum()
        # Integers all the way: the total squared deviation times the number of pixels.
        self._deviation = len(pixels) * int(squares) - int((self._sums**2).sum())

    def measure(self, ids) -> tuple[dict, np.ndarray]:
        """All measures of one map.

        Args:
          ids: integer [Y, X], not negative; a superpixel is all pixels of one id, connected or not.

        Returns:
          {name of MEASURES: value}, a fraction, a count, or None where it is 0 / 0; and the
          confusion, int64 [K, K], of the labelling that is best for these superpixels (rows: truth).

        Raises:
          ValueError: for another size, another dtype or a negative id.
        """
        return self._measure(ids, regions.connected_components(_checked(ids, self._label.shape)))

    def measure_with_components(self, ids) -> tuple[tuple, tuple]:
        """`measure` of the map, and of its connected components taken as superpixels themselves."""
        parts = regions.connected_components(_checked(ids, self._label.shape))
        return self._measure(ids, parts), self._measure(parts[0], parts)

    def _measure(self, ids, parts):
        numbers, count = regions.consecutive(ids)
        overlaps = self._overlaps(numbers, count)
        recall, precision = self._boundary_scores(numbers)
        total = int(overlaps.sum())
        values = {
            "superpixels": count,
            "components": parts[1],
            "achievable_accuracy": metrics.ratios([_largest(overlaps).sum()], [total])[0],
            "undersegmentation_error": metrics.ratios([_leaks(overlaps)], [total])[0],
            "boundary_recall": recall,
            "boundary_precision": precision,
            "explained_variation": self._explained_variation(numbers, count),
            "compactness": compactness(numbers, count),
        }
        return values, self._achievable_confusion(overlaps)

    def _overlaps(self, numbers, count) -> sparse.csr_array:
        """int64 [S, K], pixels of each superpixel and class."""
        rows, columns = numbers[self._counted], self._label[self._counted]
        shape = (count, self._num_classes)
        if count * self._num_classes <= 4 * numbers.size:
            cells = rows * self._num_classes + columns
            table = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
            return sparse.csr_array(table)
        # Of very many superpixels and classes a table would be mostly zeros.
        ones = np.ones(len(rows), np.int64)
        return sparse.coo_array((ones, (rows, columns)), shape=shape).tocsr()

    def _boundary_scores(self, numbers):
        """Boundary recall and precision at the tolerance r.

        Martin, Fowlkes, Malik, "Learning to Detect Natural Image Boundaries", PAMI 2004, with the
        tolerance of Stutz et al.: recall is the share of the truth's boundary pixels that have a
        boundary pixel of the superpixels within r (in a square of 2r + 1 pixels a side), precision
        that of the superpixels' boundary pixels that have one of the truth. A boundary pixel has a
        neighbour of 4 with another id. (Stutz et al.'s code counts as hits of its precision the
        truth's pixels instead.)
        """
        edges = boundaries.sides(numbers)
        found = self._edges & (boundaries.distance_to(edges) <= self.tolerance)
        edges &= self._counted
        right = edges & (self._edge_distance <= self.tolerance)
        return metrics.ratios([found.sum(), right.sum()], [self._edges.sum(), edges.sum()])

    def _explained_variation(self, numbers, count):
        """Share of the colours' squared deviation that the superpixels' means keep.

        Moore et al., "Superpixel Lattices", CVPR 2008, on RGB values, summed over the channels.
        """
        if not self._deviation:
            return None
        flat, pixels = numbers.ravel(), numbers.size
        sizes = np.bincount(flat, minlength=count)
        between = 0.0
        for channel, total in enumerate(self._sums):
            sums = np.bincount(flat, self._image[..., channel].ravel(), minlength=count)
            between += float((sizes * (sums / sizes - int(total) / pixels) ** 2).sum())
        return between * pixels / self._deviation

    def _achievable_confusion(self, overlaps):
        """int64 [K, K]: every superpixel labelled with its most frequent class, the first of equals."""
        entries = overlaps.tocoo()
        rows, columns = entries.coords
        best = entries.data == _largest(overlaps)[rows]
        # Reversed, so that of several assignments to one superpixel the first class stays.
        winners = np.zeros(overlaps.shape[0], np.int64)
        winners[rows[best][::-1]] = columns[best][::-1]
        cells = columns.astype(np.int64) * self._num_classes + winners[rows]
        confusion = np.zeros(self._num_classes**2, np.int64)
        np.add.at(confusion, cells, entries.data)
        return confusion.reshape(self._num_classes, self._num_classes)


def _largest(overlaps):
    """Achievable segmentation accuracy's numerator: pixels of each superpixel's largest class.

    Liu et al., "Entropy Rate Superpixel Segmentation", CVPR 2011.
    """
    return overlaps.max(axis=1).toarray().ravel()


def _leaks(overlaps) -> int:
    """Undersegmentation error's numerator: the smaller of what lies inside and outside of a region.

    Neubert, Protzel, "Superpixel Benchmark and Comparison", Forum Bildverarbeitung 2012: the sum over
    regions and the superpixels that touch them of min(|S & G|, |S - G|).
    """
    sizes = np.asarray(overlaps.sum(axis=1)).ravel()
    inside = overlaps.tocoo()
    return int(np.minimum(inside.data, sizes[inside.coords[0]] - inside.data).sum())


def compactness(numbers: np.ndarray, count: int) -> float:
    """Mean of 4 pi area / perimeter^2 over superpixels, weighted by their areas; pi/4 for squares.

    Schick, Fischer, Stiefelhagen, "Measuring and Evaluating the Compactness of Superpixels", ICPR
    2012. The perimeter of a superpixel is the number of sides that its pixels share with another one
    or with the image's border.

    Args:
      numbers: integer [Y, X], 0 to count - 1.
      count: number of superpixels.
    """
    across, down = numbers[:, 1:] != numbers[:, :-1], numbers[1:] != numbers[:-1]
    sides = (
        numbers[:, 1:][across],
        numbers[:, :-1][across],
        numbers[1:][down],
        numbers[:-1][down],
        numbers[0],
        numbers[-1],
        numbers[:, 0],
        numbers[:, -1],
    )
    perimeters = np.bincount(np.concatenate(sides), minlength=count)
    areas = np.bincount(numbers.ravel(), minlength=count)
    return float((4 * math.pi * areas**2 / perimeters**2).sum() / numbers.size)


def _checked(ids, shape):
    ids = np.asarray(ids)
    if ids.shape != shape:
        raise ValueError(
            f"superpixel ids {list(ids.shape)} do not fit a label {list(shape)}; both must have one "
            "height and width"
        )
    if not np.issubdtype(ids.dtype, np.integer) or (ids.size and ids.min() < 0):
        what = f"{ids.dtype}" if not np.issubdtype(ids.dtype, np.integer) else f"{ids.min()}"
        raise ValueError(f"superpixel ids hold {what}; they are integers from 0 on")
    return ids
