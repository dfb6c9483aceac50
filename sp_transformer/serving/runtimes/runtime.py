"""What a model of any format offers. Imports NumPy only.

Letters: Y, X height and width of an image; N superpixels, R*C; K classes.
"""

import abc
import importlib
import pathlib

import numpy as np

from sp_transformer.serving import assets

# What `run` gives, in every format.
MAPS = ("labels", "superpixels")
TABLE = (
    "superpixel_classes",
    "superpixel_confidence",
    "superpixel_centroids",
    "superpixel_pixels",
)


class Runtime(abc.ABC):
    """An exported model, ready to run.

    Attributes:
      format: name of the format.
      packages: distributions that run it.
      label_map: the LabelMap of the classes, and of what ids in label files become.
      label_map_file: where that is written down, for errors; None if nowhere.
      image_size: (Y, X) of the only images that it takes; None for any.
      about: dict of version.json.
    """

    format: str
    packages: tuple[str, ...]
    label_map_file: pathlib.Path | None = None

    def __init__(self, folder):
        """Reads what travels with the model.

        Args:
          folder: the export.

        Raises:
          ValueError: if a file is missing or faulty.
        """
        self.about = assets.read_about(folder)
        self.label_map = assets.read_label_map(folder)
        self.label_map_file = pathlib.Path(folder) / assets.FOLDER / assets.LABEL_MAP
        size = self.about.get("image_size")
        self.image_size = tuple(size) if size else None

    def run(self, images) -> dict[str, np.ndarray]:
        """Labels and superpixels of one image.

        Args:
          images: uint8 [1, Y, X, 3], RGB.

        Returns:
          "labels" and "superpixels" (ids r*C + c), int32 [1, Y, X]; and, unless the export is older than these,
          "superpixel_classes" int32 [1, N], "superpixel_confidence" float32 [1, N], "superpixel_centroids" float32
          [1, N, 2] (y, x in pixels), "superpixel_pixels" int32 [1, N] and "superpixel_grid" int32 [2], (R, C).

        Raises:
          ValueError: for images of another dtype, rank or size.
        """
        self._check(images)
        outputs = self._run(images)
        if "superpixel_grid" in self.about:
            outputs["superpixel_grid"] = np.array(self.about["superpixel_grid"], np.int32)
        return outputs

    def labels(self, images) -> np.ndarray:
        """Labels alone, int32 [1, Y, X], without the cost of what else `run` gives."""
        self._check(images)
        return self._labels(images)

    def probabilities(self, images) -> np.ndarray:
        """float32 [1, Y, X, K], summing to one over the classes.

        Raises:
          ValueError: for images that do not fit, or if the export has no probabilities.
        """
        self._check(images)
        return self._probabilities(images)

    def file_labels(self, images) -> np.ndarray | None:
        """As `labels`, of images that the model gets as files and decodes itself; None if its format decodes none."""
        self._check(images)
        return self._file_labels(images)

    @abc.abstractmethod
    def _run(self, images): ...

    @abc.abstractmethod
    def _labels(self, images): ...

    @abc.abstractmethod
    def _probabilities(self, images): ...

    def _file_labels(self, images):
        return None

    def _check(self, images):
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[0] != 1
            or images.shape[3] != 3
        ):
            raise ValueError(
                f"images are {images.dtype} {list(images.shape)} and must be uint8 [1, height, width, 3]"
            )
        if self.image_size is not None and images.shape[1:3] != self.image_size:
            taken, given = (
                "x".join(map(str, size)) for size in (self.image_size, images.shape[1:3])
            )
            raise ValueError(
                f"the image is {given} and the model was exported for {taken} pixels; resize it (predict does so with "
                f"--resize), or export the model with --size={given}"
            )


def require(module, extra):
    """Imports the package that runs a format.

    Args:
      module: its name.
      extra: of this package, which installs it.

    Raises:
      ValueError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise ValueError(
            f"this model is run by {error.name}, which is not installed: pip install 'sp-transformer[{extra}]'"
        ) from None
