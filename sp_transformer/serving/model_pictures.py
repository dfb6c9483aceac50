"""Pictures of association and attention, which need the model itself and not what an export gives."""

import numpy as np
from PIL import Image

from sp_transformer.config import resizing
from sp_transformer.pictures import panels

_OF_PIXEL = ("association",)
_OF_SUPERPIXEL = ("assignment", "attention")


def drawn(pixel=None, superpixel=None) -> tuple[str, ...]:
    """The names of the pictures that `ModelPictures` draws of each image, given the same."""
    of_pixel = () if pixel is None else _OF_PIXEL
    return of_pixel + (() if superpixel is None else _OF_SUPERPIXEL)


class ModelPictures:
    """Draws what a training run's model does with one pixel and one superpixel of each image.

    Where the run's data are resized, pictures have the size that the model sees.

    Args:
      runtime: the Runtime of a training run.
      pixel: (y, x) in each image; None for no "association".
      superpixel: id of a superpixel; None for no "assignment" and "attention".

    Raises:
      ValueError: if the runtime is an export.
    """

    def __init__(self, runtime, pixel=None, superpixel=None):
        if getattr(runtime, "model", None) is None:
            raise ValueError(
                f"association and attention are not part of a {runtime.format} export; name the model_dir or a "
                "checkpoint of the training run as --model"
            )
        self._model = runtime.model
        self._data = runtime.config.data
        self._pixel = pixel
        self._superpixel = superpixel

    def __call__(self, prediction) -> dict[str, np.ndarray]:
        """Draws the pictures of a Prediction: {name: uint8 [y, x, 3]}.

        Raises:
          ValueError: if the image has no such pixel or superpixel.
        """
        from sp_transformer.model import interpolation

        size = prediction.image.shape[:2]
        seen = resizing.resized_size(*size, self._data)
        # As the model's own inference resizes, which does not smooth first: another image has other associations.
        image = interpolation.resize_bilinear(np.float32(prediction.image)[None], seen)
        image = np.asarray(image)[0]
        ids = np.asarray(
            Image.fromarray(prediction.superpixels).resize(seen[::-1], Image.Resampling.NEAREST)
        )
        pictures = {}
        if self._pixel is not None:
            pictures["association"] = self._association(image, ids, size)
        if self._superpixel is not None:
            pictures |= self._of_superpixel(image)
        return pictures

    def _association(self, image, ids, size):
        from sp_transformer.pictures import model_views

        if not all(0 <= place < side for place, side in zip(self._pixel, size, strict=True)):
            raise ValueError(f"the image is {size[0]}x{size[1]} and has no pixel {self._pixel}")
        pixel = tuple(
            place * new // old
            for place, new, old in zip(self._pixel, image.shape[:2], size, strict=True)
        )
        association = model_views.association_of_pixel(self._model, image, pixel)
        return panels.association_picture(_rounded(image), ids, association)

    def _of_superpixel(self, image):
        from sp_transformer.pictures import model_views

        rows, columns = model_views.grid_of(self._model, image)
        if not 0 <= self._superpixel < rows * columns:
            raise ValueError(
                f"the image has no superpixel {self._superpixel}: its grid is {rows}x{columns}, ids 0 to "
                f"{rows * columns - 1}"
            )
        stride = self._model.superpixel_stride
        cell = divmod(self._superpixel, columns)
        assignment = model_views.assignment_of_superpixel(self._model, image, cell)
        attention = model_views.attention_of_superpixel(self._model, image, cell)
        shown = _rounded(image)
        return {
            "assignment": panels.assignment_picture(shown, assignment),
            "attention": panels.attention_picture(shown, attention, cell, stride),
        }


def _rounded(image):
    return np.round(image).astype(np.uint8)
