"""Pictures of labels and superpixels, with NumPy and Pillow only.

Shapes: Y, X are the height and width of one image in pixels, K the number of classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP = 4  # Pixels between pictures that are set side by side.
_PIXELS_PER_LINE_WIDTH = 1000  # Longer sides than this get wider lines, to survive downscaling.


def colorize(labels: np.ndarray, label_map) -> np.ndarray:
    """Paints train ids in the colours of their classes.

    Args:
      labels: integer [Y, X] train ids.
      label_map: a LabelMap.

    Returns:
      uint8 [Y, X, 3]; whatever is no class (the ignored pixels) is black.
    """
    labels = np.asarray(labels)
    colors = np.concatenate([label_map.colors, np.zeros((1, 3), np.uint8)]).astype(np.uint8)
    is_class = (labels >= 0) & (labels < len(label_map.colors))
    return colors[np.where(is_class, labels, len(label_map.colors))]


def blend(image: np.ndarray, color: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Lays a picture over another.

    Args:
      image: uint8 [Y, X, 3].
      color: uint8 [Y, X, 3] or one colour [3].
      alpha: weight of `color`, 0 to 1.

    Returns:
      uint8 [Y, X, 3], rounded to the nearest integer.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha {alpha} is not between 0 and 1")
    image, color = np.asarray(image, np.float32), np.asarray(color, np.float32)
    return np.rint((1 - alpha) * image + alpha * color).astype(np.uint8)


def superpixel_boundaries(ids: np.ndarray) -> np.ndarray:
    """Marks pixels whose right or lower neighbour belongs to another superpixel.

    Args:
      ids: integer [Y, X].

    Returns:
      bool [Y, X], lines one pixel wide.
    """
    ids = np.asarray(ids)
    boundaries = np.zeros(ids.shape, bool)
    boundaries[:-1] |= ids[:-1] != ids[1:]
    boundaries[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    return boundaries


def draw_boundaries(image: np.ndarray, ids: np.ndarray, color=(255, 255, 0)) -> np.ndarray:
    """Draws the outlines of superpixels over an image.

    Lines are one pixel wide, and one more for every further 1000 pixels of the longer side.

    Args:
      image: uint8 [Y, X, 3].
      ids: integer [Y, X].
      color: RGB of the lines.

    Returns:
      uint8 [Y, X, 3], a new array.
    """
    image, ids = np.array(image), np.asarray(ids)
    if image.shape[:2] != ids.shape:
        raise ValueError(
            f"superpixel ids {list(ids.shape)} do not fit an image {list(image.shape)}; both must "
            "have one height and width"
        )
    boundaries = superpixel_boundaries(ids)
    for step in range(1, math.ceil(max(ids.shape) / _PIXELS_PER_LINE_WIDTH)):
        # Alternately to the right and left, so that the line stays where the boundary is.
        boundaries = _widened(boundaries, towards_end=step % 2 == 1)
    image[boundaries] = color
    return image


def side_by_side(images: Sequence[np.ndarray]) -> np.ndarray:
    """Sets pictures uint8 [Y_i, X_i, 3] next to each other, tops aligned, on white.

    Returns:
      uint8 [max Y_i, sum X_i + gaps, 3].
    """
    if not len(images):
        raise ValueError("side_by_side needs at least one image")
    height = max(image.shape[0] for image in images)
    width = sum(image.shape[1] for image in images) + _GAP * (len(images) - 1)
    canvas = np.full((height, width, 3), 255, np.uint8)
    left = 0
    for image in images:
        canvas[: image.shape[0], left : left + image.shape[1]] = image
        left += image.shape[1] + _GAP
    return canvas


def example_picture(image, label, prediction, superpixels, label_map, max_side=512) -> np.ndarray:
    """One example at a glance: image and truth above, prediction and superpixels below.

    Panels are reduced first and outlined then, so that outlines are seen however large the image is; they lie on the
    darkened image, against which they stand out also where it is bright.

    Args:
      image: uint8 [Y, X, 3].
      label: integer [Y, X] train ids.
      prediction: integer [Y, X] train ids.
      superpixels: integer [Y, X] superpixel ids.
      label_map: a LabelMap.
      max_side: pixels of a panel's longer side at most.

    Returns:
      uint8 [about 2 panels, 2 panels, 3].
    """
    scale = min(1.0, max_side / max(image.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])

    def reduced(array, method):
        return np.asarray(Image.fromarray(array).resize(size, method))

    photo = reduced(np.ascontiguousarray(image), Image.Resampling.BOX)
    label, prediction, superpixels = (
        reduced(np.asarray(ids, np.int32), Image.Resampling.NEAREST)
        for ids in (label, prediction, superpixels)
    )
    outlined = draw_boundaries(blend(photo, np.zeros(3, np.uint8), 0.35), superpixels)
    upper = side_by_side([photo, colorize(label, label_map)])
    lower = side_by_side([colorize(prediction, label_map), outlined])
    gap = np.full((_GAP, upper.shape[1], 3), 255, np.uint8)
    return np.concatenate([upper, gap, lower])


def evenly_spaced(total: int, count: int) -> list[int]:
    """Up to `count` positions from 0 to total - 1 with equal gaps, the first included."""
    count = min(total, count)
    return [index * total // count for index in range(count)]


def legend(label_map, columns: int = 1) -> np.ndarray:
    """Draws a swatch and the name of every class, in the order of the train ids, on white.

    Args:
      label_map: a LabelMap.
      columns: number of columns, filled from top to bottom.

    Returns:
      uint8 [Y, X, 3].
    """
    font = ImageFont.load_default()
    row, swatch, margin = 20, 14, 4
    text_width = max((math.ceil(font.getlength(name)) for name in label_map.names), default=0)
    column_width = swatch + text_width + 4 * margin
    rows = max(1, math.ceil(len(label_map.names) / columns))
    size = (columns * column_width, rows * row + 2 * margin)
    canvas = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for i, (name, color) in enumerate(zip(label_map.names, label_map.colors, strict=True)):
        left = i // rows * column_width + margin
        top = i % rows * row + margin + (row - swatch) // 2
        draw.rectangle(
            (left, top, left + swatch - 1, top + swatch - 1), fill=tuple(map(int, color))
        )
        draw.text(
            (left + swatch + margin, top + swatch // 2), name, (0, 0, 0), font=font, anchor="lm"
        )
    return np.array(canvas)


def _widened(mask, towards_end):
    """Returns bool [Y, X] grown by one pixel to the lower right (or the upper left)."""
    mask = mask.copy()
    for axis in (0, 1):
        source = np.moveaxis(mask.copy(), axis, 0)
        target = np.moveaxis(mask, axis, 0)
        if towards_end:
            target[1:] |= source[:-1]
        else:
            target[:-1] |= source[1:]
    return mask
