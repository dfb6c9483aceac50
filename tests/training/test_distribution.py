"""What the number of replicas decides, and strategies that cannot be had."""

import pytest
import tensorflow as tf

from sp_transformer.training import devices, distribution


def test_batch_and_learning_rate_are_worked_out(config):
    options = config.training
    options.batch_size_per_replica, options.learning_rate = 6, 1e-3
    options.learning_rate_reference_batch_size = 16
    settled = distribution.settle(config, 4)
    assert settled.training.batch_size == 24
    assert settled.training.learning_rate == pytest.approx(1.5e-3)
    # What is written down leads to the same once more, on any number of replicas that fits.
    assert distribution.settle(settled, 8) == settled
    assert options.batch_size_per_replica == 6
    line = distribution.describe(config, settled, 4)
    assert line == (
        "24 images a step on 4 replicas, 6 on each; learning rate 0.0015 (0.001 x 24 / 16)"
    )


def test_a_plain_batch_is_left_alone(config):
    assert distribution.settle(config, 2) == config
    assert distribution.describe(config, config, 1) == (
        "4 images a step on 1 replica; learning rate 0.01"
    )


def test_a_batch_that_cannot_be_shared_names_those_that_can(config):
    config.training.batch_size = 10
    with pytest.raises(ValueError, match=r"10 does not divide by the 4 replicas; .*are 8 and 12"):
        distribution.settle(config, 4)
    config.training.gradient_accumulation_steps = 3
    with pytest.raises(
        ValueError, match=r"2 replicas times 3 gradient_accumulation_steps; .*6 and 12"
    ):
        distribution.settle(config, 2)
    with pytest.raises(ValueError, match=r"the nearest that fits is 48"):
        distribution.settle(config, 16)


def test_xla_compiles_for_one_device_only(config):
    class TwoReplicas:
        num_replicas_in_sync = 2

    config.training.jit_compile = True
    with pytest.raises(
        ValueError, match="jit_compile works on one device, and this strategy has 2"
    ):
        distribution.check_strategy(config.training, TwoReplicas())
    distribution.check_strategy(config.training, tf.distribute.get_strategy())


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"] * 2)
    with pytest.raises(ValueError, match=r"--num_gpus 4 exceeds the 2 GPUs that TensorFlow sees"):
        distribution.create_strategy(devices.Devices(num_gpus=4))


def test_one_gpu_is_used_unless_more_are_asked_for(monkeypatch, caplog):
    visible = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["first", "second"])
    monkeypatch.setattr(
        tf.config, "set_visible_devices", lambda *arguments: visible.append(arguments)
    )
    strategy = distribution.create_strategy(devices.Devices())
    assert strategy.num_replicas_in_sync == 1
    assert visible == [(["first"], "GPU")]
    assert "--num_gpus=2 uses all" in caplog.text
    distribution.create_strategy(devices.Devices(num_gpus=0))
    assert visible[-1] == ([], "GPU")


def test_without_a_tpu_the_master_is_refused():
    with pytest.raises(ValueError, match=r"--master 'local': no TPU can be had under that name"):
        distribution.create_strategy(devices.Devices(master="local"))
