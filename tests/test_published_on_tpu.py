"""Every published config's training step and evaluation: static shapes, ops that TPUs have, compiled as a whole.

The fast tests trace at the configs' own sizes, the backbones apart from what follows on them; the slow ones trace, and
lower to HLO, the whole. Nothing of full size is run.
"""

import importlib.util
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import sp_transformer as spt
from sp_transformer.config import derived
from sp_transformer.evaluation import device_counts
from sp_transformer.model import backbones, builder
from sp_transformer.model.inference import Inference
from sp_transformer.training import optimizer as optimizers
from sp_transformer.training import train_step

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted(
    str(path.relative_to(ROOT / "configs"))
    for path in (ROOT / "configs").glob("*/*.textproto")
    if path.parent.name != "label_maps"
)
BOUNDED = re.compile(r"\[[^\]]*<=\d")


def load_by_path(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def static_graph():
    return load_by_path(ROOT / "tests" / "static_graph.py")


def load(name, *overrides):
    config = spt.load_config(ROOT / "configs" / name, overrides=list(overrides))
    config.training.batch_size = 1
    # As on a TPU, where XLA compiles whatever runs.
    config.training.jit_compile = True
    return config


class NoOptimizer(optimizers.SummedGradients):
    """In place of AdamW, whose thousands of ops do not depend on the images' size."""

    def __init__(self, strategy):
        self._distribution_strategy = strategy

    def apply(self, gradients, variables):
        pass


class Endpoints(keras.layers.Layer):
    """The endpoints of a backbone without what computes them."""

    def __init__(self, strides):
        super().__init__(name="backbone")
        self.convolutions = [keras.layers.Conv2D(24, 1, strides=stride) for stride in strides]
        self.strides = strides

    def call(self, images, training=False):
        return dict(zip(self.strides, (conv(images) for conv in self.convolutions), strict=True))


def batch_specs(config, image_dtype=tf.float32):
    size = derived.input_size(config)
    return tf.TensorSpec((1, *size, 3), image_dtype), tf.TensorSpec((1, *size), tf.int32)


def make_step(config, model, optimizer=None):
    """The training step as it is run: function of images and labels."""
    strategy = tf.distribute.get_strategy()
    optimizer = optimizer or NoOptimizer(strategy)
    ignore_label = derived.label_map(config).ignore_label
    loop = train_step.TrainLoop(model, optimizer, config.training, ignore_label, strategy)
    return loop._replica_step


def trace_evaluation(config, model):
    """Labels and counts, as evaluation on a device computes them."""
    inference = Inference(model, config.data, derived.input_size(config))
    label_map = derived.label_map(config)

    def evaluate(images, labels):
        predictions = inference.labels(images)
        return device_counts.pair_counts(
            labels, predictions, len(label_map.names), label_map.ignore_label
        )

    return tf.function(evaluate).get_concrete_function(*batch_specs(config, tf.uint8))


@pytest.mark.parametrize("name", CONFIGS)
def test_everything_behind_the_backbone_is_static(name, static_graph, monkeypatch):
    monkeypatch.setattr(
        builder, "build_backbone", lambda config: Endpoints(derived.endpoint_strides(config))
    )
    config = load(name)
    model = builder.build_model(config)
    step = tf.function(make_step(config, model)).get_concrete_function(*batch_specs(config))
    assert static_graph.faults(step) == []
    assert len(step.graph.get_operations()) > 1000


@pytest.mark.parametrize("name", [name for name in CONFIGS if "resnet50.textproto" in name])
def test_evaluation_is_static(name, static_graph, monkeypatch):
    monkeypatch.setattr(
        builder, "build_backbone", lambda config: Endpoints(derived.endpoint_strides(config))
    )
    config = load(name)
    model = builder.build_model(config)
    assert static_graph.faults(trace_evaluation(config, model)) == []


# ConvNeXt-Large is ConvNeXt-Tiny with more and wider blocks; the slow tests trace the large one.
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "convnext_tiny"])
def test_backbones_are_static(name, static_graph):
    drop_path = {"drop_path_rate": 0.2} if name.startswith("convnext") else {}
    backbone = backbones.create_backbone(name, **drop_path)

    @tf.function
    def gradients(images):
        with tf.GradientTape() as tape:
            endpoints = backbone(images, training=True)
            loss = tf.add_n([tf.reduce_mean(entry**2) for entry in endpoints.values()])
        return tape.gradient(loss, [variable.value for variable in backbone.trainable_variables])

    backbone.build((1, 640, 640, 3))
    concrete = gradients.get_concrete_function(tf.TensorSpec((1, 640, 640, 3)))
    assert static_graph.faults(concrete) == []


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (lambda x: tf.boolean_mask(x, x > 0), "Where"),
        (lambda x: tf.unique(x[:, 0]).y, "shape"),
        (lambda x: tf.image.resize(x[None, ..., None], (3, 3), "bicubic"), "ResizeBicubic"),
        (
            lambda x: tf.image.resize(x[None, ..., None], (3, 3), antialias=True),
            "ScaleAndTranslate",
        ),
        (lambda x: tf.image.resize(x[None, ..., None], (3, 3), "area"), "ResizeArea"),
        (lambda x: tf.math.bincount(tf.cast(x, tf.int32)), "Bincount"),
        (lambda x: tf.py_function(lambda v: v, [x], tf.float32), "EagerPyFunc"),
        (lambda x: tf.numpy_function(lambda v: v, [x], tf.float32), "PyFunc"),
        (lambda x: (tf.print(x), x)[1], "PrintV2"),
        (lambda x: tf.math.top_k(x, tf.cast(x[0, 0], tf.int32)).values, "k is not a constant"),
        (lambda x: tf.cond(x[0, 0] > 0, lambda: tf.where(x > 0), lambda: tf.where(x < 0)), "Where"),
        (lambda x: x[: tf.cast(x[0, 0], tf.int32)], r"shape \(None, 4\)"),
        (lambda x: tf.cast(tf.strings.length(tf.strings.as_string(x)), tf.float32), "AsString"),
    ],
)
def test_the_check_finds_what_a_tpu_cannot_do(function, fault, static_graph):
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec((6, 4)))
    assert re.search(fault, "\n".join(static_graph.faults(concrete)))


def test_the_check_passes_what_a_tpu_can_do(static_graph):
    def function(x):
        kept = tf.math.top_k(tf.reshape(x, [-1]), 5).values
        return tf.image.resize(x[None, ..., None], (9, 9)), tf.where(x > 0, x, 0.0), kept

    concrete = tf.function(function).get_concrete_function(tf.TensorSpec((6, 4)))
    assert static_graph.faults(concrete) == []


# One config for each thing that changes the step: ResNet and ConvNeXt, projections, widths.
SMALL = """
model { channels: 32 classifier { layers: 1 } }
data { crop_height: 128 crop_width: 128 resize_longer_side: 0 }
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cityscapes/resnet50_fast_ffn.textproto", "ade20k/convnext_large.textproto"]
)
def test_compiled_step_equals_the_step(name):
    """XLA over the whole step, AdamW included, run on a small image beside TensorFlow's own kernels."""
    overrides = [SMALL]
    if "convnext" in name:
        # No drop path: the two runs would draw other masks.
        overrides.append('model { backbone { name: "convnext_tiny" drop_path_rate: 0 } }')
    else:
        overrides.append('model { backbone { name: "resnet18" } }')
    config = load(name, *overrides)
    config.training.batch_size = 2
    generator = np.random.default_rng(0)
    size = derived.input_size(config)
    images = generator.integers(0, 256, (2, *size, 3)).astype(np.float32)
    labels = generator.integers(0, derived.num_classes(config), (2, *size)).astype(np.int32)
    labels[:, :9] = derived.label_map(config).ignore_label
    results = []
    for jit_compile in (False, True):
        config.training.jit_compile = jit_compile
        keras.utils.set_random_seed(1)
        model = builder.build_model(config)
        step = make_step(config, model, optimizers.create_optimizer(config.training, model))
        step = tf.function(step, jit_compile=jit_compile)
        losses = [float(step(images, labels)[0]) for _ in range(2)]
        statistics = [v.numpy() for v in model.variables if "moving" in v.path]
        results.append((losses, statistics))
    (losses, statistics), (compiled_losses, compiled_statistics) = results
    np.testing.assert_allclose(compiled_losses, losses, rtol=1e-4)
    for mine, other in zip(statistics, compiled_statistics, strict=True):
        np.testing.assert_allclose(other, mine, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_whole_step_lowers_at_full_size(name, static_graph):
    config = load(name)
    model = builder.build_model(config)
    step = make_step(config, model, optimizers.create_optimizer(config.training, model))
    compiled = tf.function(step, jit_compile=True)
    specs = batch_specs(config)
    assert static_graph.faults(compiled.get_concrete_function(*specs)) == []
    hlo = compiled.experimental_get_compiler_ir(*specs)(stage="hlo")
    assert "ENTRY" in hlo
    assert not BOUNDED.findall(hlo)
