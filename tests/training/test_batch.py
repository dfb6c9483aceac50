"""Batch and learning rate by the number of replicas."""

import pytest

from sp_transformer.training import batch


def test_batch_and_learning_rate_are_worked_out(config):
    options = config.training
    options.batch_size_per_replica, options.learning_rate = 6, 1e-3
    options.learning_rate_reference_batch_size = 16
    settled = batch.settle(config, 4)
    assert settled.training.batch_size == 24
    assert settled.training.learning_rate == pytest.approx(1.5e-3)
    # What is written down leads to the same once more, on any number of replicas that fits.
    assert batch.settle(settled, 8) == settled
    assert options.batch_size_per_replica == 6
    line = batch.describe(config, settled, 4)
    assert line == (
        "24 images a step on 4 replicas, 6 on each; learning rate 0.0015 (0.001 x 24 / 16)"
    )


def test_a_plain_batch_is_left_alone(config):
    assert batch.settle(config, 2) == config
    assert batch.describe(config, config, 1) == ("4 images a step on 1 replica; learning rate 0.01")


def test_a_batch_that_cannot_be_shared_names_those_that_can(config):
    config.training.batch_size = 10
    with pytest.raises(ValueError, match=r"10 does not divide by the 4 replicas; .*are 8 and 12"):
        batch.settle(config, 4)
    config.training.gradient_accumulation_steps = 3
    with pytest.raises(
        ValueError, match=r"2 replicas times 3 gradient_accumulation_steps; .*6 and 12"
    ):
        batch.settle(config, 2)
    with pytest.raises(ValueError, match=r"the nearest that fits is 48"):
        batch.settle(config, 16)
