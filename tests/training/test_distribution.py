"""Strategies that cannot be had, and what a strategy cannot do."""

import pytest
import tensorflow as tf

from sp_transformer.training import devices, distribution


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
