"""Peak memory of a function, each measured in a process of its own.

Memory that a process has had before and freed is not always given back, so that the second of two measurements in one
process would be wrong. A child is started as `python -m sp_transformer.benchmarking.memory` and reads from its standard
input what to measure.

On a CPU the peak is that of the resident set (VmHWM in /proc, Linux only); on a GPU it is what TensorFlow's allocator
counts, on the first one.
"""

import ctypes
import dataclasses
import gc
import importlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

_STATUS = pathlib.Path("/proc/self/status")
_CLEAR_REFS = pathlib.Path("/proc/self/clear_refs")
# Resets VmHWM, the peak of the resident set, to what is resident now (man 5 proc).
_RESET_PEAK = "5"
# Larger blocks are mapped on their own, and so given back to the system when they are freed: the peak is then that of
# the tensors alive and not that of a heap with holes. It has to stand before the process starts.
_CHILD_VARIABLES = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
_ERROR_LINES = 5
_ERROR_LETTERS = 400


class MemoryMeasurementError(RuntimeError):
    """A peak that could not be measured: the child failed, or the system does not tell."""


@dataclasses.dataclass(frozen=True)
class PeakMemory:
    """Memory of one run of a function.

    Attributes:
      device: "cpu" or "gpu".
      baseline_bytes: in use before the run: program, weights, inputs.
      peak_bytes: largest amount in use during the run.
    """

    device: str
    baseline_bytes: int
    peak_bytes: int

    @property
    def above_bytes(self) -> int:
        """What the run needed beyond what there was: outputs, activations and temporaries."""
        return max(0, self.peak_bytes - self.baseline_bytes)


def peak_memory(function: str, arguments: dict[str, Any], timeout: float = 1800) -> PeakMemory:
    """Measures in a new process.

    Args:
      function: "package.module:name" of a function. The child calls it with `arguments`; it returns the function
        without arguments to be measured, having made that one's inputs. That one is run once unmeasured (tracing,
        compilation), then once measured.
      arguments: keyword arguments, plain values that JSON can hold.
      timeout: seconds that the child may take in all.

    Raises:
      MemoryMeasurementError: if the child fails, takes longer, or cannot tell.
    """
    command = [sys.executable, "-m", "sp_transformer.benchmarking.memory"]
    case = json.dumps({"function": function, "arguments": arguments})
    try:
        child = subprocess.run(
            command,
            input=case,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **_CHILD_VARIABLES},
        )
    except subprocess.TimeoutExpired as error:
        raise MemoryMeasurementError(
            f"measuring {function} took longer than {timeout:g} s; give it more, or a smaller size"
        ) from error
    if child.returncode:
        reason = "\n".join(child.stderr.strip().splitlines()[-_ERROR_LINES:])
        raise MemoryMeasurementError(
            f"measuring {function} ended with code {child.returncode}"
            f"{' (killed: out of memory?)' if child.returncode == -9 else ''}: {reason}"
        )
    # Libraries may have printed before.
    result = json.loads(child.stdout.strip().splitlines()[-1])
    if "error" in result:
        raise MemoryMeasurementError(f"measuring {function} failed: {result['error']}")
    return PeakMemory(**result)


def measure_here(prepare, arguments: dict[str, Any]) -> PeakMemory:
    """Measures in this process, which should have measured nothing before.

    Args:
      prepare: as `function` of `peak_memory`, the function itself.
      arguments: its keyword arguments.

    Raises:
      MemoryMeasurementError: if neither a GPU nor the system's /proc tells the peak.
    """
    import tensorflow as tf

    from sp_transformer.benchmarking import timing

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    run = prepare(**arguments)

    def run_once():
        outputs = run()
        timing.synchronize(outputs)

    run_once()
    gc.collect()
    if gpus:
        return _gpu_peak(tf, run_once)
    return _cpu_peak(run_once)


def _gpu_peak(tf, run_once):
    device = "GPU:0"
    tf.config.experimental.reset_memory_stats(device)
    baseline = tf.config.experimental.get_memory_info(device)["current"]
    run_once()
    peak = tf.config.experimental.get_memory_info(device)["peak"]
    return PeakMemory("gpu", baseline, peak)


def _cpu_peak(run_once):
    _return_free_memory()
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
        baseline = _status_bytes("VmRSS")
        run_once()
        return PeakMemory("cpu", baseline, _status_bytes("VmHWM"))
    except OSError as error:
        raise MemoryMeasurementError(
            f"this system does not tell the peak of a process: {error}; peak memory on a CPU needs "
            f"Linux with a writable {_CLEAR_REFS}"
        ) from error


def _return_free_memory():
    """Gives freed heap pages back to the system, where the C library can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        # Another C library than glibc: the baseline holds its free pages too.
        return


def _status_bytes(field):
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise MemoryMeasurementError(f"{_STATUS} has no {field}; peak memory on a CPU needs Linux")


def _main():
    case = json.load(sys.stdin)
    try:
        module, name = case["function"].split(":")
        prepare = getattr(importlib.import_module(module), name)
        result = dataclasses.asdict(measure_here(prepare, case["arguments"]))
    except Exception as error:
        # Anything may fail in there, out of memory on a GPU first of all; the parent tells the user in one line.
        message = " ".join(f"{type(error).__name__}: {error}".split())
        result = {"error": message[:_ERROR_LETTERS]}
    print(json.dumps(result))


if __name__ == "__main__":
    _main()
