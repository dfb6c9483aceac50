"""At most one tensor of all classes' logits at the image's size ever exists, and none where labels are asked for."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from sp_transformer.benchmarking import memory
from sp_transformer.model import builder
from sp_transformer.protos import experiment_pb2
from sp_transformer.training import losses

# 128x64 pixels are two bands of four rows of cells. No tensor in front of the association has 19 numbers per pixel: the
# widest are the stem's 64 channels at stride 2, 16 numbers per pixel.
CONFIG = """
data { dataset: "synthetic_streets" crop_height: 128 crop_width: 64 }
model {
  channels: 16
  backbone { name: "resnet18" }
  hypercolumn { stride: 8 endpoint_strides: 2 endpoint_strides: 8 max_hidden_channels: 16 }
  tokenizer { superpixel_stride: 16 layers: 1 }
  classifier { layers: 1 feed_forward_width: 24 }
}
"""
HEIGHT, WIDTH, CLASSES = 128, 64, 19
ELEMENTS = HEIGHT * WIDTH * CLASSES
# Ops that give their input's memory another name.
VIEWS = {"Reshape", "Identity", "Squeeze", "ExpandDims", "EnsureShape", "StopGradient"}
# What only the measuring process imports: labels of a model that has nothing in front of the association.
CASES = """
import keras
import tensorflow as tf
from sp_transformer.model.association import Association
from sp_transformer.model.classifier import SuperpixelClassifier
from sp_transformer.model.hypercolumn import Hypercolumn
from sp_transformer.model.sp_transformer import SPTransformer
from sp_transformer.model.tokenizer import Tokenizer


def consumer(name, jit_compile):
    model = SPTransformer(
        keras.layers.Identity(), Hypercolumn((2, 8, 32), 8), Tokenizer((128, 256)),
        SuperpixelClassifier(19), Association(8),
    )
    grid = model.superpixel_grid(1024, 2048)

    def normal(*shape):
        return tf.random.stateless_normal(shape, [0, 0])

    features = {
        "pixel_features": normal(1, grid.tiles, grid.pixels_per_tile, 256),
        "superpixel_features": normal(1, 32, 64, 256),
        "superpixel_logits": normal(1, 32, 64, 19),
    }

    @tf.function(jit_compile=jit_compile)
    def run(features):
        return getattr(model, name)({**features, "image_size": (1024, 2048)})

    return lambda: run(features)
"""


@pytest.fixture(scope="module")
def model():
    return builder.build_model(text_format.Parse(CONFIG, experiment_pb2.ExperimentOptions()))


def full_size_ops(function, *signature):
    """Types of the ops, in the graph and in the functions it calls, that make a tensor of at least ELEMENTS."""
    graph = tf.function(function).get_concrete_function(*signature).graph
    definition = graph.as_graph_def(add_shapes=True)
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    result = []
    for node in nodes:
        shapes = [tf.TensorShape(s) for s in node.attr["_output_shapes"].list.shape]
        # A shape that nobody knows could hide anything.
        assert all(s.is_fully_defined() for s in shapes), (node.op, node.name, shapes)
        if any(s.num_elements() >= ELEMENTS for s in shapes) and node.op not in VIEWS:
            result.append(node.op)
    return result


def images():
    return tf.TensorSpec([1, HEIGHT, WIDTH, 3], tf.uint8)


@pytest.mark.parametrize("consumer", ["labels", "hard_superpixels"])
def test_labels_hold_no_logits_of_the_images_size(model, consumer):
    def run(x):
        return getattr(model, consumer)(model.features(x))

    assert full_size_ops(run, images()) == []


def test_logits_of_the_images_size_are_made_once(model):
    made = full_size_ops(lambda x: model.semantic_logits(model.features(x)), images())
    assert made == ["BatchMatMulV2"]
    assert full_size_ops(lambda x: model(x), images()) == made


def test_training_loss_holds_the_classes_logits_once(model):
    """The cross-entropy's kernel writes its gradient into the logits' memory, as nobody else reads them."""

    def loss(x, labels):
        features = model.features(x, training=True)
        return losses.top_k_cross_entropy(
            model.cell_semantic_logits(features), model.labels_by_cell(labels), 255, 0.2
        )

    made = full_size_ops(loss, images(), tf.TensorSpec([1, HEIGHT, WIDTH], tf.int32))
    assert sorted(made) == ["BatchMatMulV2", "SparseSoftmaxCrossEntropyWithLogits"]


@pytest.mark.skipif(
    not pathlib.Path("/proc/self/clear_refs").exists()
    or bool(tf.config.list_physical_devices("GPU")),
    reason="peaks of CPUs are read from Linux's /proc",
)
@pytest.mark.parametrize(
    ("consumer", "jit_compile"),
    [
        ("labels", False),
        pytest.param("labels", True, marks=pytest.mark.slow),
        pytest.param("hard_superpixels", False, marks=pytest.mark.slow),
        pytest.param("hard_superpixels", True, marks=pytest.mark.slow),
    ],
)
def test_labels_at_1024x2048_take_less_than_64_mebibytes(
    consumer, jit_compile, tmp_path, monkeypatch
):
    (tmp_path / "consumer_cases.py").write_text(CASES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    peak = memory.peak_memory(
        "consumer_cases:consumer", {"name": consumer, "jit_compile": jit_compile}
    )
    # The labels themselves are 8 of them; the logits of all classes would be 152.
    assert 8 < peak.above_bytes / 2**20 < 64


def test_counting_sees_into_loops(model):
    """What would be made in the body of a loop over bands is counted as well."""

    def run(x):
        features = model.features(x)
        return tf.map_fn(lambda _: model.semantic_logits(features), np.zeros(2, np.float32))

    assert "BatchMatMulV2" in full_size_ops(run, images())
