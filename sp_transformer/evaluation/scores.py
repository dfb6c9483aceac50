"""The scores of one way of predicting, added up image by image, and what metrics.json says of them."""

from __future__ import annotations

import numpy as np

from sp_transformer.evaluation import boundaries, categories, failure_analysis, metrics


class SegmentationScores:
    """Confusion matrix, boundary IoU and failure analysis of the images so far.

    Attributes:
      confusion: the ConfusionMatrix.
    """

    def __init__(self, label_map, options):
        """Starts with no image.

        Args:
          label_map: a LabelMap.
          options: EvaluationOptions, which say what is counted.
        """
        self._names = label_map.names
        classes = (len(label_map.names), label_map.ignore_label)
        self.confusion = metrics.ConfusionMatrix(*classes)
        self._boundary = self._failures = None
        if options.boundary_iou_width > 0:
            self._boundary = boundaries.BoundaryIou(*classes, options.boundary_iou_width)
        if options.failure_analysis.enabled:
            self._failures = failure_analysis.FailureAnalysis(
                *classes,
                options.failure_analysis.distance_bounds,
                options.failure_analysis.size_bounds,
            )

    def update(self, label: np.ndarray, prediction: np.ndarray) -> metrics.ConfusionMatrix:
        """Adds an image: integers [Y, X].

        Returns:
          The confusion matrix of this image alone.

        Raises:
          ValueError: as ConfusionMatrix.update.
        """
        confusion = self.confusion.update(label, prediction)
        for part in (self._boundary, self._failures):
            if part is not None:
                part.update(label, prediction)
        return confusion

    def add_counts(self, label: np.ndarray, counts: np.ndarray) -> metrics.ConfusionMatrix:
        """Adds an image whose pairs of classes were counted elsewhere.

        Args:
          label: integers [Y, X], what was counted.
          counts: integers [K, K], rows are the truth.

        Returns:
          The confusion matrix of this image alone.

        Raises:
          ValueError: as ConfusionMatrix.update.
        """
        added = metrics.ConfusionMatrix(self.confusion.num_classes, self.confusion.ignore_label)
        # A label that is no class has been counted as some other pair.
        metrics.check_maps(label, label, added.num_classes, added.ignore_label)
        added.counts += counts
        self.confusion.add(added)
        return added

    def results(self) -> dict:
        """Fractions from 0 to 1, None for 0 / 0.

        Returns:
          miou, pixel_accuracy, mean_accuracy, frequency_weighted_iou, per_class_iou and
          per_class_accuracy {name: fraction}; boundary_iou {width, mean, per_class} unless it was
          left out; category_miou and per_category_iou for Cityscapes' classes; failure_analysis if
          asked for; num_pixels (counted ones), confusion_matrix (rows: truth, columns: prediction;
          pixels), and unclassified {name: pixels} where predictions leave pixels out.
        """
        confusion = self.confusion
        results = {
            "miou": confusion.mean_iou(),
            "pixel_accuracy": confusion.pixel_accuracy(),
            "mean_accuracy": confusion.mean_accuracy(),
            "frequency_weighted_iou": confusion.frequency_weighted_iou(),
            "per_class_iou": self._by_name(confusion.per_class_iou()),
            "per_class_accuracy": self._by_name(confusion.per_class_accuracy()),
        }
        if self._boundary is not None:
            results["boundary_iou"] = {
                "width": self._boundary.ratio,
                "mean": self._boundary.mean(),
                "per_class": self._by_name(self._boundary.per_class()),
            }
        grouped = categories.category_matrix(self._names, confusion)
        if grouped is not None:
            names, matrix = grouped
            results["category_miou"] = matrix.mean_iou()
            results["per_category_iou"] = dict(zip(names, matrix.per_class_iou(), strict=True))
        if self._failures is not None:
            results["failure_analysis"] = self._failures.results(self._names)
        results["num_pixels"] = confusion.num_pixels
        results["confusion_matrix"] = confusion.counts.tolist()
        if confusion.unclassified.any():
            results["unclassified"] = self._by_name(confusion.unclassified.tolist())
        return results

    def _by_name(self, values) -> dict:
        return dict(zip(self._names, values, strict=True))


def format_table(names, results: dict, num_images: int) -> str:
    """A table for people: class, IoU in percent, share of the counted pixels; below it, means.

    Args:
      names: class names.
      results: of `SegmentationScores.results`.
      num_images: number of images scored.
    """
    pixels = np.array(results["confusion_matrix"]).sum(1)
    pixels += np.array([results.get("unclassified", {}).get(name, 0) for name in names])
    means = {
        "mIoU": results["miou"],
        "pixel accuracy": results["pixel_accuracy"],
        "mean accuracy": results["mean_accuracy"],
        "frequency weighted IoU": results["frequency_weighted_iou"],
    }
    boundary = results.get("boundary_iou", {"per_class": dict.fromkeys(names)})
    if "boundary_iou" in results:
        means["boundary IoU"] = boundary["mean"]
    if "category_miou" in results:
        means["category mIoU"] = results["category_miou"]
    width = max(map(len, [*means, *names]))
    rows = [f"{'class':<{width}}  {'IoU %':>6}  {'boundary IoU %':>14}  {'pixels %':>8}"]
    shares = metrics.ratios(pixels, np.full_like(pixels, pixels.sum()))
    for name, share in zip(names, shares, strict=True):
        iou, at_boundary = results["per_class_iou"][name], boundary["per_class"][name]
        rows.append(
            f"{name:<{width}}  {percent(iou):>6}  {percent(at_boundary):>14}  {percent(share):>8}"
        )
    rows.append("-" * len(rows[0]))
    rows += [f"{name:<{width}}  {percent(value):>6}" for name, value in means.items()]
    rows.append(f"{num_images} images, {results['num_pixels']} pixels counted")
    return "\n".join(rows)


def percent(value) -> str:
    """A fraction in percent, "-" for None."""
    return "-" if value is None else f"{100 * value:.2f}"
