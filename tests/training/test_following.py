"""Following a run that another process trains: nothing torn is read, nothing is waited for in vain."""

import json
import os

import pytest
import tensorflow as tf

from sp_transformer.model import weights
from sp_transformer.training import checkpoints, following, optimizer, run_directory


class Evaluation:
    """Notes what is evaluated; `after` is called with the step each time."""

    def __init__(self, last=None, after=lambda step: None):
        self.opened = False
        self.steps = []
        self.queries = []
        self._last = last
        self._after = after

    def open(self):
        self.opened = True

    def last_step(self):
        return self._last

    def __call__(self, step, model, prefix):
        # The copy is still there, whatever training does.
        tf.train.load_checkpoint(prefix)
        self.steps.append(step)
        self.queries.append(float(model.queries.numpy()[0]))
        self._after(step)


class Clock:
    """Time that passes in sleep only; `events` are called when their time has come."""

    def __init__(self, events=()):
        self.now = 0.0
        self._events = sorted(events, key=lambda event: event[0])

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        assert self.now < 10_000, "waits for ever"
        while self._events and self._events[0][0] <= self.now:
            self._events.pop(0)[1]()


@pytest.fixture
def run(tmp_path, tiny, config):
    """Saves a model's checkpoints; the first of its queries is the step."""
    model = tiny.build_model()
    saver = checkpoints.TrainingCheckpoints(
        tmp_path, model, optimizer.create_optimizer(config.training, model), 5, {}
    )
    saver.restore_latest()

    class Run:
        directory = tmp_path

        def save(self, step, value=None):
            queries = model.queries.numpy()
            queries[0] = step if value is None else value
            model.queries.assign(queries)
            saver.save(step)

        def finish(self, step):
            run_directory.mark_finished(tmp_path, step)

    return Run()


def follow(run, model, evaluation, events=(), **options):
    clock = Clock(events)
    options = {"poll_seconds": 10.0, **options}
    following.follow(
        str(run.directory), model, evaluation, clock=clock, sleep=clock.sleep, **options
    )
    return clock.now


def test_evaluates_the_newest_until_training_is_through(run, tiny):
    evaluation = Evaluation()
    run.save(4)
    run.save(8)
    events = [(35, lambda: run.save(12)), (95, lambda: run.save(16)), (200, lambda: run.finish(16))]
    took = follow(run, tiny.build_model(), evaluation, events, timeout_seconds=150)
    assert evaluation.opened and evaluation.steps == [8, 12, 16]
    assert evaluation.queries == [8.0, 12.0, 16.0]
    assert took == 200
    assert not (run.directory / "eval" / "candidate").exists()


def test_the_last_checkpoint_is_evaluated_though_training_ended_meanwhile(run, tiny):
    def train_on(step):
        if step == 4:
            run.save(8)
            run.finish(8)

    evaluation = Evaluation(after=train_on)
    run.save(4)
    follow(run, tiny.build_model(), evaluation)
    assert evaluation.steps == [4, 8]


def test_a_checkpoint_may_go_while_it_is_evaluated(run, tiny):
    def delete(step):
        for path in run.directory.glob(f"ckpt-{step}.*"):
            path.unlink()
        if step == 4:
            run.save(8)
        else:
            run.finish(8)

    evaluation = Evaluation(after=delete)
    run.save(4)
    # Its last checkpoint being gone is the trainer's affair: a following look finds none.
    with pytest.raises(weights.CheckpointError, match="there is no checkpoint"):
        follow(run, tiny.build_model(), evaluation)
    assert evaluation.steps == [4, 8]


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_a_torn_checkpoint_is_waited_for_and_not_read(run, tiny, part, caplog):
    run.save(4)
    run.save(8)
    path = run.directory / f"ckpt-8.{part}"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    evaluation = Evaluation()
    events = [(35, lambda: path.write_bytes(whole)), (45, lambda: run.finish(8))]
    follow(run, tiny.build_model(), evaluation, events)
    assert evaluation.steps == [8] and evaluation.queries == [8.0]
    assert "step 8 cannot be read" in caplog.text
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(weights.CheckpointError, match=r"training has ended(.|\n)*ckpt-8"):
        follow(run, tiny.build_model(), Evaluation())


def test_waits_no_longer_than_told(run, tiny):
    evaluation = Evaluation()
    with pytest.raises(following.FollowTimeoutError, match="for 60 seconds"):
        follow(run, tiny.build_model(), evaluation, timeout_seconds=60)
    run.save(4)
    with pytest.raises(following.FollowTimeoutError, match="last one evaluated is of step 4"):
        follow(run, tiny.build_model(), evaluation, timeout_seconds=60)
    assert evaluation.steps == [4]


def test_goes_on_where_an_earlier_process_has_ended(run, tiny):
    run.save(4)
    run.finish(4)
    evaluation = Evaluation(last=4)
    follow(run, tiny.build_model(), evaluation)
    assert evaluation.steps == []


def test_a_step_that_was_saved_anew_is_evaluated_anew(run, tiny):
    run.save(4)
    events = []

    def fall_back():
        for path in run.directory.glob("ckpt-4.*"):
            path.unlink()
        run.save(4, value=99)
        os.utime(run.directory / "ckpt-4.index", (1, 1))

    events = [(25, fall_back), (55, lambda: run.finish(4))]
    evaluation = Evaluation()
    follow(run, tiny.build_model(), evaluation, events)
    assert evaluation.queries == [4.0, 99.0]


def test_a_checkpoint_of_another_model_is_an_error_at_once(run, tiny):
    run.save(4)
    with pytest.raises(weights.CheckpointError, match="belongs to another model"):
        follow(run, tiny.build_model(width=16), Evaluation())


def test_beside_a_trainer_that_deletes_as_fast_as_it_saves(run_driver, tmp_path, tiny):
    driver = run_driver.Driver()
    try:
        run_dir = tmp_path / "run"
        options = {"steps": 60, "save_interval": 1, "keep": 1, "width": 8}
        pid = driver.start("train", tmp_path / "output", model_dir=str(run_dir), **options)
        evaluation = Evaluation()
        model = tiny.build_model()
        following.follow(str(run_dir), model, evaluation, poll_seconds=0.001, timeout_seconds=60)
        assert driver.wait(pid) == 0
    finally:
        driver.close()
    assert evaluation.steps == sorted(set(evaluation.steps))
    assert len(evaluation.steps) > 2 and evaluation.steps[-1] == 60
    finished = json.loads((run_dir / "finished.json").read_text())
    assert finished == {"step": 60}
