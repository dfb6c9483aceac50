"""Writes model.tflite, by TensorFlow's converter."""

import pathlib
import tempfile

import tensorflow as tf

from sp_transformer.serving import examples, export_options, portable_model
from sp_transformer.serving.runtimes import LITERT, MODEL_FILES


def write(config, model, folder, options) -> None:
    """Writes the model into `folder`.

    The file has the signatures serving_default (labels), superpixels (what `Runtime.run` gives) and probabilities, each
    of "images", uint8 [1, Y, X, 3].

    Args:
      config: a validated ExperimentOptions.
      model: a built SPTransformer.
      folder: where to.
      options: the ExportOptions.
    """
    source = portable_model.PortableModel(config, model, options.image_size)
    functions = {
        "serving_default": source.labels,
        "superpixels": source.superpixels,
        "probabilities": source.probabilities,
    }
    frozen = {
        name: portable_model.freeze(source.trace(function)) for name, function in functions.items()
    }
    with tempfile.TemporaryDirectory() as saved:
        signatures = {name: function.get_concrete_function() for name, function in frozen.items()}
        tf.saved_model.save(tf.Module(), saved, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=list(signatures))
        if options.quantization != export_options.NOT_QUANTIZED:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if options.quantization == export_options.FLOAT16:
            converter.target_spec.supported_types = [tf.float16]
        if options.quantization == export_options.INT8:
            converter.representative_dataset = lambda: _calibration(config, source, options)
        contents = converter.convert()
    (pathlib.Path(folder) / MODEL_FILES[LITERT]).write_bytes(contents)


def _calibration(config, source, options):
    """(signature, inputs) of every signature and calibration image."""
    size = tuple(source.images.shape[1:3])
    found = examples.calibration_examples(config, size, options.calibration_images)
    for example in found:
        for name in ("serving_default", "superpixels", "probabilities"):
            yield name, {"images": example.image[None]}
