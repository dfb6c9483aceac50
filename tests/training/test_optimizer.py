"""AdamW against NumPy, and which variables it treats how."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.training import optimizer


def slow_adamw(value, gradients, rates, multiplier, decay):
    """AdamW by its definition, in float64: decoupled decay first, then the bias-corrected step."""
    value, m, v = np.float64(value), 0.0, 0.0
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        value = value - rate * multiplier * decay * value
        m = 0.9 * m + 0.1 * np.float64(gradient)
        v = 0.999 * v + 0.001 * np.float64(gradient) ** 2
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
        value = value - rate * multiplier * step
    return value


@pytest.fixture
def options(config):
    config.training.weight_decay = 0.5
    return config.training


def test_every_variable_follows_adamw_with_its_own_rate_and_decay(options, tiny):
    model = tiny.build_model()
    adamw = optimizer.create_optimizer(options, model)
    before = [v.numpy() for v in model.trainable_variables]
    rng = np.random.default_rng(0)
    gradients = [[rng.normal(size=v.shape) for v in before] for _ in range(5)]
    rates = [adamw.learning_rates(step)["learning_rate"] for step in range(5)]
    for step_gradients in gradients:
        adamw.apply([tf.constant(g, tf.float32) for g in step_gradients], model.trainable_variables)
    backbone = {id(v) for v in model.backbone.trainable_variables}
    for i, variable in enumerate(model.trainable_variables):
        expected = slow_adamw(
            before[i],
            [g[i] for g in gradients],
            rates,
            0.1 if id(variable) in backbone else 1.0,
            0.5 if variable.name == "kernel" else 0.0,
        )
        # Keras corrects the bias behind epsilon, which the definition has in front.
        np.testing.assert_allclose(variable, expected, rtol=1e-4, atol=1e-6, err_msg=variable.path)


def test_backbone_steps_and_decays_a_tenth(options, tiny):
    model = tiny.build_model()
    adamw = optimizer.create_optimizer(options, model)
    adamw._iterations.assign(3)  # Past the warmup, which starts at 0.
    kernels = [model.backbone.conv.kernel, model.head.kernel]
    for kernel in kernels:
        kernel.assign(keras.ops.ones_like(kernel))
    zeros = [tf.zeros(v.shape) for v in model.trainable_variables]
    adamw.apply(zeros, model.trainable_variables)
    shrinkage = [1.0 - float(np.mean(kernel)) for kernel in kernels]
    rate = adamw.learning_rates(3)["learning_rate"]
    np.testing.assert_allclose(shrinkage, [0.05 * rate, 0.5 * rate], rtol=1e-3)


def test_reports_both_learning_rates(options, tiny):
    rates = optimizer.create_optimizer(options, tiny.build_model()).learning_rates(1)
    assert rates["learning_rate"] == pytest.approx(1e-2 / 3)
    assert rates["backbone_learning_rate"] == pytest.approx(1e-3 / 3)


def test_decays_kernels_and_nothing_else():
    model = keras.Sequential(
        [
            keras.layers.Conv2D(4, 1),
            keras.layers.DepthwiseConv2D(3),
            keras.layers.LayerNormalization(),
            keras.layers.Dense(3),
            keras.layers.EinsumDense("abcd,de->abce", (None, None, 5), bias_axes="e"),
        ]
    )
    model.build((1, 8, 8, 3))
    embedding = keras.layers.Embedding(3, 4)
    embedding.build()
    decayed = [v.name for v in model.trainable_variables if optimizer.is_decayed(v)]
    assert sorted(decayed) == ["kernel"] * 4
    assert not optimizer.is_decayed(embedding.trainable_variables[0])
    names = ["bias", "gamma", "beta", "queries", "position_embedding", "layer_scale"]
    variables = [keras.Variable(0.0, name=name) for name in names]
    assert not any(optimizer.is_decayed(v) for v in variables)
