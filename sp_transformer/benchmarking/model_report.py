"""The model report: latency, throughput, parameters, multiply-adds and peak memory of whole variants."""

from collections.abc import Callable

from sp_transformer import environment
from sp_transformer.benchmarking import (
    memory,
    programs,
    report,
    rules,
    timing,
    variants,
)
from sp_transformer.benchmarking.settings import Settings
from sp_transformer.model import summary

_GIGA = 1e9
_MEBIBYTE = 2**20


def run(settings: Settings, progress: Callable[[str], None] | None = None) -> report.Report:
    """Measures all variants of `settings` against each other.

    Args:
      settings: with report "model".
      progress: called with a line of text whenever something is done.

    Raises:
      ValueError, ConfigError: as `variants.plan`; ValueError too if no variant can run.
    """
    planned = variants.plan(settings)
    tell = progress or (lambda text: None)
    programs.prepare_devices()
    models = programs.Models()
    functions, notes = {}, []
    for variant in planned:
        tell(f"building {variant.name}")
        try:
            program = programs.program(variant, models)
            program()
        except Exception as error:
            # One variant that does not fit or compile is a result too, and no reason to lose the others.
            notes.append(programs.failure(variant.name, error))
        else:
            functions[variant.name] = program
    programs.check_any(functions, notes)
    planned = [variant for variant in planned if variant.name in functions]
    timings = timing.measure_interleaved(
        functions,
        settings.rounds,
        settings.warmup,
        progress=lambda done, total: tell(f"round {done} of {total}"),
    )
    counts = _counts(planned, models)
    # Weights and compiled programs of this process would leave the children less memory.
    del functions, models
    peaks = _peaks(planned, tell, notes) if settings.peak_memory else {}
    reference = planned[0].name
    rows = [
        _row(variant, timings[variant.name], timings[reference], counts[variant.name])
        | peaks.get(variant.name, {})
        for variant in planned
    ]
    if len(planned) > 1:
        notes.insert(0, f'Ratio: time over that of "{reference}".')
    columns = ["variant", "latency (ms)", "images/s", "ratio", "parameters"]
    columns += ["paper rule (G)", "as configured (G)"]
    return report.Report(
        title=f"{' against '.join(_experiments(planned))}: latency of the model",
        rules=rules.model_rules(settings),
        columns=columns + (["peak memory (MiB)"] if settings.peak_memory else []),
        rows=rows,
        notes=notes,
        environment=environment.describe(),
        settings=settings.as_dict(),
    )


def _experiments(planned):
    return list(dict.fromkeys(variant.config.experiment_name for variant in planned))


def _row(variant, own, reference, counts):
    quotients = timing.ratio(own, reference)
    return {
        **variant.describe(),
        "latency (ms)": report.format_spread(own, 1e3),
        "images/s": variant.batch_size / own.median,
        "ratio": report.format_spread(quotients) if own is not reference else "1",
        **counts,
        "seconds": list(own.seconds),
        "median_seconds": own.median,
        "ratios": list(quotients.values),
        "median_ratio": quotients.median,
    }


def _counts(planned, models):
    """{variant's name: its parameters and multiply-adds}, each model and size counted once."""
    known = {}
    for variant in planned:
        model = models.of(variant)
        key = id(model), variant.size
        if key not in known:
            known[key] = _count(model, variant.size)
    return {variant.name: known[id(models.of(variant)), variant.size] for variant in planned}


def _count(model, size):
    parameters = summary.count_parameters(model)
    # Images are padded to whole superpixels in front of the model.
    padded = tuple(-(-side // model.size_multiple) * model.size_multiple for side in size)
    with summary.paper_form(model):
        paper = summary.model_multiply_adds(model, padded).total
    configured = summary.model_multiply_adds(model, padded).total
    return {
        "parameters": sum(part["trainable"] for part in parameters.values()),
        "parameters_in_all": sum(part["total"] for part in parameters.values()),
        "paper rule (G)": paper / _GIGA,
        "as configured (G)": configured / _GIGA,
    }


def _peaks(planned, tell, notes):
    peaks = {}
    for variant in planned:
        tell(f"measuring the peak memory of {variant.name}")
        try:
            peak = memory.peak_memory(*programs.memory_case(variant))
        except memory.MemoryMeasurementError as error:
            notes.append(
                f'Peak memory of "{variant.name}" is missing: {" ".join(str(error).split())}'
            )
            continue
        peaks[variant.name] = {
            "peak memory (MiB)": peak.above_bytes / _MEBIBYTE,
            "peak_memory": {
                "device": peak.device,
                "baseline_bytes": peak.baseline_bytes,
                "peak_bytes": peak.peak_bytes,
            },
        }
    return peaks
