"""Scores of a semantic segmentation, all from one confusion matrix.

The rules are those of Cityscapes' evalPixelLevelSemanticLabeling.py, which other benchmarks share:
the counts of all images are summed before any division; pixels whose truth is the ignore label
count neither as a hit nor as a false positive of what was predicted there.
"""

import numpy as np


class ConfusionMatrix:
    """Counts of (truth, prediction) over all pixels whose truth is a class.

    Attributes:
      counts: int64 [K, K]; counts[t, p] pixels of true class t were predicted as class p. Integers,
        because float32 sums stop growing at 2^24 pixels, eight images of Cityscapes.
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

    @property
    def num_classes(self) -> int:
        """K."""
        return self.counts.shape[0]

    @property
    def num_pixels(self) -> int:
        """Number of pixels counted, those with the ignore label left out."""
        return int(self.counts.sum())

    def update(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Adds pixels; nothing is added if any of them is faulty.

        Args:
          labels: integers of any shape, each in [0, K) or the ignore label.
          predictions: integers of the same shape, each in [0, K), also where the label is ignored.

        Raises:
          ValueError: for other shapes, other dtypes, or a value that is neither.
        """
        labels, predictions = np.asarray(labels), np.asarray(predictions)
        if labels.shape != predictions.shape:
            raise ValueError(
                f"labels {list(labels.shape)} and predictions {list(predictions.shape)} differ in "
                "shape; predictions have to be brought to the size of the labels first"
            )
        for name, values in (("labels", labels), ("predictions", predictions)):
            if not np.issubdtype(values.dtype, np.integer):
                raise ValueError(f"{name} are {values.dtype}; class ids are integers")
        self._check_range("prediction", predictions.ravel(), "")
        kept = labels != self.ignore_label
        truth = labels[kept]
        self._check_range("label", truth, f" nor the ignore label {self.ignore_label}")
        # int64 before the product: uint8 ids would wrap around.
        cells = truth.astype(np.int64) * self.num_classes + predictions[kept].astype(np.int64)
        size = self.num_classes**2
        self.counts += np.bincount(cells, minlength=size).reshape(self.counts.shape)

    def _check_range(self, name: str, values: np.ndarray, or_what: str) -> None:
        if values.size == 0:
            return
        for value in (int(values.min()), int(values.max())):
            if not 0 <= value < self.num_classes:
                raise ValueError(
                    f"{name} {value} is not one of the {self.num_classes} classes "
                    f"0..{self.num_classes - 1}{or_what}"
                )

    def per_class_iou(self) -> list[float | None]:
        """Intersection over union of each class: TP / (TP + FP + FN), None where that is 0 / 0."""
        hits = np.diag(self.counts)
        unions = self.counts.sum(0) + self.counts.sum(1) - hits
        return _ratios(hits, unions)

    def mean_iou(self) -> float | None:
        """Mean IoU over the classes that occur in the truth or in the predictions.

        Cityscapes' rule: a class with TP + FP + FN = 0 has no IoU and is left out of the mean,
        since any value for it would reward or punish a model for pixels that do not exist. A class
        that is only predicted (FP > 0) counts with IoU 0. None if no pixel was counted.
        """
        return _mean(self.per_class_iou())

    def per_class_accuracy(self) -> list[float | None]:
        """Recall of each class: TP / (TP + FN), None for a class without a pixel in the truth."""
        return _ratios(np.diag(self.counts), self.counts.sum(1))

    def mean_accuracy(self) -> float | None:
        """Mean recall over the classes that occur in the truth; None if no pixel was counted."""
        return _mean(self.per_class_accuracy())

    def pixel_accuracy(self) -> float | None:
        """Share of the counted pixels that are right; None if no pixel was counted."""
        return _ratios(np.trace(self.counts)[None], self.counts.sum()[None])[0]

    def class_shares(self) -> list[float | None]:
        """Share of the counted pixels that belong to each class in the truth."""
        totals = self.counts.sum(1)
        return _ratios(totals, np.full_like(totals, totals.sum()))


def _ratios(numerators: np.ndarray, denominators: np.ndarray) -> list[float | None]:
    """Python floats, with None for 0 / 0, which JSON can hold (it has no NaN)."""
    return [
        int(numerator) / int(denominator) if denominator else None
        for numerator, denominator in zip(numerators, denominators, strict=True)
    ]


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
