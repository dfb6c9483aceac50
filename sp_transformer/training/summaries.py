"""TensorBoard scalars and pictures of a training run."""

import time

import numpy as np
import tensorflow as tf

from sp_transformer.data import drawing
from sp_transformer.pictures import panels

_MAX_SIDE = 512  # Of a panel, in pixels: event files are read over networks.
_LEGEND_ROWS = 25


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
        self._has_legend = False
        self._writer = tf.summary.create_file_writer(directory)
        # TensorBoard forgets what it has of this step and later ones, from a session that was killed.
        forget_from(self._writer, first_step + 1)

    def scalars(self, step, values):
        """Writes `values`, a dict of name to float."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def pictures(self, step, examples):
        """Writes two pictures of each example, and once the legend.

        segmentation/N is the paper's Fig. 4 (superpixels, prediction, truth), details/N shows mean colours, errors and
        confidence.

        Args:
          step: step of the weights.
          examples: sequence of {"image": uint8 [Y,X,3], "label": integer [Y,X]}; sizes may differ.
        """
        label_map = self._label_map
        with self._writer.as_default(step=step):
            for i, example in enumerate(examples):
                image, label = np.asarray(example["image"]), np.asarray(example["label"])
                views = (values[0].numpy() for values in self._inference.views(image[None]))
                prediction, superpixels, confidence = views
                panel = panels.segmentation_panel(
                    image, prediction, superpixels, label_map, label, max_side=_MAX_SIDE
                )
                details = panels.detail_panel(
                    image,
                    prediction,
                    superpixels,
                    confidence,
                    label,
                    label_map.ignore_label,
                    max_side=_MAX_SIDE,
                )
                tf.summary.image(f"segmentation/{i}", panel[None])
                tf.summary.image(f"details/{i}", details[None])
            if not self._has_legend:
                columns = -(-label_map.num_classes // _LEGEND_ROWS)
                legend = drawing.legend(label_map, columns)
                tf.summary.image("legend/classes", legend[None])
                tf.summary.image("legend/errors", panels.error_legend()[None])
                self._has_legend = True
        self._writer.flush()

    def close(self):
        self._writer.close()


def forget_from(writer, step):
    """Makes TensorBoard drop what it has of `step` and later ones: they are going to be written anew."""
    event = tf.compat.v1.Event(
        wall_time=time.time(),
        step=step,
        session_log=tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START),
    )
    # There is no public way to write an event as it is: tf.summary.experimental.write_raw_pb takes
    # summaries only, and an event that it is given is lost without a word. Twice, because the first
    # start that TensorBoard sees in a folder is none that follows a kill.
    for _ in range(2):
        tf.raw_ops.ImportEvent(writer=writer._resource, event=event.SerializeToString())
