"""The modes around one small real model: what is evaluated, what is kept, what TensorBoard shows."""

import json
import shutil

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator

from sp_transformer.model import weights
from sp_transformer.training import best, files, following, modes, run_directory, run_lock


@pytest.fixture
def config(tiny_run):
    config = type(tiny_run.config)()
    config.CopyFrom(tiny_run.config)
    config.evaluation.max_images = 2
    config.evaluation.pictures = 1
    return config


@pytest.fixture
def model_dir(tiny_run, tmp_path, monkeypatch):
    """A copy of the run, whose model need not be built and traced again."""
    model = tiny_run.inference.model
    monkeypatch.setattr(modes.builder, "build_model", lambda config: model)
    monkeypatch.setattr(modes.inference, "Inference", lambda model, data: tiny_run.inference)
    before = {v.path: v.numpy() for v in model.variables}
    shutil.copytree(tiny_run.model_dir, tmp_path / "run")
    yield str(tmp_path / "run")
    for v in model.variables:
        v.assign(before[v.path])


def points(folder, tag):
    """The points that TensorBoard shows: pairs of step and value."""
    events = plugin_event_accumulator.EventAccumulator(folder, tensor_size_guidance={})
    events.Reload()
    return [
        (event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)
    ]


def test_eval_scores_the_newest_and_keeps_nothing(config, model_dir):
    modes.run("eval", config, model_dir)
    metrics = json.loads((tf.io.gfile.GFile(f"{model_dir}/eval/metrics.json")).read())
    assert metrics["step"] == 7 and metrics["checkpoint"] == f"{model_dir}/ckpt-7"
    assert best.recorded(model_dir) is None
    modes.run("eval", config, model_dir)
    assert points(f"{model_dir}/eval", "eval/miou") == [(7, pytest.approx(metrics["miou"]))]
    assert files.read_text(f"{model_dir}/eval/{run_lock.LOCK_FILE}") is None


def test_a_point_behind_a_fall_back_is_shown_once(config, model_dir, tiny_run):
    model = tiny_run.inference.model
    with modes.Evaluation(config, model_dir, keep_best=False) as evaluation:
        for step in (4, 8, 12):
            evaluation(step, model)
        # Training was killed, and its save of step 12 was torn.
        for variable in model.classifier.trainable_variables:
            variable.assign(-variable)
        for step in (8, 12, 16):
            last = evaluation(step, model)
    shown = points(f"{model_dir}/eval", "eval/miou")
    assert [step for step, _ in shown] == [4, 8, 12, 16]
    assert shown[1][1] == shown[3][1] == pytest.approx(last["miou"]) != shown[0][1]


def test_continuous_eval_keeps_the_best_and_ends(config, model_dir, capsys):
    run_directory.mark_finished(model_dir, 7)
    modes.run("continuous_eval", config, model_dir)
    assert "the best so far" in capsys.readouterr().out
    assert best.recorded(model_dir)["step"] == 7
    # It serves as a model_dir.
    model = modes.builder.build_model(config)
    assert weights.restore_model(model, f"{model_dir}/best") == 7
    assert (tf.io.gfile.GFile(f"{model_dir}/best/config.textproto")).read().startswith("experiment")
    # Started again it has nothing to do.
    modes.run("continuous_eval", config, model_dir)
    assert "evaluated step" not in capsys.readouterr().out


def test_continuous_eval_ends_when_nothing_comes(config, model_dir):
    config.evaluation.poll_interval_seconds = 0.01
    with pytest.raises(following.FollowTimeoutError, match="of step 7"):
        modes.run("continuous_eval", config, model_dir, timeout_seconds=0.05)


def test_two_evaluations_in_one_directory_are_refused(config, model_dir):
    tf.io.gfile.makedirs(f"{model_dir}/eval")
    held = run_lock.RunLock(f"{model_dir}/eval", "evaluates")
    # As another process would hold it.
    holder = json.loads(files.read_text(f"{model_dir}/eval/{run_lock.LOCK_FILE}"))
    with open("/proc/1/stat") as file:
        start = file.read().rpartition(")")[2].split()[19]
    holder |= {"process": [1, start], "token": "other"}
    files.write_text(f"{model_dir}/eval/{run_lock.LOCK_FILE}", json.dumps(holder))
    for mode in ("eval", "continuous_eval"):
        with pytest.raises(run_lock.RunLockedError, match=r"process 1 on host .* evaluates in"):
            modes.run(mode, config, model_dir)
    held.release()


def test_an_unknown_mode_is_named(config, model_dir):
    with pytest.raises(ValueError, match="'test'; use train, eval, train_and_eval or cont"):
        modes.run("test", config, model_dir)
