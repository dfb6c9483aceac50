"""Times our training input against an ordinary tfds pipeline with the same distribution of outputs, in one run.

    python -m sp_transformer.prepare_data --config_file F --data_dir D --output_dir OURS
    python -m sp_transformer.prepare_data --config_file F --data_dir D --output_dir PNGS --encoding png
    python scripts/compare_input.py --config_file F --data_dir OURS --png_dir PNGS --json results/input.json

Both are measured step by step, by the rules of `python -m sp_transformer.benchmark --report input`, interleaved. The
ordinary one is in ordinary_input.py; it is timed twice, with our own colours (which makes its examples equal ours, up
to the order of the images) and with those of tf.image.
"""

import os
import sys
import time

from absl import flags, logging

from sp_transformer import command_line

OURS, ORDINARY = "ours", "ordinary"
STEPS = ("read", "decode", "whole")
CLOCKS = ("wall", "cpu")
_CPU_RULE = (
    "Not by the wall clock: seconds in which cores worked for this process, over the number of cores. Other programs "
    "do not count, nor cores of which the pipeline made no use."
)
_COLUMNS = [
    "pipeline",
    "step",
    "up to here (images/s)",
    "this step (ms of a core)",
    "ordinary over ours",
]


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags in `values`."""
    command_line.define_config_flags(values)
    flags.DEFINE_string(
        "png_dir",
        None,
        "Folder that prepare_data wrote from the same data with --encoding=png. Required.",
        flag_values=values,
    )
    command_line.define_timing_flags(values, rounds=5, warmup=1)
    command_line.define_input_timing_flags(values)
    flags.DEFINE_enum(
        "clock",
        "wall",
        list(CLOCKS),
        "What seconds are: of the wall, or those in which cores worked for this process over the number of cores, "
        "which leave out other programs and the waiting of cores that had nothing to do.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "steps",
        None,
        "Of read, decode and whole: measures these alone, which leaves time for more rounds on a noisy machine. "
        "Default: every step.",
        flag_values=values,
    )
    flags.adopt_module_key_flags(command_line, values)


def main(values: flags.FlagValues) -> int:
    """Measures and prints; returns the exit code."""
    command_line.require(values, "config_file", "data_dir", "png_dir")
    config = command_line.load_config(values, check_data=("train_split",))
    # tfds tells at length what it does.
    logging.set_verbosity(logging.WARNING)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from sp_transformer.benchmarking import report as reports
    from sp_transformer.benchmarking import settings as settings_lib

    settings = settings_lib.Settings(
        config_files=(values.config_file,),
        report="input",
        overrides=tuple(values.override),
        rounds=values.rounds,
        warmup=values.warmup,
        images=values.images,
        steps_per_second=values.steps_per_second,
    )
    chosen = tuple(values.steps or ())
    if not set(chosen) <= set(STEPS) or ("decode" in chosen and "read" not in chosen):
        raise command_line.UsageError(
            f"--steps={','.join(chosen)} is not of {', '.join(STEPS)}, or has decode without read, "
            "which it is the difference to"
        )
    report = compare(config, settings, values.png_dir, chosen, values.clock)
    if values.json:
        reports.write_json(report, values.json)
    print(reports.table(report))
    return 0


def compare(config, settings, png_dir: str, chosen: tuple[str, ...] = (), clock: str = "wall"):
    """Measures both pipelines.

    Args:
      config: a validated ExperimentOptions with the data of ours.
      settings: benchmarking Settings of report "input".
      png_dir: the data of the ordinary pipeline.
      chosen: of STEPS; empty for every step.
      clock: one of CLOCKS.

    Returns:
      The Report.
    """
    import ordinary_input

    from sp_transformer import environment
    from sp_transformer.benchmarking import input_report, rules, timing
    from sp_transformer.benchmarking.report import Report, format_number, format_spread

    images = settings.images
    functions = {(OURS, name): run for name, run in input_report.steps(config, images).items()}
    names = {OURS: OURS}
    for colour in ordinary_input.COLOURS:
        batch_size = _batch_size(config, images)
        made = ordinary_input.datasets(
            config, png_dir, images, batch_size, input_report.cores(), colour
        )
        pipeline = f"{ORDINARY}, colours of {'ours' if colour == 'equal' else 'tf.image'}"
        names[colour] = pipeline
        for name, dataset in made.items():
            # The steps before the colours are the same ones.
            if colour == "equal" or name == ordinary_input.COLOUR:
                functions[pipeline, name] = _exhaust(input_report, dataset)
    if chosen:
        last = {key[0]: key for key in functions}
        functions = {
            key: run
            for key, run in functions.items()
            if key[1] in chosen or ("whole" in chosen and key == last[key[0]])
        }
    timings = timing.measure_interleaved(
        functions,
        settings.rounds,
        settings.warmup,
        progress=lambda done, total: print(f"round {done} of {total}", file=sys.stderr),
        clock=_cpu_clock(input_report.cores()) if clock == "cpu" else None,
    )
    steps = {}
    for pipeline in names.values():
        own = {name: t for (owner, name), t in timings.items() if owner == pipeline}
        if pipeline == names["tf_image"]:
            shared = {name: t for (owner, name), t in timings.items() if owner == names["equal"]}
            shared.pop(ordinary_input.COLOUR, None)
            own = {**shared, **own}
        steps[pipeline] = own
    rows = [
        {"pipeline": pipeline, **row}
        for pipeline, own in steps.items()
        for row in input_report.rows(own, images)
        if not chosen or row["step"] in chosen
    ]
    ours, notes = steps[OURS], []
    for pipeline, own in steps.items():
        if pipeline == OURS:
            continue
        pairs = {}
        if "decode" in own:
            pairs["decode"] = timing.ratio(_step(own, "decode"), _step(ours, "decode"))
        if not chosen or "whole" in chosen:
            pairs["whole"] = timing.ratio(_last(own), _last(ours))
        for step, ratio in pairs.items():
            row = next(r for r in rows if r["pipeline"] == pipeline and r["step"] == step)
            row["ordinary over ours"] = format_spread(ratio)
            row["ratios"] = list(ratio.values)
            notes.append(
                f"{pipeline}: {step} takes {format_number(ratio.median)} times as long as ours."
            )
    if not chosen or "whole" in chosen:
        for pipeline, own in steps.items():
            notes.append(f"{pipeline}: {input_report.cores_note(config, settings, _last(own))}")
    return Report(
        title=f"{config.experiment_name}: training input against an ordinary tfds pipeline",
        rules=[
            *rules.input_rules(settings),
            *([_CPU_RULE] if clock == "cpu" else []),
            "Ordinary: tfds decodes the PNGs whole, tf.image.resize, crop, colours, flip, pad "
            "(scripts/ordinary_input.py). Scales, places and flips are drawn from the same distribution; as many "
            "parallel calls.",
        ],
        columns=_COLUMNS,
        rows=rows,
        notes=notes,
        environment=environment.describe(),
        settings=settings.as_dict(),
    )


def _cpu_clock(cores):
    """A clock that goes as the wall's does where all cores work for this process alone."""
    return lambda: time.process_time() / cores


def _last(timings):
    return timings[list(timings)[-1]]


def _step(timings, name):
    """Time of a step alone: what it adds to the one before."""
    from sp_transformer.benchmarking import timing

    names = list(timings)
    before = timings[names[names.index(name) - 1]].seconds
    return timing.Timing(tuple(a - b for a, b in zip(timings[name].seconds, before, strict=True)))


def _batch_size(config, images):
    largest = min(config.training.batch_size, images)
    return next(size for size in range(largest, 0, -1) if images % size == 0)


def _exhaust(input_report, dataset):
    return lambda: input_report.count_elements(dataset)


if __name__ == "__main__":
    command_line.run(main, define_flags)
