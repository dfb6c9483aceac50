"""Starts the training program again where it died: one supervisor a worker, and no TensorFlow in it.

When one worker of several dies, the others end by themselves (exit code 75) within seconds, because
a collective cannot go on without it. Each of their supervisors starts its own again, and they meet
anew: nobody has to coordinate the supervisors.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from sp_transformer import exit_codes

_PROGRESS_VARIABLE = "SP_TRANSFORMER_PROGRESS_FILE"
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0

# Codes after which another try would end in the same way, or is not wanted.
_FINAL = (
    exit_codes.DONE,
    exit_codes.USAGE,
    exit_codes.NOT_FINITE,
    exit_codes.CANNOT_WRITE,
    exit_codes.TIMED_OUT,
    exit_codes.INTERRUPTED,
)


def supervise(command, max_restarts, *, say=None, pause=_FIRST_PAUSE_SECONDS):
    """Runs a command, again and again until it is through.

    SIGTERM and SIGINT are passed on, and end the supervision with whatever the command ends with.

    Args:
      command: list of arguments. The program calls `report_progress` when it has saved.
      max_restarts: how many restarts in a row may save nothing before it is given up.
      say: called with a line about each restart; default: prints it to stderr.
      pause: seconds before the first restart; twice as long before each further one in a row.

    Returns:
      The exit code of the last run; 128 + N for one that signal N has killed.
    """
    say = say or (lambda text: print(text, file=sys.stderr, flush=True))
    with tempfile.TemporaryDirectory(prefix="sp_transformer-") as folder:
        progress = pathlib.Path(folder, "progress")
        environment = {**os.environ, _PROGRESS_VARIABLE: str(progress)}
        restarts, seen = 0, ""
        with _Forwarding() as forwarding:
            while True:
                code = forwarding.run(command, environment)
                if forwarding.stopped or code in _FINAL:
                    return code
                now = progress.read_text() if progress.exists() else ""
                restarts = 0 if now != seen else restarts
                seen = now
                if restarts >= max_restarts:
                    say(
                        f"train ended with code {code}; given up after {restarts} restarts in a "
                        "row that saved nothing"
                    )
                    return code
                seconds = min(pause * 2**restarts, _LONGEST_PAUSE_SECONDS)
                restarts += 1
                say(
                    f"train ended with code {code}; starting it again in {seconds:.0f} s "
                    f"(restart {restarts} of {max_restarts} without a save between)"
                )
                forwarding.sleep(seconds)
                if forwarding.stopped:
                    return code


def is_supervised():
    """Whether this process is the one that a supervisor starts again and again."""
    return _PROGRESS_VARIABLE in os.environ


def report_progress(step):
    """Tells the supervisor, if there is one, that `step` is saved."""
    path = os.environ.get(_PROGRESS_VARIABLE)
    if path:
        # The supervisor only counts restarts by it; the run must not fail of it.
        with contextlib.suppress(OSError):
            pathlib.Path(path).write_text(str(step), encoding="utf-8")


class _Forwarding:
    """Runs processes, and passes on to them what asks this one to stop."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.stopped = False
        self._process = None
        self._previous = {}

    def __enter__(self):
        for number in self._SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def run(self, command, environment):
        """Runs a command to its end and returns its code, as shells do for signals."""
        self._process = subprocess.Popen(command, env=environment)
        if self.stopped:
            # The signal came while the process was being started.
            self._process.terminate()
        code = self._process.wait()
        self._process = None
        return 128 - code if code < 0 else code

    def sleep(self, seconds):
        """Sleeps, but not through a signal: a single long sleep would go on after it."""
        end = time.monotonic() + seconds
        while not self.stopped and time.monotonic() < end:
            time.sleep(min(0.2, seconds))

    def _handle(self, number, _):
        self.stopped = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
