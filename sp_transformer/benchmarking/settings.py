"""What a benchmark is asked to measure, as the binary's flags say it.

Importing this imports no TensorFlow.
"""

import dataclasses

REPORTS = ("model", "stages", "attention", "input")
MODES = ("inference", "training")
PRECISIONS = ("float32", "bfloat16")
IMPLEMENTATIONS = ("fold", "gather")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Axes, whose cross product is measured, and how.

    Attributes:
      report: one of REPORTS.
      config_files: paths of textproto files, or of bundled configs.
      overrides: textproto snippets merged over each config, in order.
      modes: of MODES.
      sizes: (height, width) of images in pixels; empty for each config's own input size.
      batch_sizes: images in one call.
      precisions: of PRECISIONS; empty for each config's own.
      jit_compile: whether XLA compiles.
      implementations: of IMPLEMENTATIONS; empty for each config's own.
      inference_form: whether the model is converted by model/inference_form.py (BatchNorm folded, CPU kernels); empty
        for converted in inference and as it is in training.
      rounds: rounds that are timed.
      warmup: rounds before these.
      images: training examples that the input report times in a round.
      steps_per_second: of training, for which the input report works out the cores that are needed.
      peak_memory: whether peak memory is measured too, in processes of their own.
    """

    config_files: tuple[str, ...]
    report: str = "model"
    overrides: tuple[str, ...] = ()
    modes: tuple[str, ...] = ("inference",)
    sizes: tuple[tuple[int, int], ...] = ()
    batch_sizes: tuple[int, ...] = (1,)
    precisions: tuple[str, ...] = ()
    jit_compile: tuple[bool, ...] = (False,)
    implementations: tuple[str, ...] = ()
    inference_form: tuple[bool, ...] = ()
    rounds: int = 10
    warmup: int = 2
    peak_memory: bool = False
    images: int = 32
    steps_per_second: float = 4.0

    def as_dict(self) -> dict:
        """Plain values that JSON can hold."""
        return dataclasses.asdict(self)
