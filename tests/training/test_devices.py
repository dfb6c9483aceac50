"""Flags and TF_CONFIG that say which devices to use: what they mean, and one clear error for each mistake."""

import json

import pytest
from absl import flags

from sp_transformer import command_line
from sp_transformer.training import devices

TWO_WORKERS = {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}


def tf_config(cluster, task=("worker", 0)):
    return json.dumps({"cluster": cluster, "task": {"type": task[0], "index": task[1]}})


def from_flags(*arguments, trains=True):
    values = flags.FlagValues()
    devices.define_flags(values)
    values(["train", *arguments])
    return devices.from_flags(values, trains)


@pytest.fixture(autouse=True)
def no_tf_config(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)


def test_flags_become_devices(monkeypatch):
    assert from_flags() == devices.Devices()
    assert from_flags("--num_gpus=4") == devices.Devices(num_gpus=4)
    assert from_flags("--num_gpus=0") == devices.Devices(num_gpus=0)
    assert from_flags("--master=local") == devices.Devices(master="local")
    assert from_flags("--num_virtual_devices=3") == devices.Devices(num_virtual_devices=3)
    monkeypatch.setenv("TF_CONFIG", tf_config(TWO_WORKERS))
    assert from_flags("--num_gpus=8") == devices.Devices(num_gpus=8, num_workers=2)
    # Evaluation is the work of one process, and does not care.
    assert from_flags(trains=False) == devices.Devices()


@pytest.mark.parametrize(
    ("asked", "replicas"),
    [
        ({}, 1),
        ({"num_gpus": 4}, 4),
        ({"num_gpus": 0}, 1),
        ({"num_virtual_devices": 3}, 3),
        ({"num_gpus": 8, "num_workers": 2}, 16),
        ({"master": "local"}, None),
    ],
)
def test_replicas_that_can_be_told_beforehand(asked, replicas):
    assert devices.Devices(**asked).known_replicas == replicas


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_gpus=2", "--master=local"], "--num_gpus and --master exclude each other"),
        (["--num_gpus=2", "--num_virtual_devices=2"], "--num_gpus and --num_virtual_devices excl"),
        (["--master=local", "--num_virtual_devices=2"], "--master and --num_virtual_devices excl"),
        (["--master="], "--master is empty"),
    ],
)
def test_flags_that_do_not_fit_together(arguments, message):
    with pytest.raises(command_line.UsageError, match=message):
        from_flags(*arguments)


@pytest.mark.parametrize("argument", ["--master=local", "--num_virtual_devices=2"])
def test_workers_train_on_their_own_devices(monkeypatch, argument):
    monkeypatch.setenv("TF_CONFIG", tf_config(TWO_WORKERS))
    with pytest.raises(command_line.UsageError, match=r"does not go with the 2 workers"):
        from_flags(argument)


@pytest.mark.parametrize(
    ("text", "workers"),
    [
        ("", 1),
        (tf_config({"worker": ["localhost:1"]}), 1),
        (tf_config(TWO_WORKERS, ("worker", 1)), 2),
        (tf_config({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, ("chief", 0)), 3),
        (tf_config({**TWO_WORKERS, "evaluator": ["d:1"]}), 2),
    ],
)
def test_workers_of_a_tf_config(text, workers):
    assert devices.count_workers(text) == workers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'cluster': 1}", "TF_CONFIG is not JSON.*column 2"),
        ("[]", "no object 'cluster'"),
        ('{"cluster": {}}', "no object 'cluster'"),
        (tf_config({"ps": ["a:1"]}), "job 'ps'.*use chief and worker"),
        (tf_config({"worker": "a:1"}), "no list of 'HOST:PORT' for the job 'worker'"),
        (tf_config({"worker": []}), "no list of 'HOST:PORT'"),
        (tf_config({"worker": ["a"]}), "address 'a' for the job 'worker'; write HOST:PORT"),
        (tf_config({"worker": ["a:70000"]}), "address 'a:70000'"),
        (tf_config({"worker": [3]}), "address 3"),
        (tf_config({"worker": ["a:1", "a:1"]}), "lists a:1 twice"),
        (json.dumps({"cluster": TWO_WORKERS}), "no object 'task'"),
        (tf_config(TWO_WORKERS, ("chief", 0)), "task type 'chief', and its cluster only worker"),
        (tf_config(TWO_WORKERS, ("worker", 2)), "task index 2, and its cluster 2.*0 to 1"),
        (tf_config(TWO_WORKERS, ("worker", "0")), "task index '0'"),
        (tf_config({"chief": ["a:1", "b:1"]}, ("chief", 0)), "has 2 chiefs"),
        (
            tf_config({**TWO_WORKERS, "evaluator": ["d:1"]}, ("evaluator", 0)),
            "task 'evaluator', which does not train.*continuous_eval",
        ),
    ],
)
def test_faults_of_tf_config_are_named(text, message):
    with pytest.raises(command_line.UsageError, match=message):
        devices.count_workers(text)
