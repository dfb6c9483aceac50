"""How a run tells where it is: one line for people, and a file of JSON lines for programs."""

import json
import os
import time

from sp_transformer.training import files


class ProgressLine:
    """One line that is kept up to date on a terminal, and printed every log interval elsewhere.

    Args:
      steps: number of steps of the run.
      first_step: step that this session starts or resumes at.
      batch_size: images in one step.
      stream: text stream to write to.
      clock: function that gives seconds.
    """

    _REFRESH_SECONDS = 0.2

    def __init__(self, steps, first_step, batch_size, stream, clock=time.monotonic):
        self._steps = steps
        self._first_step = first_step
        self._batch_size = batch_size
        self._stream = stream
        self._clock = clock
        self._live = stream.isatty()
        self._width = 0
        self._next_refresh = 0.0
        # Steps of this session and seconds spent in them. The first call, which traces and
        # compiles, is kept apart.
        self._first_call = None
        self._step = first_step
        self._seconds = 0.0

    def count(self, steps, seconds):
        """Takes note of `steps` more steps, which took `seconds`."""
        self._step += steps
        if self._first_call is None:
            self._first_call = (steps, seconds)
        else:
            self._seconds += seconds

    @property
    def images_per_second(self):
        """Training speed of this session, without saving and evaluation.

        From the second call on without the first one, which compiles.
        """
        if self._first_call is None:
            return 0.0
        first_steps, first_seconds = self._first_call
        steps, seconds = self._step - self._first_step - first_steps, self._seconds
        if not steps:
            steps, seconds = first_steps, first_seconds
        return steps * self._batch_size / max(seconds, 1e-9)

    def show(self, loss, rates, at_interval):
        """Shows the line.

        Args:
          loss: loss to show.
          rates: dict with "learning_rate" and "backbone_learning_rate".
          at_interval: whether a log interval ends here; where lines cannot be rewritten, one is
            due then.
        """
        first = self._step - self._first_step == (self._first_call or (0,))[0]
        now = self._clock()
        if self._live:
            if now < self._next_refresh and self._step < self._steps:
                return
            self._next_refresh = now + self._REFRESH_SECONDS
        elif not (at_interval or first or self._step >= self._steps):
            return
        line = (
            f"step {self._step}/{self._steps}  loss {loss:.4f}  lr {rates['learning_rate']:.3g} "
            f"(backbone {rates['backbone_learning_rate']:.3g})  {self._speed(first)}"
        )
        if self._live:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _speed(self, first):
        """Images per second and time left; no guess from the first call, which mostly compiles."""
        if first and self._step < self._steps:
            seconds = format_seconds(self._first_call[1]) if self._first_call else "0:00:00"
            return f"first call took {seconds}, compilation included"
        images_per_second = self.images_per_second
        left = (self._steps - self._step) * self._batch_size / max(images_per_second, 1e-9)
        return f"{images_per_second:.3g} images/s  {format_seconds(left)} left"

    def close(self):
        """Ends the live line, so that other output starts on a line of its own."""
        if self._live and self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0


def format_seconds(seconds):
    """A duration as h:mm:ss, with days where there are any."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}d " if days else "") + f"{hours}:{minutes:02}:{seconds:02}"


class JsonLog:
    """`train/log.jsonl`: one JSON object a log interval, without gaps or repetitions over resumes.

    Args:
      path: the file.
      first_step: step that the run starts or resumes at; lines of later steps are dropped.
    """

    def __init__(self, path, first_step):
        files.make_folder(os.path.dirname(path))
        lines = (files.read_text(path) or "").splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= first_step]
        self._lines = files.AppendedLines(path, kept)

    def write(self, values):
        """Appends a line: `values` is a dict with "step"."""
        self._lines.write(json.dumps(values))

    def close(self):
        self._lines.close()


class Silence:
    """A stream that nothing comes out of, for workers whose lines would repeat the chief's."""

    def isatty(self):
        return False

    def write(self, text):
        return len(text)

    def flush(self):
        pass


def _step_of(line):
    """Step of a line of the log; infinite for one that a kill has cut off."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
