"""Peak memory in processes of their own."""

import pathlib

import pytest

from sp_transformer.benchmarking import memory

MIB = 2**20
# A module that only the child imports.
CASES = """
import os
import numpy as np


def allocate(mebibytes, held=1):
    kept = np.ones(held << 20, np.uint8)

    def run():
        # Two halves one after the other: the peak is one of them.
        for _ in range(2):
            half = np.ones(mebibytes << 19, np.uint8)
            del half
        return kept[:1]

    return run


def fail(text):
    raise RuntimeError(text)


def die():
    os._exit(3)


def linger():
    import time
    time.sleep(60)
"""

linux_only = pytest.mark.skipif(
    not pathlib.Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc"
)


@pytest.fixture(autouse=True)
def cases(tmp_path, monkeypatch):
    (tmp_path / "memory_cases.py").write_text(CASES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")


@linux_only
def test_peak_is_what_is_alive_at_once_above_what_was_there():
    small = memory.peak_memory("memory_cases:allocate", {"mebibytes": 8})
    large = memory.peak_memory("memory_cases:allocate", {"mebibytes": 128, "held": 300})
    assert small.device in ("cpu", "gpu")
    assert small.above_bytes == pytest.approx(4 * MIB, abs=4 * MIB)
    assert large.above_bytes == pytest.approx(64 * MIB, abs=8 * MIB)
    assert large.baseline_bytes - small.baseline_bytes > 250 * MIB


def test_a_failing_case_is_told_in_one_line():
    with pytest.raises(
        memory.MemoryMeasurementError, match="failed: RuntimeError: no such thing"
    ) as e:
        memory.peak_memory("memory_cases:fail", {"text": "no such\nthing"})
    assert "\n" not in str(e.value) and "memory_cases:fail" in str(e.value)
    with pytest.raises(memory.MemoryMeasurementError, match="absent_function"):
        memory.peak_memory("memory_cases:absent_function", {})


def test_a_dying_or_endless_child_is_an_error():
    with pytest.raises(memory.MemoryMeasurementError, match="ended with code 3"):
        memory.peak_memory("memory_cases:die", {})
    with pytest.raises(memory.MemoryMeasurementError, match=r"longer than 0\.5 s"):
        memory.peak_memory("memory_cases:linger", {}, timeout=0.5)


def test_systems_without_proc_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "absent" / "clear_refs")
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU counts its memory itself")
    with pytest.raises(memory.MemoryMeasurementError, match="needs Linux"):
        memory.measure_here(lambda: int, {})


def test_above_is_never_negative():
    assert memory.PeakMemory("cpu", baseline_bytes=10, peak_bytes=7).above_bytes == 0
