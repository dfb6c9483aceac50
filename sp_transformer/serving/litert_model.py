"""Writes model.tflite, by TensorFlow's converter."""

import pathlib
import re
import tempfile

import tensorflow as tf
from tensorflow.lite.python import convert, convert_phase

from sp_transformer.serving import examples, export_options, portable_model
from sp_transformer.serving.runtimes import LITERT, MODEL_FILES

# Those of the decoder and of the table of superpixels, which counts pixels. Attention and association add masks of -1e9
# to their logits: a range of int8 that holds both has no step small enough for the logits, and LiteRT's kernels abort
# on some of these ranges.
_FLOAT_OPERATIONS = (
    "ADD",
    "ARG_MAX",
    "BATCH_MATMUL",
    "CONCATENATION",
    "DIV",
    "EXP",
    "FULLY_CONNECTED",
    "GATHER",
    "GELU",
    "MAXIMUM",
    "MEAN",
    "MUL",
    "PACK",
    "REDUCE_MAX",
    "RESHAPE",
    "RESIZE_BILINEAR",
    "RSQRT",
    "SELECT_V2",
    "SOFTMAX",
    "SPLIT",
    "SQUARED_DIFFERENCE",
    "STRIDED_SLICE",
    "SUB",
    "SUM",
    "TRANSPOSE",
)


def write(config, model, folder, options) -> None:
    """Writes the model into `folder`.

    The file has the signatures serving_default (labels), superpixels (what `Runtime.run` gives) and probabilities, each
    of "images", uint8 [1, Y, X, 3].

    Args:
      config: a validated ExperimentOptions.
      model: a built SPTransformer.
      folder: where to.
      options: the ExportOptions.

    Raises:
      ValueError: if the model has an operation that LiteRT does not know.
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
        try:
            if options.quantization == export_options.INT8:
                contents = _convert_to_int8(converter, config, source, options)
            else:
                contents = converter.convert()
        except convert_phase.ConverterError as error:
            # Its text holds the whole program.
            unknown = re.search(r"TF Select ops: (.*)", str(error))
            if not unknown:
                raise
            raise ValueError(
                f"LiteRT has no kernel for {unknown[1]}, which this model needs; take another --format"
            ) from None
    (pathlib.Path(folder) / MODEL_FILES[LITERT]).write_bytes(contents)


def _convert_to_int8(converter, config, source, options):
    """The contents of the file, with ranges of activations from images of the evaluation split."""
    converter.representative_dataset = lambda: _calibration(config, source, options)
    # The converter itself quantizes all that it can. Its two halves by themselves are what tf.lite.experimental's
    # QuantizationDebugger leaves operations out with.
    converter._experimental_calibrate_only = True
    return convert.mlir_quantize(converter.convert(), denylisted_ops=set(_FLOAT_OPERATIONS))


def _calibration(config, source, options):
    """(signature, inputs) of every signature and calibration image."""
    size = tuple(source.images.shape[1:3])
    found = examples.calibration_examples(config, size, options.calibration_images)
    for example in found:
        for name in ("serving_default", "superpixels", "probabilities"):
            yield name, {"images": example.image[None]}
