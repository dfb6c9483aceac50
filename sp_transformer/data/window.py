"""Which pixels of a source image a training crop needs: known before any of them is decoded.

Shapes: Y, X are the size of one source image in pixels, h', w' that of the part of a crop that shows the image.

A crop is a window of the scaled image. Scale and place are drawn first, so that a source which can
decode parts of its images decodes only the region of the source image under that window.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

# What has to be done to a region to make it the window: nothing but a cast, a resize of all of it and a cut, or
# resampling at an offset of less than a pixel.
COPY, RESIZE, RESAMPLE = range(3)

# TensorFlow resizes 2.5 times as many pixels in the time in which it resamples at an offset: so much larger than the
# window may the scaled image be. Depends on sizes alone, so that every source gives the same pixels.
_RESIZED_PER_RESAMPLED = 2.5

# Pixels that a region holds beyond the two that bilinear sampling mixes: float32 may round the
# position of the outermost sample beyond them.
_MARGIN = 1


@dataclasses.dataclass(frozen=True)
class Window:
    """A window of a scaled image, and the region of the source image that it is made of.

    All attributes but `method` are pairs of Python integers, rows first.

    Attributes:
      size: (Y, X).
      scaled: size of the whole image after scaling.
      offset: place of the window's first pixel in the scaled image.
      shape: (h', w').
      method: COPY, RESIZE or RESAMPLE.
      region: first row and column of the region in the source image.
      region_shape: its height and width; it lies inside the image.
      padding_before: rows and columns by which the region has to be continued with its outermost
        pixels, so that samples between the image's border and its first pixel's centre have two to mix.
      padding_after: likewise at the end.
    """

    size: tuple[int, int]
    scaled: tuple[int, int]
    offset: tuple[int, int]
    shape: tuple[int, int]
    method: int
    region: tuple[int, int]
    region_shape: tuple[int, int]
    padding_before: tuple[int, int]
    padding_after: tuple[int, int]

    def cut(self, array):
        """Returns the region of an array [Y, X, ...], as a view."""
        (top, left), (height, width) = self.region, self.region_shape
        return array[top : top + height, left : left + width]

    def pad_region(self, image):
        """Continues the region of an image by its padding; a region without any is returned as it is."""
        padding = list(zip(self.padding_before, self.padding_after, strict=True))
        if not any(map(any, padding)):
            return image
        return np.pad(image, (*padding, (0, 0)), mode="edge")

    def sample_label(self, label):
        """Takes the nearest label for each pixel of the window, with half-pixel centres.

        Args:
          label: [height, width] of the region, of any integer type.

        Returns:
          [h', w'] of the same type.
        """
        if self.method == COPY:
            return label
        rows, columns = (
            # Integers, so that no rounding error moves a label.
            (2 * np.arange(offset, offset + count, dtype=np.int64) + 1) * size // (2 * scaled)
            - first
            for offset, count, size, scaled, first in zip(
                self.offset, self.shape, self.size, self.scaled, self.region, strict=True
            )
        )
        return label.take(rows, axis=0).take(columns, axis=1)

    def sampling(self):
        """Returns what `augmentation.scale_window` has to know: float64 [4, 2].

        The method (twice); h' and w'; and for RESAMPLE the position in the padded region of the first and of the last
        sample of each axis, in pixels between centres, for the others `offset` and `scaled`.
        """
        if self.method != RESAMPLE:
            rows = [[self.method] * 2, self.shape, self.offset, self.scaled]
            return np.array(rows, np.float64)
        first, last = (
            [
                (offset + shift + 0.5) * size / scaled - 0.5 - region + before
                for offset, shift, size, scaled, region, before in zip(
                    self.offset,
                    shifts,
                    self.size,
                    self.scaled,
                    self.region,
                    self.padding_before,
                    strict=True,
                )
            ]
            for shifts in ((0, 0), (self.shape[0] - 1, self.shape[1] - 1))
        )
        return np.array([[self.method] * 2, self.shape, first, last], np.float64)


def place_window(size, scale, position, crop_size) -> Window:
    """Returns the window of one drawn scale and place.

    Args:
      size: (Y, X).
      scale: factor; the scaled size is rounded to whole pixels and is at least one.
      position: two numbers from [0, 1), which spread evenly over the places that the crop can take.
      crop_size: (h, w). Where the scaled image is smaller, the window is all of it.
    """
    size = tuple(int(extent) for extent in size)
    # Half to even, as tf.round does.
    scaled = tuple(max(1, round(extent * float(scale))) for extent in size)
    shape = tuple(map(min, scaled, crop_size))
    offset = tuple(
        # The product can round up to the number of places, hence the minimum.
        min(int(float(drawn) * (whole - part + 1)), whole - part)
        for drawn, whole, part in zip(position, scaled, shape, strict=True)
    )
    if scaled == size:
        nothing = (0, 0)
        return Window(size, scaled, offset, shape, COPY, offset, shape, nothing, nothing)
    if math.prod(scaled) <= _RESIZED_PER_RESAMPLED * math.prod(shape):
        nothing = (0, 0)
        return Window(size, scaled, offset, shape, RESIZE, nothing, size, nothing, nothing)
    axes = [_region(*axis) for axis in zip(size, scaled, offset, shape, strict=True)]
    return Window(size, scaled, offset, shape, RESAMPLE, *zip(*axes, strict=True))


def _region(size, scaled, offset, count):
    """Returns first pixel, number of pixels and padding before and after of one axis."""
    first = math.floor((offset + 0.5) * size / scaled - 0.5) - _MARGIN
    last = math.floor((offset + count - 0.5) * size / scaled - 0.5) + 1 + _MARGIN
    inside_first, inside_last = max(first, 0), min(last, size - 1)
    return inside_first, inside_last - inside_first + 1, inside_first - first, last - inside_last
