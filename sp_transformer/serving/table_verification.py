"""Compares an export's tables of superpixels with its own maps of them and with the checkpoint's tables.

Letters: Y, X height and width of an image; N superpixels.
"""

import numpy as np

from sp_transformer.serving.runtimes import runtime

# float32 sums of some thousand distances.
_CENTROID_TOLERANCE = 0.05


class TableComparison:
    """Counts over images."""

    def __init__(self):
        self._off_map = 0
        self._pixels = 0
        self._equal_classes = 0
        self._confidence = 0.0

    def update(self, superpixels, found, expected) -> None:
        """Adds an image.

        Args:
          superpixels: the export's own ids, int32 [1, Y, X].
          found: the export's arrays of `runtime.TABLE` by name, each [1, N, ...].
          expected: the checkpoint's.
        """
        weights = expected["superpixel_pixels"]
        self._pixels += int(weights.sum())
        if any(found[name].shape != expected[name].shape for name in runtime.TABLE):
            self._off_map += weights.size
            self._confidence = np.inf
            return
        self._off_map += _off_map(superpixels[0], found)
        same = found["superpixel_classes"] == expected["superpixel_classes"]
        self._equal_classes += int(weights[same].sum())
        difference = np.abs(found["superpixel_confidence"] - expected["superpixel_confidence"])
        # NaN is the largest difference there is.
        self._confidence += float(np.nan_to_num((difference * weights).sum(), nan=np.inf))

    def result(self) -> dict:
        """The report's entries.

        Returns:
          "superpixels_off_map", the number of superpixels whose pixels or centroid are not those of the export's own
          map; "equal_superpixel_classes", the share of the pixels whose superpixel has the class that it has in the
          checkpoint; "mean_confidence_difference", a mean over the pixels too.
        """
        return {
            "superpixels_off_map": self._off_map,
            "equal_superpixel_classes": self._equal_classes / self._pixels,
            "mean_confidence_difference": self._confidence / self._pixels,
        }


def _off_map(ids, table):
    """How many rows of a table do not describe the map ids [Y, X]."""
    counts = table["superpixel_pixels"][0]
    if ids.min() < 0 or ids.max() >= counts.size:
        return counts.size
    true_counts = np.bincount(ids.ravel(), minlength=counts.size)
    wrong = counts != true_counts
    for axis, positions in enumerate(np.indices(ids.shape)):
        sums = np.bincount(ids.ravel(), positions.ravel(), counts.size)
        means = sums / np.maximum(true_counts, 1)
        near = np.abs(table["superpixel_centroids"][0, :, axis] - means) <= _CENTROID_TOLERANCE
        # A superpixel without pixels is told to be in the middle of its cell.
        wrong |= (true_counts > 0) & ~near
    return int(wrong.sum())
