"""Numbers as colours: one scale that grows in lightness throughout, and the bar that explains it.

Shapes: Y, X are the height and width of one picture in pixels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from sp_transformer.data import drawing

# From dark blue over violet and orange to light yellow, in even steps of lightness (CIELAB 10 to 95), so that it reads
# the same in grey and to the colour-blind.
_STOPS = np.array(
    [
        (13, 22, 68),
        (62, 40, 120),
        (120, 56, 128),
        (178, 73, 116),
        (226, 101, 91),
        (247, 149, 76),
        (250, 199, 100),
        (252, 246, 190),
    ],
    np.float64,
)
_TABLE = np.stack(
    [
        np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(_STOPS)), channel)
        for channel in _STOPS.T
    ],
    axis=1,
)
_TABLE = np.rint(_TABLE).astype(np.uint8)
_BACKGROUND = (255, 255, 255)
_TEXT = (40, 40, 40)
_NO_NUMBER = (128, 128, 128)


def colors_of(values: np.ndarray, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Paints numbers.

    Args:
      values: float [Y, X]; what lies outside `low` to `high` takes the colour of that end, NaN is grey.
      low, high: the ends of the scale, low < high.

    Returns:
      uint8 [Y, X, 3].

    Raises:
      ValueError: if the scale has no extent.
    """
    if not low < high:
        raise ValueError(f"a scale from {low} to {high} has no extent; low must be below high")
    values = np.asarray(values, np.float64)
    missing = np.isnan(values)
    position = np.clip((np.where(missing, low, values) - low) / (high - low), 0, 1)
    colors = _TABLE[np.rint(position * (len(_TABLE) - 1)).astype(np.intp)]
    colors[missing] = _NO_NUMBER
    return colors


def with_bar(picture: np.ndarray, low: float, high: float, title: str = "") -> np.ndarray:
    """Sets the scale, with its ends and middle, to the right of a picture.

    Args:
      picture: uint8 [Y, X, 3].
      low, high: the numbers at the bottom and at the top of the bar.
      title: of what is shown, above the bar; left out if the picture is too low for it.

    Returns:
      uint8 [max(Y, about 60), X + about 100, 3].
    """
    size = drawing.font_size(picture.shape)
    font = drawing.font(size)
    height = max(picture.shape[0], 5 * size)
    numbers = [f"{number:.3g}" for number in (high, (low + high) / 2, low)]
    gap, bar = size // 2 + 2, size
    text_width = max(font.getlength(text) for text in [*numbers, title])
    width = round(gap + max(bar + gap + text_width, text_width)) + gap
    canvas = Image.new("RGB", (picture.shape[1] + width, height), _BACKGROUND)
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    left = picture.shape[1] + gap
    top = size // 2
    if title:
        draw.text((left, top), title, _TEXT, font=font, anchor="lt")
        top += 2 * size
    bottom = height - size // 2 - 1
    ramp = np.linspace(high, low, max(2, bottom - top + 1))[:, None]
    # A flat scale (nothing but one number) still has a bar.
    ramp = colors_of(ramp, low, high if low < high else low + 1)
    canvas.paste(Image.fromarray(np.repeat(ramp, bar, axis=1)), (left, top))
    for text, y in zip(numbers, (top, (top + bottom) // 2, bottom), strict=True):
        draw.text((left + bar + gap, y), text, _TEXT, font=font, anchor="lm")
    return np.array(canvas)
