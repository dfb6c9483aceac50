"""A model_dir that no local path leads to: TensorFlow's file system in memory, in place of gs://."""

import io
import json
import os
import uuid

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from sp_transformer import command_line, evaluate
from sp_transformer.evaluation import evaluator
from sp_transformer.model import builder, inference, weights
from sp_transformer.training import modes, run_directory, run_lock


@pytest.fixture
def model_dir():
    return f"ram://{uuid.uuid4().hex}/run"


def read(*parts):
    with tf.io.gfile.GFile(os.path.join(*parts)) as file:
        return file.read()


def names(*parts):
    return set(tf.io.gfile.listdir(os.path.join(*parts)))


class Stop(Exception):
    pass


def test_a_run_is_resumed_exactly(make_run, tmp_path, config, model_dir):
    config.training.picture_interval_steps = 10
    reference = make_run(tmp_path)
    reference.train(stream=io.StringIO())

    def stop(step, model):
        if step == 8:
            raise Stop

    run = make_run(model_dir)
    assert run_lock.LOCK_FILE in names(model_dir)
    with pytest.raises(Stop):
        run.train(after_save=stop, stream=io.StringIO())
    assert run_lock.LOCK_FILE not in names(model_dir)
    # What a save that was killed may have left.
    torn = os.path.join(model_dir, "ckpt-9.index")
    with tf.io.gfile.GFile(torn, "w") as file:
        file.write("half of it")
    with tf.io.gfile.GFile(os.path.join(model_dir, "ckpt-10_temp", "part"), "w") as file:
        file.write("a part")
    run = make_run(model_dir)
    assert run.step == 8
    run.train(stream=io.StringIO())
    first, second = (
        {name: v.numpy() for name, v in weights.named_variables(r.model).items()}
        for r in (reference, run)
    )
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], name)
    assert {"ckpt-8.index", "ckpt-10.index", "config.textproto", "sessions.jsonl"} <= names(
        model_dir
    )
    assert {"ckpt-9.index", "ckpt-10_temp"}.isdisjoint(names(model_dir))
    log = [json.loads(line) for line in read(model_dir, "train", "log.jsonl").splitlines()]
    assert [line["step"] for line in log] == [2, 4, 6, 8, 10]
    assert any(name.startswith("events") for name in names(model_dir, "train"))
    assert run_directory.finished_step(model_dir) == 10
    # Another config is refused there, too.
    config.training.learning_rate = 0.5
    with pytest.raises(run_directory.RunMismatchError, match=r"training\.learning_rate: 0\.01"):
        make_run(model_dir)


def test_evaluates_keeps_the_best_and_is_read_by_the_binaries(tiny_run, model_dir, monkeypatch):
    # Building and tracing take the longest, and are nothing of this.
    monkeypatch.setattr(builder, "build_model", lambda config: tiny_run.inference.model)
    monkeypatch.setattr(inference, "Inference", lambda model, data: tiny_run.inference)
    tf.io.gfile.makedirs(model_dir)
    for path in tiny_run.model_dir.iterdir():
        if path.name.startswith("ckpt-") or path.name == "config.textproto":
            tf.io.gfile.copy(str(path), os.path.join(model_dir, path.name))
    run_directory.mark_finished(model_dir, 7)
    modes.run("continuous_eval", tiny_run.config, model_dir)
    metrics = json.loads(read(model_dir, "eval", evaluator.METRICS_FILE))
    assert metrics["step"] == 7 and metrics["num_images"] == 3
    assert {"ckpt-7.index", "best.json", "config.textproto"} <= names(model_dir, "best")
    # The config is the run's own, which lies there as well.
    values = flags.FlagValues()
    evaluate.define_flags(values)
    output_dir = f"{model_dir}/scores"
    values(["evaluate", f"--model_dir={model_dir}/best", f"--output_dir={output_dir}"])
    assert evaluate.main(values) == 0
    again = json.loads(read(output_dir, evaluator.METRICS_FILE))
    assert again["confusion_matrix"] == metrics["confusion_matrix"]
    path = f"{model_dir}/ckpt-7"
    assert command_line.restore(tiny_run.inference.model, path + ".index", averaged=False) == (
        7,
        path,
    )
