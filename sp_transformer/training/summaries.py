"""TensorBoard scalars and pictures of a training run."""

import os
import re
import time

import numpy as np
import tensorflow as tf

from sp_transformer.data import drawing, storage

_EVENT_FILE = re.compile(r"^events\.out\.tfevents\.(\d+)\.")


class TrainSummaries:
    """Writes `model_dir/train` for TensorBoard.

    Args:
      directory: where the event files go.
      inference: an `Inference` of the model.
      label_map: the `LabelMap` that gives the classes their colours.
      first_step: step that this session starts or resumes at; TensorBoard drops what an earlier
        session wrote of later steps.
    """

    def __init__(self, directory, inference, label_map, first_step):
        self._inference = inference
        self._label_map = label_map
        # Of a session that was killed.
        forget_from(directory, first_step + 1)
        self._writer = tf.summary.create_file_writer(directory)

    def scalars(self, step, values):
        """Writes `values`, a dict of name to float."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def pictures(self, step, examples):
        """Writes image and label above prediction and superpixels, for each example.

        Args:
          step: step of the weights.
          examples: sequence of {"image": uint8 [Y,X,3], "label": integer [Y,X]}; sizes may differ.
        """
        with self._writer.as_default(step=step):
            for i, example in enumerate(examples):
                labels, superpixels = self._inference.labels_and_superpixels(example["image"][None])
                picture = drawing.example_picture(
                    np.asarray(example["image"]),
                    np.asarray(example["label"]),
                    labels[0].numpy(),
                    superpixels[0].numpy(),
                    self._label_map,
                )
                tf.summary.image(f"image_label_prediction_superpixels/{i}", picture[None])
        self._writer.flush()

    def close(self):
        self._writer.close()


def forget_from(folder, step):
    """Makes TensorBoard drop what it has of `step` and later ones, which are going to be written anew.

    It is to be called before a new writer is made. TensorBoard reads files in the order of their names, which begin
    with the second of their making: this waits until a file that is made afterwards comes after its own, up to two
    seconds.

    Args:
      folder: of event files; need not exist.
      step: the first step to be dropped.
    """
    names = storage.list_folder(folder) if tf.io.gfile.isdir(folder) else []
    seconds = [int(second) for name in names for second in _EVENT_FILE.findall(name)]
    if not seconds:
        return
    second = max(int(time.time()), max(seconds) + 1)
    # tf.summary cannot write such an event; its files are TFRecords.
    with tf.io.TFRecordWriter(os.path.join(folder, f"events.out.tfevents.{second}.restart")) as out:
        log = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        start = {"step": step, "session_log": log}
        # Twice: the first start that TensorBoard sees in a folder is none that follows a kill.
        for contents in ({"file_version": "brain.Event:2"}, start, start):
            event = tf.compat.v1.Event(wall_time=time.time(), **contents)
            out.write(event.SerializeToString())
    # A clock that was set back must not hold up a run for long.
    time.sleep(min(max(second + 1 - time.time(), 0.0), 2.0))
