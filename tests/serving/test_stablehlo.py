"""StableHLO of a small stand-in model: what is written, and that JAX computes from it what TensorFlow does."""

import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import types

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.protos import experiment_pb2
from sp_transformer.serving import lowering, stablehlo, stablehlo_options

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "run_stablehlo.py"
CLASSES = 4
needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)


class Backbone(keras.layers.Layer):
    def __init__(self):
        super().__init__(name="backbone")
        self.convolution = keras.layers.Conv2D(6, 3, strides=2, padding="same")
        self.norm = keras.layers.BatchNormalization()

    def call(self, images, training=False):
        return {2: self.norm(self.convolution(images), training=training)}


class SmallModel(keras.Model):
    """The parts and methods of an SPTransformer; superpixels are means of 2x2 features."""

    def __init__(self):
        super().__init__(name="small")
        self.backbone = Backbone()
        self.channels = keras.layers.Dense(8, activation="gelu", name="channels")
        self.dropout = keras.layers.Dropout(0.3, seed=5)
        self.pool = keras.layers.AveragePooling2D(2)
        self.classifier = keras.layers.Dense(CLASSES, name="classifier")
        self.upsample = keras.layers.UpSampling2D(4)
        self.superpixel_stride = 4

    def prepare(self, images):
        return tf.cast(images, self.compute_dtype) / 127.5 - 1, images.shape[1:3]

    def superpixel_grid(self, height, width):
        return (height // 4, width // 4)

    def hypercolumn(self, endpoints, grid):
        return self.channels(endpoints[2])

    def tokenizer(self, pixels, grid):
        superpixels = self.pool(pixels)
        assert tuple(superpixels.shape[1:3]) == grid
        return pixels, superpixels

    def features(self, images, training=False):
        x, (height, width) = self.prepare(images)
        grid = self.superpixel_grid(height, width)
        pixels = self.hypercolumn(self.backbone(x, training=training), grid)
        pixels, superpixels = self.tokenizer(self.dropout(pixels, training=training), grid)
        return {"superpixel_logits": self.classifier(superpixels), "image_size": (height, width)}

    def semantic_logits(self, features):
        return self.upsample(features["superpixel_logits"])

    def cell_semantic_logits(self, features):
        return self.semantic_logits(features)

    def labels_by_cell(self, labels):
        return labels

    def labels(self, features):
        return tf.argmax(self.semantic_logits(features), -1, tf.int32)

    def hard_superpixels(self, features):
        batch, rows, columns, _ = features["superpixel_logits"].shape
        ids = tf.reshape(tf.range(rows * columns), [1, rows, columns])
        ids = tf.repeat(tf.repeat(ids, self.superpixel_stride, 1), self.superpixel_stride, 2)
        return tf.repeat(ids, batch, 0)

    def call(self, images, training=False):
        return self.semantic_logits(self.features(images, training))


@pytest.fixture(scope="module")
def config():
    config = experiment_pb2.ExperimentOptions(experiment_name="tests/stablehlo")
    config.model.hypercolumn.endpoint_strides.append(2)
    config.model.tokenizer.superpixel_stride = 4
    config.model.num_classes = CLASSES
    config.data.dataset = "synthetic_streets"
    config.data.crop_height, config.data.crop_width = 16, 24
    config.training.steps = 10
    config.training.learning_rate = 0.05
    config.training.gradient_clip_norm = 1
    return config


@pytest.fixture(scope="module")
def model(config):
    keras.utils.set_random_seed(0)
    model = SmallModel()
    model(tf.zeros([1, 16, 24, 3]))
    return model


@pytest.fixture(scope="module")
def export(config, model, tmp_path_factory):
    """An export of all programs, which the tests only read, and the weights of before it."""
    before = [np.array(variable) for variable in model.variables]
    options = stablehlo_options.StableHLOOptions(stablehlo_options.PROGRAMS, batch_size=2)
    folder = tmp_path_factory.mktemp("stablehlo") / "export"
    stablehlo.write(config, model, folder, options, {"step": 7})
    manifest = json.loads((folder / "manifest.json").read_text())
    return types.SimpleNamespace(folder=folder, manifest=manifest, before=before)


def run_script(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_arguments_are_inputs_then_captures_and_updates_follow_results():
    count = tf.Variable(3, dtype=tf.int64)
    scale = keras.Variable(np.full([2], 2.0, np.float32), name="scale")
    total = keras.Variable(np.zeros([2, 3], np.float32), name="total")
    table = tf.constant([[1.0, 2.0, 3.0]])

    def function(first, second):
        count.assign_add(1)
        product = first * scale.value[:, None] * table
        total.assign_add(product)
        return {"zeta": tf.reduce_sum(product), "alpha": second + 1}

    inputs = [
        lowering.SeededInput("first", (2, 3), "float32", 10),
        lowering.SeededInput("second", (4,), "int32", 10),
    ]
    named = [("weight", "total", total), ("weight", "scale", scale)]
    program = lowering.lower(function, inputs, named)
    kinds = [(entry["kind"], entry["shape"], entry["dtype"]) for entry in program.arguments]
    assert kinds == [
        ("input", [2, 3], "float32"),
        ("input", [4], "int32"),
        ("variable", [], "int64"),
        ("weight", [2], "float32"),
        ("constant", [1, 3], "float32"),
        ("weight", [2, 3], "float32"),
    ]
    names = [entry["name"] for entry in program.arguments]
    assert (names[2], names[3], names[5]) == (count.name, "scale", "total")
    assert [entry["name"] for entry in program.outputs[:2]] == ["alpha", "zeta"]
    updated = {
        program.arguments[entry["argument"]]["name"]: entry["dtype"]
        for entry in program.outputs[2:]
    }
    assert updated == {count.name: "int64", "total": "float32"}
    # Lowering runs nothing.
    assert count.numpy() == 3
    # No location is left, which would hold paths of this machine.
    assert "loc(" not in program.text and "site-packages" not in program.text


def test_a_module_of_other_arguments_is_an_error(monkeypatch):
    first = keras.Variable(np.zeros([2], np.float32), name="first")
    second = keras.Variable(np.zeros([3], np.float32), name="second")
    captures = lowering._captures

    def reversed_captures(*arguments):
        return captures(*arguments)[::-1]

    monkeypatch.setattr(lowering, "_captures", reversed_captures)
    with pytest.raises(RuntimeError, match=r"argument 0 differs first.*\[2\].*\[3\].*TensorFlow"):
        lowering.lower(
            lambda: {"sum": tf.reduce_sum(first) + tf.reduce_sum(second)},
            [],
            [("weight", "first", first), ("weight", "second", second)],
        )


def test_export_describes_its_programs_and_leaves_the_model_as_it_was(export, model):
    manifest = export.manifest
    assert list(manifest["programs"]) == list(stablehlo_options.PROGRAMS)
    assert (manifest["batch_size"], manifest["height"], manifest["width"]) == (2, 16, 24)
    assert manifest["step"] == 7
    files = {path.name for path in export.folder.iterdir()}
    programs = {f"{name}.stablehlo" for name in stablehlo_options.PROGRAMS}
    assert files == programs | {"expected.npz", "manifest.json", "weights.npz"}
    outputs = {
        name: [
            (entry["name"], entry["shape"], entry["dtype"])
            for entry in program["outputs"]
            if entry["kind"] == "result"
        ]
        for name, program in manifest["programs"].items()
    }
    assert outputs["forward"] == [("labels", [2, 16, 24], "int32")]
    assert outputs["logits"][0] == ("semantic_logits", [2, 16, 24, CLASSES], "float32")
    assert [shape for _, shape, _ in outputs["tokenizer"]] == [[2, 8, 12, 8], [2, 4, 6, 8]]
    assert len(outputs["backbone"]) == 1 and len(outputs["classifier"]) == 3
    step = manifest["programs"]["train_step"]
    trained = {entry["name"] for entry in step["outputs"] if entry["kind"] == "update"}
    # BatchNorm's statistics, the dropout's seed and the optimizer's step change as well.
    assert {variable.path for variable in model.variables} <= trained
    assert any(
        entry["kind"] == "optimizer" and entry["dtype"] in ("int32", "int64")
        for entry in step["arguments"]
    )
    for variable, before in zip(model.variables, export.before, strict=True):
        np.testing.assert_array_equal(variable, before)


def test_expected_values_are_those_of_the_model(export, model):
    program = export.manifest["programs"]["logits"]
    images = np.random.default_rng(program["arguments"][0]["seed"])
    images = images.integers(0, 256, (2, 16, 24, 3), np.int32).astype(np.uint8)
    expected = np.load(export.folder / "expected.npz")
    logits = model(tf.constant(images), training=False)
    np.testing.assert_allclose(
        expected["logits/semantic_logits"], np.ravel(logits), rtol=1e-5, atol=1e-6
    )
    assert program["expected"]["semantic_logits"]["stride"] == 1
    labels = np.argmax(logits, -1)
    assert np.mean(expected["forward/labels"] == labels.reshape(-1)) > 0.99
    losses = expected["train_step/loss"]
    assert len(losses) == 3 and len(set(losses)) == 3


def test_fresh_moments_do_not_travel_and_all_else_does(export, model):
    weights = np.load(export.folder / "weights.npz")
    arguments = export.manifest["programs"]["train_step"]["arguments"]
    filled = {entry["name"]: entry["fill"] for entry in arguments if "fill" in entry}
    assert not any(entry["kind"] == "optimizer" and "fill" not in entry for entry in arguments)
    filled |= {entry["name"]: entry["value"] for entry in arguments if "value" in entry}
    for variable in model.variables:
        value = np.array(variable)
        stored = weights[variable.path] if variable.path in weights else filled[variable.path]
        np.testing.assert_array_equal(np.broadcast_to(stored, value.shape), value)


def test_bfloat16_weights_are_rounded_before_the_outputs_are_computed(
    config, model, export, tmp_path
):
    options = stablehlo_options.StableHLOOptions(("logits",), weights_dtype="bfloat16")
    stablehlo.write(config, model, tmp_path / "half", options)
    weights = np.load(tmp_path / "half" / "weights.npz")
    kernel = model.classifier.kernel
    assert weights[kernel.path].dtype == np.uint16
    rounded = np.array(kernel).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(weights[kernel.path].view(ml_dtypes.bfloat16), rounded)
    logits = np.load(tmp_path / "half" / "expected.npz")["logits/superpixel_logits"]
    exact = np.load(export.folder / "expected.npz")["logits/superpixel_logits"]
    assert 0 < np.max(np.abs(logits - exact[: logits.size])) < 0.1 * np.max(np.abs(exact))
    # The model keeps its own.
    for variable, before in zip(model.variables, export.before, strict=True):
        np.testing.assert_array_equal(variable, before)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"programs": ()}, "no program was named; choose from forward"),
        ({"programs": ("backward",)}, "unknown program 'backward'"),
        ({"programs": ("forward", "forward")}, "named more than once"),
        ({"weights_dtype": "float16"}, "'float16' is unknown; use float32 or bfloat16"),
        ({"batch_size": 0}, "batch_size 0 must be at least 1"),
        ({"check_steps": -1}, "check_steps -1"),
        ({"programs": ("train_step",), "size": (18, 24)}, "18 are not a multiple of 4.* 16 and 20"),
    ],
)
def test_options_that_do_not_fit_are_errors(config, changes, words):
    with pytest.raises(ValueError, match=words):
        stablehlo_options.check(config, stablehlo_options.StableHLOOptions(**changes))


def test_inference_takes_any_size(config):
    stablehlo_options.check(config, stablehlo_options.StableHLOOptions(size=(17, 23)))


@pytest.mark.parametrize("text", ["512", "512x", "0x64", "512x-8", "8x8x8", "ax8"])
def test_sizes_that_are_none_are_errors(text):
    assert stablehlo_options.parse_size("512x1024") == (512, 1024)
    with pytest.raises(ValueError, match="is not HEIGHTxWIDTH"):
        stablehlo_options.parse_size(text)


@needs_jax
def test_jax_computes_what_tensorflow_does_and_times_it(export, tmp_path):
    report = tmp_path / "times.json"
    done = run_script(
        export.folder, "--tolerance=1e-5", "--rounds=3", "--warmup=1", f"--json={report}"
    )
    assert done.returncode == 0, done.stderr
    contents = json.loads(report.read_text())
    assert set(contents["checks"]) == set(stablehlo_options.PROGRAMS)
    losses = contents["checks"]["train_step"]["loss"]["values"]
    stored = np.load(export.folder / "expected.npz")["train_step/loss"]
    np.testing.assert_allclose(losses, stored, rtol=1e-4)
    assert all(result["error"] <= 1e-5 for result in contents["checks"]["logits"].values())
    assert [len(row["seconds"]) for row in contents["rows"]] == [3] * len(contents["rows"])
    assert contents["rows"][0]["ratio"] == [1, 1, 1]
    assert "| train_step |" in done.stdout and "Interleaved" in done.stdout


MASK = np.random.default_rng(3).random((131, 3)) < 0.5


def lowered_mask():
    inputs = [lowering.SeededInput("x", MASK.shape, "float32", 100)]
    return lowering.lower(lambda x: {"y": tf.where(MASK, x, -x)}, inputs)


def test_constant_booleans_are_spelled_out():
    assert '"0x' not in lowered_mask().text


@needs_jax
def test_jax_reads_constant_booleans():
    import jax
    from jax.extend import backend
    from jaxlib import xla_client

    program = lowered_mask()
    devices = xla_client.DeviceList(tuple(jax.devices()[:1]))
    options = xla_client.CompileOptions()
    executable = backend.get_backend().compile_and_load(program.text, devices, options)
    x = np.arange(MASK.size, dtype=np.float32).reshape(MASK.shape) + 1
    (y,) = executable.execute([jax.device_put(x)])
    np.testing.assert_array_equal(y, np.where(MASK, x, -x))


@needs_jax
def test_jax_finds_weights_in_the_wrong_place_and_runs_without_any(export, tmp_path):
    spoilt = shutil.copytree(export.folder, tmp_path / "spoilt")
    weights = dict(np.load(spoilt / "weights.npz"))
    name = next(name for name in weights if name.endswith("classifier/kernel"))
    weights[name] = weights[name][::-1]
    np.savez(spoilt / "weights.npz", **weights)
    done = run_script(spoilt, "--programs=logits", "--rounds=0")
    assert done.returncode == 1 and "logits' of logits is off by" in done.stderr

    (spoilt / "weights.npz").unlink()
    done = run_script(spoilt, "--programs=logits", "--rounds=0")
    assert done.returncode == 2 and "--random_weights" in done.stderr
    done = run_script(spoilt, "--programs=train_step", "--rounds=2", "--random_weights=3")
    assert done.returncode == 0, done.stderr
    assert "train_step: not checked" in done.stdout and "Weights are random" in done.stdout

    done = run_script(spoilt, "--programs=labels")
    assert done.returncode == 2 and "no program 'labels'; it has forward" in done.stderr
    done = run_script(tmp_path)
    assert done.returncode == 2 and "name a folder that the export wrote" in done.stderr
