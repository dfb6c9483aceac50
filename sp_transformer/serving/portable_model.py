"""A model as functions that converters to other runtimes read: one image of one size, weights as constants.

Converters get frozen graphs because LiteRT's, given the variables of a Keras 3 model, writes a file that computes from
uninitialised memory, and reports success.
"""

import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from sp_transformer.model import inference as inference_lib
from sp_transformer.model import inference_form, portable
from sp_transformer.serving.runtimes import runtime


class PortableModel:
    """Inference of one image of one size, with BatchNorm folded.

    Args:
      config: a validated ExperimentOptions.
      model: a built SPTransformer.
      image_size: (Y, X) in pixels.

    Attributes:
      images: the TensorSpec of the image, uint8 [1, Y, X, 3].
    """

    def __init__(self, config, model, image_size):
        folded = inference_form.convert(model)
        self._inference = inference_lib.Inference(folded, config.data, image_size)
        self.images = self._inference.images

    def labels(self, images):
        """{"labels": int32 [1, Y, X]}."""
        return {"labels": self._inference.labels(images)}

    def superpixels(self, images):
        """The outputs that every runtime's `run` gives."""
        outputs = self._inference.superpixels(images)
        return {name: outputs[name] for name in (*runtime.MAPS, *runtime.TABLE)}

    def probabilities(self, images):
        """{"probabilities": float32 [1, Y, X, K]}."""
        return {"probabilities": self._inference.probabilities(images)}

    def trace(self, *functions) -> tf.types.experimental.ConcreteFunction:
        """One concrete function of `images` with the outputs of all functions."""

        def together(images):
            outputs = {}
            for function in functions:
                outputs |= function(images)
            return {name: tf.identity(value, name) for name, value in outputs.items()}

        with portable.portable():
            return tf.function(together, input_signature=[self.images]).get_concrete_function()


def freeze(concrete):
    """A concrete function -> a tf.function of the same outputs, with weights as constants."""
    frozen = convert_to_constants.convert_variables_to_constants_v2(concrete)
    names = sorted(concrete.structured_outputs)

    def call(images):
        return dict(zip(names, frozen(images), strict=True))

    (images,) = concrete.structured_input_signature[0]
    return tf.function(call, input_signature=[images])
