"""Where a model loses: IoU by distance to a boundary, and by the size of the object.

Both divide the counted pixels into bins by what the truth is at and around them, and keep one
confusion matrix a bin, so that the bins of a division add up to the matrix of the whole evaluation.

Shapes: Y, X are the height and width of one map in pixels; K classes; n bins.
"""

from __future__ import annotations

import numpy as np

from sp_transformer.evaluation import boundaries, metrics, regions

# Upper bounds of the bins; the last bin is open.
DISTANCE_BOUNDS = (1, 2, 4, 8, 16, 32)
# Squares of 8, 16, ... 256 pixels a side.
SIZE_BOUNDS = (64, 256, 1024, 4096, 16384, 65536)


class BinnedConfusion:
    """A confusion matrix for each of several bins that pixels fall into by a number.

    Attributes:
      bounds: n - 1 growing numbers; bin i holds the pixels above bounds[i - 1] and up to bounds[i].
      matrices: n ConfusionMatrices.
    """

    def __init__(self, num_classes: int, ignore_label: int, bounds):
        """Starts with no pixels; `bounds` may be empty."""
        self.bounds = tuple(int(bound) for bound in bounds)
        self.matrices = [
            metrics.ConfusionMatrix(num_classes, ignore_label) for _ in range(len(self.bounds) + 1)
        ]

    def update(self, label, prediction, values) -> None:
        """Adds the pixels of maps [Y, X]; `values`, integer [Y, X], say which bin each falls into."""
        # A table, for searching a million values costs more than all the rest. Nothing is larger than
        # the number of pixels but boundaries.FAR, which belongs to the open bin.
        beyond = min(max(self.bounds, default=0), values.size) + 1
        table = np.searchsorted(self.bounds, np.arange(beyond + 1))
        table[beyond] = len(self.bounds)
        bins = table[np.minimum(values, beyond)]
        for index, matrix in enumerate(self.matrices):
            inside = bins == index
            matrix.update(label[inside], prediction[inside])

    def arrays(self) -> list[np.ndarray]:
        """The counts, for summing over workers in place."""
        return [array for m in self.matrices for array in (m.counts, m.unclassified)]

    def results(self, names, smallest=0) -> list[dict]:
        """The scores of each bin, as metrics.json holds them.

        Args:
          names: class names.
          smallest: the smallest number that occurs, for the first bin's description.

        Returns:
          Dicts of from and to (the smallest and the largest value, to null in the open bin), pixels,
          miou, pixel_accuracy, per_class_iou and per_class_accuracy {name: fraction or None}.
        """
        lower = [smallest, *(bound + 1 for bound in self.bounds)]
        upper = [*self.bounds, None]
        return [
            {
                "from": low,
                "to": high,
                "pixels": matrix.num_pixels,
                "miou": matrix.mean_iou(),
                "pixel_accuracy": matrix.pixel_accuracy(),
                "per_class_iou": dict(zip(names, matrix.per_class_iou(), strict=True)),
                "per_class_accuracy": dict(zip(names, matrix.per_class_accuracy(), strict=True)),
            }
            for low, high, matrix in zip(lower, upper, self.matrices, strict=True)
        ]


class FailureAnalysis:
    """IoU by distance to the nearest boundary of the truth and by the size of the true object.

    Distance: from a pixel to the nearest pixel that has a neighbour (of 8) of another class, 0 on
    such a pixel itself, Chebyshev's. Ignored pixels make no boundary: what lies beside an area that
    nobody labelled is not near a boundary of classes.

    Size: the pixels of the connected part (by the 4 neighbours) of a class that the pixel belongs
    to. An object that another one cuts in two counts as two.

    In both, the IoU of a class in a bin is that of the bin's pixels alone: a false positive counts
    in the bin of the pixel where it stands, whatever was predicted around it.
    """

    def __init__(self, num_classes: int, ignore_label: int, distance_bounds=(), size_bounds=()):
        """Starts with no pixels; empty bounds stand for DISTANCE_BOUNDS and SIZE_BOUNDS.

        Args:
          num_classes: K.
          ignore_label: value outside [0, K).
          distance_bounds: growing distances in pixels, from 0.
          size_bounds: growing numbers of pixels, from 1.
        """
        self._ignore_label = ignore_label
        self.by_distance = BinnedConfusion(
            num_classes, ignore_label, distance_bounds or DISTANCE_BOUNDS
        )
        self.by_size = BinnedConfusion(num_classes, ignore_label, size_bounds or SIZE_BOUNDS)

    def update(self, label: np.ndarray, prediction: np.ndarray) -> None:
        """Adds one image: integers [Y, X], both, as ConfusionMatrix.update takes them."""
        distance = boundaries.distance_to(boundaries.edges(label, self._ignore_label))
        self.by_distance.update(label, prediction, distance)
        self.by_size.update(label, prediction, object_sizes(label))

    def arrays(self) -> list[np.ndarray]:
        """The counts, for summing over workers in place."""
        return self.by_distance.arrays() + self.by_size.arrays()

    def results(self, names) -> dict:
        """{"by_distance": bins, "by_object_size": bins}; see BinnedConfusion.results."""
        return {
            "by_distance": self.by_distance.results(names),
            "by_object_size": self.by_size.results(names, smallest=1),
        }


def object_sizes(label: np.ndarray) -> np.ndarray:
    """The number of pixels of the connected part that each pixel belongs to: int64 [Y, X]."""
    parts, _ = regions.connected_components(label)
    return np.bincount(parts.ravel())[parts]


def format_results(results: dict) -> str:
    """Two tables for people, of what `FailureAnalysis.results` gives."""
    lines = []
    for key, title, unit in (
        ("by_distance", "distance to a boundary", "px"),
        ("by_object_size", "size of the object", "px"),
    ):
        bins = [entry for entry in results[key] if entry["pixels"]]
        total = sum(entry["pixels"] for entry in bins)
        spans = [span(entry, unit) for entry in bins]
        width = max([len(title), *map(len, spans)])
        lines.append(f"{title:<{width}}  {'mIoU %':>6}  {'accuracy %':>10}  {'pixels %':>8}")
        lines += [
            f"{span:<{width}}  {100 * entry['miou']:>6.2f}  {100 * entry['pixel_accuracy']:>10.2f}"
            f"  {100 * entry['pixels'] / total:>8.2f}"
            for span, entry in zip(spans, bins, strict=True)
        ]
    return "\n".join(lines)


def span(entry: dict, unit: str) -> str:
    """The range of a bin in words."""
    if entry["to"] is None:
        return f"{entry['from']} {unit} and more"
    if entry["from"] == entry["to"]:
        return f"{entry['to']} {unit}"
    return f"{entry['from']} to {entry['to']} {unit}"
