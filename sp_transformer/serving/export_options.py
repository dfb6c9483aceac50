"""What is exported, and whether that fits together. Imports no TensorFlow.

Shapes: Y, X are the height and width of the images in pixels.
"""

import dataclasses
import importlib.util

from sp_transformer.protos import training_pb2
from sp_transformer.serving import stablehlo_options
from sp_transformer.serving.runtimes import LITERT, ONNX, SAVED_MODEL, STABLEHLO

FORMATS = (SAVED_MODEL, ONNX, LITERT, STABLEHLO)
NOT_QUANTIZED = "none"
DYNAMIC_RANGE = "dynamic_range"
FLOAT16 = "float16"
INT8 = "int8"
QUANTIZATIONS = (NOT_QUANTIZED, DYNAMIC_RANGE, FLOAT16, INT8)
# (package that must be there, extra of ours that brings it): to write the format, and to run it for the verification.
_WRITERS = {ONNX: (("onnx", ONNX), ("tf2onnx", ONNX))}
_RUNNERS = {
    ONNX: (("onnxruntime", ONNX),),
    LITERT: (("ai_edge_litert", LITERT),),
    STABLEHLO: (("jax", STABLEHLO),),
}


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What is exported.

    Attributes:
      format: one of FORMATS.
      image_size: (Y, X) of the only images that the export takes, one at a time; None for any batch of any size, or
        the config's size in formats that need one.
      inference_form: SavedModel only: the faster form of model/inference_form.py, for the kind of device that this
        process sees. It equals the checkpoint up to rounding. Other formats have BatchNorm folded in any case.
      jit_compile: SavedModel of one size only: XLA compiles it on the machine that runs it.
      quantization: LiteRT only: one of QUANTIZATIONS.
      calibration_images: int8 only: images of the evaluation split that ranges are taken from.
      overwrite: whether an older export of the format may be replaced.
      verify_images: images that the export is compared with the checkpoint on; 0 for no verification.
      stablehlo: StableHLO only: its StableHLOOptions, of the same size.
    """

    format: str = SAVED_MODEL
    image_size: tuple[int, int] | None = None
    inference_form: bool = False
    jit_compile: bool = False
    quantization: str = NOT_QUANTIZED
    calibration_images: int = 32
    overwrite: bool = False
    verify_images: int = 4
    stablehlo: stablehlo_options.StableHLOOptions | None = None


def check(config, options: ExportOptions) -> None:
    """Refuses options that do not fit each other or the config, and formats whose packages are missing.

    Raises:
      ValueError: with the value, the limit and what to do.
    """
    if options.format not in FORMATS:
        raise ValueError(f"unknown format {options.format!r}; choose from {', '.join(FORMATS)}")
    if options.quantization not in QUANTIZATIONS:
        raise ValueError(
            f"unknown quantization {options.quantization!r}; choose from {', '.join(QUANTIZATIONS)}"
        )
    if options.quantization != NOT_QUANTIZED and options.format != LITERT:
        raise ValueError(
            f"quantization {options.quantization!r} goes with format {LITERT!r}; {options.format!r} has none"
        )
    for name in ("inference_form", "jit_compile"):
        if getattr(options, name) and options.format != SAVED_MODEL:
            raise ValueError(f"{name} goes with format {SAVED_MODEL!r}, not {options.format!r}")
    if options.jit_compile and options.image_size is None:
        raise ValueError(
            "jit_compile needs a size, as 512x1024: XLA would compile anew for every size that it meets"
        )
    bfloat16 = config.training.precision == training_pb2.TrainingOptions.BFLOAT16
    if bfloat16 and options.format in (ONNX, LITERT):
        raise ValueError(
            f"format {options.format!r} computes in float32: build the model with training.precision FLOAT32, which "
            "takes the same checkpoint"
        )
    if options.verify_images < 0 or options.calibration_images < 1:
        raise ValueError(
            f"verify_images {options.verify_images} must be at least 0, and calibration_images "
            f"{options.calibration_images} at least 1"
        )
    if options.format == STABLEHLO:
        stablehlo_options.check(config, options.stablehlo)
    _check_packages(options)


def _check_packages(options):
    runners = _RUNNERS.get(options.format, ()) if options.verify_images else ()
    for package, extra in (*_WRITERS.get(options.format, ()), *runners):
        if importlib.util.find_spec(package) is None:
            mend = f"pip install 'sp-transformer[{extra}]'"
            if (package, extra) in runners:
                mend += ", or --verify_images=0 to export without the verification"
            raise ValueError(f"format {options.format!r} needs {package}, which is missing: {mend}")
