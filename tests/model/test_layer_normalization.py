"""LayerNorm in few passes, and by TensorFlow's CPU kernel, against NumPy and Keras' own."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import test_util

from sp_transformer.model.cpu_kernels import cpu_kernels
from sp_transformer.model.layer_normalization import LayerNormalization

CHANNELS = 24
SHAPES = [(3, 5, 7, CHANNELS), (2, 9, CHANNELS), (1, 1, CHANNELS), (4, CHANNELS)]


@pytest.fixture
def layer(layer_reference):
    layer = LayerNormalization()
    layer.build((None, CHANNELS))
    layer_reference.randomize(layer, scale=1.0)
    return layer


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def output_and_gradients(layer, x):
    variables = [layer.gamma.value, layer.beta.value]
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = layer(x)
        loss = tf.reduce_sum(tf.sin(tf.cast(output, tf.float32)))
    return output, *tape.gradient(loss, [x, *variables])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_numpy_and_keras(shape, layer, layer_reference):
    x = normal(*shape) * 3 + 1
    expected = layer_reference.layer_norm(layer_reference.double(x), layer)
    kerass = keras.layers.LayerNormalization(epsilon=1e-6)
    kerass.build((None, CHANNELS))
    kerass.set_weights(layer.get_weights())
    ours, theirs = (output_and_gradients(norm, tf.constant(x)) for norm in (layer, kerass))
    for output in ours[0], theirs[0]:
        layer_reference.assert_close(output, expected, 1e-5)
    for pair in zip(ours[1:], theirs[1:], strict=True):
        layer_reference.assert_close(*pair, 1e-4)


def test_gradients_equal_differences_of_numpy(layer_reference, double_precision):
    layer = LayerNormalization(dtype="float64")
    layer.build((None, CHANNELS))
    layer_reference.randomize(layer)
    values = [normal(5, CHANNELS).astype(np.float64), *(np.array(v) for v in layer.weights)]
    _, *gradients = output_and_gradients(layer, tf.constant(values[0]))

    def loss():
        layer.set_weights(values[1:])
        return np.sin(layer_reference.layer_norm(values[0], layer)).sum()

    layer_reference.assert_gradients(
        loss, [[x] for x in values], [[gradient] for gradient in gradients], 1e-6
    )


@pytest.mark.parametrize("by_kernel", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
def test_large_common_offsets_cost_no_more_than_float32_holds(
    offset, by_kernel, layer, layer_reference
):
    """E[x^2] - E[x]^2 would lose everything at 1e4; deviations from the mean lose what x itself has lost."""
    x = normal(6, CHANNELS) + np.float32(offset)
    expected = layer_reference.layer_norm(layer_reference.double(x), layer)
    context = cpu_kernels() if by_kernel else contextlib.nullcontext()
    with context:
        actual = tf.function(lambda x: layer(x))(x)
    layer_reference.assert_close(actual, expected, 1e-5 + 1e-7 * offset)


def test_tokens_without_deviation_become_beta(layer):
    x = tf.ones([3, CHANNELS]) * 7
    np.testing.assert_allclose(layer(x), np.tile(layer.beta, [3, 1]), atol=1e-6)


def test_bfloat16_computes_in_float32(layer_reference):
    layer = LayerNormalization(dtype="mixed_bfloat16")
    layer.build((None, CHANNELS))
    layer_reference.randomize(layer, scale=1.0)
    assert layer.gamma.dtype == layer.beta.dtype == "float32"
    # Tokens around 100, of which bfloat16 holds no more than 0.25: rounded to it once, not on the way.
    x = tf.cast(normal(6, CHANNELS) * 30 + 100, tf.bfloat16)
    expected = layer_reference.layer_norm(layer_reference.double(x), layer)
    for context in contextlib.nullcontext(), cpu_kernels():
        with context:
            actual = tf.function(lambda x: layer(x))(x)
        assert actual.dtype == tf.bfloat16
        np.testing.assert_allclose(layer_reference.double(actual), expected, rtol=2**-8, atol=1e-4)
    output, *gradients = output_and_gradients(layer, x)
    assert output.dtype == gradients[0].dtype == tf.bfloat16
    assert gradients[1].dtype == gradients[2].dtype == tf.float32


def test_survives_its_config(layer):
    assert LayerNormalization().get_config()["epsilon"] == 1e-6
    layer = LayerNormalization(epsilon=1e-3, name="norm", dtype="mixed_bfloat16")
    copy = LayerNormalization.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert copy.epsilon == 1e-3 and copy.compute_dtype == "bfloat16"
    restored = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(restored) is LayerNormalization


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("known", "jit_compile"), [(True, False), (False, False), (True, True)], ids=str
)
def test_cpu_kernel_gives_the_same(shape, known, jit_compile, layer, layer_reference):
    x = tf.constant(normal(*shape) * 3 + 1)
    size = shape if known else (*[None] * (len(shape) - 1), CHANNELS)
    with cpu_kernels():
        by_kernel = tf.function(
            lambda x: layer(x), input_signature=[tf.TensorSpec(size)], jit_compile=jit_compile
        ).get_concrete_function()
    layer_reference.assert_close(by_kernel(x), layer(x), 1e-5)


def test_cpu_kernel_ends_with_its_context(layer):
    def ops():
        graph = tf.function(lambda x: layer(x)).get_concrete_function(tf.zeros([2, CHANNELS])).graph
        return {op.type for op in graph.get_operations()}

    with cpu_kernels():
        assert "FusedBatchNormV3" in ops()
    assert "FusedBatchNormV3" not in ops()
    with contextlib.suppress(KeyError), cpu_kernels():
        raise KeyError
    assert "FusedBatchNormV3" not in ops()


@pytest.mark.skipif(not test_util.IsMklEnabled(), reason="TensorFlow without oneDNN")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("known", [True, False])
def test_cpu_kernel_takes_the_place_of_the_pattern(shape, known, layer, optimized_ops):
    size = shape if known else (*[None] * (len(shape) - 1), CHANNELS)
    with cpu_kernels():
        function = tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec(size)])
        function.get_concrete_function()
    ops = optimized_ops(function, tf.constant(normal(*shape)))
    assert ops["_MklLayerNorm"] == 1
    # Nothing else of the pattern is left to run.
    assert not {
        "Fill",
        "Mul",
        "AddV2",
        "Mean",
        "FusedBatchNormV3",
        "_MklNativeFusedBatchNormV3",
    } & {*ops}
