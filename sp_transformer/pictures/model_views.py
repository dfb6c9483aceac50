"""What a model's attention and association are for one image: arrays for `panels` to draw.

None of this is on the path of training, evaluation or an export: what those never hold (all probabilities of an image,
the attention's weights) is computed here anew.

Shapes: Y, X are the height and width of one image in pixels; R, C the superpixel grid of the padded image; J heads; K
classes. Images are seen at their own size: where `data.resize_*` is set, resize them as the model's inputs first.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sp_transformer.model import inference
from sp_transformer.pictures import panels


def confidence(logits) -> np.ndarray:
    """The probability of the predicted class: logits [..., K] -> float32 [...]."""
    return inference.confidence(tf.convert_to_tensor(logits)).numpy()


def grid_of(model, image) -> tuple[int, int]:
    """(R, C): the superpixels that the model lays over an image [Y, X, 3], padding included."""
    multiple, stride = model.size_multiple, model.superpixel_stride
    return tuple(-(-side // multiple) * multiple // stride for side in np.shape(image)[:2])


def association_of_pixel(model, image, pixel) -> panels.PixelAssociation:
    """The probabilities with which a pixel belongs to each of its 9 superpixels.

    Args:
      model: a built SPTransformer.
      image: uint8 or float [Y, X, 3], values 0..255.
      pixel: (y, x).

    Raises:
      ValueError: if the pixel lies outside the image.
    """
    _check_inside("pixel", pixel, np.shape(image)[:2], "the image")
    logits = association_logits(model, image)[pixel[0], pixel[1]]
    weights = np.exp(logits - logits.max())
    rows, columns = grid_of(model, image)
    row, column = (side // model.superpixel_stride + np.arange(-1, 2) for side in pixel)
    ids = row[:, None] * columns + column
    inside = ((row >= 0) & (row < rows))[:, None] & ((column >= 0) & (column < columns))
    return panels.PixelAssociation(
        pixel=(int(pixel[0]), int(pixel[1])),
        superpixels=np.where(inside, ids, -1).astype(np.int32),
        probabilities=np.where(inside, (weights / weights.sum()).reshape(3, 3), 0).astype(
            np.float32
        ),
    )


def assignment_of_superpixel(model, image, cell) -> np.ndarray:
    """The probability with which each pixel belongs to one superpixel.

    Args:
      model: a built SPTransformer.
      image: uint8 or float [Y, X, 3], values 0..255.
      cell: (row, column) of the superpixel in the grid.

    Returns:
      float32 [Y, X], 0 beyond the cells around the superpixel's own.

    Raises:
      ValueError: if the cell lies outside the grid.
    """
    _check_inside("superpixel", cell, grid_of(model, image), "the grid")
    logits = association_logits(model, image)
    height, width = logits.shape[:2]
    # The neighbour index under which each pixel's cell knows the chosen one.
    down, right = (
        place - np.arange(side) // model.superpixel_stride
        for place, side in zip(cell, (height, width), strict=True)
    )
    near = (np.abs(down) <= 1)[:, None] & (np.abs(right) <= 1)
    index = np.where(near, (down[:, None] + 1) * 3 + right + 1, 0)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    chosen = np.take_along_axis(weights, index[..., None], -1)[..., 0] / weights.sum(-1)
    return np.where(near, chosen, 0).astype(np.float32)


def association_logits(model, image) -> np.ndarray:
    """Eq. 5 for every pixel of an image [Y, X, 3]: float32 [Y, X, 9], hugely negative outside the grid."""
    features = model.features(np.asarray(image)[None], training=False)
    return model.association_logits(features)[0].numpy()


def attention_of_superpixel(model, image, cell, layer=-1, head=None) -> np.ndarray:
    """The weights with which one superpixel attends to all in a self-attention layer of the classifier.

    Args:
      model: a built SPTransformer.
      image: uint8 or float [Y, X, 3], values 0..255.
      cell: (row, column) of the superpixel in the grid.
      layer: number of the layer, from 0, or from -1 backwards.
      head: number of the head; None for the mean of all.

    Returns:
      float32 [R, C] whose sum is 1.

    Raises:
      ValueError: if there is no such superpixel, layer or head.
    """
    rows, columns = grid_of(model, image)
    _check_inside("superpixel", cell, (rows, columns), "the grid")
    layers, heads = model.classifier.layers, model.classifier.heads
    if not -layers <= layer < layers:
        raise ValueError(f"layer {layer} is none of the {layers} self-attention layers, from 0")
    if head is not None and not 0 <= head < heads:
        raise ValueError(f"head {head} is none of the {heads} heads of a layer, from 0")
    superpixels = model.superpixel_tokens(np.asarray(image)[None])
    token = cell[0] * columns + cell[1]
    weights = model.classifier.attention_weights(superpixels, layer % layers, token)[0].numpy()
    weights = weights.mean(0) if head is None else weights[head]
    return weights.reshape(rows, columns)


def _check_inside(what, place, size, where) -> None:
    if not all(0 <= index < side for index, side in zip(place, size, strict=True)):
        raise ValueError(
            f"{what} {tuple(map(int, place))} lies outside {where}, which is {size[0]}x{size[1]}: "
            f"from (0, 0) to ({size[0] - 1}, {size[1] - 1})"
        )


__all__ = [
    "assignment_of_superpixel",
    "association_logits",
    "association_of_pixel",
    "attention_of_superpixel",
    "confidence",
    "grid_of",
]
