"""The stage report: the rows of the paper's Table IV, and the whole model over its backbone alone."""

from collections.abc import Callable

from sp_transformer import environment
from sp_transformer.benchmarking import (
    programs,
    report,
    rules,
    stages,
    timing,
    variants,
)
from sp_transformer.benchmarking.settings import Settings

REST = "rest"
COLUMNS = ["variant", "stage", "time (ms)", "share of whole (%)", "paper (%)", "whole over it"]


def run(settings: Settings, progress: Callable[[str], None] | None = None) -> report.Report:
    """Measures the stages of all variants of `settings`, all interleaved.

    Args:
      settings: with report "stages".
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
            made = stages.stage_programs(variant, models)
            made |= stages.backbone_programs(variant, models)
            for function in made.values():
                function()
        except Exception as error:
            # One variant that does not fit or compile is a result too, and no reason to lose the others.
            notes.append(programs.failure(variant.name, error))
        else:
            functions |= {(variant.name, name): function for name, function in made.items()}
    programs.check_any(functions, notes)
    timings = timing.measure_interleaved(
        functions,
        settings.rounds,
        settings.warmup,
        progress=lambda done, total: tell(f"round {done} of {total}"),
    )
    rows = []
    for variant in planned:
        if (variant.name, stages.WHOLE) not in functions:
            continue
        own = {name: t for (owner, name), t in timings.items() if owner == variant.name}
        rows += [{**variant.describe(), **row} for row in stage_rows(variant, own)]
    names = dict.fromkeys(variant.config.experiment_name for variant in planned)
    return report.Report(
        title=f"{' against '.join(names)}: stages of the model",
        rules=rules.stage_rules(settings),
        columns=list(COLUMNS),
        rows=rows,
        notes=notes,
        environment=environment.describe(),
        settings=settings.as_dict(),
    )


def stage_rows(variant: variants.Variant, timings: dict[str, timing.Timing]) -> list[dict]:
    """The rows of one variant.

    Args:
      variant: what was timed.
      timings: what `stages.stage_programs` and `stages.backbone_programs` took, all of one run.

    Returns:
      Rows of the five stages, the rest, the whole, each backbone alone, and the whole over the faster of these.
    """
    whole = timings[stages.WHOLE]
    rows = []
    for name, paper_ms in rules.PAPER_STAGES_MS.items():
        paper = round(100 * paper_ms / rules.PAPER_WHOLE_MS, 1)
        rows.append(_row(name, timings[name], whole) | {"paper (%)": paper})
    rows.append(_row(REST, _rest(timings), whole))
    rows.append(_row(stages.WHOLE, whole, whole))
    backbones = _backbones_alone(variant, timings)
    for name, own in backbones.items():
        rows.append(
            _row(f"backbone alone: {name}", own, whole)
            | {"whole over it": report.format_spread(timing.ratio(whole, own))}
        )
    faster = min(backbones, key=lambda name: backbones[name].median)
    quotients = timing.ratio(whole, backbones[faster])
    rows.append(
        {
            "stage": f"whole over the faster backbone ({faster})",
            "whole over it": report.format_spread(quotients),
            "ratios": list(quotients.values),
            "median_ratio": quotients.median,
        }
    )
    return rows


def _backbones_alone(variant, timings):
    own = timings[stages.BACKBONE]
    if variant.mode == "training":
        alone = {"ours": own}
    elif variant.inference_form:
        # The stage is the backbone alone: timed once.
        alone = {stages.OURS_FOLDED: own}
    else:
        alone = {"ours, BatchNorm as it is": own, stages.OURS_FOLDED: timings[stages.OURS_FOLDED]}
    if stages.KERAS_RESNET50 in timings:
        alone[stages.KERAS_RESNET50] = timings[stages.KERAS_RESNET50]
    return alone


def _rest(timings):
    parts = [timings[name].seconds for name in rules.PAPER_STAGES_MS]
    wholes = timings[stages.WHOLE].seconds
    return timing.Timing(
        tuple(whole - sum(part) for whole, *part in zip(wholes, *parts, strict=True))
    )


def _row(name, own, whole):
    shares = timing.ratio(own, whole)
    return {
        "stage": name,
        "time (ms)": report.format_spread(own, 1e3),
        "share of whole (%)": report.format_spread(shares, 100),
        "seconds": list(own.seconds),
        "median_seconds": own.median,
        "median_share": shares.median,
    }
