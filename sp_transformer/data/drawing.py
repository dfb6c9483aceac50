"""Pictures of labels and superpixels, with NumPy and Pillow only.

Shapes: Y, X are the height and width of one image in pixels, K the number of classes.
"""

from __future__ import annotations

import functools
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


def draw_boundaries(
    image: np.ndarray, ids: np.ndarray, color=(255, 255, 0), outline=(0, 0, 0)
) -> np.ndarray:
    """Draws the outlines of superpixels over an image, light between dark, so that they show on any ground.

    The light line is one pixel wide, and one more for every further 1000 pixels of the longer side; the dark ones on
    both sides of it are half as wide, at least one pixel.

    Args:
      image: uint8 [Y, X, 3].
      ids: integer [Y, X].
      color: RGB of the lines.
      outline: RGB of what runs along them; None for nothing.

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
    width = math.ceil(max(ids.shape) / _PIXELS_PER_LINE_WIDTH)
    for step in range(1, width):
        # Alternately to the right and left, so that the line stays where the boundary is.
        boundaries = _widened(boundaries, towards_end=step % 2 == 1)
    if outline is not None:
        around = boundaries
        for step in range(2 * max(1, width // 2)):
            around = _widened(around, towards_end=step % 2 == 1)
        image[around] = outline
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
    return color_key(label_map.names, label_map.colors, columns)


def color_key(names: Sequence[str], colors, columns: int = 1, text_size: int = 12) -> np.ndarray:
    """Draws a swatch and a name for each colour on white.

    Args:
      names: K texts.
      colors: K RGB colours of 0..255.
      columns: number of columns, filled from top to bottom.
      text_size: height of the letters in pixels; swatches and gaps follow it.

    Returns:
      uint8 [Y, X, 3].
    """
    face = font(text_size)
    row, swatch, margin = (round(part * text_size / 12) for part in (20, 14, 4))
    text_width = max((math.ceil(face.getlength(name)) for name in names), default=0)
    column_width = swatch + text_width + 4 * margin
    rows = max(1, math.ceil(len(names) / columns))
    size = (columns * column_width, rows * row + 2 * margin)
    canvas = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for i, (name, color) in enumerate(zip(names, colors, strict=True)):
        left = i // rows * column_width + margin
        top = i % rows * row + margin + (row - swatch) // 2
        draw.rectangle(
            (left, top, left + swatch - 1, top + swatch - 1), fill=tuple(map(int, color))
        )
        draw.text(
            (left + swatch + margin, top + swatch // 2), name, (0, 0, 0), font=face, anchor="lm"
        )
    return np.array(canvas)


@functools.cache
def font(size: int):
    """Pillow's own font, so that pictures are the same on every machine, at a height in pixels."""
    return ImageFont.load_default(size)


def font_size(shape) -> int:
    """A height of letters, in pixels, that can be read beside a picture [Y, X, ...] seen as a whole."""
    return max(12, round(max(shape[:2]) / 45))


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
