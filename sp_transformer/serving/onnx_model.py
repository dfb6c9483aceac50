"""Writes model.onnx, by tf2onnx."""

import logging
import pathlib

from sp_transformer.serving import portable_model
from sp_transformer.serving.runtimes import MODEL_FILES, ONNX

# onnxruntime has had it since 1.14.
OPSET = 18


def write(config, model, folder, options) -> None:
    """Writes the model into `folder`.

    The file takes "images", uint8 [1, Y, X, 3], and gives what `Runtime.run` does, and "probabilities".

    Args:
      config: a validated ExperimentOptions.
      model: a built SPTransformer.
      folder: where to.
      options: the ExportOptions.
    """
    import onnx
    import tf2onnx

    # It logs a line for every operation that it folds.
    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    source = portable_model.PortableModel(config, model, options.image_size)
    concrete = source.trace(source.superpixels, source.probabilities)
    function = portable_model.freeze(concrete)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=[source.images], opset=OPSET)
    onnx.checker.check_model(proto)
    onnx.save(proto, str(pathlib.Path(folder) / MODEL_FILES[ONNX]))
