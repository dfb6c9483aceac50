"""A model of a few lines of NumPy behind the interface of the real ones."""

import numpy as np

from sp_transformer import version
from sp_transformer.config import label_map as label_maps
from sp_transformer.serving import runtimes

CELL = 4
LABEL_MAP = label_maps.LabelMap(
    names=("dark", "bright"),
    colors=np.array([[0, 0, 0], [255, 255, 0]], np.uint8),
    ignore_label=255,
)


class NumpyRuntime(runtimes.Runtime):
    """Labels a pixel by whether its red is bright; superpixels are cells of 4x4 pixels.

    Args:
      image_size: (Y, X) that it takes alone, or None.
      with_table: whether it gives the table of superpixels.
      before_run: called with each image.
    """

    format = "numpy"

    def __init__(self, image_size=None, with_table=True, before_run=lambda image: None):
        self.about = {"sp_transformer": version.__version__}
        self.label_map = LABEL_MAP
        self.image_size = image_size
        self._with_table = with_table
        self._before_run = before_run

    def _run(self, images):
        self._before_run(images[0])
        height, width = images.shape[1:3]
        columns = -(-width // CELL)
        count = -(-height // CELL) * columns
        rows = np.arange(height)[:, None] // CELL
        ids = (rows * columns + np.arange(width)[None] // CELL).astype(np.int32)
        found = {"labels": self._labels(images), "superpixels": ids[None]}
        if self._with_table:
            masks = [ids == number for number in range(count)]
            centroids = [np.mean(np.nonzero(mask), axis=1) for mask in masks]
            found["superpixel_classes"] = np.array(
                [[number % 2 for number in range(count)]], np.int32
            )
            found["superpixel_confidence"] = np.linspace(0.5, 1, count, dtype=np.float32)[None]
            found["superpixel_centroids"] = np.array([centroids], np.float32)
            found["superpixel_pixels"] = np.array([[mask.sum() for mask in masks]], np.int32)
        return found

    def _labels(self, images):
        return (images[..., 0] > 127).astype(np.int32)

    def _probabilities(self, images):
        return np.eye(2, dtype=np.float32)[self._labels(images)]
