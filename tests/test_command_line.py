"""What every binary prints, and what it does not."""

import subprocess
import sys

import pytest

# Logs as a file of TensorFlow's and one of ours would.
PROGRAM = """
from absl import logging
from sp_transformer import command_line

def main(_):
    logger = logging.get_absl_logger()
    for path in ("/site-packages/tensorflow/python/saved_model/save.py", "/sp_transformer/passes.py"):
        for level in ("INFO", "WARNING"):
            number = {"INFO": 20, "WARNING": 30}[level]
            text = f"{level} of {path.split('/')[-1]}"
            logger.handle(logger.makeRecord("absl", number, path, 1, text, (), None))
    return 0

command_line.run(main, lambda values: None)
"""


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        ("FileNotFoundError(2, 'No such file or directory')", 2),
        ("ValueError('batch_size 3')", 2),
        ("OSError(5, 'Input/output error')", 75),
        ("ValueError('cannot open it') from OSError(116, 'Stale file handle')", 75),
    ],
)
def test_a_lost_storage_has_a_code_of_its_own(raised, code):
    program = (
        "from sp_transformer import command_line\n"
        f"def main(_):\n    raise {raised}\n"
        "command_line.run(main, lambda values: None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert ("another try" in done.stderr) == (code == 75)


@pytest.mark.parametrize(("flags", "shown"), [((), False), (("--verbosity=1",), True)])
def test_tensorflows_notes_are_shown_on_request(flags, shown):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *flags], capture_output=True, text=True, check=True
    )
    assert ("INFO of save.py" in done.stderr) == shown
    for text in ("WARNING of save.py", "INFO of passes.py", "WARNING of passes.py"):
        assert text in done.stderr
