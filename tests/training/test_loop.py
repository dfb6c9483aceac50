"""Runs of a tiny model: resumed ones equal uninterrupted ones, and faults stop them without
harm."""

import io
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import weights
from sp_transformer.training import checkpoints, loop, run_directory


def loss_curve(model_dir):
    """Pairs of step and loss of the log."""
    lines = pathlib.Path(model_dir, "train", "log.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines)]


def final_weights(run):
    return {name: v.numpy() for name, v in weights.named_variables(run.model).items()}


def assert_same_weights(first, second, atol=0.0):
    first, second = (x if isinstance(x, dict) else final_weights(x) for x in (first, second))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=atol, err_msg=name)


def train(make_run, model_dir, **kwargs):
    run = make_run(model_dir, **kwargs)
    run.summary = run.train(stream=io.StringIO())
    return run


def spoil_step(bad_step):
    """Maps a dataset to one whose images are NaN at `bad_step`, counted from 1."""

    def spoil(dataset):
        def change(index, batch):
            factor = tf.where(tf.equal(index, bad_step - 1), np.nan, 1.0)
            return {**batch, "image": batch["image"] * tf.cast(factor, tf.float32)}

        return dataset.enumerate().map(change)

    return spoil


class Interruption(Exception):
    pass


def interrupt_at(step):
    """Maps a dataset to one that raises when the batch of `step`, counted from 1, is drawn."""

    def spoil(dataset):
        def change(index, batch):
            def check(i):
                if i == step - 1:
                    raise Interruption
                return np.int64(i)

            index = tf.numpy_function(check, [index], tf.int64)
            with tf.control_dependencies([index]):
                return {key: tf.identity(value) for key, value in batch.items()}

        return dataset.enumerate().map(change)

    return spoil


@pytest.fixture(scope="module")
def reference_run(tmp_path_factory, stand_ins):
    """The uninterrupted run: its directory and its final weights."""
    model_dir = tmp_path_factory.mktemp("reference")
    run = train(stand_ins.make_run_of(stand_ins.make_config()), model_dir)
    return model_dir, final_weights(run)


@pytest.fixture
def reference(reference_run, tmp_path):
    """Final weights of the uninterrupted run, of which tmp_path / "reference" is a copy."""
    model_dir, final = reference_run
    shutil.copytree(model_dir, tmp_path / "reference")
    return final


def test_learns_and_reports(make_run, tmp_path, config):
    config.training.picture_interval_steps = 5
    run = make_run(tmp_path)
    saves, stream = [], io.StringIO()
    summary = run.train(after_save=lambda step, model: saves.append((step, model)), stream=stream)
    assert saves == [(4, run.model), (8, run.model), (10, run.model)]
    assert summary.steps == 10 and summary.checkpoint == str(tmp_path / "ckpt-10")
    assert summary.seconds > 0 and summary.images_per_second > 0
    curve = loss_curve(tmp_path)
    assert [step for step, _ in curve] == [2, 4, 6, 8, 10]
    assert summary.loss == curve[-1][1] < curve[0][1] - 0.2
    text = stream.getvalue()
    assert text.count("step 10/10") == 1 and text.count("trained to step 10") == 1
    assert (tmp_path / run_directory.CONFIG_FILE).exists()
    tags = set()
    for path in (tmp_path / "train").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {(event.step, value.tag) for value in event.summary.value}
    scalars = {
        "loss",
        "learning_rate",
        "backbone_learning_rate",
        "gradient_norm",
        "images_per_second",
    }
    assert {(10, name) for name in scalars} <= tags
    assert {(5, f"{kind}/3") for kind in ("segmentation", "details")} <= tags
    assert sorted(step for step, tag in tags if tag == "legend/classes") == [5]


def test_resumed_equals_uninterrupted_bit_by_bit(make_run, tmp_path, reference):
    # Step 7 is neither a save nor a log interval's end: steps 5 to 7 are taken again, and step 6 is
    # logged again.
    run = make_run(tmp_path / "run", spoil=interrupt_at(7))
    with pytest.raises(tf.errors.OpError, match="Interruption"):
        run.train(stream=io.StringIO())
    assert [step for step, _ in loss_curve(tmp_path / "run")] == [2, 4, 6]
    stream = io.StringIO()
    run = make_run(tmp_path / "run")
    assert run.step == 4
    run.train(stream=stream)
    assert "resumed at step 4 of 10" in stream.getvalue() and "step 5/10" in stream.getvalue()
    assert_same_weights(run, reference)
    assert loss_curve(tmp_path / "run") == loss_curve(tmp_path / "reference")


def test_resumes_between_two_log_intervals(make_run, tmp_path, config):
    config.training.log_interval_steps = 5
    reference = train(make_run, tmp_path / "reference")
    with pytest.raises(tf.errors.OpError):
        train(make_run, tmp_path / "run", spoil=interrupt_at(6))
    run = train(make_run, tmp_path / "run")
    assert_same_weights(run, reference)
    assert loss_curve(tmp_path / "run") == loss_curve(tmp_path / "reference")


@pytest.mark.parametrize(
    "damage",
    [
        "truncated data",
        "truncated index",
        "empty state",
        "leftover",
    ],
)
def test_a_torn_save_falls_back_to_the_one_before(
    make_run, tmp_path, config, reference, damage, caplog
):
    model_dir = tmp_path / "reference"
    newest = model_dir / "ckpt-10"
    if damage == "truncated data":
        data = newest.with_name("ckpt-10.data-00000-of-00001")
        data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    elif damage == "truncated index":
        index = newest.with_name("ckpt-10.index")
        index.write_bytes(index.read_bytes()[:100])
    elif damage == "leftover":
        for path in model_dir.glob("ckpt-10.*"):
            path.unlink()
        (model_dir / "ckpt-10_temp").mkdir()
        (model_dir / "ckpt-10_temp" / "part-00000-of-00001.data").write_bytes(b"half")
    else:
        (model_dir / "checkpoint").write_text("")
    run = make_run(model_dir)
    assert run.step == (10 if damage == "empty state" else 8)
    assert ("ckpt-10" in caplog.text) == damage.startswith("truncated")
    # Nobody else takes it for the newest one, and it is not thrown away.
    torn = 2 if damage.startswith("truncated") else 0
    assert len(list(model_dir.glob("unreadable-ckpt-10.*"))) == torn
    assert not list(model_dir.glob("*_temp"))
    run.train(stream=io.StringIO())
    assert_same_weights(run, reference)
    assert make_run(model_dir).step == 10


def test_a_lost_storage_renames_no_checkpoint(make_run, tmp_path, reference, monkeypatch):
    def lost(self, prefix):
        raise tf.errors.AbortedError(None, None, "all retries were used up")

    model_dir = tmp_path / "reference"
    before = sorted(path.name for path in model_dir.glob("*ckpt-*"))
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.TrainingCheckpoints, "_restore", lost)
        with pytest.raises(tf.errors.AbortedError):
            make_run(model_dir)
    assert sorted(path.name for path in model_dir.glob("*ckpt-*")) == before
    assert make_run(model_dir).step == 10


def test_refuses_to_start_anew_over_checkpoints_that_cannot_be_read(make_run, tmp_path, config):
    config.training.steps = 4
    train(make_run, tmp_path)
    (tmp_path / "ckpt-4.index").write_bytes(b"")
    with pytest.raises(weights.CheckpointError, match=r"none of the checkpoints(.|\n)*ckpt-4"):
        make_run(tmp_path)


def test_keeps_the_newest_checkpoints_over_resumes(make_run, tmp_path, config):
    config.training.checkpoints_to_keep = 2
    config.training.save_interval_steps = 2
    config.training.steps = 6
    train(make_run, tmp_path)
    assert [step for step, _ in weights.list_checkpoints(tmp_path)] == [4, 6]
    (tmp_path / "checkpoint").write_text("")
    config.training.steps = 8
    train(make_run, tmp_path)
    assert [step for step, _ in weights.list_checkpoints(tmp_path)] == [6, 8]


@pytest.mark.parametrize("steps_per_loop", [1, 4])
def test_a_loss_that_is_not_finite_stops_the_run(make_run, tmp_path, config, steps_per_loop):
    config.training.steps_per_loop = steps_per_loop
    config.training.log_interval_steps = 4
    run = make_run(tmp_path, spoil=spoil_step(7))
    with pytest.raises(loop.NonFiniteLossError, match=r"step 7 has loss nan(.|\n)*ckpt-4") as error:
        run.train(stream=io.StringIO())
    assert error.value.step == 7
    assert [step for step, _ in weights.list_checkpoints(tmp_path)] == [4]
    assert make_run(tmp_path).step == 4


def test_steps_per_loop_changes_nothing(make_run, tmp_path, config, reference):
    config.training.steps_per_loop = 4
    config.training.log_interval_steps = 4
    run = train(make_run, tmp_path / "run")
    assert_same_weights(run, reference)
    # A loop ends at multiples of 4 also behind a final save at 10.
    config.training.steps = 14
    saves = []
    make_run(tmp_path / "run").train(lambda step, _: saves.append(step), io.StringIO())
    assert saves == [12, 14]


def test_jit_compiled_equals_plain(make_run, tmp_path, config):
    plain = train(make_run, tmp_path / "plain", dropout=0.0)
    config.training.jit_compile = True
    config.training.steps_per_loop = 2
    compiled = train(make_run, tmp_path / "compiled", dropout=0.0)
    assert compiled.summary.loss == pytest.approx(plain.summary.loss, abs=1e-5)
    np.testing.assert_allclose(
        loss_curve(tmp_path / "plain"), loss_curve(tmp_path / "compiled"), atol=1e-5
    )


def test_compiles_and_clips_under_one_device_strategy(make_run, tmp_path, config):
    config.training.gradient_clip_norm = 1e-3
    config.training.steps = 4
    plain = train(make_run, tmp_path / "plain", dropout=0.0)
    config.training.jit_compile = True
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    run = train(make_run, tmp_path / "one", strategy=strategy, dropout=0.0)
    assert_same_weights(run, plain, atol=1e-4)


def test_clipping_limits_the_gradient_and_reports_the_whole_norm(make_run, tmp_path, config):
    # Adam divides a constant scale out, except where epsilon is large beside the gradient.
    config.training.epsilon = 1.0
    config.training.weight_decay = 0.0
    config.training.steps = 4
    moves = {}
    for norm in (0.0, 1e-3):
        config.training.gradient_clip_norm = norm
        run = make_run(tmp_path / str(norm))
        before = final_weights(run)
        run.train(stream=io.StringIO())
        after = final_weights(run)
        moves[norm] = np.abs(after["head/kernel"] - before["head/kernel"]).max()
        line = json.loads((tmp_path / str(norm) / "train/log.jsonl").read_text().splitlines()[0])
        assert line["gradient_norm"] > 0.1
    assert 0 < moves[1e-3] < moves[0.0] / 100


def test_bfloat16_trains_float32_weights(make_run, tmp_path, config):
    config.training.precision = config.training.BFLOAT16
    run = train(make_run, tmp_path)
    curve = loss_curve(tmp_path)
    assert curve[-1][1] < curve[0][1] - 0.2
    assert {v.dtype for v in run.model.trainable_variables} == {"float32"}


def test_a_finished_run_has_nothing_to_do(make_run, tmp_path, config):
    config.training.steps = 2
    train(make_run, tmp_path)
    stream = io.StringIO()
    summary = make_run(tmp_path).train(lambda *_: pytest.fail("nothing was saved"), stream)
    assert summary.steps == 2 and summary.checkpoint == str(tmp_path / "ckpt-2")
    assert np.isnan(summary.loss) and "nothing to do" in stream.getvalue()


def test_the_seed_decides_the_weights(make_run, tmp_path, config):
    first, again = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    assert_same_weights(first, again)
    config.training.seed = 1
    other = make_run(tmp_path / "c")
    assert not np.array_equal(
        final_weights(other)["head/kernel"], final_weights(first)["head/kernel"]
    )


_TWO_REPLICAS = """
import sys
sys.path.insert(0, sys.argv[1])
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import conftest
config = conftest.make_config()
config.training.gradient_clip_norm = 0.5
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
conftest.make_run_of(config)(sys.argv[2], strategy=strategy, dropout=0.0).train()
"""


def test_two_replicas_equal_one_device(make_run, tmp_path, config):
    config.training.gradient_clip_norm = 0.5
    one = train(make_run, tmp_path / "one", dropout=0.0)
    subprocess.run(
        [
            sys.executable,
            "-c",
            _TWO_REPLICAS,
            str(pathlib.Path(__file__).parent),
            str(tmp_path / "two"),
        ],
        check=True,
        capture_output=True,
    )
    # Its checkpoint goes on with one device, too.
    two = make_run(tmp_path / "two", dropout=0.0)
    assert two.step == 10
    np.testing.assert_allclose(
        loss_curve(tmp_path / "two"), loss_curve(tmp_path / "one"), atol=1e-4
    )
    # Biases in front of BatchNorm have a zero gradient but for rounding, which Adam blows up to
    # whole steps.
    one, two = final_weights(one), final_weights(two)
    for name in one.keys() - {"backbone/conv/bias"}:
        if "moving" not in name:
            np.testing.assert_allclose(one[name], two[name], atol=2e-3, err_msg=name)
