"""Options of an export that do not fit are refused by name, before a model is built."""

import importlib.util

import pytest

from sp_transformer.serving import export_options, stablehlo_options
from sp_transformer.serving.runtimes import LITERT, ONNX, STABLEHLO


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "coreml"}, "unknown format 'coreml'; choose from saved_model, onnx, litert"),
        ({"quantization": "int4"}, "unknown quantization 'int4'; choose from none, dynamic_range"),
        ({"quantization": "int8"}, "'int8' goes with format 'litert'; 'saved_model' has none"),
        ({"format": ONNX, "inference_form": True}, "inference_form goes with format 'saved_model'"),
        ({"format": ONNX, "jit_compile": True}, "jit_compile goes with format 'saved_model'"),
        ({"jit_compile": True}, "jit_compile needs a size"),
        ({"verify_images": -1}, "verify_images -1 must be at least 0"),
        ({"calibration_images": 0}, "calibration_images 0 at least 1"),
    ],
)
def test_options_that_do_not_fit_are_errors(config, changes, words):
    with pytest.raises(ValueError, match=words):
        export_options.check(config, export_options.ExportOptions(**changes))


def test_bfloat16_is_refused_where_it_does_not_exist(config):
    config = type(config).FromString(config.SerializeToString())
    config.training.precision = config.training.BFLOAT16
    with pytest.raises(ValueError, match=r"'litert' computes in float32.*precision FLOAT32"):
        export_options.check(config, export_options.ExportOptions(format=LITERT))


@pytest.mark.parametrize(
    ("model_format", "package"),
    [(ONNX, "tf2onnx"), (ONNX, "onnxruntime"), (LITERT, "ai_edge_litert"), (STABLEHLO, "jax")],
)
def test_a_missing_package_is_named_with_what_installs_it(
    config, model_format, package, monkeypatch
):
    def find_spec(name):
        return None if name == package else object()

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    programs = stablehlo_options.StableHLOOptions() if model_format == STABLEHLO else None
    options = export_options.ExportOptions(format=model_format, stablehlo=programs)
    config = type(config).FromString(config.SerializeToString())
    config.model.tokenizer.superpixel_stride = 8
    words = rf"needs {package}, which is missing: pip install 'sp-transformer\[{model_format}\]'"
    with pytest.raises(ValueError, match=words):
        export_options.check(config, options)
