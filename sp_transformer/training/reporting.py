"""What a run writes down about itself: log.jsonl, TensorBoard scalars and pictures."""

import os
import resource
import sys

import numpy as np
import tensorflow as tf

from sp_transformer.config import derived
from sp_transformer.data import drawing
from sp_transformer.model import inference as inference_lib
from sp_transformer.training import files, progress, summaries


class Reporter:
    """Writes `model_dir/train`.

    Args:
      model_dir: directory of the run.
      model: the built model.
      config: an ExperimentOptions.
      first_step: step that this session starts or resumes at.
      examples: function that gives the examples to draw, {"image": uint8 [Y,X,3], "label": integer
        [Y,X]}; called at the first drawing.
    """

    def __init__(self, model_dir, model, config, first_step, examples):
        folder = os.path.join(model_dir, "train")
        files.make_folder(folder)
        self._batch_size = config.training.batch_size
        self._log = progress.JsonLog(os.path.join(folder, "log.jsonl"), first_step)
        inference = inference_lib.Inference(model, config.data)
        label_map = derived.label_map(config)
        self._summaries = summaries.TrainSummaries(folder, inference, label_map, first_step)
        self._make_examples = examples
        self._examples = None
        # Steps and seconds since the last report; the session's first call compiles, and counts
        # only where there is no other.
        self._first_call = None
        self._steps = 0
        self._seconds = 0.0

    def count(self, steps, seconds):
        """Takes note of `steps` more steps, which took `seconds` without saving and evaluation."""
        if self._first_call is None:
            self._first_call = (steps, seconds)
        else:
            self._steps += steps
            self._seconds += seconds

    def report(self, step, values):
        """Writes `values`, a dict of name to float, with speed and memory.

        images_per_second and step_seconds are means since the last report.
        """
        steps, seconds = (self._steps, self._seconds) if self._steps else self._first_call
        self._steps, self._seconds = 0, 0.0
        values = {
            **values,
            "images_per_second": steps * self._batch_size / max(seconds, 1e-9),
            "step_seconds": seconds / steps,
            **peak_memory(),
        }
        self._log.write({"step": step, **values})
        self._summaries.scalars(step, values)

    def draw(self, step):
        """Draws the examples, which stay the same, so that progress can be seen on them."""
        if self._examples is None:
            self._examples = self._make_examples()
        self._summaries.pictures(step, self._examples)

    def close(self):
        self._log.close()
        self._summaries.close()


def peak_memory():
    """Largest memory so far in GiB: that of this process on the host, and that of each of its GPUs.

    Returns:
      Dict with "memory/host_peak_gib", and "memory/gpu0_peak_gib" and so on.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    peaks = {"memory/host_peak_gib": host}
    for index, device in enumerate(tf.config.list_logical_devices("GPU")):
        info = tf.config.experimental.get_memory_info(device.name.removeprefix("/device:"))
        peaks[f"memory/gpu{index}_peak_gib"] = info["peak"] / 2**30
    return peaks


def examples_of_source(source, count):
    """The examples to draw from a split, the same ones at every call and from all over it."""
    examples = []
    for index in drawing.evenly_spaced(len(source), count):
        image, label = source.read(index)
        examples.append({"image": np.asarray(image), "label": np.asarray(label)})
    return examples


def examples_of_batch(batch, count):
    """The first examples of a training batch {"image": float32 [b,Y,X,3], "label": int32 [b,Y,X]}."""
    images = np.clip(np.rint(batch["image"].numpy()[:count]), 0, 255).astype(np.uint8)
    labels = batch["label"].numpy()[:count]
    return [{"image": i, "label": k} for i, k in zip(images, labels, strict=True)]
