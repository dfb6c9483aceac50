"""What a model sees in one image, and the table of its superpixels.

Shapes: Y, X are the height and width of one image in pixels, N the number of superpixels.
"""

import dataclasses

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model sees in one image.

    Attributes:
      image: uint8 [Y, X, 3].
      labels: int32 [Y, X], train ids.
      superpixels: int32 [Y, X], ids.
      table: the SuperpixelTable.
      pictures: {name: uint8 [y, x, 3]} of `model_pictures`.
    """

    image: np.ndarray
    labels: np.ndarray
    superpixels: np.ndarray
    table: "SuperpixelTable"
    pictures: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SuperpixelTable:
    """The superpixels of one image, by ascending id.

    Attributes:
      ids: int [N].
      classes: int [N], train ids.
      confidence: float [N], the probability of the class; None where the model does not tell.
      centroids: float [N, 2], mean (y, x) of the superpixel's pixels; the first pixel of the image is (0, 0).
      pixels: int [N].
    """

    ids: np.ndarray
    classes: np.ndarray
    confidence: np.ndarray | None
    centroids: np.ndarray
    pixels: np.ndarray


def predict_image(runtime, image: np.ndarray, resize: bool = False) -> Prediction:
    """Runs a model on an image.

    Args:
      runtime: a Runtime.
      image: uint8 [Y, X, 3].
      resize: whether an image of another size than the model takes is resized (bilinear, with antialiasing). Labels and
        superpixels are brought back to the image's size by nearest neighbour, and counted there.

    Raises:
      ValueError: if the model takes images of another size and `resize` is not set.
    """
    size = image.shape[:2]
    resized = resize and runtime.image_size not in (None, size)
    taken = _resized(image, runtime.image_size, Image.Resampling.BILINEAR) if resized else image
    outputs = {name: array[0] for name, array in runtime.run(taken[None]).items() if array.ndim > 1}
    labels, superpixels = (
        _resized(outputs[name], size, Image.Resampling.NEAREST) if resized else outputs[name]
        for name in ("labels", "superpixels")
    )
    if "superpixel_classes" not in outputs:
        table = table_of_maps(labels, superpixels)
    elif resized:
        table = _counted_anew(outputs, superpixels)
    else:
        table = SuperpixelTable(
            ids=np.arange(len(outputs["superpixel_classes"])),
            classes=outputs["superpixel_classes"],
            confidence=outputs["superpixel_confidence"],
            centroids=outputs["superpixel_centroids"],
            pixels=outputs["superpixel_pixels"],
        )
    return Prediction(image, labels, superpixels, table)


def table_of_maps(labels: np.ndarray, superpixels: np.ndarray) -> SuperpixelTable:
    """The table of those superpixels that have pixels, from what they look like; for models that give none.

    Args:
      labels: int [Y, X].
      superpixels: int [Y, X].

    Returns:
      The SuperpixelTable. A superpixel's class is that of most of its pixels, the smaller id where two are as frequent.
    """
    ids, inverse = np.unique(superpixels, return_inverse=True)
    inverse = inverse.reshape(superpixels.shape)
    num_classes = int(labels.max()) + 1
    votes = np.bincount((inverse * num_classes + labels).ravel(), minlength=len(ids) * num_classes)
    pixels, centroids = _pixels_and_centroids(inverse, len(ids))
    classes = votes.reshape(len(ids), num_classes).argmax(axis=1)
    return SuperpixelTable(ids, classes, None, centroids, pixels)


def _counted_anew(outputs, superpixels):
    """The model's table, with pixels and centroids of another map of the same superpixels; those without a pixel are
    left out."""
    pixels, centroids = _pixels_and_centroids(superpixels, len(outputs["superpixel_classes"]))
    ids = np.flatnonzero(pixels)
    return SuperpixelTable(
        ids=ids,
        classes=outputs["superpixel_classes"][ids],
        confidence=outputs["superpixel_confidence"][ids],
        centroids=centroids[ids],
        pixels=pixels[ids],
    )


def _pixels_and_centroids(superpixels, count):
    """Number of pixels [N] and their mean (y, x) [N, 2], of ids 0 to N - 1."""
    height, width = superpixels.shape
    flat = superpixels.ravel()
    pixels = np.bincount(flat, minlength=count)
    y = np.bincount(flat, np.repeat(np.arange(height), width), minlength=count)
    x = np.bincount(flat, np.tile(np.arange(width), height), minlength=count)
    return pixels, np.stack([y, x], axis=-1) / np.maximum(pixels, 1)[:, None]


def _resized(array, size, method):
    return np.asarray(Image.fromarray(np.ascontiguousarray(array)).resize(size[::-1], method))
