"""Work that threads do ahead of its use: reading in front of a model, writing behind it."""

import collections
import concurrent.futures
import math
from collections.abc import Callable


class Ahead:
    """Calls of functions in threads, whose results are taken in the order of the calls.

    What is under way or waits to be taken is bounded, so that the fastest stage of a chain waits for the slowest one
    and memory does not depend on the length of the work. As a context, it drops at its end the calls that have not
    begun and waits for those that have.

    Args:
      workers: threads.
      max_items: calls that may be under way or wait to be taken.
      max_cost: what these may cost together, such as pixels held in memory. A single call may cost more.
    """

    def __init__(self, workers: int, max_items: int, max_cost: float = math.inf):
        self._max_items = max_items
        self._max_cost = max_cost
        self._cost = 0.0
        self._calls = collections.deque()
        self._executor = concurrent.futures.ThreadPoolExecutor(workers)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._executor.shutdown(wait=True, cancel_futures=True)

    def __len__(self):
        return len(self._calls)

    def has_room(self, cost: float = 0) -> bool:
        """Whether a call of this cost may be submitted now."""
        if not self._calls:
            return True
        return len(self._calls) < self._max_items and self._cost + cost <= self._max_cost

    def submit(self, function: Callable, *arguments, cost: float = 0) -> None:
        """Has `function(*arguments)` called by a thread."""
        self._cost += cost
        self._calls.append((self._executor.submit(function, *arguments), cost))

    def take(self):
        """Waits for the oldest call and returns what it returned, or raises what it raised."""
        future, cost = self._calls.popleft()
        try:
            return future.result()
        finally:
            self._cost -= cost

    def take_done(self):
        """Yields the results of the oldest calls that have come to an end, without waiting."""
        while self._calls and self._calls[0][0].done():
            yield self.take()
