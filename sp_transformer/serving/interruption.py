"""Ctrl-C and SIGTERM while files are written: end after the current one."""

import signal
import threading

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Notes the first signal, for a loop to end by itself; the second one interrupts whatever runs.

    Signals reach only the main thread; entered in another one, it notes none.

    Attributes:
      signal: number of the signal that came; None before.
    """

    def __init__(self):
        self.signal = None
        self._previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """What a process ends with that a signal ended, by the shells' convention; 0 if none came."""
        return 0 if self.signal is None else 128 + self.signal

    def _note(self, number, _):
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
