"""Self-attention of superpixels against NumPy; the whole classifier is in test_layers.py."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import classifier
from sp_transformer.model.classifier import SelfAttention

CHANNELS = 8


def built(layer_reference, heads, dtype="float32"):
    layer = SelfAttention(heads, dtype=dtype)
    layer.build((None, None, CHANNELS))
    layer_reference.randomize(layer, scale=0.6)
    return layer


@pytest.mark.parametrize(
    ("shape", "heads", "jit_compile"),
    [((2, 15), 1, False), ((1, 7), 2, False), ((2, 15), 4, False), ((2, 15), 4, True)],
    ids=str,
)
def test_equals_numpy(shape, heads, jit_compile, layer_reference):
    layer = built(layer_reference, heads)
    x = np.random.default_rng(0).normal(size=(*shape, CHANNELS))
    expected = layer_reference.self_attention(x, layer)
    actual = tf.function(lambda x: layer(x), jit_compile=jit_compile)(tf.constant(x, tf.float32))
    layer_reference.assert_close(actual, expected, 1e-5)


@pytest.mark.parametrize("pairs", [45, 100, 15 * 15])
def test_parts_of_the_queries_give_the_whole(pairs, layer_reference, monkeypatch):
    layer = built(layer_reference, 2)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 15, CHANNELS)), tf.float32)

    def value_and_gradient():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return y, tape.gradient(y, x, tf.sin(y))

    whole = value_and_gradient()
    monkeypatch.setattr(classifier, "_PAIRS", pairs)
    for part, expected in zip(value_and_gradient(), whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-6)
    unknown = tf.function(
        lambda x: layer(x), input_signature=[tf.TensorSpec([None, None, CHANNELS])]
    )
    np.testing.assert_allclose(unknown(x), whole[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", [1, 4])
def test_gradients_equal_differences_of_numpy(heads, layer_reference):
    layer = built(layer_reference, heads, "float64")
    x = np.random.default_rng(0).normal(size=(2, 5, CHANNELS))
    weights = [np.array(v) for v in layer.trainable_weights]
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        loss = tf.reduce_sum(tf.sin(layer(tensor)))
    gradients = tape.gradient(loss, [tensor, *[v.value for v in layer.trainable_weights]])

    def slow():
        layer.set_weights(weights)
        return np.sin(layer_reference.self_attention(x, layer)).sum()

    # Norm and softmax are float32 under any policy.
    groups = [[value] for value in [x, *weights]]
    bias = [v.path.endswith("key/bias") for v in layer.trainable_weights].index(True)
    assert np.abs(gradients[1 + bias]).max() < 1e-5
    del groups[1 + bias], gradients[1 + bias]
    layer_reference.assert_gradients(slow, groups, [[g] for g in gradients], 1e-4)


def test_bfloat16_takes_the_softmax_in_float32(layer_reference):
    layer = built(layer_reference, 2, "mixed_bfloat16")
    x = tf.cast(np.random.default_rng(0).normal(size=(2, 15, CHANNELS)), tf.bfloat16)
    function = tf.function(lambda x: layer(x)).get_concrete_function(x)
    dtypes = {op.outputs[0].dtype for op in function.graph.get_operations() if op.type == "Softmax"}
    assert dtypes == {tf.float32}
    actual = function(x)
    assert actual.dtype == tf.bfloat16
    expected = layer_reference.self_attention(layer_reference.double(x), layer)
    assert layer_reference.error_norm([actual], [expected]) < 0.01
