"""The learning rate at the steps that DeepLab2 gives numbers for."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.training import schedules


@pytest.mark.parametrize(
    ("steps", "step", "expected"),
    [
        (60000, 0, 0.0),
        (60000, 1, 2e-7),
        (60000, 4999, 9.998e-4),
        (60000, 5000, 9.2468e-4),
        (60000, 30000, 5.359e-4),
        (60000, 60000, 0.0),
        (60000, 70000, 0.0),
        (100000, 5000, 9.5489e-4),
        (150000, 5000, 9.6995e-4),
    ],
)
def test_golden_values(steps, step, expected):
    rate = schedules.WarmupPolynomial(1e-3, steps, 5000)(step)
    assert rate.dtype == tf.float32
    assert float(rate) == pytest.approx(expected, rel=5e-5, abs=1e-12)


def test_is_exact_at_every_part_of_a_run():
    schedule = schedules.WarmupPolynomial(1e-3, 60000, 5000, power=0.9, end_learning_rate=1e-5)
    for step in [1, 17, 4999, 5000, 5001, 33333, 59000, 59990, 59999, 60000]:
        expected = (1e-3 - 1e-5) * (1 - step / 60000) ** 0.9 + 1e-5
        expected = 1e-3 * step / 5000 if step < 5000 else expected
        np.testing.assert_allclose(float(schedule(tf.constant(step))), expected, rtol=1e-6)


def test_without_warmup_starts_at_the_base_rate():
    assert float(schedules.WarmupPolynomial(0.5, 10)(0)) == pytest.approx(0.5)


def test_refuses_a_run_of_no_steps():
    with pytest.raises(ValueError, match=r"training\.steps"):
        schedules.WarmupPolynomial(1e-3, 0)


def test_survives_its_config():
    schedule = schedules.WarmupPolynomial(1e-3, 100, 10, 0.7, 1e-4)
    again = schedules.WarmupPolynomial.from_config(schedule.get_config())
    assert [float(again(s)) for s in (5, 50)] == [float(schedule(s)) for s in (5, 50)]
