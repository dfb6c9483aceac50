"""Where numbers were taken: machine, versions and the settings that change speed.

No names of hosts, people or folders are looked up, so that results can be published.
"""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import sp_transformer

PACKAGES = ("tensorflow", "keras", "keras-cv", "numpy")
# Not every variable that begins with TF_ is TensorFlow's.
VARIABLE_PREFIXES = (
    "OMP_NUM_THREADS",
    "KMP_",
    "XLA_FLAGS",
    "CUDA_VISIBLE_DEVICES",
    "TF_CPP_",
    "TF_CUDNN_",
    "TF_DETERMINISTIC_",
    "TF_ENABLE_",
    "TF_FORCE_GPU_",
    "TF_GPU_",
    "TF_NUM_",
    "TF_ONEDNN_",
    "TF_XLA_",
)


def describe() -> dict[str, Any]:
    """Describes this process and its machine.

    Imports TensorFlow, and makes it look for devices.

    Returns:
      Plain values that JSON can hold: "date" (UTC, ISO 8601), "machine" {"cpu", "cores" that this process may use,
      "memory_gib", "gpus": [name]}, "operating_system", "python", "versions" {package: version, None where it is not
      installed}, "sp_transformer" (our version), "git" {"revision", "dirty"} or None outside a checkout of this
      package, "onednn" (whether TensorFlow uses it), "variables" {name: value} of environment variables that change
      speed, "threads" {"intra_op", "inter_op"}. A value that the system does not tell is None.
    """
    import tensorflow as tf

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu_model(),
            "cores": _cores(),
            "memory_gib": _memory_gib(),
            "gpus": _gpu_names(tf),
        },
        "operating_system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "sp_transformer": sp_transformer.__version__,
        "git": _git_state(pathlib.Path(sp_transformer.__file__).resolve().parent.parent),
        "onednn": _uses_onednn(),
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(VARIABLE_PREFIXES)
        },
        "threads": _threads(tf),
    }


def devices() -> list[str]:
    """Types and names of the devices that this process computes on, such as "GPU:0 NVIDIA A100"."""
    import tensorflow as tf

    physical = tf.config.list_physical_devices
    names = dict(enumerate(_gpu_names(tf)))
    found = []
    for kind in ("TPU", "GPU", "CPU"):
        for device in tf.config.list_logical_devices(kind):
            name = device.name.removeprefix("/device:")
            index = int(name.rpartition(":")[2])
            # Virtual devices share their physical ones.
            model = names.get(index) if len(physical(kind)) == len(names) else None
            found.append(f"{name} {model}" if kind == "GPU" and model else name)
    return found


def _cpu_model():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None


def _cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_gib():
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    return round(total / 2**30, 1)


def _gpu_names(tf):
    devices = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(device) for device in devices]
    return [detail.get("device_name", "GPU") for detail in details]


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state(root):
    if not (root / ".git").exists():
        return None
    try:
        revision = _git(root, "rev-parse", "HEAD")
        return {"revision": revision, "dirty": bool(_git(root, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root, *arguments):
    # Without the optional lock, `status` refreshes no index: a benchmark changes nothing in the checkout.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    return result.stdout.strip()


def _uses_onednn():
    try:
        from tensorflow.python.util import _pywrap_util_port

        return bool(_pywrap_util_port.IsMklEnabled())
    except (ImportError, AttributeError):
        return None


def _threads(tf):
    return {
        "intra_op": tf.config.threading.get_intra_op_parallelism_threads() or "as many as cores",
        "inter_op": tf.config.threading.get_inter_op_parallelism_threads() or "as many as cores",
    }
