"""SIGTERM, which preempted machines and schedulers send some time before they kill."""

import contextlib
import signal
import threading

from sp_transformer import exit_codes


class Termination:
    """Notes SIGTERM while it is entered, so that the run can save at the end of its loop.

    Signals reach only the main thread; in others nothing is noted.
    """

    def __init__(self):
        self.requested = False
        self._at_once = False
        self._previous = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_):
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    @contextlib.contextmanager
    def at_once(self):
        """Lets SIGTERM end the process inside of this block, as everything is saved already.

        Raises:
          SystemExit: with code 143.
        """
        self._at_once = True
        try:
            if self.requested:
                raise SystemExit(exit_codes.TERMINATED)
            yield
        finally:
            self._at_once = False

    def _handle(self, *_):
        self.requested = True
        if self._at_once:
            raise SystemExit(exit_codes.TERMINATED)
