"""TensorBoard scalars and pictures of a training run."""

import numpy as np
import tensorflow as tf

from sp_transformer.data import drawing

MAX_PICTURES = 4


class TrainSummaries:
    """Writes `model_dir/train` for TensorBoard.

    Args:
      directory: where the event files go.
      model: a model with `features`, `labels` and `hard_superpixels`.
      label_map: the `LabelMap` that gives the classes their colours.
      first_step: step that this session starts or resumes at; TensorBoard drops what an earlier
        session wrote of later steps.
    """

    def __init__(self, directory, model, label_map, first_step):
        self._model = model
        self._label_map = label_map
        self._writer = tf.summary.create_file_writer(directory)
        self._predict = tf.function(self._prediction)
        # TensorBoard forgets what it has of this step and later ones, from a session that was killed.
        with self._writer.as_default(step=first_step + 1):
            tf.summary.experimental.write_raw_pb(_session_start(first_step + 1))

    def scalars(self, step, values):
        """Writes `values`, a dict of name to float."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def pictures(self, step, batch):
        """Writes rows of image, label, prediction and superpixels for the first images of `batch`.

        Args:
          step: step of the weights.
          batch: {"image": float32 [b,Y,X,3] with values 0..255, "label": int32 [b,Y,X]}.
        """
        images = batch["image"][:MAX_PICTURES]
        predictions, superpixels = (tensor.numpy() for tensor in self._predict(images))
        images = np.clip(np.rint(images.numpy()), 0, 255).astype(np.uint8)
        with self._writer.as_default(step=step):
            for i, (image, label) in enumerate(
                zip(images, batch["label"].numpy()[:MAX_PICTURES], strict=True)
            ):
                row = drawing.side_by_side(
                    [
                        image,
                        drawing.colorize(label, self._label_map),
                        drawing.colorize(predictions[i], self._label_map),
                        drawing.draw_boundaries(image, superpixels[i]),
                    ]
                )
                tf.summary.image(f"image_label_prediction_superpixels/{i}", row[None])
        self._writer.flush()

    def close(self):
        self._writer.close()

    def _prediction(self, images):
        features = self._model.features(images, training=False)
        return self._model.labels(features), self._model.hard_superpixels(features)


def _session_start(step):
    """The event by which TensorBoard knows that steps from `step` on are written anew."""
    event = tf.compat.v1.Event(
        step=step, session_log=tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    )
    return event.SerializeToString()
