"""Interleaved timing of several functions, and the statistics of what came out.

Machines drift: clocks change, neighbours come and go. Times taken one function after the other do not compare.
Here every round runs each function once, and functions are compared by the quotients of the same round.

Importing this imports no TensorFlow.
"""

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class _Samples:
    @property
    def median(self) -> float:
        """Middle value, or the mean of the two middle ones."""
        return statistics.median(self._samples)

    @property
    def first_quartile(self) -> float:
        """Value that a quarter of the samples stays below, interpolated linearly."""
        return _quantile(self._samples, 0.25)

    @property
    def third_quartile(self) -> float:
        """Value that three quarters of the samples stay below, interpolated linearly."""
        return _quantile(self._samples, 0.75)


@dataclasses.dataclass(frozen=True)
class Timing(_Samples):
    """How long one function took: `seconds`, one value per round, in the order of the rounds."""

    seconds: tuple[float, ...]

    @property
    def _samples(self):
        return self.seconds


@dataclasses.dataclass(frozen=True)
class Ratio(_Samples):
    """Quotients of two functions' times: `values`, one per round, in the order of the rounds."""

    values: tuple[float, ...]

    @property
    def _samples(self):
        return self.values


def synchronize(outputs: Any) -> None:
    """Blocks until everything that `outputs` depends on is computed; fetches nothing.

    TensorFlow returns from a function on an accelerator before the accelerator is done.

    Args:
      outputs: a nest of tensors. Nests without one (NumPy arrays, None) are computed already.
    """
    import tensorflow as tf

    if any(isinstance(leaf, tf.Tensor | tf.Variable) for leaf in tf.nest.flatten(outputs)):
        tf.test.experimental.sync_devices()


def measure_interleaved(
    functions: Mapping[Hashable, Callable[[], Any]],
    rounds: int = 10,
    warmup: int = 2,
    synchronize: Callable[[Any], None] = synchronize,
    progress: Callable[[int, int], None] | None = None,
    clock: Callable[[], float] | None = None,
) -> dict[Hashable, Timing]:
    """Times functions against each other.

    Every round runs each function once. The function that comes first is another one from round to round, so that none
    always follows the same one's caches. Python's garbage collector is off meanwhile.

    Args:
      functions: {name: function without arguments}. What a function returns is synchronised inside its time and
        dropped after it.
      rounds: how many rounds are timed; at least 1.
      warmup: how many rounds run before these, untimed: tracing, compilation and allocation happen there.
      synchronize: called with a function's outputs before the clock stops.
      progress: called with (rounds done, rounds in all), warm-up included, after each round.
      clock: what is read before and after, in seconds; default: the wall's.

    Returns:
      {name: Timing} in the order of `functions`.

    Raises:
      ValueError: if there is no function, rounds < 1 or warmup < 0.
    """
    check_rounds(rounds, warmup)
    if not functions:
        raise ValueError("there is no function to time; give at least one")
    names = list(functions)
    seconds = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(warmup + rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                elapsed = _time_once(functions[name], synchronize, clock or time.perf_counter)
                if turn >= warmup:
                    seconds[name].append(elapsed)
            if progress:
                progress(turn + 1, warmup + rounds)
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def check_rounds(rounds: int, warmup: int) -> None:
    """Raises ValueError unless there is at least one timed round and no negative number of others."""
    if rounds < 1:
        raise ValueError(f"rounds {rounds} is less than 1; at least one round has to be timed")
    if warmup < 0:
        raise ValueError(f"warmup {warmup} is negative; give 0 for no warm-up")


def ratio(timing: Timing, reference: Timing) -> Ratio:
    """`timing` over `reference`, round by round.

    Raises:
      ValueError: if the two have different numbers of rounds, so cannot be of one run.
    """
    if len(timing.seconds) != len(reference.seconds):
        raise ValueError(
            f"timings of {len(timing.seconds)} and {len(reference.seconds)} rounds do not compare; "
            "take both from one call of measure_interleaved"
        )
    pairs = zip(timing.seconds, reference.seconds, strict=True)
    return Ratio(tuple(ours / theirs for ours, theirs in pairs))


def _time_once(function, synchronize, clock):
    start = clock()
    outputs = function()
    synchronize(outputs)
    elapsed = clock() - start
    # Freed here and not at the next call, whose time it would be.
    del outputs
    return elapsed


def _quantile(samples, share):
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
