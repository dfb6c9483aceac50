"""Measures speed and memory of the model, of its stages, of its attention, or of the training input.

Lists are axes: every combination is built and timed interleaved with the others in one process; the first is what the
others are compared with.

Example: python -m sp_transformer.benchmark --config_file configs/cityscapes/resnet50.textproto \
  --implementation fold,gather --jit_compile false,true --json results/model.json
"""

import os
import pathlib
import re
import sys

from absl import flags

from sp_transformer import command_line
from sp_transformer.benchmarking import report as report_lib
from sp_transformer.benchmarking import rules, variants
from sp_transformer.benchmarking import settings as settings_lib

_BOOLEANS = {"true": True, "false": False}
# Attention has neither backbone nor training step, and is measured in every implementation.
_UNUSED_BY_ATTENTION = ("mode", "implementation", "inference_form")
# The input knows the sizes and batches of the config alone.
_UNUSED_BY_INPUT = (
    *_UNUSED_BY_ATTENTION,
    "size",
    "batch_size",
    "precision",
    "jit_compile",
    "peak_memory",
)
_UNUSED = {"attention": _UNUSED_BY_ATTENTION, "input": _UNUSED_BY_INPUT}


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    flags.DEFINE_multi_string(
        "config_file",
        [],
        "Textproto of the experiment, an ExperimentOptions message. May be repeated to compare "
        "experiments. Required.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "override",
        [],
        "Textproto merged over each config, such as 'model { channels: 128 }'. May be repeated; "
        "later ones win.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "report",
        "model",
        list(settings_lib.REPORTS),
        "What to measure: the whole model; the five stages of the paper's Table IV; both attention updates in all "
        "implementations; or the training input by step, of the first config's data.",
        flag_values=values,
    )
    _define_axes(values)
    flags.DEFINE_bool(
        "peak_memory",
        False,
        "Also measures peak memory, in a process of its own for each variant. Not for stages.",
        flag_values=values,
    )
    command_line.define_timing_flags(values, rounds=10, warmup=2)
    command_line.define_input_timing_flags(values)
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Only prints the rules and what would be measured; builds nothing.",
        flag_values=values,
    )
    flags.adopt_module_key_flags(command_line, values)


def _define_axes(values):
    axes = {
        "mode": "inference and training (one whole step). Default: inference.",
        "size": "Image sizes as HEIGHTxWIDTH in pixels. Default: the config's input size.",
        "batch_size": "Images in one call. Default: 1.",
        "precision": "float32 and bfloat16. Default: the config's.",
        "jit_compile": "Whether XLA compiles, true and false. Default: false.",
        "implementation": "fold and gather, of the tokenizer's attention. Default: the config's.",
        "inference_form": "Whether the model is brought into its fastest form, true and false: BatchNorm folded into "
        "the convolutions and, on CPUs without XLA, LayerNorm by TensorFlow's CPU kernel. export writes it with "
        "--inference_form. Default: true in inference; training cannot.",
    }
    for name, text in axes.items():
        flags.DEFINE_list(name, None, f"One or more, by commas: {text}", flag_values=values)


def main(values: flags.FlagValues) -> int:
    """Measures as the flags say; returns the exit code."""
    command_line.require(values, "config_file")
    settings = settings_of(values)
    if values.report == "input":
        return _run_input(settings, values)
    planned = variants.plan(settings)
    if values.dry_run:
        print(dry_run_text(settings, planned))
        return 0
    if values.json:
        _check_writable(values.json)

    # TensorFlow takes seconds to import: only once flags and config are known to be good.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    report = _measure(settings)
    if values.json:
        report_lib.write_json(report, values.json)
    print(report_lib.table(report))
    return 0


def _run_input(settings, values):
    from sp_transformer.config import load_config

    config = load_config(settings.config_files[0], settings.overrides, check_data=("train_split",))
    if values.dry_run:
        print("\n".join(f"- {rule}" for rule in rules.input_rules(settings)))
        return 0
    if values.json:
        _check_writable(values.json)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from sp_transformer.benchmarking import input_report

    report = input_report.run(config, settings, _print_progress)
    if values.json:
        report_lib.write_json(report, values.json)
    print(report_lib.table(report))
    return 0


def settings_of(values: flags.FlagValues) -> settings_lib.Settings:
    """The Settings that the flags describe.

    Raises:
      UsageError: for a value that cannot be read, an empty list, or a flag that the report has no use for.
    """
    unused = _UNUSED.get(values.report, ())
    for name in unused:
        if not values[name].using_default_value:
            raise command_line.UsageError(
                f"--{name} has no effect on --report={values.report}; leave it out"
            )
    return settings_lib.Settings(
        config_files=tuple(values.config_file),
        report=values.report,
        overrides=tuple(values.override),
        modes=_axis(values, "mode", str, ("inference",)),
        sizes=_axis(values, "size", _size),
        batch_sizes=_axis(values, "batch_size", _whole_number, (1,)),
        precisions=_axis(values, "precision", str),
        jit_compile=_axis(values, "jit_compile", _boolean, (False,)),
        implementations=_axis(values, "implementation", str),
        inference_form=_axis(values, "inference_form", _boolean),
        rounds=values.rounds,
        warmup=values.warmup,
        peak_memory=values.peak_memory,
        images=values.images,
        steps_per_second=values.steps_per_second,
    )


def dry_run_text(settings: settings_lib.Settings, planned: list[variants.Variant]) -> str:
    """What would be measured, and by what rules, as valid Markdown."""
    hidden, notes = (), []
    if settings.report == "attention":
        hidden = _UNUSED_BY_ATTENTION
        notes.append("Each in every form of the attention, forward, and forward and backward.")
    rules_of = {"model": rules.model_rules, "stages": rules.stage_rules}
    report = report_lib.Report(
        title=f"Dry run of report {settings.report}: {len(planned)} to be measured, the first is the reference",
        rules=rules_of.get(settings.report, rules.timing_rules)(settings),
        columns=[name for name in planned[0].describe() if name not in hidden],
        rows=[variant.describe() for variant in planned],
        notes=notes,
        environment={},
        settings=settings.as_dict(),
    )
    return report_lib.table(report)


def _measure(settings):
    if settings.report == "attention":
        from sp_transformer.benchmarking import attention_report
        from sp_transformer.config import load_config

        config = load_config(settings.config_files[0], settings.overrides)
        return attention_report.run(config, settings, _print_progress)
    if settings.report == "stages":
        from sp_transformer.benchmarking import stage_report

        return stage_report.run(settings, _print_progress)
    from sp_transformer.benchmarking import model_report

    return model_report.run(settings, _print_progress)


def _print_progress(text):
    print(f"benchmark: {text}", file=sys.stderr, flush=True)


def _check_writable(path):
    """Minutes of measuring should not end in a folder that is not there."""
    file = pathlib.Path(path)
    if file.is_dir():
        raise command_line.UsageError(f"--json={path} is a folder; name a file")
    file.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(file.parent, os.W_OK):
        raise command_line.UsageError(f"--json={path} cannot be written; name another folder")


def _axis(values, name, read, default=()):
    texts = values[name].value
    if texts is None:
        return default
    if not texts or "" in texts:
        raise command_line.UsageError(
            f"--{name} is an empty list or has an empty value; give values separated by commas"
        )
    return tuple(_read(name, text, read) for text in texts)


def _read(name, text, read):
    try:
        return read(text)
    except ValueError as error:
        raise command_line.UsageError(f"--{name}: {error}") from error


def _size(text):
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise ValueError(f"{text!r} is no size; give HEIGHTxWIDTH in pixels, such as 1024x2048")
    return int(match[1]), int(match[2])


def _whole_number(text):
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _boolean(text):
    if text.lower() not in _BOOLEANS:
        raise ValueError(f"{text!r} is neither true nor false")
    return _BOOLEANS[text.lower()]


if __name__ == "__main__":
    command_line.run(main, define_flags)
