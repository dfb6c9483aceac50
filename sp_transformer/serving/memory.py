"""How large an image a model can be given on this machine, before it is tried.

TensorFlow asks for an image's memory layer by layer; where there is not enough, Linux ends the process, or another one.
"""

import pathlib

from sp_transformer.config import derived, parsing, resizing

_MEMORY_INFO = pathlib.Path("/proc/meminfo")
# Of the container that this process may run in, control groups of version 2 and of version 1: limit, use, and the file
# and entry that say how much of the use is a cache of files which the kernel drops when memory is asked for.
_CONTAINERS = (
    (
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory.current",
        ("/sys/fs/cgroup/memory.stat", "inactive_file"),
    ),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ("/sys/fs/cgroup/memory/memory.stat", "total_inactive_file"),
    ),
)
# What backbone, hypercolumn and tokenizer hold of each pixel that they see (measured in docs/predict.md), with a margin
# for features that are finer than ResNet-50's of stride 8, ...
_MODEL_BYTES_PER_PIXEL = 600
# ... and the image, its label maps and pictures of it.
_PICTURE_BYTES_PER_PIXEL = 80
# Self-attention's scores and their softmax.
_ATTENTION_MAPS = 2
_FLOAT = 4
_SHARE_OF_MEMORY = 0.9


class SizeLimit:
    """Refuses images that would not fit in memory.

    Args:
      config: the model's ExperimentOptions; None if unknown, which counts as the published models' choices.
      available: bytes that may be used; None for no limit.
      max_megapixels: a limit in place of the estimate.
      model_size: (Y, X) of the only images that the model takes, to which others are resized; None for any.
    """

    def __init__(
        self,
        config=None,
        available: int | None = None,
        max_megapixels: float | None = None,
        model_size: tuple[int, int] | None = None,
    ):
        self._config = config
        self._model_size = model_size
        self._available = available
        self._max_megapixels = max_megapixels

    def check(self, height: int, width: int) -> None:
        """Raises ValueError if an image of this size is too large."""
        megapixels = height * width / 1e6
        if self._max_megapixels is not None:
            if megapixels > self._max_megapixels:
                raise ValueError(
                    f"the image is {height}x{width}, {megapixels:.1f} megapixels, and --max_megapixels is "
                    f"{self._max_megapixels:g}"
                )
            return
        if self._available is None:
            return
        needed = needed_bytes(height, width, self._config, self._model_size)
        if needed > _SHARE_OF_MEMORY * self._available:
            raise ValueError(
                f"the image is {height}x{width}, which takes about {needed / 2**30:.1f} GiB with this model, and "
                f"{self._available / 2**30:.1f} GiB are free; cut it into tiles, make it smaller, or set the limit "
                "yourself by --max_megapixels"
            )


def needed_bytes(height: int, width: int, config=None, model_size=None) -> int:
    """Estimates the memory that predicting an image takes at its peak, the weights left out.

    Args:
      height: of the image in pixels.
      width: likewise.
      config: the model's ExperimentOptions, or None.
      model_size: (Y, X) of the only images that the model takes, or None.
    """
    stride, heads = 32, 4
    taken = model_size or (height, width)
    seen, full_size_logits = taken[0] * taken[1], 0
    if config is not None:
        stride, heads = config.model.tokenizer.superpixel_stride, config.model.classifier.heads
        if resizing.resizes(config.data):
            resized = resizing.resized_size(*taken, config.data)
            full_size_logits = seen * derived.num_classes(config) * _FLOAT
            seen = resized[0] * resized[1]
    superpixels = seen // stride**2
    attention = superpixels**2 * heads * _FLOAT * _ATTENTION_MAPS
    of_model = seen * _MODEL_BYTES_PER_PIXEL + attention + full_size_logits
    return of_model + height * width * _PICTURE_BYTES_PER_PIXEL


def available_bytes() -> int | None:
    """Memory that this process may still use, of the machine and of its container; None where that cannot be told."""
    candidates = []
    for line in _lines(_MEMORY_INFO):
        if line.startswith("MemAvailable:"):
            candidates.append(int(line.split()[1]) * 1024)
    for limit, use, (statistics, entry) in _CONTAINERS:
        limit, use = _lines(limit), _lines(use)
        if limit and use and limit[0].isdigit():
            rows = dict(line.split(maxsplit=1) for line in _lines(statistics))
            candidates.append(int(limit[0]) - int(use[0]) + int(rows.get(entry, 0)))
    return max(min(candidates), 0) if candidates else None


def read_config(path):
    """The ExperimentOptions that travel with a model; None if they cannot be read, as of another version."""
    try:
        config, faults = parsing.parse(pathlib.Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError):
        return None
    return config if not any(not parsing.is_unknown_field(fault) for fault in faults) else None


def _lines(path):
    try:
        return pathlib.Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
