"""ONNX, LiteRT and StableHLO: equal to the model, also in a process with the runtime and without TensorFlow."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from sp_transformer import predict
from sp_transformer.model.inference import Inference
from sp_transformer.serving import export, export_options, runtimes, stablehlo_options

HERE = pathlib.Path(__file__).parent
# Packages that write and run the format, the script that runs it alone, and what that takes in the export.
FORMATS = {
    "onnx": (("tf2onnx", "onnx", "onnxruntime"), "plain_runtime.py", "model.onnx"),
    "litert": (("ai_edge_litert",), "plain_runtime.py", "model.tflite"),
    "stablehlo": (("jax",), "plain_jax.py", "."),
}
SIZE = (33, 38)


def options_of(model_format):
    programs = None
    if model_format == "stablehlo":
        programs = stablehlo_options.StableHLOOptions(size=SIZE)
    return export_options.ExportOptions(
        format=model_format, image_size=SIZE, verify_images=0, stablehlo=programs
    )


@pytest.fixture(scope="module", params=sorted(FORMATS))
def portable(request, config, model, tmp_path_factory):
    """An export of each format, which the tests only read."""
    for package in FORMATS[request.param][0]:
        pytest.importorskip(package)
    config = type(config).FromString(config.SerializeToString())
    config.model.tokenizer.superpixel_stride = 4
    folder = tmp_path_factory.mktemp(request.param) / "model"
    options = options_of(request.param)
    return export.export_model(config, model, folder, options, checkpoint="run/ckpt-12", step=12)


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(5)
    return [generator.integers(0, 256, (1, *SIZE, 3), np.uint8) for _ in range(3)]


def check(found, inference, image):
    expected = inference.superpixels(image)
    for name in ("labels", "superpixels", "superpixel_classes", "superpixel_pixels"):
        assert found[name].dtype == np.int32
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    for name in ("superpixel_confidence", "superpixel_centroids"):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
    assert len(np.unique(found["labels"])) >= 3


def test_an_export_gives_what_the_model_does(portable, inference, images):
    opened = runtimes.open_model(portable)
    assert opened.format in FORMATS and opened.image_size == SIZE
    for image in images:
        found = opened.run(image)
        check(found, inference, image)
        np.testing.assert_array_equal(found["superpixel_grid"], [9, 10])
        np.testing.assert_array_equal(opened.labels(image), found["labels"])
        probabilities = opened.probabilities(image)
        np.testing.assert_allclose(probabilities, inference.probabilities(image), atol=1e-5)
    with pytest.raises(ValueError, match=r"33x37 and the model was exported for 33x38"):
        opened.run(images[0][:, :, :-1])


def test_a_process_with_nothing_but_the_runtime_computes_the_same(
    portable, inference, images, tmp_path
):
    about = json.loads((portable / "assets.extra" / "version.json").read_text())
    _, script, model = FORMATS[about["format"]]
    np.savez(tmp_path / "images.npz", **{f"i{n}": image for n, image in enumerate(images)})
    arguments = [HERE / script, portable / model, tmp_path / "images.npz", tmp_path / "out.npz"]
    done = subprocess.run(
        [sys.executable, "-I", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = np.load(tmp_path / "out.npz")
    for number, image in enumerate(images):
        key = f"i{number}_"
        found = {name.removeprefix(key): results[name] for name in results if name.startswith(key)}
        check(found, inference, image)


def test_prediction_of_a_folder_is_that_of_the_saved_model(portable, exported, images, tmp_path):
    for number, image in enumerate(images):
        (tmp_path / "photos" / "night").mkdir(parents=True, exist_ok=True)
        folder = tmp_path / "photos" / ("night" if number else "")
        Image.fromarray(image[0]).save(folder / f"{number}.png")
    # The file in one case, the folder in the other.
    about = json.loads((portable / "assets.extra" / "version.json").read_text())
    model_file = runtimes.MODEL_FILES[about["format"]]
    for model, out in ((portable / model_file, "out"), (exported, "expected")):
        values = flags.FlagValues()
        predict.define_flags(values)
        command = [f"--model={model}", f"--input={tmp_path / 'photos'}"]
        values(["predict", *command, f"--output_dir={tmp_path / out}"])
        assert predict.main(values) == 0
    files, expected = (
        sorted(path.relative_to(tmp_path / out) for path in (tmp_path / out).rglob("*.*"))
        for out in ("out", "expected")
    )
    assert files == expected and pathlib.Path("night/1_superpixels.json") in files
    labels = [path for path in files if path.name.endswith("_labels.png")]
    assert len(labels) == len(images)
    for path in labels:
        found, wanted = (
            np.asarray(Image.open(tmp_path / out / path)) for out in ("out", "expected")
        )
        assert np.mean(found == wanted) >= 0.9999


def test_an_export_says_what_it_is(portable):
    about = json.loads((portable / "assets.extra" / "version.json").read_text())
    assert about["image_size"] == list(SIZE) and about["superpixel_grid"] == [9, 10]
    assert about["checkpoint"] == "run/ckpt-12" and about["step"] == 12
    assert about["exporter"]["versions"]["tensorflow"]
    report = json.loads((portable / "verification.json").read_text())
    assert report["passed"] is None and "--verify_images=0" in report["reason"]


@pytest.mark.parametrize("model_format", ["onnx", "litert"])
def test_where_the_config_resizes_outputs_have_the_images_own_size(
    config, model, images, tmp_path, model_format
):
    for package in FORMATS[model_format][0]:
        pytest.importorskip(package)
    config = type(config).FromString(config.SerializeToString())
    config.model.tokenizer.superpixel_stride = 4
    # More rows than the image has, and fewer columns.
    config.data.resize_height, config.data.resize_width = 48, 28
    folder = export.export_model(config, model, tmp_path / "model", options_of(model_format))
    opened = runtimes.open_model(folder)
    # What the SavedModel's signatures are.
    inference = Inference(model, config.data)
    for image in images:
        found, expected = opened.run(image), inference.superpixels(image)
        for name in ("labels", "superpixels"):
            assert found[name].shape == (1, *SIZE)
            assert np.mean(found[name] == expected[name]) >= 0.9999, name
        assert len(np.unique(found["labels"])) >= 3
        for name in ("superpixel_centroids", "superpixel_confidence"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-2, err_msg=name)
    np.testing.assert_array_equal(found["superpixel_grid"], [12, 7])


def test_an_operation_that_litert_does_not_know_is_named(config, model, tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")

    def enlarged(features):
        ids = tf.cast(features["pixels"][..., :1], tf.int32)
        return tf.image.resize(ids, SIZE, method="nearest")[..., 0]

    monkeypatch.setattr(model, "hard_superpixels", enlarged)
    with pytest.raises(ValueError, match=r"^LiteRT has no kernel for ResizeNearestNeighbor, which"):
        export.export_model(config, model, tmp_path / "model", options_of("litert"))


@pytest.mark.parametrize("quantization", ["dynamic_range", "int8"])
def test_quantised_models_are_smaller_and_label_most_pixels_alike(
    config, model, inference, images, tmp_path, quantization
):
    pytest.importorskip("ai_edge_litert")
    options = dataclasses.replace(
        options_of("litert"), quantization=quantization, calibration_images=3
    )
    folder = export.export_model(config, model, tmp_path / "model", options)
    opened = runtimes.open_model(folder)
    assert opened.about["quantization"] == quantization
    for image in images:
        found, expected = opened.run(image), inference.superpixels(image)
        assert np.mean(found["labels"] == expected["labels"]) > 0.9
        assert np.mean(found["superpixels"] == expected["superpixels"]) == 1
        np.testing.assert_array_equal(found["superpixel_pixels"], expected["superpixel_pixels"])
        centroids = found["superpixel_centroids"]
        np.testing.assert_allclose(centroids, expected["superpixel_centroids"], atol=1e-3)
        difference = opened.probabilities(image) - inference.probabilities(image)
        assert 0 < np.mean(np.abs(difference)) < 0.05


def test_the_verification_runs_without_tensorflow(config, model, tmp_path):
    pytest.importorskip("ai_edge_litert")
    # Of the config's size, as none is given.
    options = export_options.ExportOptions(format="litert", verify_images=2, quantization="float16")
    folder = export.export_model(config, model, tmp_path / "half", options)
    report = json.loads((folder / "verification.json").read_text())
    assert report["passed"] is True
    assert report["imported"] == ["ai_edge_litert"] and report["sizes"] == ["32x32"]
    assert 0 < report["max_probability_difference"] < 0.05
    assert report["tolerance"]["equal_labels"] < 1
