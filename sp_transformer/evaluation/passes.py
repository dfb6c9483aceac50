"""One pass over a split: every image once, with what is predicted for it.

Shapes: Y, X are the height and width of one image in pixels.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
from absl import logging

from sp_transformer.data import pipeline

_SECONDS_BETWEEN_PROGRESS_LINES = 10.0


@dataclasses.dataclass
class Example:
    """One image of a split.

    Attributes:
      index, name: in its source.
      image: uint8 [Y, X, 3].
      label: int32 [Y, X], train ids; ignored everywhere in a split without labels.
      predictions: {mode: integer [Y, X], train ids}, or where the predictor counts,
        {mode: int32 [K, K]}.
      superpixels: int32 [Y, X], or None where they were not asked for.
    """

    index: int
    name: str
    image: np.ndarray
    label: np.ndarray
    predictions: dict[str, np.ndarray]
    superpixels: np.ndarray | None


def predicted_examples(
    config, source, predictor, skipped=None, needs_labels=True, max_images=0
) -> Iterator[Example]:
    """Yields the examples of a source in its order, one at a time, at their own size.

    What has been yielded is not kept: memory does not grow with the number of images.

    Args:
      config: an ExperimentOptions.
      source: a Source.
      predictor: a ModelPredictor or StoredPredictions.
      skipped: a SkippedFiles for images that `data.skip_corrupt` leaves out.
      needs_labels: whether a source without labels is refused.
      max_images: takes only so many from the start; 0 takes all.

    Raises:
      ValueError: naming the file, if an image or label cannot be used.
    """
    options = config.evaluation
    dataset = pipeline.eval_dataset(
        config,
        source,
        options.batch_size,
        max_images,
        static_size=predictor.static_size,
        skipped=skipped,
        needs_labels=needs_labels,
    )
    expected = min(len(source), max_images or len(source))
    progress = _Progress(expected)
    waiting = []
    for batch in pipeline.with_plain_errors(dataset):
        arrays = {key: values.numpy() for key, values in batch.items() if key != "image"}
        names = [source.name(int(index)) if index >= 0 else "" for index in arrays["index"]]
        waiting.append({**arrays, "image": batch["image"], "name": names})
        if len(waiting) == predictor.batches_at_once:
            yield from _examples(waiting, predictor, progress)
            waiting = []
    if waiting:
        yield from _examples(waiting, predictor, progress)


def _examples(batches, predictor, progress):
    for batch, (predictions, ids) in zip(batches, predictor.predict(batches), strict=True):
        images = batch["image"].numpy()
        for place, (index, size) in enumerate(zip(batch["index"], batch["size"], strict=True)):
            if index < 0:
                continue
            inside = (place, slice(size[0]), slice(size[1]))
            progress.count()
            yield Example(
                index=int(index),
                name=batch["name"][place],
                image=images[inside],
                label=batch["label"][inside],
                predictions={
                    mode: values[place if predictor.counts else inside]
                    for mode, values in predictions.items()
                },
                superpixels=None if ids is None else ids[inside],
            )


class _Progress:
    """A line now and then."""

    def __init__(self, expected):
        self._expected, self._done = expected, 0
        self._start = self._last_line = time.monotonic()

    def count(self):
        self._done += 1
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_PROGRESS_LINES:
            self._last_line = now
            rate = self._done / (now - self._start)
            logging.info("%d of %d images, %.2f images/s", self._done, self._expected, rate)
