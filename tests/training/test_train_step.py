"""What the training step refuses; what it computes is in test_loop.py."""

import pytest

from sp_transformer.training import train_step


def test_refuses_what_a_strategy_cannot_do(config):
    class FourReplicas:
        num_replicas_in_sync = 4

    config.training.batch_size = 6
    with pytest.raises(ValueError, match=r"6 does not divide by the 4 replicas.*4 and 8"):
        train_step.TrainLoop(None, None, config.training, 255, FourReplicas())
    config.training.batch_size = 8
    config.training.jit_compile = True
    with pytest.raises(ValueError, match="jit_compile works on one device"):
        train_step.TrainLoop(None, None, config.training, 255, FourReplicas())
    config.training.jit_compile = False

    class Optimizer:
        _distribution_strategy = None

    with pytest.raises(ValueError, match="scope"):
        train_step.TrainLoop(None, Optimizer(), config.training, 255, FourReplicas())
