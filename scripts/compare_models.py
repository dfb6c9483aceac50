"""Times our model against keras_cv's DeepLabV3+ and SegFormer, all under the same rules and interleaved in one process.

    python scripts/compare_models.py --config_file configs/cityscapes/resnet50.textproto \
        --size 1024x2048 --batch_size 1 --precision float32 --mode inference --json OUT

Prints a Markdown table with the rules by which it was measured, and writes the same and every single time to --json.
The models:

    ours                     the config's model; for inference in inference form, as `export --inference_form` writes it
    ours_unfolded            the same as it trains (inference only: in training that is `ours`)
    ours_gather              ours with the paper's form of attention, every pixel copied for its nine superpixels
    deeplab_v3_plus          keras_cv's DeepLabV3+ on a ResNet as deep as the config's, or else ResNet-50
    deeplab_v3_plus_folded   the same with BatchNorm folded (inference only)
    segformer_b0, _b2, _b5   keras_cv's SegFormer

A model that cannot run as asked has its error in the table and does not stop the others. Needs keras-cv 0.9.0 for all
but ours. What keras_cv's models compute exactly, and what is changed about them, is told in peers.py and in the notes
below the table.

Letters: B batch; Y, X image height and width; K classes.
"""

import contextlib
import dataclasses
import re
import sys
from collections.abc import Callable

from absl import flags

from sp_transformer import command_line
from sp_transformer.benchmarking import report as report_lib
from sp_transformer.benchmarking import timing

INFERENCE_ONLY = ("ours_unfolded", "deeplab_v3_plus_folded")
MODELS = (
    "ours",
    "ours_unfolded",
    "ours_gather",
    "deeplab_v3_plus",
    "deeplab_v3_plus_folded",
    "segformer_b0",
    "segformer_b2",
    "segformer_b5",
)
MODES = ("inference", "training")
PRECISIONS = ("float32", "bfloat16")
_ERROR_LENGTH = 400


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
      models: some of MODELS; the first that runs is what the others are given as a ratio to.
      mode: one of MODES.
      size: (Y, X) in pixels.
      batch_size: images at once.
      jit_compile: whether XLA compiles.
      rounds: rounds that are timed.
      warmup: rounds in front of these that are not.
    """

    models: tuple[str, ...]
    mode: str
    size: tuple[int, int]
    batch_size: int = 1
    jit_compile: bool = False
    rounds: int = 10
    warmup: int = 2

    def __post_init__(self):
        unknown = [name for name in self.models if name not in MODELS]
        if not self.models:
            raise ValueError(f"there is no model to time; give some of {', '.join(MODELS)}")
        if unknown:
            raise ValueError(
                f"unknown models {', '.join(unknown)}; give some of {', '.join(MODELS)}"
            )
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"models {', '.join(self.models)} names one twice; give each once")
        if self.mode not in MODES:
            raise ValueError(f"mode {self.mode!r} is unknown; give one of {', '.join(MODES)}")
        folded = [name for name in self.models if name in INFERENCE_ONLY]
        if self.mode == "training" and folded:
            raise ValueError(
                f"{', '.join(folded)} differ from the others by what is done for inference; leave them out of training"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} is less than 1; give at least 1")
        timing.check_rounds(self.rounds, self.warmup)


def define_flags(values: flags.FlagValues) -> None:
    """Defines this script's flags in `values`."""
    command_line.define_config_flags(values)
    flags.DEFINE_string(
        "size",
        None,
        "Height and width of the images in pixels, as 1024x2048. Default: the config's input size.",
        flag_values=values,
    )
    flags.DEFINE_integer("batch_size", 1, "Images at once.", flag_values=values)
    flags.DEFINE_enum(
        "precision",
        None,
        PRECISIONS,
        "Precision of activations; weights are float32. Default: the config's.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "mode",
        "inference",
        MODES,
        "Images to labels, or images and labels to gradients.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "models",
        None,
        f"Which, separated by commas, of {', '.join(MODELS)}. The others are given as a ratio to the first that runs. "
        "Default: all; in training without those that differ in inference only.",
        flag_values=values,
    )
    flags.DEFINE_bool("jit_compile", False, "Whether XLA compiles the models.", flag_values=values)
    flags.DEFINE_integer("rounds", 10, "Rounds that are timed.", flag_values=values)
    flags.DEFINE_integer("warmup", 2, "Rounds in front of these, untimed.", flag_values=values)
    flags.DEFINE_string("json", None, "File to write all numbers to.", flag_values=values)
    flags.adopt_module_key_flags(command_line, values)


def parse_size(text: str) -> tuple[int, int]:
    """ "1024x2048" -> (1024, 2048).

    Raises:
      ValueError: if it is anything else, or a side is zero.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or "0" in (match[1].lstrip("0") or "0", match[2].lstrip("0") or "0"):
        raise ValueError(f"size {text!r} is not HEIGHTxWIDTH in pixels, as 1024x2048")
    return int(match[1]), int(match[2])


def read_flags(values: flags.FlagValues):
    """(config, Settings) of the parsed flags; imports no TensorFlow.

    Raises:
      ValueError: if flags or config are faulty.
    """
    from sp_transformer.config import derived
    from sp_transformer.config import load_config as load

    command_line.require(values, "config_file")
    chosen = values.models
    if chosen is None:
        chosen = [
            name for name in MODELS if values.mode == "inference" or name not in INFERENCE_ONLY
        ]
    overrides = list(values.override)
    if values.precision:
        overrides.append(f"training {{ precision: {values.precision.upper()} }}")
    size = parse_size(values.size) if values.size else None
    if size:
        overrides.append(f"model {{ input_height: {size[0]} input_width: {size[1]} }}")
    config = load(values.config_file, overrides, values.data_dir)
    return config, Settings(
        models=tuple(chosen),
        mode=values.mode,
        size=size or derived.input_size(config),
        batch_size=values.batch_size,
        jit_compile=values.jit_compile,
        rounds=values.rounds,
        warmup=values.warmup,
    )


def one_line(error: BaseException) -> str:
    """An error as one line; of a long one the beginning and the end, where Keras puts the cause."""
    text = " ".join(re.sub(r"\x1b\[\d*m", "", str(error)).split())
    if len(text) > _ERROR_LENGTH:
        half = _ERROR_LENGTH // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def compare(config, settings: Settings, build: Callable | None = None) -> report_lib.Report:
    """Builds all models, runs each once, and times those that ran.

    Args:
      config: a validated ExperimentOptions.
      settings: the Settings.
      build: makes a Contestant of (name, config, settings); contestants.build_contestant by default.

    Returns:
      A Report with a row for each of `settings.models`.
    """
    from sp_transformer import environment

    if build is None:
        from contestants import build_contestant as build
    contestants, failures = {}, {}
    for name in settings.models:
        print(f"building {name}", file=sys.stderr, flush=True)
        # Whatever a library or the machine cannot do is a finding about that model, and no reason to lose the others.
        try:
            contestant = build(name, config, settings)
            timing.synchronize(contestant.run())
        except Exception as error:
            failures[name] = one_line(error)
            print(f"{name} cannot run: {failures[name]}", file=sys.stderr, flush=True)
        else:
            contestants[name] = contestant
    timings = {}
    if contestants:
        timings = timing.measure_interleaved(
            {name: contestant.run for name, contestant in contestants.items()},
            settings.rounds,
            settings.warmup,
            progress=_print_progress,
        )
    reference = next(iter(contestants), settings.models[0])
    columns = ["model", "latency ms", "images/s", f"time / {reference}", "parameters M"]
    columns += ["multiply-adds G", "grouped G"]
    rows = []
    for name in settings.models:
        if name in failures:
            rows.append({"model": name, "error": failures[name]})
        else:
            ratio = timing.ratio(timings[name], timings[reference])
            row = _row(contestants[name], timings[name], ratio, settings.batch_size)
            row[columns[3]] = report_lib.format_spread(ratio)
            rows.append({"model": name, **row})
    notes = [f"{name} cannot run: {error}" for name, error in failures.items()]
    told = [note for contestant in contestants.values() for note in contestant.notes]
    notes += dict.fromkeys(told)
    return report_lib.Report(
        title=_title(config, settings),
        rules=_rules(config, settings),
        columns=columns,
        rows=rows,
        notes=notes,
        environment=environment.describe(),
        settings=_plain_settings(config, settings),
    )


def _row(contestant, timed, ratio, batch_size):
    count = contestant.multiply_adds
    return {
        "latency ms": report_lib.format_spread(timed, 1e3),
        "images/s": batch_size / timed.median,
        "parameters M": contestant.parameters / 1e6,
        "multiply-adds G": count.total / 1e9,
        "grouped G": count.grouped / 1e9,
        "seconds": list(timed.seconds),
        "ratios": list(ratio.values),
        "median_seconds": timed.median,
        "median_ratio": ratio.median,
        "parameters": contestant.parameters,
        "multiply_adds": count.total,
        "grouped_multiply_adds": count.grouped,
    }


def _title(config, settings):
    height, width = settings.size
    engine = "XLA" if settings.jit_compile else "graph"
    name = config.experiment_name or config.model.backbone.name
    return (
        f"{name}: {settings.mode} at {height}x{width}, batch {settings.batch_size}, "
        f"{_precision(config)}, {engine}"
    )


def _precision(config):
    from sp_transformer.protos import training_pb2

    return training_pb2.TrainingOptions.Precision.Name(config.training.precision).lower()


def _rules(config, settings):
    if settings.mode == "inference":
        timed = (
            "Timed: uint8 images on the device -> normalisation -> logits -> resized bilinearly to the image -> "
            "argmax -> int32 labels, with their transfer to the host. No softmax. `ours` and `ours_gather` are in "
            "inference form, as `export --inference_form` writes them: BatchNorm folded into the convolutions, as "
            "`deeplab_v3_plus_folded`, and on CPUs without XLA LayerNorm by TensorFlow's CPU kernel. The others are as "
            "they train."
        )
    else:
        share = report_lib.format_number(100 * config.training.top_k_fraction)
        timed = (
            "Timed: float32 images and int32 labels on the device -> normalisation -> logits at image size -> "
            f"cross-entropy over the {share}% hardest pixels of each image -> gradients of all weights -> clipping, "
            "AdamW, and the weights' average if the config has one. No input, no transfer."
        )
    return [
        timed,
        "Same images, number of classes, precision policy (weights float32) and input normalisation.",
        "Every model runs once to trace and compile. Then every round runs each once, in rotated order; untimed rounds "
        f"of warm-up: {settings.warmup}, timed rounds: {settings.rounds}. Synchronised before the clock stops.",
        "Median [first, third quartile] over the rounds; ratios are quotients of the same round.",
        "Random weights from a seed; time does not depend on them.",
        "Multiply-adds: one image's logits, float operations // 2 by the rules of TF1's profiler with einsum counted "
        "and BatchNorm folded; resizes count nothing, grouped and depthwise convolutions stand apart.",
    ]


def _plain_settings(config, settings):
    return {
        **dataclasses.asdict(settings),
        "precision": _precision(config),
        "experiment_name": config.experiment_name,
        "backbone": config.model.backbone.name,
    }


def _print_progress(done, rounds):
    print(f"round {done} of {rounds}", file=sys.stderr, flush=True)


def main(values: flags.FlagValues) -> int:
    """Compares as the flags say; returns the exit code, 1 if no model could run."""
    config, settings = read_flags(values)
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        # Too late once a device is in use, as from a caller in this process: then it stays as it is.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    report = compare(config, settings)
    report.settings.update(config_file=values.config_file, overrides=list(values.override))
    if values.json:
        report_lib.write_json(report, values.json)
    print(report_lib.table(report))
    return 0 if any("seconds" in row for row in report.rows) else 1


if __name__ == "__main__":
    command_line.run(main, define_flags)
