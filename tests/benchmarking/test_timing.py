"""Interleaved timing. No test asserts how long anything takes."""

import gc
import statistics
import subprocess
import sys

import pytest

from sp_transformer.benchmarking import timing


def test_every_round_runs_each_function_once_and_another_one_first():
    calls = []
    functions = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    results = timing.measure_interleaved(functions, rounds=3, warmup=1)
    turns = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert turns == ["abc", "bca", "cab", "abc"]
    assert list(results) == ["a", "b", "c"]
    assert all(len(result.seconds) == 3 for result in results.values())


def test_the_clock_runs_until_outputs_are_synchronised(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def work(seconds):
        now[0] += seconds
        return seconds

    def finish(outputs):
        now[0] += 10 * outputs

    results = timing.measure_interleaved(
        {"a": lambda: work(1.0), "b": lambda: work(2.0)}, rounds=2, warmup=1, synchronize=finish
    )
    assert results["a"].seconds == (11.0, 11.0) and results["b"].seconds == (22.0, 22.0)


def test_garbage_collection_is_off_meanwhile_and_on_again_afterwards():
    seen = []
    timing.measure_interleaved({"a": lambda: seen.append(gc.isenabled())}, rounds=1, warmup=1)
    assert seen == [False, False] and gc.isenabled()

    def fail():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        timing.measure_interleaved({"a": fail}, rounds=1)
    assert gc.isenabled()


def test_outputs_are_freed_before_the_next_function_runs():
    alive = []

    class Output:
        def __init__(self):
            alive.append(self)
            assert len(alive) == 1
            alive.clear()
            Output.count += 1

        def __del__(self):
            Output.count -= 1

    Output.count = 0
    seen = []

    def function():
        seen.append(Output.count)
        return Output()

    timing.measure_interleaved({"a": function, "b": function}, rounds=2, warmup=0)
    assert seen == [0, 0, 0, 0]


def test_progress_counts_the_warmup_too():
    seen = []
    timing.measure_interleaved(
        {"a": int}, rounds=2, warmup=1, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("functions", "rounds", "warmup", "words"),
    [
        ({}, 1, 0, "no function"),
        ({"a": int}, 0, 0, "rounds 0"),
        ({"a": int}, 1, -1, "warmup -1"),
    ],
)
def test_nothing_to_time_is_refused(functions, rounds, warmup, words):
    with pytest.raises(ValueError, match=words):
        timing.measure_interleaved(functions, rounds, warmup)


def test_median_and_quartiles_are_those_of_the_standard_library():
    samples = (5.0, 1.0, 4.0, 2.0, 9.0, 3.0)
    first, middle, third = statistics.quantiles(samples, n=4, method="inclusive")
    for result in (timing.Timing(samples), timing.Ratio(samples)):
        assert (result.first_quartile, result.median, result.third_quartile) == pytest.approx(
            (first, middle, third)
        )
    single = timing.Timing((2.0,))
    assert single.first_quartile == single.median == single.third_quartile == 2.0


def test_ratio_is_the_quotient_of_the_same_round():
    slow, fast = timing.Timing((2.0, 30.0, 4.0)), timing.Timing((1.0, 10.0, 4.0))
    assert timing.ratio(slow, fast).values == (2.0, 3.0, 1.0)
    with pytest.raises(ValueError, match="3 and 1 rounds"):
        timing.ratio(slow, timing.Timing((1.0,)))


def test_synchronize_takes_any_nest():
    tf = pytest.importorskip("tensorflow")
    timing.synchronize({"x": [tf.ones([2]), None], "y": 4.0})
    timing.synchronize(None)


def test_import_loads_no_tensorflow():
    code = (
        "import sys; from sp_transformer import environment;"
        "from sp_transformer.benchmarking import timing, report, rules, settings, variants, memory;"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_another_clock_is_read_before_and_after():
    ticks = iter(range(100))
    timings = timing.measure_interleaved({"a": lambda: None}, 3, 0, clock=lambda: 2 * next(ticks))
    assert timings["a"].seconds == (2, 2, 2)
