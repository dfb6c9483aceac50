"""How far a prediction has come: one line that is kept up to date on a terminal, plain lines elsewhere."""

import sys
import time

_SECONDS_ON_TERMINAL = 0.2
_SECONDS_ELSEWHERE = 10.0


class Progress:
    """Counts images or frames and shows their number, their rate and the time left.

    Args:
      title: what the line begins with.
      total: how many there are; None if that is unknown.
      unit: what is counted.
      stream: text stream; standard error by default.
      clock: function that gives seconds.
    """

    def __init__(self, title, total, unit="images", stream=None, clock=time.monotonic):
        self._title = title
        self._total = total
        self._unit = unit
        self._stream = stream or sys.stderr
        self._clock = clock
        self._live = self._stream.isatty()
        self._width = 0
        self._start = self._last_shown = clock()
        self.done = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._live and self.done:
            self._show()
            self._stream.write("\n")
            self._stream.flush()

    def count(self) -> None:
        """Takes note of one more."""
        self.done += 1
        interval = _SECONDS_ON_TERMINAL if self._live else _SECONDS_ELSEWHERE
        if self._clock() - self._last_shown >= interval:
            self._show()

    def note(self, text: str) -> None:
        """Writes a line of its own, such as what was skipped."""
        if self._live:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0
        self._stream.write(text + "\n")
        self._stream.flush()

    def _show(self):
        now = self._last_shown = self._clock()
        rate = self.done / max(now - self._start, 1e-9)
        of_all = "" if self._total is None else f"/{self._total}"
        line = f"{self._title} {self.done}{of_all} {self._unit}, {rate:.3g} {self._unit}/s"
        if self._total is not None and self.done:
            seconds = round((self._total - self.done) / rate)
            line += f", {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"
        if self._live:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
