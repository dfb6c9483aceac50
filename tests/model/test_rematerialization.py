"""Activations that are computed again: outputs, gradients, statistics and random states as if they were kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import rematerialization
from sp_transformer.model.backbones import convnext, resnet
from sp_transformer.model.superpixel_grid import SuperpixelGrid
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


def test_layers_do_nothing_of_it_outside_training():
    tokenizer = Tokenizer((8, 8), 4, 16)
    tokenizer.build((None, 8, 8, 16))
    tokenizer.rematerialize = True
    grid = tokenizer.grid(2, 2)
    assert isinstance(grid, SuperpixelGrid)
    pixels, superpixels = tokenizer(tf.ones([1, 8, 8, 16]))
    assert pixels.shape == (1, 8, 8, 16) and superpixels.shape == (1, 2, 2, 16)
