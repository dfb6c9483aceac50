"""SIGTERM to a run, and what a run makes up that an earlier process was kept from."""

import io
import os
import signal

import pytest

from sp_transformer.model import weights


def test_sigterm_saves_and_exits(make_run, tmp_path, config):
    config.training.save_interval_steps = 1000
    config.training.log_interval_steps = 1

    class Terminating(io.StringIO):
        def write(self, text):
            if text.startswith("step 3/"):
                os.kill(os.getpid(), signal.SIGTERM)
            return super().write(text)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as exit_info:
        make_run(tmp_path).train(stream=Terminating())
    assert exit_info.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert make_run(tmp_path).step == 3


@pytest.mark.parametrize("saves", [4, 8])
def test_sigterm_during_a_save_costs_no_further_step(make_run, tmp_path, config, saves):
    config.training.steps_per_loop = 4
    run = make_run(tmp_path)
    save = run._checkpoints.save

    def save_and_signal(step):
        if step == saves:
            os.kill(os.getpid(), signal.SIGTERM)
        return save(step)

    run._checkpoints.save = save_and_signal
    with pytest.raises(SystemExit) as exit_info:
        run.train(stream=io.StringIO())
    assert exit_info.value.code == 143
    assert weights.list_checkpoints(tmp_path)[-1][0] == saves


def test_what_follows_a_save_is_made_up_before_the_next_step(make_run, tmp_path, config):
    calls, stream = [], io.StringIO()

    def note(step, model):
        calls.append((step, "step" in stream.getvalue().partition("resumed at step")[2][20:]))

    def resume(steps):
        config.training.steps = steps
        run = make_run(tmp_path)
        run.train(stream=stream, after_resume=note)
        return run.model

    resume(4)
    assert calls == []
    resume(5)
    assert calls == [(4, False)]
    # Step 5 was its last, but is none of the saves of a longer run; as the last it is one.
    calls.clear()
    resume(8)
    assert calls == []
    resume(8)
    assert [step for step, _ in calls] == [8]
