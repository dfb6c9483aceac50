"""The supervisor with small programs in place of training."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from sp_transformer import exit_codes
from sp_transformer.training import supervisor

# Ends with the code of its line in a plan, a line an attempt; "saved N CODE" saves first.
PROGRAM = """
import os, pathlib, signal, sys
from sp_transformer.training import supervisor
plan, count = (pathlib.Path(name) for name in sys.argv[1:])
number = int(count.read_text()) if count.exists() else 0
count.write_text(str(number + 1))
words = plan.read_text().split("\\n")[number].split()
if words[0] == "saved":
    supervisor.report_progress(int(words[1]))
if words[-1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(words[-1]))
"""


@pytest.fixture
def supervise(tmp_path):
    def run(plan, max_restarts):
        (tmp_path / "plan").write_text("\n".join(plan))
        (tmp_path / "count").unlink(missing_ok=True)
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "plan"), str(tmp_path / "count")]
        said = []
        code = supervisor.supervise(command, max_restarts, say=said.append, pause=0.01)
        return code, int((tmp_path / "count").read_text()), said

    return run


def test_starts_again_what_was_killed_or_lost_a_peer(supervise):
    code, attempts, said = supervise(["killed", str(exit_codes.LOST_PEER), "1", "0"], 3)
    assert (code, attempts) == (0, 4)
    assert "code 137" in said[0] and "code 75" in said[1] and "restart 3 of 3" in said[2]


@pytest.mark.parametrize("final", [0, 2, 3, 4, 5, 130])
def test_what_would_end_in_the_same_way_is_not_tried_again(supervise, final):
    assert supervise([str(final), "0"], 3)[:2] == (final, 1)


def test_only_restarts_without_a_save_between_count(supervise):
    plan = ["killed", "saved 5 killed", "killed", "saved 10 killed", "killed", "killed", "0"]
    code, attempts, said = supervise(plan, 2)
    assert (code, attempts) == (137, 6)
    assert "given up after 2 restarts in a row that saved nothing" in said[-1]
    # A run that saves the same step again and again gets nowhere.
    code, attempts, _ = supervise(["saved 5 killed"] * 5, 2)
    assert (code, attempts) == (137, 3)


@pytest.mark.parametrize("moment", ["running", "pausing"])
def test_a_signal_is_passed_on_and_ends_it(tmp_path, moment):
    program = (
        "import os, signal, sys, time; "
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "
        "print('ready', flush=True); "
        + ("time.sleep(300)" if moment == "running" else "os.kill(os.getpid(), 9)")
    )
    code = (
        "import sys; from sp_transformer.training import supervisor; "
        f"sys.exit(supervisor.supervise([sys.executable, '-c', {program!r}], 3, pause=300))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    if moment == "pausing":
        time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert process.wait(timeout=50) == (143 if moment == "running" else 137)
    assert time.monotonic() - begun < 50


def test_loads_no_tensorflow():
    code = (
        "import sys; from sp_transformer.training import supervisor; "
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_progress_without_a_supervisor_is_nothing(monkeypatch, tmp_path):
    monkeypatch.delenv("SP_TRANSFORMER_PROGRESS_FILE", raising=False)
    assert not supervisor.is_supervised()
    supervisor.report_progress(5)
    monkeypatch.setenv("SP_TRANSFORMER_PROGRESS_FILE", str(tmp_path / "absent" / "file"))
    assert supervisor.is_supervised()
    supervisor.report_progress(5)
    path = pathlib.Path(tmp_path, "file")
    os.environ["SP_TRANSFORMER_PROGRESS_FILE"] = str(path)
    supervisor.report_progress(5)
    assert path.read_text() == "5"
