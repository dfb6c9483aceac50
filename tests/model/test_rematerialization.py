"""Activations that are computed again: outputs, gradients, statistics and random states as if they were kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import sp_transformer as spt
from sp_transformer.model import rematerialization
from sp_transformer.model.backbones import convnext, resnet
from sp_transformer.model.builder import build_model
from sp_transformer.model.tokenizer import Tokenizer


class Block(keras.layers.Layer):
    """Everything that has a state: weights, BatchNorm and dropout. Counts how often it is traced."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(6)
        self.norm = keras.layers.BatchNormalization()
        self.dropout = keras.layers.Dropout(0.5, seed=7)
        self.calls = 0

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((*shape[:-1], 6))
        self.built = True

    def call(self, x, other=None, training=False):
        self.calls += 1
        y = self.dropout(
            keras.ops.gelu(self.norm(self.dense(x), training=training)), training=training
        )
        return (y, y if other is None else other * y)


def results(layer, run, *inputs):
    """Outputs, gradients by inputs and weights, and the state after two rounds of `run`."""

    @tf.function
    def step():
        given = [tf.constant(x) for x in inputs]
        with tf.GradientTape() as tape:
            tape.watch(given)
            outputs = tf.nest.flatten(run(*given))
            loss = sum(tf.reduce_sum(tf.sin(tf.cast(y, tf.float32))) for y in outputs)
        sources = [*given, *(v.value for v in layer.trainable_variables)]
        return outputs, tape.gradient(loss, sources)

    rounds = [tf.nest.map_structure(np.array, step()) for _ in range(2)]
    return rounds, [v.numpy() for v in layer.variables]


def assert_same(kept, again, rtol=1e-5, atol=1e-6):
    for one, other in zip(tf.nest.flatten(kept), tf.nest.flatten(again), strict=True):
        np.testing.assert_allclose(other, one, rtol=rtol, atol=atol)


def test_a_layer_with_all_kinds_of_state():
    x, other = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)

    def build():
        keras.utils.set_random_seed(0)
        block = Block()
        block.build((4, 6))
        return block

    first, second = build(), build()
    kept = results(first, lambda x, other: first(x, other, training=True), x, other)
    again = results(
        second, lambda x, other: rematerialization.call(second, x, other, training=True), x, other
    )
    assert_same(kept, again)
    assert (first.calls, second.calls) == (1, 2)
    # BatchNorm moved and dropout drew anew each round, in both.
    rounds, state = kept
    assert not np.allclose(rounds[0][0][0], rounds[1][0][0])
    assert not np.allclose(state[-3], 0.0)


def test_an_input_may_be_left_out():
    block = Block()
    block.build((4, 6))
    y, same = rematerialization.call(block, tf.ones([4, 6]), None, training=False)
    np.testing.assert_array_equal(y, same)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_under_xla_and_in_bfloat16(compiled, policy):
    block = Block()
    block.dense.dtype_policy = block.norm.dtype_policy = policy
    block.build((4, 6))
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 6)), tf.float32)
    start = [v.numpy() for v in block.variables]

    def gradients(run):
        for variable, value in zip(block.variables, start, strict=True):
            variable.assign(value)

        @tf.function(jit_compile=compiled)
        def step():
            with rematerialization.compiled_by_xla(compiled):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(tf.sin(tf.cast(run()[0], tf.float32)))
                return tape.gradient(loss, [v.value for v in block.trainable_variables])

        return [g.numpy() for g in step()]

    kept = gradients(lambda: block(x, training=True))
    again = gradients(lambda: rematerialization.call(block, x, training=True))
    assert_same(kept, again, rtol=1e-2 if "bfloat16" in policy else 1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["resnet", "convnext"])
def test_backbones_with_drop_path(kind):
    images = np.random.default_rng(1).normal(size=(3, 16, 32, 3)).astype(np.float32)

    def build():
        keras.utils.set_random_seed(0)
        if kind == "resnet":
            backbone = resnet.ResNet("resnet18", [2, 4], drop_path_rate=0.9)
        else:
            backbone = convnext.ConvNeXt("convnext_tiny", [4, 8], drop_path_rate=0.9)
        backbone.build((None, 16, 32, 3))
        return backbone

    first, second = build(), build()
    second.rematerialize = True
    kept = results(first, lambda x: first(x, training=True), images)
    again = results(second, lambda x: second(x, training=True), images)
    assert_same(kept, again, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", ["fold", "gather"])
def test_tokenizer(implementation):
    pixels = np.random.default_rng(2).normal(size=(2, 8, 12, 16)).astype(np.float32)

    def build():
        keras.utils.set_random_seed(0)
        tokenizer = Tokenizer((8, 12), 4, 16, implementation=implementation)
        tokenizer.build((None, 8, 12, 16))
        return tokenizer

    first, second = build(), build()
    second.rematerialize = True
    kept = results(first, lambda x: first(x, training=True), pixels)
    again = results(second, lambda x: second(x, training=True), pixels)
    assert_same(kept, again, rtol=1e-4, atol=1e-5)


def test_xla_does_not_merge_the_two_passes():
    """Merged, as equal computations would be, everything would be kept after all."""
    blocks = []
    for _ in range(3):
        block = keras.Sequential(
            [keras.layers.Dense(64, activation="gelu"), keras.layers.Dense(16)]
        )
        block.build((32, 16))
        blocks.append(block)

    def products(rematerialize):
        @tf.function(jit_compile=True)
        def step(x):
            with rematerialization.compiled_by_xla():
                with tf.GradientTape() as tape:
                    y = x
                    for block in blocks:
                        y = rematerialization.call(block, y) if rematerialize else block(y)
                    loss = tf.reduce_sum(y * y)
                return tape.gradient(loss, [v.value for b in blocks for v in b.trainable_variables])

        text = step.experimental_get_compiler_ir(tf.zeros([32, 16]))(stage="hlo")
        return text.count(" dot("), text.count("opt-barrier(")

    kept, again = products(False), products(True)
    assert again[0] >= kept[0] + 3
    assert (kept[1], again[1]) == (0, 3)


@pytest.fixture
def calls(monkeypatch):
    """The layers that `rematerialization.call` is given, in order; it calls them plainly."""
    layers = []

    def record(layer, *inputs, **kwargs):
        layers.append(layer)
        return layer(*inputs, **kwargs)

    monkeypatch.setattr(rematerialization, "call", record)
    return layers


def make_resnet():
    layer = resnet.ResNet("resnet18", [2, 8])
    layer.build((None, 32, 32, 3))
    return layer, (1, 32, 32, 3), [*layer.stage2, *layer.stage3]


def make_convnext():
    layer = convnext.ConvNeXt("convnext_tiny", [4, 8])
    layer.build((None, 32, 32, 3))
    return layer, (1, 32, 32, 3), [*layer.stage1, *layer.stage2]


def make_tokenizer():
    layer = Tokenizer((8, 8), 4, 16, layers=3)
    layer.build((None, 8, 8, 16))
    return layer, (1, 8, 8, 16), list(layer.cross_attentions)


@pytest.mark.parametrize("make", [make_resnet, make_convnext, make_tokenizer])
def test_each_block_is_computed_again_in_training_and_none_in_inference(calls, make):
    layer, shape, blocks = make()
    inputs = tf.ones(shape)
    layer(inputs, training=True)
    assert calls == []
    expected = tf.nest.flatten(layer(inputs, training=False))
    layer.rematerialize = True
    for found in (layer(inputs, training=False), layer(inputs)):
        for value, wanted in zip(tf.nest.flatten(found), expected, strict=True):
            assert value.shape == wanted.shape
            np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)
    assert calls == []
    layer(inputs, training=True)
    assert len(blocks) >= 3
    assert [id(called) for called in calls] == [id(block) for block in blocks]


@pytest.mark.parametrize("part", ["backbone", "tokenizer"])
def test_a_config_asks_for_it_part_by_part(calls, part):
    config = spt.load_config(
        "configs/synthetic/quickstart.textproto",
        overrides=[
            "data { crop_height: 64 crop_width: 64 }",
            "model { tokenizer { layers: 2 } classifier { layers: 1 } }",
            f"training {{ rematerialize_{part}: true }}",
        ],
    )
    model = build_model(config)
    # Variables are created, and exports traced, without it.
    assert calls == []
    images = tf.zeros([1, 64, 64, 3])
    model(images)
    assert calls == []
    model.features(images, training=True)
    backbone = model.backbone
    blocks = {
        "backbone": [*backbone.stage2, *backbone.stage3, *backbone.stage4],
        "tokenizer": list(model.tokenizer.cross_attentions),
    }
    assert [id(called) for called in calls] == [id(block) for block in blocks[part]]
