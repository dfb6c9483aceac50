"""Writes the SavedModel: inference as signatures that plain TensorFlow runs, without Keras or this package.

Shapes: B images; Y, X their height and width in pixels; K classes; N = R*C superpixels.
"""

import contextlib

import tensorflow as tf

from sp_transformer.model import inference as inference_lib
from sp_transformer.model import inference_form


class ExportedModel(tf.Module):
    """Inference, as the object that is saved.

    Its functions stay callable on the loaded object, and each is a signature; all return dicts of tensors. Images are
    uint8 [B, Y, X, 3] RGB, of the inference's sizes.

    labels (serving_default): "labels", int32 [B, Y, X], train ids.
    probabilities: "probabilities", float32 [B, Y, X, K].
    encoded: as `labels`, for "encoded_images", string [B] of JPEG, PNG, BMP or GIF files of one size, taken as
      their rows are: TensorFlow does not apply an EXIF orientation.
    superpixels: "labels", "superpixels" (ids r*C + c), int32 [B, Y, X], and the table of model/superpixel_table.py.
    """

    def __init__(self, inference, model, jit_compile=False):
        """Holds the inference and every variable that it reads.

        Args:
          inference: an Inference of `model`.
          model: the built Keras model.
          jit_compile: whether XLA compiles each function, at its first call.
        """
        super().__init__(name="sp_transformer")
        self._inference = inference
        self._jit_compile = jit_compile
        # tf.Module finds no Keras 3 variable by itself, and a variable that is not found is saved
        # without its value; attaching the Keras model would write its layers, which loading without
        # Keras cannot read.
        self.weights = [variable.value for variable in model.variables]
        images = [inference.images]
        self.labels = self._function(self._labels, images)
        self.probabilities = self._function(self._probabilities, images)
        self.superpixels = self._function(inference.superpixels, images)
        encoded = tf.TensorSpec(inference.images.shape[:1], tf.string, name="encoded_images")
        # Decoding is nothing for XLA; the labels inside are compiled all the same.
        self.encoded = tf.function(self._encoded, input_signature=[encoded])

    @property
    def signatures(self) -> dict:
        """The concrete functions by name; tracing happens here."""
        functions = {
            "serving_default": self.labels,
            "probabilities": self.probabilities,
            "encoded": self.encoded,
            "superpixels": self.superpixels,
        }
        return {name: function.get_concrete_function() for name, function in functions.items()}

    def _function(self, function, signature):
        return tf.function(
            function, input_signature=signature, jit_compile=self._jit_compile or None
        )

    def _labels(self, images):
        return {"labels": self._inference.labels(images)}

    def _probabilities(self, images):
        return {"probabilities": self._inference.probabilities(images)}

    def _encoded(self, encoded_images):
        decoded = tf.TensorSpec(self._inference.images.shape[1:], tf.uint8)
        images = tf.map_fn(_decode, encoded_images, fn_output_signature=decoded)
        return self.labels(images)


def write(config, model, folder, options) -> None:
    """Saves `model` into `folder`.

    Args:
      config: a validated ExperimentOptions.
      model: a built SPTransformer.
      folder: where to.
      options: the ExportOptions.
    """
    kernels = contextlib.nullcontext()
    if options.inference_form:
        model = inference_form.convert(model)
        kernels = inference_form.kernels(options.jit_compile)
    inference = inference_lib.Inference(model, config.data, options.image_size)
    module = ExportedModel(inference, model, options.jit_compile)
    with kernels:
        signatures = module.signatures
    tf.saved_model.save(module, str(folder), signatures=signatures)


def _decode(encoded):
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)
