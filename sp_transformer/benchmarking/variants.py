"""Settings -> the variants to be measured, each with a name that says only what differs.

Importing this imports no TensorFlow: faulty settings are refused before that.
"""

import dataclasses
import itertools

from sp_transformer.benchmarking import settings as settings_lib
from sp_transformer.benchmarking import timing
from sp_transformer.config import derived, load_config
from sp_transformer.protos import experiment_pb2, model_pb2, training_pb2

# What a config spells as an enum value, in the letters of the flags.
_PRECISION = training_pb2.TrainingOptions.Precision
_IMPLEMENTATION = model_pb2.TokenizerOptions.Implementation


@dataclasses.dataclass(frozen=True)
class Variant:
    """One thing to be measured.

    Attributes:
      name: what sets it apart from the other variants of its run.
      config: the validated experiment, with this variant's batch size, precision, jit_compile and implementation in it.
      mode: "inference" or "training".
      size: (height, width) of its images in pixels. Queries and position embeddings stay laid out for the config's
        own input size, and are resized as in any inference.
      batch_size: images in one call.
      precision: "float32" or "bfloat16".
      jit_compile: whether XLA compiles.
      implementation: "fold" or "gather".
      inference_form: whether the model is converted by model/inference_form.py.
    """

    name: str
    config: experiment_pb2.ExperimentOptions
    mode: str
    size: tuple[int, int]
    batch_size: int
    precision: str
    jit_compile: bool
    implementation: str
    inference_form: bool

    def describe(self) -> dict:
        """Plain values that JSON can hold, under the names of the flags."""
        return {
            "variant": self.name,
            "config": self.config.experiment_name,
            "mode": self.mode,
            "size": format_size(self.size),
            "batch_size": self.batch_size,
            "precision": self.precision,
            "jit_compile": self.jit_compile,
            "implementation": self.implementation,
            "inference_form": self.inference_form,
        }


def format_size(size: tuple[int, int]) -> str:
    """(1024, 2048) -> "1024x2048"."""
    return f"{size[0]}x{size[1]}"


def plan(settings: settings_lib.Settings) -> list[Variant]:
    """The cross product of all axes, in the order of the flags; the first is the reference.

    Raises:
      ConfigError: if a config is faulty.
      ValueError: for settings that are unknown, do not fit together, or name the same variant twice.
    """
    _check(settings)
    # Each config is read and judged once.
    configs = {
        file: load_config(file, settings.overrides) for file in dict.fromkeys(settings.config_files)
    }
    variants = []
    for file, *choice in itertools.product(
        settings.config_files,
        settings.modes,
        settings.sizes or (None,),
        settings.batch_sizes,
        settings.precisions or (None,),
        settings.jit_compile,
        settings.implementations or (None,),
        settings.inference_form or (None,),
    ):
        variants.append(_variant(configs[file], settings, *choice))
    _check_duplicates(variants)
    for variant in variants:
        _check_size(variant, settings.report)
    return variants


def _variant(
    config, settings, mode, size, batch_size, precision, jit_compile, implementation, converted
):
    own = experiment_pb2.ExperimentOptions()
    own.CopyFrom(config)
    own.training.batch_size = batch_size
    own.training.jit_compile = jit_compile
    if precision:
        own.training.precision = _PRECISION.Value(precision.upper())
    if implementation:
        own.model.tokenizer.implementation = _IMPLEMENTATION.Value(implementation.upper())
    size = size or derived.input_size(config)
    differing = [
        (settings.config_files, config.experiment_name),
        (settings.modes, mode),
        (settings.sizes, format_size(size)),
        (settings.batch_sizes, f"batch {batch_size}"),
        (settings.precisions, precision),
        (settings.jit_compile, "XLA" if jit_compile else "graph"),
        (settings.implementations, implementation),
        (settings.inference_form, "inference form" if converted else "as trained"),
    ]
    words = [word for axis, word in differing if len(axis) > 1]
    return Variant(
        name=", ".join(words) or config.experiment_name,
        config=own,
        mode=mode,
        size=size,
        batch_size=batch_size,
        precision=_PRECISION.Name(own.training.precision).lower(),
        jit_compile=jit_compile,
        implementation=_IMPLEMENTATION.Name(own.model.tokenizer.implementation).lower(),
        inference_form=mode == "inference" if converted is None else converted,
    )


def _check(settings):
    timing.check_rounds(settings.rounds, settings.warmup)
    choices = {
        "report": ((settings.report,), settings_lib.REPORTS),
        "mode": (settings.modes, settings_lib.MODES),
        "precision": (settings.precisions, settings_lib.PRECISIONS),
        "implementation": (settings.implementations, settings_lib.IMPLEMENTATIONS),
    }
    for flag, (values, known) in choices.items():
        for value in values:
            if value not in known:
                raise ValueError(f"{flag} {value!r} is unknown; use {' or '.join(known)}")
    required = {
        "config_file": settings.config_files,
        "mode": settings.modes,
        "batch_size": settings.batch_sizes,
        "jit_compile": settings.jit_compile,
    }
    for flag, values in required.items():
        if not values:
            raise ValueError(f"{flag} is an empty list; give at least one value")
    for batch_size in settings.batch_sizes:
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} is less than 1; give at least one image")
    for size in settings.sizes:
        if min(size) < 1:
            raise ValueError(
                f"size {format_size(size)} has a side below 1 pixel; give it in pixels"
            )
    if "training" in settings.modes and True in settings.inference_form:
        raise ValueError(
            "inference_form true does not go with mode training, which needs BatchNorm's own "
            "statistics; measure inference only, or leave inference_form out"
        )
    if settings.report == "stages" and settings.peak_memory:
        raise ValueError(
            "peak_memory does not go with report stages, which times only; use report model or "
            "attention"
        )
    if settings.report == "attention" and len(settings.config_files) > 1:
        raise ValueError(
            f"report attention takes one config_file, not {len(settings.config_files)}: it compares "
            "implementations at one config's shapes; run it once for each"
        )


def _check_duplicates(variants):
    seen = {}
    for index, variant in enumerate(variants):
        values = variant.describe()
        values.pop("variant")
        key = tuple(values.items())
        if key in seen:
            raise ValueError(
                f'variant "{variant.name}" is asked for twice (number {seen[key] + 1} and '
                f"{index + 1}); give each value of a list once"
            )
        seen[key] = index


def _check_size(variant, report):
    multiple = derived.size_multiple(variant.config)
    for side in variant.size:
        if side % multiple == 0 or (variant.mode == "inference" and report != "stages"):
            continue
        below, above = side // multiple * multiple, -(-side // multiple) * multiple
        nearest = f"{below} and {above}" if below else f"{above}"
        reason = "training" if variant.mode == "training" else "report stages"
        raise ValueError(
            f'size {format_size(variant.size)} of variant "{variant.name}": {side} is not a '
            f"multiple of {multiple}, which {reason} needs as it pads nothing; the nearest that "
            f"fit: {nearest}"
        )
