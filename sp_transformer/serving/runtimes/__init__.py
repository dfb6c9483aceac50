"""Exported models of every format behind one interface, each run by its own runtime.

A runtime's package is imported when a model of its format is opened: a process that opens an ONNX file never imports
TensorFlow.
"""

import importlib
import pathlib

from sp_transformer.serving.runtimes import run_directory
from sp_transformer.serving.runtimes.runtime import Runtime

SAVED_MODEL = "saved_model"
ONNX = "onnx"
LITERT = "litert"
STABLEHLO = "stablehlo"
# The file that tells a format, and what it is called.
MODEL_FILES = {
    SAVED_MODEL: "saved_model.pb",
    ONNX: "model.onnx",
    LITERT: "model.tflite",
    STABLEHLO: "manifest.json",
}
_MODULES = {
    SAVED_MODEL: "saved_model_runtime",
    ONNX: "onnx_runtime",
    LITERT: "litert_runtime",
    STABLEHLO: "stablehlo_runtime",
}


def open_model(path) -> Runtime:
    """Opens a model for running it.

    Args:
      path: the folder of an export, or the model's file in it (saved_model.pb, model.onnx, model.tflite,
        manifest.json); or a training run's model_dir or checkpoint.

    Raises:
      ValueError: if it is neither, or the package that runs its format is missing.
    """
    run = run_directory.find_run(path)
    if run:
        return run_directory.RunDirectory(*run)
    folder, model_format = find_model(path)
    module = importlib.import_module(f"{__name__}.{_MODULES[model_format]}")
    return module.open_export(folder)


def find_model(path) -> tuple[pathlib.Path, str]:
    """The folder and the format of an export.

    Raises:
      ValueError: if `path` is none.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"model {str(path)!r} does not exist; {_WHAT_IS_TAKEN}")
    for model_format, name in MODEL_FILES.items():
        if path.name == name and path.is_file():
            return path.parent, model_format
        if (path / name).is_file():
            return path, model_format
    raise ValueError(f"model {str(path)!r} is no export; {_WHAT_IS_TAKEN}")


_WHAT_IS_TAKEN = (
    "name a folder that sp_transformer.export wrote, the model's file in it ("
    + ", ".join(MODEL_FILES.values())
    + "), or the model_dir or a checkpoint of a training run"
)

__all__ = [
    "LITERT",
    "MODEL_FILES",
    "ONNX",
    "SAVED_MODEL",
    "STABLEHLO",
    "Runtime",
    "find_model",
    "open_model",
]
