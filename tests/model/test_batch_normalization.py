"""Synchronised BatchNorm against Keras' own on one device; several replicas: tests/training/test_replicas.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model.batch_normalization import SynchronizedBatchNormalization


def outcome(layer, x, compiled, mask=None):
    """Outputs, gradients by input, scale and offset, and the moving statistics after a training step."""
    layer.build(x.shape)
    layer.gamma.assign(np.linspace(0.5, 1.5, x.shape[-1]))

    @tf.function(jit_compile=compiled)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True, mask=mask)
            loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)))
        return y, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

    found = [np.asarray(tf.cast(value, tf.float32)) for value in step(x)]
    return [*found, layer.moving_mean.numpy(), layer.moving_variance.numpy()]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_equals_keras(policy, compiled):
    dtype = keras.dtype_policies.get(policy).compute_dtype
    x = tf.cast(tf.random.stateless_normal([2, 5, 7, 6], [1, 2], 1.0, 2.0), dtype)
    options = {"momentum": 0.9, "epsilon": 1e-3, "dtype": policy}
    expected = outcome(keras.layers.BatchNormalization(**options), x, compiled)
    found = outcome(SynchronizedBatchNormalization(**options), x, compiled)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5 if dtype == "float32" else 2e-2)


def test_eagerly_frozen_and_masked():
    x = tf.random.stateless_normal([2, 3, 4], [1, 2])
    layer, other = SynchronizedBatchNormalization(), keras.layers.BatchNormalization()
    mask = tf.constant([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(
        layer(x, training=True, mask=mask), other(x, training=True, mask=mask), rtol=1e-5
    )
    np.testing.assert_allclose(layer(x, training=True), other(x, training=True), atol=1e-5)
    layer.trainable = False
    before = layer.moving_mean.numpy()
    layer(x, training=True)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), before)


def test_other_axes_and_its_config():
    x = tf.random.stateless_normal([2, 6, 4], [1, 2])
    layer = SynchronizedBatchNormalization(axis=1)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer) and again.synchronized
    expected = keras.layers.BatchNormalization(axis=1)(x, training=True)
    np.testing.assert_allclose(again(x, training=True), expected, atol=1e-5)
