"""Reads of an image no more than what a training example shows of it.

Shapes: Y, X are the size of one source image in pixels, h', w' that of the part of a crop that shows the image.
"""

from __future__ import annotations

import numpy as np

from sp_transformer.config import resizing
from sp_transformer.data import resize, skipping, window


class WindowReader:
    """Reads the windows that training shows; remembers whole examples if the config asks for it.

    Threads that miss the same index at once read it twice and store equal arrays, which is harmless
    and cheaper than a lock around reading.
    """

    def __init__(self, source, data_options, crop_size, skipped=None):
        self._source = source
        self._data_options = data_options
        self._crop_size = crop_size
        self._skipped = (skipped or skipping.SkippedFiles()) if data_options.skip_corrupt else None
        self._cache = {} if data_options.cache_in_memory else None
        # What is resized first, or remembered, has to be whole.
        self._reads_whole = self._cache is not None or resizing.resizes(data_options)

    def read_window(self, index, scale, position):
        """Reads what one training example shows of an image; with `skip_corrupt` perhaps of the next one.

        Args:
          index: of the image in the source.
          scale, position: as `window.place_window` takes them.

        Returns:
          uint8 [?, ?, 3], int32 [h', w'] and float64 [4, 2], as `augmentation.augment_window` takes them.
        """
        _, read = skipping.usable(
            self._source,
            int(index),
            lambda candidate: self._read_window(candidate, scale, position),
            self._skipped,
        )
        return read

    def _read_window(self, index, scale, position):
        if self._reads_whole:
            image, label = self._read_whole(index)
            place = window.place_window(label.shape, scale, position, self._crop_size)
            image, label = place.cut(image), place.cut(label)
        else:
            placed, choose = self.chooser(scale, position)
            image, label = self._source.read_region(index, choose)
            (place,) = placed
        image = np.ascontiguousarray(place.pad_region(image))
        return image, place.sample_label(label).astype(np.int32), place.sampling()

    def chooser(self, scale, position):
        """Returns what `Source.read_region` asks for a part, and the list that it leaves its Window in."""
        placed = []

        def choose(*size):
            place = window.place_window(size, scale, position, self._crop_size)
            placed.append(place)
            return *place.region, *place.region_shape

        return placed, choose

    def _read_whole(self, index):
        """Returns uint8 [Y, X, 3] and integer [Y, X] of the example, resized as the config says."""
        example = self._cache.get(index) if self._cache is not None else None
        if example is None:
            image, label = self._source.read(index)
            size = resize.target_size(*image.shape[:2], self._data_options)
            example = resize.resize_image(image, size), resize.resize_label(label, size)
            if self._cache is not None:
                self._cache[index] = example
        return example
