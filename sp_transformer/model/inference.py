"""Images of any size -> labels of that size: the one computation that evaluation, export and prediction share."""

import keras
import tensorflow as tf

from sp_transformer.config import resizing
from sp_transformer.model.interpolation import resize_bilinear


class Inference:
    """Runs a model on whole images, in graphs that take any batch and any size, or a single one.

    Evaluation and the exported model call the same functions, so that an export cannot score differently.

    Args:
      model: a built SPTransformer.
      data_options: DataOptions; its resize fields say what size images are brought to in front of the model. Logits are
        resized back before the argmax (never labels).
      image_size: (Y, X) in pixels of the only images that are taken, one at a time; None for any. Where sizes are
        known, TensorFlow computes what depends on them once, and `cpu_kernels` can compile.

    Attributes:
      images: the TensorSpec of the images.
    """

    def __init__(self, model, data_options, image_size=None):
        self.model = model
        self._data_options = data_options
        shape = [None, None, None, 3] if image_size is None else [1, *image_size, 3]
        self.images = images = tf.TensorSpec(shape, tf.uint8, name="images")
        self.labels = tf.function(self._labels, input_signature=[images])
        self.labels_and_superpixels = tf.function(
            self._labels_and_superpixels, input_signature=[images]
        )
        self.views = tf.function(self._views, input_signature=[images])
        self.logits = tf.function(self._logits, input_signature=[images])

    def _labels(self, images):
        """uint8 [B, Y, X, 3] -> int32 [B, Y, X]."""
        features, resized = self._features(images)
        if not resized:
            return self.model.labels(features)
        return tf.argmax(self._full_size_logits(features, images), -1, tf.int32)

    def _labels_and_superpixels(self, images):
        """uint8 [B, Y, X, 3] -> labels and superpixel ids r*C + c, each int32 [B, Y, X]."""
        features, resized = self._features(images)
        if not resized:
            return self.model.labels(features), self.model.hard_superpixels(features)
        labels = tf.argmax(self._full_size_logits(features, images), -1, tf.int32)
        return labels, self._superpixels(features, resized, images)

    def _views(self, images):
        """What pictures show: labels and superpixel ids, and the labels' probabilities, float32 [B, Y, X]."""
        features, resized = self._features(images)
        logits = self._logits_of(features, resized, images)
        labels = tf.argmax(logits, -1, tf.int32)
        return labels, self._superpixels(features, resized, images), confidence(logits)

    def _logits(self, images):
        """uint8 [B, Y, X, 3] -> float32 [B, Y, X, num_classes]."""
        return self._logits_of(*self._features(images), images)

    def _logits_of(self, features, resized, images):
        if not resized:
            return self.model.semantic_logits(features)
        return self._full_size_logits(features, images)

    def _superpixels(self, features, resized, images):
        ids = self.model.hard_superpixels(features)
        if not resized:
            return ids
        return tf.image.resize(ids[..., None], tf.shape(images)[1:3], method="nearest")[..., 0]

    def _features(self, images):
        # A loaded export does not hold callers to its signature, and may come to an end with another size.
        images = tf.ensure_shape(images, self.images.shape)
        resized = resizing.resizes(self._data_options)
        if resized:
            shape = tf.shape(images)
            size = resizing.resized_size(shape[1], shape[2], self._data_options, maximum=tf.maximum)
            images = keras.ops.cast(images, "float32")
            images = resize_bilinear(images, size)
        return self.model.features(images, training=False), resized

    def _full_size_logits(self, features, images):
        shape = tf.shape(images)
        return resize_bilinear(self.model.semantic_logits(features), (shape[1], shape[2]))


def confidence(logits):
    """The probability of the largest of logits [..., K] in their softmax: [...]."""
    # Equal to 1 / sum exp(l - max l): no tensor of all probabilities is needed besides.
    logits -= tf.reduce_max(logits, -1, keepdims=True)
    return 1 / tf.reduce_sum(tf.exp(logits), -1)
