"""A model's superpixels, their connected components, a grid's cells and SLIC's superpixels, on the same images.

Shapes: Y, X are the height and width of one image in pixels; K classes.
"""

from __future__ import annotations

import importlib.util
import math

import numpy as np

from sp_transformer.evaluation import metrics, superpixel_metrics

SLIC_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
MODEL, COMPONENTS, GRID, SLIC = "model", "model, connected components", "grid", "SLIC"
# Of the measures that are fractions: which way is better.
HIGHER_IS_BETTER = {
    "achievable_accuracy": True,
    "achievable_miou": True,
    "undersegmentation_error": False,
    "boundary_recall": True,
    "boundary_precision": True,
    "explained_variation": True,
    "compactness": True,
}
_SLIC_TRIES, _SLIC_TOLERANCE = 3, 0.05
HEADINGS = {
    "superpixels": "count",
    "components": "connected",
    "achievable_accuracy": "ASA %",
    "achievable_miou": "mIoU %",
    "undersegmentation_error": "UE %",
    "boundary_recall": "BR %",
    "boundary_precision": "BP %",
    "explained_variation": "EV %",
    "compactness": "CO %",
}


def slic_factors(options) -> tuple[float, ...]:
    """The multiples of the model's count that SLIC is run with; () for none.

    Args:
      options: SuperpixelEvaluationOptions.
    """
    factors = tuple(options.slic_factors) or SLIC_FACTORS
    return () if factors == (0.0,) else factors


def check_installed(options) -> None:
    """Raises ValueError if SLIC is asked for and scikit-image is not there; imports nothing."""
    if slic_factors(options) and importlib.util.find_spec("skimage") is None:
        raise ValueError(
            "evaluation.superpixels compares with SLIC, which needs scikit-image; install it (pip "
            "install 'sp-transformer[superpixels]'), or set evaluation { superpixels { "
            "slic_factors: 0 } } for the model alone"
        )


class SuperpixelScores:
    """Measures of several kinds of superpixels, averaged over images."""

    def __init__(self, label_map, options):
        """Starts with no image.

        Args:
          label_map: a LabelMap.
          options: SuperpixelEvaluationOptions.

        Raises:
          ValueError: if scikit-image is needed and not installed.
        """
        check_installed(options)
        self._num_classes, self._ignore_label = label_map.num_classes, label_map.ignore_label
        self._options = options
        kinds = [(MODEL, None), (COMPONENTS, None), (GRID, 1.0)]
        kinds += [(SLIC, factor) for factor in slic_factors(options)]
        self._kinds = [_Kind(*kind, self._num_classes, self._ignore_label) for kind in kinds]
        self._per_image = []

    def update(self, name: str, image, label, ids) -> np.ndarray | None:
        """Adds an image.

        Args:
          name: of the image.
          image: uint8 [Y, X, 3].
          label: integer [Y, X], train ids.
          ids: int32 [Y, X], the model's superpixels.

        Returns:
          SLIC's superpixels of the model's count, integer [Y, X], if that is one of the counts compared.
        """
        truth = superpixel_metrics.SuperpixelTruth(
            image, label, self._num_classes, self._ignore_label, self._options.boundary_tolerance
        )
        measured = list(truth.measure_with_components(ids))
        count = measured[0][0]["superpixels"]
        of_equal_count = None
        for kind in self._kinds[len(measured) :]:
            wanted = max(1, round(kind.factor * count))
            if kind.kind == GRID:
                compared = grid(label.shape, wanted)
            else:
                compared = slic(image, wanted, self._options)
                if kind.factor == 1:
                    of_equal_count = compared
            measured.append(truth.measure(compared))
        for kind, (values, confusion) in zip(self._kinds, measured, strict=True):
            kind.add(values, confusion)
        self._per_image.append({"name": name, **measured[0][0]})
        return of_equal_count

    def results(self) -> dict:
        """What superpixels.json holds.

        Returns:
          boundary_tolerance and slic_compactness; kinds, a list of dicts of kind, factor (of the
          model's count; None for the model's own), images, achievable_miou (IoU of the labelling
          that gives every superpixel its most frequent class, over all images) and the means over
          images of the measures (None for an image is left out); curves {measure: {kind: [[count,
          value], ...]}}, by count; and per_image, the model's measures of each image.
        """
        kinds = [kind.results() for kind in self._kinds]
        return {
            "boundary_tolerance": self._options.boundary_tolerance,
            "slic_compactness": self._options.slic_compactness,
            "kinds": kinds,
            "curves": {measure: _curves(kinds, measure) for measure in HIGHER_IS_BETTER},
            "per_image": self._per_image,
        }


class _Kind:
    """The sums of one kind of superpixels."""

    def __init__(self, kind, factor, num_classes, ignore_label):
        self.kind, self.factor = kind, factor
        self._values = {measure: [] for measure in superpixel_metrics.MEASURES}
        self._confusion = metrics.ConfusionMatrix(num_classes, ignore_label)

    def add(self, values, confusion):
        for measure, value in values.items():
            self._values[measure].append(value)
        self._confusion.counts += confusion

    def results(self):
        return {
            "kind": self.kind,
            "factor": self.factor,
            "images": len(self._values["superpixels"]),
            "achievable_miou": self._confusion.mean_iou(),
            **{measure: metrics.mean(values) for measure, values in self._values.items()},
        }


def grid(shape, count: int) -> np.ndarray:
    """About `count` equal rectangles, as near to squares as that allows: what superpixels are without the image.

    Args:
      shape: (Y, X).
      count: number of cells wanted, at least 1.

    Returns:
      int64 [Y, X], row * columns + column of the cell.
    """
    height, width = shape
    rows = min(height, max(1, round(math.sqrt(count * height / width))))
    columns = min(width, max(1, round(count / rows)))
    row_of = np.arange(height) * rows // height
    column_of = np.arange(width) * columns // width
    return row_of[:, None] * columns + column_of


def slic(image, count: int, options) -> np.ndarray:
    """SLIC's superpixels, about `count` of them, each connected: integer [Y, X] from 0 on.

    Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", PAMI 2012, as
    scikit-image has it, in CIELAB and with its defaults. It starts from a regular grid and drops what
    becomes too small, so that it ends with fewer superpixels than it is asked for: it is asked again
    for more, up to three times in all, until it comes within 5% of `count`. What it came to is
    counted and reported.

    Args:
      image: uint8 [Y, X, 3].
      count: number of superpixels wanted.
      options: SuperpixelEvaluationOptions.
    """
    from skimage import segmentation

    asked, best, best_distance = count, None, math.inf
    for _ in range(_SLIC_TRIES):
        ids = segmentation.slic(
            image,
            n_segments=asked,
            compactness=options.slic_compactness,
            start_label=0,
            channel_axis=-1,
        )
        found = int(ids.max()) + 1
        if abs(found - count) < best_distance:
            best, best_distance = ids, abs(found - count)
        if best_distance <= _SLIC_TOLERANCE * count:
            break
        asked = max(1, round(asked * count / found))
    return best


def format_table(results: dict) -> str:
    """A table for people, of what `SuperpixelScores.results` gives."""
    titles = [title(kind) for kind in results["kinds"]]
    width = max(map(len, titles))
    lines = [" " * width + "".join(f"{heading:>10}" for heading in HEADINGS.values())]
    for name, kind in zip(titles, results["kinds"], strict=True):
        cells = (cell(measure, kind[measure]) for measure in HEADINGS)
        lines.append(f"{name:<{width}}" + "".join(f"{text:>10}" for text in cells))
    lines.append(f"means of {results['kinds'][0]['images']} images; UE: lower is better")
    return "\n".join(lines)


def title(kind: dict) -> str:
    """The name of a row, of one of `kinds`."""
    if kind["factor"] is None:
        return kind["kind"]
    return f"{kind['kind']}, {kind['factor']:g} x count"


def cell(measure: str, value) -> str:
    """A measure as tables show it: counts as they are, the rest in percent."""
    if value is None:
        return "-"
    if measure in ("superpixels", "components"):
        return f"{value:.1f}"
    return f"{100 * value:.2f}"


def _curves(kinds, measure):
    curves = {}
    for kind in kinds:
        curves.setdefault(kind["kind"], []).append([kind["superpixels"], kind[measure]])
    return {name: sorted(points, key=lambda point: point[0]) for name, points in curves.items()}
