import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model.backbones.drop_path import DropPath


def test_drops_whole_examples_and_keeps_the_expectation():
    layer = DropPath(0.25, seed=1)
    outputs = np.asarray(layer(np.ones((4000, 2, 3, 1), np.float32), training=True))
    per_example = outputs.reshape(4000, -1)
    assert np.ptp(per_example, axis=1).max() == 0
    assert set(np.unique(per_example).round(4)) == {0.0, np.float32(4 / 3).round(4)}
    assert per_example.mean() == pytest.approx(1.0, abs=0.04)


def test_is_the_identity_without_training_or_rate():
    inputs = np.random.default_rng(0).normal(size=(5, 2, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(DropPath(0.5)(inputs), inputs)
    np.testing.assert_array_equal(DropPath(0.5)(inputs, training=False), inputs)
    np.testing.assert_array_equal(DropPath(0.0)(inputs, training=True), inputs)


def test_graph_mode_draws_anew_with_unknown_batch_under_bfloat16():
    layer = DropPath(0.5, seed=3, dtype="mixed_bfloat16")

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2], tf.bfloat16)])
    def run(inputs):
        return layer(inputs, training=True)

    inputs = tf.ones([64, 3, 2, 2], tf.bfloat16)
    first, second = run(inputs), run(inputs)
    assert first.dtype == tf.bfloat16
    assert bool(tf.reduce_any(first != second))
    assert set(np.unique(tf.cast(first, tf.float32))) == {0.0, 2.0}


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rejects_rates_outside_the_unit_interval(rate):
    with pytest.raises(ValueError, match=str(rate)):
        DropPath(rate)


def test_config_round_trip():
    layer = DropPath.from_config(DropPath(0.3, seed=7, name="path").get_config())
    assert (layer.rate, layer.seed, layer.name) == (0.3, 7, "path")
    assert keras.random.SeedGenerator is type(layer.seed_generator)
