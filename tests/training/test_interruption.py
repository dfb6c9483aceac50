"""Runs that are killed, terminated or left without a disk: what was saved is never lost, and goes on exactly."""

import json
import pathlib
import random
import signal
import tempfile
import time

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import weights

SAVE_INTERVAL = 5
STARTUP_SECONDS = 2.0


@pytest.fixture(scope="module")
def driver(run_driver):
    driver = run_driver.Driver()
    yield driver
    driver.close()


def state_of(prefix):
    """Everything in a checkpoint: weights, moments, random-number states, step."""
    reader = tf.train.load_checkpoint(str(prefix))
    names = reader.get_variable_to_shape_map()
    # How often a process has saved is no part of the run.
    return {name: reader.get_tensor(name) for name in names if "save_counter" not in name}


def assert_same_state(first, second):
    first, second = state_of(first), state_of(second)
    assert first.keys() == second.keys()
    for name in first:
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH":
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def logged_step(model_dir):
    """The last step that the log holds, 0 if none."""
    try:
        lines = (model_dir / "train" / "log.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"]
    except (OSError, IndexError, ValueError):
        return 0


def sessions(model_dir):
    lines = (model_dir / "sessions.jsonl").read_text().splitlines()
    return [json.loads(line)["first_step"] for line in lines]


def alive(driver, pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def wait_until(driver, pid, condition, seconds=60, pause=0.005):
    deadline = time.monotonic() + seconds
    while not condition():
        assert alive(driver, pid), driver.text(pid)
        assert time.monotonic() < deadline, driver.text(pid)
        time.sleep(pause)


def kill_somewhere(driver, model_dir, output, moment, generator, **options):
    """Starts or resumes the run and kills it at `moment`: "starting", "training" or "saving".

    Returns:
      The last step that was taken, and whether files of a save that had begun lie there.
    """
    before = logged_step(model_dir)
    pid = driver.start("train", output, model_dir=str(model_dir), **options)
    if moment == "starting":
        time.sleep(generator.uniform(0, STARTUP_SECONDS))
    else:
        wait_until(driver, pid, lambda: logged_step(model_dir) not in (0, before))
        # Behind a save at least, so that there is something to go on from.
        taken = logged_step(model_dir) + generator.randint(SAVE_INTERVAL, 2 * SAVE_INTERVAL)
        wait_until(driver, pid, lambda: logged_step(model_dir) >= taken)
        if moment == "saving":
            wait_until(driver, pid, lambda: list(model_dir.glob("ckpt-*_temp")), pause=0)
            time.sleep(generator.uniform(0, 0.01))
        else:
            time.sleep(generator.uniform(0, 0.05))
    assert driver.kill(pid) == -signal.SIGKILL, driver.text(pid)
    return logged_step(model_dir), bool(list(model_dir.glob("ckpt-*_temp")))


def kill_again_and_again(driver, folder, moments, seed, steps, **options):
    """Kills a run at all `moments`, lets it end, and compares it with one that was left in peace.

    Returns:
      How many of the kills have cut a save off.
    """
    generator = random.Random(seed)
    options |= {"steps": steps, "save_interval": SAVE_INTERVAL}
    reference, killed = folder / "reference", folder / "killed"
    output = folder / "output"
    code = driver.run("train", output, model_dir=str(reference), **options)
    assert code == 0, output.read_text()
    lasts, cut_off = [], 0
    for moment in moments:
        last, in_a_save = kill_somewhere(driver, killed, output, moment, generator, **options)
        lasts.append(last)
        cut_off += in_a_save
        assert last < steps, "the run was through before it was killed; give it more steps"
    code = driver.run("train", output, model_dir=str(killed), **options)
    assert code == 0, output.read_text()
    assert not list(killed.glob("*_temp")) and not list(killed.glob("unreadable-*"))
    # A process that was killed before it had come to restoring left no session.
    resumed = sessions(killed)
    assert len({first for first in resumed if first > 0}) >= min(2, len(moments) // 2)
    for step in set(lasts):
        following = [first for first in resumed if first <= step]
        assert step - max(following) <= SAVE_INTERVAL
    assert_same_state(killed / f"ckpt-{steps}", reference / f"ckpt-{steps}")
    losses = [
        [json.loads(line)["loss"] for line in (d / "train" / "log.jsonl").read_text().splitlines()]
        for d in (reference, killed)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == steps
    return cut_off


def test_three_kills_and_the_run_ends_as_if_there_were_none(driver, tmp_path):
    kill_again_and_again(driver, tmp_path, ["training", "saving", "starting"], seed=1, steps=80)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_twenty_kills_at_random_moments(driver, tmp_path, replicas):
    seed = random.randrange(10**6)
    moments = random.Random(seed).choices(["starting", "training", "saving"], [1, 2, 2], k=20)
    # Wide enough that a save takes a good part of the time.
    cut_off = kill_again_and_again(
        driver, tmp_path, moments, seed, steps=700, replicas=replicas, width=512
    )
    print(f"seed {seed}, {replicas} replicas: {moments}; {cut_off} of 20 kills cut a save off")
    assert cut_off > 0


def test_a_terminated_run_goes_on_with_two_replicas(driver, tmp_path):
    options = {"steps": 12, "save_interval": 5, "dropout": 0.0, "width": 8}
    reference, moved, output = tmp_path / "reference", tmp_path / "moved", tmp_path / "output"
    assert driver.run("train", output, model_dir=str(reference), **options) == 0
    code = driver.run("train", output, model_dir=str(moved), sigterm_at=6, **options)
    assert code == 143 and "terminated; step 6 is saved" in output.read_text()
    assert [step for step, _ in weights.list_checkpoints(moved)] == [5, 6]
    code = driver.run("train", output, model_dir=str(moved), replicas=2, **options)
    assert code == 0, output.read_text()
    assert sessions(moved) == [0, 6]
    assert "replicas: 1 before, 2 now" in output.read_text()
    first, second = state_of(reference / "ckpt-12"), state_of(moved / "ckpt-12")
    assert first.keys() == second.keys()
    for name in first:
        # A bias in front of BatchNorm has a gradient of nothing but rounding, which Adam blows up.
        if name.startswith("model/") and "conv/bias" not in name and "moving" not in name:
            np.testing.assert_allclose(first[name], second[name], atol=2e-3, err_msg=name)


SMALL = {"steps": 12, "save_interval": 2, "keep": 5, "width": 256}


def damage_report(driver, output, code, expected):
    text = output.read_text()
    assert code == 1 and "WriteError" in text, text
    for words in expected:
        assert words in text, text


def test_a_full_disk_is_said_and_costs_nothing_that_was_saved(driver, tmp_path):
    reference, left, output = tmp_path / "reference", tmp_path / "left", tmp_path / "output"
    assert driver.run("train", output, model_dir=str(reference), **SMALL) == 0
    size = sum(path.stat().st_size for path in reference.glob("ckpt-12.*"))
    # Room for two checkpoints and the small files.
    code = driver.run(
        "train_on_small_disk",
        output,
        model_dir=str(tmp_path / "disk"),
        size=int(2.5 * size) + 100_000,
        copied_to=str(left),
        **SMALL,
    )
    if "no file system of its own can be mounted" in output.read_text():
        pytest.skip("only root, or a user with namespaces, can mount a small disk")
    damage_report(
        driver, output, code, ["No space left", "step 6 could", "ckpt-4; the same command"]
    )
    assert [step for step, _ in weights.list_checkpoints(left)] == [2, 4]
    assert not list(left.glob("ckpt-6*"))
    # With room again it goes on, exactly.
    assert driver.run("train", output, model_dir=str(left), **SMALL) == 0, output.read_text()
    assert sessions(left) == [0, 4]
    assert_same_state(left / "ckpt-12", reference / "ckpt-12")


def test_a_limit_on_files_is_named(driver, tmp_path):
    output = tmp_path / "output"
    code = driver.run(
        "train_with_small_files", output, model_dir=str(tmp_path / "run"), size=300_000, **SMALL
    )
    damage_report(driver, output, code, ["step 2 could not be saved", "ulimit -f", "none: no step"])
    assert not list((tmp_path / "run").glob("ckpt-*"))


def test_a_directory_without_rights_is_refused_before_training(driver, tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        model_dir, output = pathlib.Path(folder, "run"), tmp_path / "output"
        model_dir.mkdir()
        pathlib.Path(folder).chmod(0o755)
        model_dir.chmod(0o555)
        code = driver.run("train_without_rights", output, model_dir=str(model_dir), **SMALL)
        damage_report(driver, output, code, [str(model_dir), "Permission denied", "give another"])
        assert "step 1/" not in output.read_text()
        assert not list(model_dir.iterdir())
    (tmp_path / "file").write_text("")
    code = driver.run("train", output, model_dir=str(tmp_path / "file" / "run"), **SMALL)
    damage_report(driver, output, code, ["is a file; give another model_dir"])


def test_a_second_process_in_the_same_directory_is_refused(driver, tmp_path):
    model_dir, output = tmp_path / "run", tmp_path / "output"
    first = driver.start("train", tmp_path / "first", model_dir=str(model_dir), steps=10**6)
    wait_until(driver, first, lambda: logged_step(model_dir) >= 1)
    assert driver.run("train", output, model_dir=str(model_dir), steps=10**6) == 1
    text = output.read_text()
    assert "RunLockedError" in text and f"process {first} on host" in text
    assert alive(driver, first)
    driver.kill(first)
    # The lock of a dead process is none.
    stop = logged_step(model_dir) + 20
    code = driver.run("train", output, model_dir=str(model_dir), steps=10**6, sigterm_at=stop)
    assert code == 143, output.read_text()
