"""Two workers over TF_CONFIG on loopback: who writes, how they stop, and one of them killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import weights


@pytest.fixture(scope="module")
def driver(run_driver):
    driver = run_driver.Driver()
    yield driver
    driver.close()


def run_both(driver, folder, model_dirs, **options):
    """Runs two workers to their ends; gives their exit codes and outputs."""
    ports = driver.free_ports(2)
    folder.mkdir(exist_ok=True)
    pids = []
    for task, model_dir in enumerate(model_dirs):
        own = {name: value[task] for name, value in options.items() if isinstance(value, list)}
        arguments = {**options, **own, "task": task, "ports": ports, "width": 8}
        output = folder / f"output-{task}"
        pids.append(driver.start("train", output, model_dir=str(model_dir), **arguments))
    return [driver.wait(pid) for pid in pids], [driver.text(pid) for pid in pids]


def test_sigterm_to_one_worker_stops_both_at_one_step_and_only_the_chief_writes(driver, tmp_path):
    model_dir = tmp_path / "run"
    codes, texts = run_both(
        driver,
        tmp_path / "first",
        [model_dir, model_dir],
        steps=10**6,
        save_interval=4,
        sigterm_at=[None, 6],
    )
    assert codes == [143, 143], texts
    assert "terminated; step 6 is saved" in texts[0] and "step 6" not in texts[1]
    assert [step for step, _ in weights.list_checkpoints(model_dir)] == [4, 6]
    lines = (model_dir / "train" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert len(list((model_dir / "train").glob("events*"))) == 1
    session = json.loads((model_dir / "sessions.jsonl").read_text())
    assert (session["workers"], session["replicas"]) == (2, 2)


def test_a_last_evaluation_that_was_cut_off_is_made_up(driver, tmp_path):
    model_dir = tmp_path / "run"
    for killed_at in (4, None):
        ports = driver.free_ports(2)
        pids = [
            driver.start(
                "train_and_eval",
                tmp_path / f"output-{task}",
                model_dir=str(model_dir),
                task=task,
                ports=ports,
                killed_at=killed_at,
            )
            for task in (0, 1)
        ]
        codes, texts = [driver.wait(pid) for pid in pids], [driver.text(pid) for pid in pids]
        assert codes[0] == (143 if killed_at else 0), texts
        scored = json.loads((model_dir / "eval" / "metrics.json").read_text())["step"]
        assert scored == (2 if killed_at else 4), texts
    assert codes[1] == 0 and "nothing to do" in texts[0], texts
    assert "evaluated step 4" in texts[0] and "evaluated" not in texts[1]


@pytest.mark.slow
def test_workers_that_do_not_share_a_model_dir_are_refused(driver, tmp_path):
    shared = tmp_path / "shared"
    options = {"steps": 4, "save_interval": 2}
    codes, texts = run_both(driver, tmp_path / "first", [shared, shared], **options)
    assert codes == [0, 0], texts
    options["steps"] = 8
    codes, texts = run_both(driver, tmp_path / "second", [shared, tmp_path / "own"], **options)
    assert codes == [1, 1], texts
    for task, (text, step) in enumerate(zip(texts, (4, 0), strict=True)):
        assert f"WorkerMismatchError: worker {task} finds step {step} in" in text, text
        assert "storage that all workers share" in text


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_worker_is_killed_and_both_go_on_exactly(run_driver, driver, tmp_path, victim):
    options = {"steps": 150, "save_interval": 5, "width": 8, "ports": driver.free_ports(2)}
    reference, killed = tmp_path / "reference", tmp_path / "killed"
    codes, texts = run_both(
        driver, tmp_path / "first", [reference, reference], steps=150, save_interval=5
    )
    assert codes == [0, 0], texts
    outputs = [tmp_path / f"output-{task}" for task in (0, 1)]
    supervisors = []
    for task, output in enumerate(outputs):
        arguments = json.dumps({"model_dir": str(killed), "task": task, **options})
        with output.open("w") as file:
            supervisors.append(
                subprocess.Popen(
                    [sys.executable, run_driver.__file__, arguments],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        log = killed / "train" / "log.jsonl"
        deadline = time.monotonic() + 120
        while not log.exists() or len(log.read_text().splitlines()) < 12:
            assert time.monotonic() < deadline, [output.read_text() for output in outputs]
            time.sleep(0.02)
        processes = re.findall(r"worker process (\d+)", outputs[victim].read_text())
        os.kill(int(processes[-1]), signal.SIGKILL)
        codes = [supervisor.wait(timeout=180) for supervisor in supervisors]
    finally:
        for supervisor in supervisors:
            supervisor.terminate()
    texts = [output.read_text() for output in outputs]
    assert codes == [0, 0], texts
    assert "train ended with code 137; starting it again" in texts[victim]
    assert "; starting it again" in texts[1 - victim]
    print(re.findall("train ended with code .*", "\n".join(texts)))
    sessions = [json.loads(line) for line in (killed / "sessions.jsonl").read_text().splitlines()]
    assert len(sessions) >= 2 and sessions[1]["first_step"] >= 10
    first, second = (tf.train.load_checkpoint(str(d / "ckpt-150")) for d in (reference, killed))
    for name in first.get_variable_to_shape_map():
        if name.startswith("model/"):
            np.testing.assert_array_equal(first.get_tensor(name), second.get_tensor(name), name)
