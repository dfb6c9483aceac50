"""The moving average of the weights: against NumPy, over a resume, and where it is evaluated."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import weights
from sp_transformer.training import averages


def values_of(model):
    return {name: v.numpy() for name, v in weights.named_variables(model).items()}


def interrupt(step, model):
    raise RuntimeError("interrupted")


def test_follows_the_weights_as_written_out(tiny):
    model = tiny.build_model()
    average = averages.WeightAverages(model, 0.4, tf.distribute.get_strategy())
    update = tf.function(average.update)
    expected = values_of(model)
    generator = np.random.default_rng(0)
    for step in range(1, 9):
        for variable in weights.named_variables(model).values():
            variable.assign(generator.normal(size=variable.shape))
        update(tf.constant(step))
        decay = min(0.4, (1 + step) / (10 + step))
        for name, value in values_of(model).items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    assert average.by_name.keys() == expected.keys()
    assert "backbone/norm/moving_variance" in expected
    for name, value in expected.items():
        np.testing.assert_allclose(average.by_name[name], value, rtol=1e-5, atol=1e-6)


def test_takes_the_place_of_the_weights_for_a_while(tiny):
    model = tiny.build_model()
    average = averages.WeightAverages(model, 0.9, tf.distribute.get_strategy())
    at_first = values_of(model)
    for variable in weights.named_variables(model).values():
        variable.assign(variable + 1.0)
    trained = values_of(model)
    with average.in_place():
        for name, value in values_of(model).items():
            np.testing.assert_array_equal(value, at_first[name])
    for name, value in values_of(model).items():
        np.testing.assert_array_equal(value, trained[name])


def test_is_saved_resumed_and_read(config, make_run, tmp_path, tiny):
    config.training.ema_decay = 0.9
    whole = make_run(tmp_path / "whole")
    whole.train()
    with pytest.raises(RuntimeError, match="interrupted"):
        make_run(tmp_path / "parts").train(after_save=interrupt)
    resumed = make_run(tmp_path / "parts")
    assert resumed.step == 4
    resumed.train()
    expected = {name: v.numpy() for name, v in whole._averages.by_name.items()}
    for name, variable in resumed._averages.by_name.items():
        np.testing.assert_array_equal(variable.numpy(), expected[name])
    model = tiny.build_model()
    assert weights.restore_model(model, tmp_path / "parts", averaged=True) == 10
    for name, value in values_of(model).items():
        np.testing.assert_array_equal(value, expected[name])
    assert weights.restore_model(model, tmp_path / "parts") == 10
    trained = values_of(whole.model)
    assert any(np.abs(trained[name] - expected[name]).max() > 1e-4 for name in trained)
    for name, value in values_of(model).items():
        np.testing.assert_array_equal(value, trained[name])


def test_the_model_that_is_evaluated_has_the_averages(config, make_run, tmp_path):
    config.training.ema_decay = 0.9
    config.evaluation.averaged_weights = True
    run = make_run(tmp_path)
    seen = {}
    run.train(after_save=lambda step, model: seen.update({step: values_of(model)}))
    assert sorted(seen) == [4, 8, 10]
    for name, variable in run._averages.by_name.items():
        np.testing.assert_array_equal(seen[10][name], variable.numpy())
    assert any(
        np.abs(value - seen[10][n]).max() > 1e-4 for n, value in values_of(run.model).items()
    )


def test_a_checkpoint_without_averages_is_refused(config, make_run, tmp_path, tiny):
    make_run(tmp_path).train()
    with pytest.raises(
        weights.CheckpointError, match=r"ckpt-10 holds no averaged weights.*ema_decay"
    ):
        weights.restore_model(tiny.build_model(), tmp_path / "ckpt-10", averaged=True)
