"""Images of any size -> labels of that size: the one computation that evaluation, export and prediction share."""

import keras
import tensorflow as tf

from sp_transformer.config import resizing
from sp_transformer.model.interpolation import resize_bilinear
from sp_transformer.model.superpixel_table import superpixel_table


class Inference:
    """Runs a model on whole images, in graphs that take any batch and any size, or a single one.

    Evaluation and the exported model call the same functions, so that an export cannot score differently.

    Args:
      model: a built SPTransformer.
      data_options: DataOptions; its resize fields say what size images are brought to in front of the model. Logits are
        resized back before the argmax (never labels).
      image_size: (Y, X) in pixels of the only images that are taken; None for any batch of any size. Where sizes are
        known, TensorFlow computes what depends on them once, and `cpu_kernels` can compile.
      batch_size: number of images of that size.

    Attributes:
      images: the TensorSpec of the images.
    """

    def __init__(self, model, data_options, image_size=None, batch_size=1):
        self.model = model
        self._data_options = data_options
        self._of_shape = {}
        shape = [None, None, None, 3] if image_size is None else [batch_size, *image_size, 3]
        self.images = images = tf.TensorSpec(shape, tf.uint8, name="images")
        self.labels = tf.function(self._labels, input_signature=[images])
        self.labels_and_superpixels = tf.function(
            self._labels_and_superpixels, input_signature=[images]
        )
        self.views = tf.function(self._views, input_signature=[images])
        self.logits = tf.function(self._logits, input_signature=[images])
        self.probabilities = tf.function(self._probabilities, input_signature=[images])
        self.superpixels = tf.function(self._superpixels, input_signature=[images])

    def of_shape(self, batch_size, image_size):
        """The same for images of one shape only, traced once however often it is asked for."""
        key = (batch_size, *image_size)
        if key not in self._of_shape:
            self._of_shape[key] = Inference(self.model, self._data_options, image_size, batch_size)
        return self._of_shape[key]

    def _labels(self, images):
        """uint8 [B, Y, X, 3] -> int32 [B, Y, X]."""
        features, resized = self._features(images)
        if not resized:
            return self.model.labels(features)
        return self._resized_labels(features, images)

    def _labels_and_superpixels(self, images):
        """uint8 [B, Y, X, 3] -> labels and superpixel ids r*C + c, each int32 [B, Y, X]."""
        features, resized = self._features(images)
        return self._both_maps(features, resized, images)

    def _superpixels(self, images):
        """uint8 [B, Y, X, 3] -> "labels" and "superpixels", int32 [B, Y, X], and what `superpixel_table` gives."""
        features, resized = self._features(images)
        labels, ids = self._both_maps(features, resized, images)
        seen_size = features["image_size"] if resized else None
        stride = self.model.superpixel_stride
        table = superpixel_table(ids, features["superpixel_logits"], seen_size, stride)
        return {"labels": labels, "superpixels": ids, **table}

    def _both_maps(self, features, resized, images):
        if not resized:
            return self.model.labels(features), self.model.hard_superpixels(features)
        return self._resized_labels(features, images), self._superpixel_ids(features, True, images)

    def _views(self, images):
        """What pictures show: labels and superpixel ids, and the labels' probabilities, float32 [B, Y, X]."""
        features, resized = self._features(images)
        logits = self._full_size_logits(features, resized, images)
        labels = tf.argmax(logits, -1, tf.int32)
        return labels, self._superpixel_ids(features, resized, images), confidence(logits)

    def _logits(self, images):
        """uint8 [B, Y, X, 3] -> float32 [B, Y, X, num_classes]."""
        return self.both_logits(images)["semantic_logits"]

    def both_logits(self, images):
        """ "semantic_logits" float32 [B, Y, X, num_classes] and "superpixel_logits" float32 [B, R, C, num_classes]."""
        features, resized = self._features(images)
        logits = self._full_size_logits(features, resized, images)
        return {"semantic_logits": logits, "superpixel_logits": features["superpixel_logits"]}

    def _probabilities(self, images):
        """uint8 [B, Y, X, 3] -> float32 [B, Y, X, num_classes], summing to one."""
        return tf.nn.softmax(self._logits(images))

    def _superpixel_ids(self, features, resized, images):
        ids = self.model.hard_superpixels(features)
        if not resized:
            return ids
        return _resize_nearest(ids, tf.shape(images)[1:3])

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

    def _resized_labels(self, features, images):
        return tf.argmax(self._full_size_logits(features, True, images), -1, tf.int32)

    def _full_size_logits(self, features, resized, images):
        logits = self.model.semantic_logits(features)
        if not resized:
            return logits
        shape = tf.shape(images)
        return resize_bilinear(logits, (shape[1], shape[2]))


def _resize_nearest(ids, size):
    """int32 [B, Y, X] -> [B, *size], each the pixel that its middle lies in; LiteRT does not resize int32 itself."""
    for axis in (1, 2):
        # Pixel i of n has its middle at (2 i + 1) / (2 n) of the side.
        middles = 2 * tf.range(size[axis - 1]) + 1
        ids = tf.gather(ids, middles * tf.shape(ids)[axis] // (2 * size[axis - 1]), axis=axis)
    return ids


def confidence(logits):
    """The probability of the largest of logits [..., K] in their softmax: [...]."""
    # Equal to 1 / sum exp(l - max l): no tensor of all probabilities is needed besides.
    logits -= tf.reduce_max(logits, -1, keepdims=True)
    return 1 / tf.reduce_sum(tf.exp(logits), -1)
