"""The images that an export is verified and calibrated on.

Shapes: Y, X are the height and width of one image in pixels.
"""

import contextlib
import dataclasses

import numpy as np
from absl import logging

from sp_transformer.config import derived
from sp_transformer.data import sources, synthetic_streets


@dataclasses.dataclass(frozen=True)
class Example:
    """An image and its truth.

    Attributes:
      image: uint8 [Y, X, 3], RGB.
      labels: int32 [Y, X] of train ids, the ignore label where nothing is known; None without any truth.
    """

    image: np.ndarray
    labels: np.ndarray | None


def verification_examples(config, image_size, count) -> tuple[list[Example], str]:
    """The first images of the evaluation split, or drawn streets where it cannot be read.

    Args:
      config: an ExperimentOptions.
      image_size: (Y, X) that images are cut or padded to; None to leave them, and to make the last one of an odd size.
      count: number of images.

    Returns:
      The Examples, and words for what they are.
    """
    source, words = _source(config, count)
    found = [_read(config, source, index) for index in range(min(count, len(source)))]
    if image_size is None:
        last = found[-1]
        labels = None if last.labels is None else last.labels[:-5, :-3]
        found[-1] = Example(last.image[:-5, :-3], labels)
        return found, words
    return [_fitted(config, example, image_size) for example in found], words


def calibration_examples(config, image_size, count):
    """Yields images of the evaluation split, from its end, so that few of them are those of the verification.

    Args:
      config: an ExperimentOptions.
      image_size: (Y, X) that images are cut or padded to.
      count: number of images.
    """
    source, _ = _source(config, count)
    for index in range(max(0, len(source) - count), len(source)):
        yield _fitted(config, _read(config, source, index), image_size)


def _source(config, count):
    # The data need not be there where a model is exported; that must not stop the export.
    with contextlib.suppress(OSError, ValueError):
        source = sources.create_source(config.data, config.data.eval_split)
        if len(source):
            source.read(0)
            return source, f"split {config.data.eval_split!r}"
    logging.info("the evaluation split cannot be read here; drawn streets take its place")
    height, width = (max(32, side) for side in derived.input_size(config))
    return synthetic_streets.SyntheticStreets(height, width, count, "val"), "drawn streets"


def _read(config, source, index):
    image, labels = source.read(index)
    drawn = isinstance(source, synthetic_streets.SyntheticStreets)
    if drawn and derived.label_map(config).names != derived.drawn_label_map().names:
        # Streets are drawn with Cityscapes' classes, which say nothing of others.
        labels = None
    return Example(image, None if labels is None else labels.astype(np.int32))


def _fitted(config, example, size):
    """Cut at the bottom and right, or padded by its mirror image."""
    image = example.image[: size[0], : size[1]]
    below, right = size[0] - image.shape[0], size[1] - image.shape[1]
    labels = example.labels
    if labels is not None:
        ignore = derived.label_map(config).ignore_label
        labels = np.pad(
            labels[: size[0], : size[1]], [(0, below), (0, right)], constant_values=ignore
        )
    return Example(np.pad(image, [(0, below), (0, right), (0, 0)], mode="symmetric"), labels)
