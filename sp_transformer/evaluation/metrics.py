"""Scores of a semantic segmentation, all from one confusion matrix.

The rules are those of Cityscapes' evalPixelLevelSemanticLabeling.py, which other benchmarks share:
the counts of all images are summed before any division; pixels whose truth is the ignore label
count neither as a hit nor as a false positive of what was predicted there; a pixel of a class that
is predicted as the ignore label is a miss of its class and a false positive of none.
"""

from __future__ import annotations

import numpy as np


class ConfusionMatrix:
    """Counts of (truth, prediction) over all pixels whose truth is a class.

    Attributes:
      counts: int64 [K, K]; counts[t, p] pixels of true class t were predicted as class p. Integers,
        because float32 sums stop growing at 2^24 pixels, eight images of Cityscapes.
      unclassified: int64 [K]; pixels of true class t whose prediction is the ignore label. A model
        predicts none; predictions that were stored by others may.
      ignore_label: the label value that is left out.
    """

    def __init__(self, num_classes: int, ignore_label: int):
        """Starts with no pixels.

        Args:
          num_classes: K, at least 1.
          ignore_label: a value outside [0, K).

        Raises:
          ValueError: for fewer than one class, or an ignore label that is a class.
        """
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; at least 1 class is needed")
        if 0 <= ignore_label < num_classes:
            raise ValueError(
                f"ignore_label {ignore_label} is one of the {num_classes} classes, whose pixels "
                f"would be left out silently; use a value outside 0..{num_classes - 1}, such as 255"
            )
        self.ignore_label = ignore_label
        self.counts = np.zeros((num_classes, num_classes), np.int64)
        self.unclassified = np.zeros(num_classes, np.int64)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.counts.shape[0]

    @property
    def class_pixels(self) -> np.ndarray:
        """int64 [K], pixels of each class in the truth."""
        return self.counts.sum(1) + self.unclassified

    @property
    def num_pixels(self) -> int:
        """Number of pixels counted, those with the ignore label left out."""
        return int(self.class_pixels.sum())

    def update(self, labels: np.ndarray, predictions: np.ndarray) -> ConfusionMatrix:
        """Adds pixels; nothing is added if any of them is faulty.

        Args:
          labels: integers of any shape, each in [0, K) or the ignore label.
          predictions: integers of the same shape, each in [0, K) or the ignore label, also where
            the label is ignored.

        Returns:
          What was added, as a matrix of its own.

        Raises:
          ValueError: for other shapes, other dtypes, or a value that is neither.
        """
        labels, predictions = np.asarray(labels), np.asarray(predictions)
        check_maps(labels, predictions, self.num_classes, self.ignore_label)
        added = ConfusionMatrix(self.num_classes, self.ignore_label)
        counts = cell_counts(labels, predictions, self.num_classes, self.ignore_label)
        added.counts, added.unclassified = counts[:, :-1], counts[:, -1]
        self.add(added)
        return added

    def add(self, other: ConfusionMatrix) -> None:
        """Adds the counts of another matrix of the same classes."""
        self.counts += other.counts
        self.unclassified += other.unclassified

    def per_class_iou(self) -> list[float | None]:
        """Intersection over union of each class: TP / (TP + FP + FN), None where that is 0 / 0."""
        hits = np.diag(self.counts)
        return ratios(hits, self.counts.sum(0) + self.class_pixels - hits)

    def mean_iou(self) -> float | None:
        """Mean IoU over the classes that occur in the truth or in the predictions.

        Cityscapes' rule: a class with TP + FP + FN = 0 has no IoU and is left out of the mean,
        since any value for it would reward or punish a model for pixels that do not exist. A class
        that is only predicted (FP > 0) counts with IoU 0. None if no pixel was counted.
        """
        return mean(self.per_class_iou())

    def frequency_weighted_iou(self) -> float | None:
        """Mean IoU weighted by the classes' shares of the counted pixels (Long et al., FCN, 2015).

        None if no pixel was counted.
        """
        pixels, total = self.class_pixels, self.num_pixels
        if not total:
            return None
        return (
            sum(
                int(count) * iou
                for count, iou in zip(pixels, self.per_class_iou(), strict=True)
                if iou is not None
            )
            / total
        )

    def per_class_accuracy(self) -> list[float | None]:
        """Recall of each class: TP / (TP + FN), None for a class without a pixel in the truth."""
        return ratios(np.diag(self.counts), self.class_pixels)

    def mean_accuracy(self) -> float | None:
        """Mean recall over the classes that occur in the truth; None if no pixel was counted."""
        return mean(self.per_class_accuracy())

    def pixel_accuracy(self) -> float | None:
        """Share of the counted pixels that are right; None if no pixel was counted."""
        return ratios([np.trace(self.counts)], [self.num_pixels])[0]

    def class_shares(self) -> list[float | None]:
        """Share of the counted pixels that belong to each class in the truth."""
        totals = self.class_pixels
        return ratios(totals, np.full_like(totals, totals.sum()))

    def grouped(self, groups: list[int], num_groups: int) -> ConfusionMatrix:
        """The matrix of coarser classes, as for Cityscapes' categories.

        Confusion within a group is no error there: the counts of the group's classes are summed
        before any division, as the official script does it.

        Args:
          groups: the group, 0 to num_groups - 1, of each of the K classes.
          num_groups: number of groups.
        """
        member = np.zeros((self.num_classes, num_groups), np.int64)
        member[np.arange(self.num_classes), groups] = 1
        ignore_label = self.ignore_label if self.ignore_label >= num_groups else -1
        result = ConfusionMatrix(num_groups, ignore_label)
        result.counts = member.T @ self.counts @ member
        result.unclassified = member.T @ self.unclassified
        return result


def check_maps(labels, predictions, num_classes: int, ignore_label: int) -> None:
    """Raises ValueError unless both are integers of one shape, each a class or the ignore label."""
    if labels.shape != predictions.shape:
        raise ValueError(
            f"labels {list(labels.shape)} and predictions {list(predictions.shape)} differ in "
            "shape; predictions have to be brought to the size of the labels first"
        )
    for name, values in (("label", labels), ("prediction", predictions)):
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{name}s are {values.dtype}; class ids are integers")
        if values.size == 0:
            continue
        extremes = (int(values.min()), int(values.max()))
        if extremes[0] >= 0 and extremes[1] < num_classes:
            continue
        kept = values[values != ignore_label]
        for value in (int(kept.min()), int(kept.max())) if kept.size else ():
            if not 0 <= value < num_classes:
                raise ValueError(
                    f"{name} {value} is not one of the {num_classes} classes "
                    f"0..{num_classes - 1} nor the ignore label {ignore_label}"
                )


def cell_counts(labels, predictions, num_classes: int, ignore_label: int) -> np.ndarray:
    """Counts pairs of (truth, prediction) where the truth is a class; for maps that were checked.

    Returns:
      int64 [K, K + 1]; the last column holds the pixels that are predicted as the ignore label.
    """
    kept = labels != ignore_label
    truth, predicted = labels[kept], predictions[kept]
    # int64 before the product: uint8 ids would wrap around.
    predicted = predicted.astype(np.int64)
    predicted[predicted == ignore_label] = num_classes
    cells = truth.astype(np.int64) * (num_classes + 1) + predicted
    shape = (num_classes, num_classes + 1)
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)


def ratios(numerators, denominators) -> list[float | None]:
    """Python floats, with None for 0 / 0, which JSON can hold (it has no NaN)."""
    return [
        int(numerator) / int(denominator) if denominator else None
        for numerator, denominator in zip(numerators, denominators, strict=True)
    ]


def mean(values) -> float | None:
    """Mean of the values that are not None; None if there is no other."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
