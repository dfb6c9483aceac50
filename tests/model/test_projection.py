"""Projection and feed-forward layer, whole, in parts, and as TensorFlow's kernels run them."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import test_util

from sp_transformer.model.projection import FeedForward, Projection, gelu

SHAPES = [(2, 5, 4), (1, 3, 2, 4), (6, 4)]


def values_of(shape, dtype=np.float64):
    """An input and a residual of 4 channels."""
    generator = np.random.default_rng(0)
    return [generator.normal(size=shape).astype(dtype) for _ in range(2)]


def built(layer, layer_reference):
    layer.build((None, None, 4))
    layer_reference.randomize(layer, scale=0.6)
    return layer


@pytest.mark.parametrize("hidden_units", [0, 7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_projection_equals_numpy(shape, hidden_units, layer_reference):
    layer = built(Projection(4, hidden_units), layer_reference)
    x, residual = values_of(shape)
    expected = layer_reference.projection(x, layer)
    low, low_residual = (tf.constant(value, tf.float32) for value in (x, residual))
    layer_reference.assert_close(layer(low), expected, 1e-5)
    expected = expected + residual
    layer_reference.assert_close(layer(low, residual=low_residual), expected, 1e-5)
    # In two halves, as those do who put something between them.
    after_first = layer.after_first_layer(layer.first_layer(low), low_residual)
    layer_reference.assert_close(after_first, expected, 1e-5)
    after_hidden = layer.after_hidden_layer(layer.hidden_units_of(low), low_residual)
    layer_reference.assert_close(after_hidden, expected, 1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_feed_forward_equals_numpy(shape, layer_reference):
    layer = built(FeedForward(9), layer_reference)
    x, _ = values_of(shape)
    actual = layer(tf.constant(x, tf.float32))
    layer_reference.assert_close(actual, layer_reference.feed_forward(x, layer), 1e-5)


@pytest.mark.parametrize(
    "make", [lambda: Projection(4, 7, dtype="float64"), lambda: FeedForward(9, dtype="float64")]
)
def test_gradients_equal_differences_of_numpy(make, layer_reference, double_precision):
    layer = built(make(), layer_reference)
    with_residual = isinstance(layer, Projection)
    values = values_of((2, 3, 4))[: 1 + with_residual]
    weights = [np.array(v) for v in layer.trainable_weights]
    tensors = [tf.constant(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = tf.reduce_sum(tf.sin(layer(*tensors)))
    variables = [v.value for v in layer.trainable_weights]
    gradients = tape.gradient(loss, [*tensors, *variables])

    def slow():
        layer.set_weights(weights)
        if not with_residual:
            return np.sin(layer_reference.feed_forward(values[0], layer)).sum()
        return np.sin(layer_reference.projection(values[0], layer) + values[1]).sum()

    groups = [[value] for value in [*values, *weights]]
    layer_reference.assert_gradients(slow, groups, [[x] for x in gradients], 1e-6)


def test_gelu_is_exact_far_out_too(layer_reference):
    x = np.linspace(-12, 12, 97)
    np.testing.assert_allclose(gelu(tf.constant(x)), layer_reference.gelu(x), atol=1e-14)
    np.testing.assert_allclose(
        gelu(tf.constant(x, tf.float32)), layer_reference.gelu(x), rtol=1e-5, atol=1e-6
    )


@pytest.mark.skipif(not test_util.IsMklEnabled(), reason="TensorFlow without oneDNN")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_product_bias_and_gelu_are_one_kernel(shape, layer_reference, optimized_ops):
    layer = built(Projection(4, 7), layer_reference)
    x, residual = values_of(shape, np.float32)
    ops = optimized_ops(tf.function(lambda x: layer(x)), tf.constant(x))
    assert ops["_MklNativeFusedMatMul"] == 2
    # The residual goes into the second one.
    ops += optimized_ops(tf.function(lambda *x: layer(*x)), tf.constant(x), tf.constant(residual))
    assert ops["_MklNativeFusedMatMul"] == 4
    assert not {"Erf", "Mul", "AddV2", "BiasAdd", "MatMul", "_MklMatMul"} & {*ops}
