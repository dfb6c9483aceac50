"""What modes that keep a checkpoint's weights gain in latency and lose in mIoU: one table from one command.

    python scripts/latency_modes.py --model_dir RUN --data_dir DATA --json modes.json

Modes: as trained; bfloat16; the image seen at --scales of the size that it is seen at otherwise; the last --drop_layers
of the classifier's self-attention layers (each with its feed-forward layer) left out.
"""

import contextlib
import dataclasses
import sys
import tempfile

from absl import flags

from sp_transformer import command_line

AS_TRAINED = "as trained"
_COLUMNS = ["mode", "latency, ms", "ratio", "mIoU", "difference"]


@dataclasses.dataclass(frozen=True)
class Mode:
    """One row of the table.

    Attributes:
      name: its words.
      override: textproto that is merged over the run's config.
    """

    name: str
    override: str = ""


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags in `values`."""
    command_line.define_config_flags(values)
    command_line.define_checkpoint_flags(values)
    command_line.define_timing_flags(values, rounds=30, warmup=3)
    flags.DEFINE_list(
        "scales",
        ["0.75", "0.5"],
        "Sides of smaller inputs, in parts of the usual ones; rounded to whole superpixels.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "drop_layers",
        ["1", "2"],
        "How many of the classifier's last layers are left out.",
        flag_values=values,
    )
    flags.DEFINE_bool("bfloat16", True, "Measures bfloat16 as well.", flag_values=values)


def main(values: flags.FlagValues) -> int:
    """Measures as the flags say; returns the exit code."""
    path = command_line.weights_path(values)
    config = command_line.load_config(values, check_data=("eval_split",))
    from sp_transformer.benchmarking import report, timing

    timing.check_rounds(values.rounds, values.warmup)
    found = measure(config, path, values)
    print(report.table(found))
    if values.json:
        report.write_json(found, values.json)
    return 0


def plan(config, image_size, scales, drop_layers, bfloat16=True) -> list[Mode]:
    """The modes, the plain one first.

    Args:
      config: an ExperimentOptions.
      image_size: (Y, X) in pixels of an image of the evaluation split.
      scales: parts of the usual side, each below 1.
      drop_layers: numbers of layers.
      bfloat16: whether it is among the modes.

    Raises:
      ValueError: for a scale or a number of layers that is out of range.
    """
    from sp_transformer.config import resizing

    modes = [Mode(AS_TRAINED)]
    if bfloat16:
        modes.append(Mode("bfloat16", "training { precision: BFLOAT16 }"))
    seen = resizing.resized_size(*image_size, config.data)
    stride = config.model.tokenizer.superpixel_stride
    for scale in scales:
        if not 0 < scale < 1:
            raise ValueError(f"--scales {scale} must lie between 0 and 1")
        height, width = (max(1, round(scale * side / stride)) * stride for side in seen)
        size = f"resize_height: {height} resize_width: {width}"
        modes.append(Mode(f"seen at {height}x{width}", f"data {{ {size} }}"))
    layers = config.model.classifier.layers
    for dropped in drop_layers:
        if not 1 <= dropped <= layers:
            raise ValueError(
                f"--drop_layers {dropped} must be 1 to {layers}, the classifier's layers"
            )
        left = f"model {{ classifier {{ layers: {layers - dropped} }} }}"
        modes.append(Mode(f"{layers - dropped} of {layers} self-attention layers", left))
    return modes


def measure(config, path, values):
    """A Report of all modes.

    Args:
      config: the run's ExperimentOptions.
      path: the checkpoint or model_dir.
      values: the parsed flags.
    """
    from sp_transformer import environment
    from sp_transformer.benchmarking import timing
    from sp_transformer.benchmarking.report import Report, format_number, format_spread
    from sp_transformer.data import sources

    image, _ = sources.create_source(config.data, config.data.eval_split).read(0)
    modes = plan(
        config,
        image.shape[:2],
        [float(scale) for scale in values.scales],
        [int(layers) for layers in values.drop_layers],
        values.bfloat16,
    )
    whole, checkpoint = _trained(config, path)
    scores, functions = {}, {}
    for mode in modes:
        # The run's own mode is the model as it was restored.
        changed = _merged(config, mode.override)
        model = _with_weights_of(whole, changed) if mode.override else whole
        scores[mode.name] = _score(changed, model)
        functions[mode.name] = _labels_function(changed, model, image[None])
        print(f"{mode.name}: mIoU {scores[mode.name]:.4f}", file=sys.stderr)
    timings = timing.measure_interleaved(functions, values.rounds, values.warmup)
    rows = []
    for name, taken in timings.items():
        ratio = timing.ratio(taken, timings[AS_TRAINED])
        rows.append(
            {
                "mode": name,
                "latency, ms": format_spread(taken, 1e3),
                "ratio": format_number(ratio.median),
                "mIoU": f"{scores[name]:.4f}",
                "difference": f"{scores[name] - scores[AS_TRAINED]:+.4f}",
                "miou": scores[name],
                "seconds": list(taken.seconds),
            }
        )
    size = "x".join(map(str, image.shape[:2]))
    return Report(
        title=f"{config.experiment_name}: modes that keep the weights, on images of {size}",
        rules=[
            f"mIoU: as sp_transformer.evaluate scores the whole of split {config.data.eval_split!r}.",
            "Latency: one image at its own size to its labels, NumPy in, NumPy out, inference form of one size, as "
            "sp_transformer.export --inference_form --size writes it; all modes interleaved in one process. Given are "
            "the median and [first, third quartile] of the rounds; the ratio is that of the quotients of one round.",
        ],
        columns=_COLUMNS,
        rows=rows,
        notes=[],
        environment=environment.describe(),
        settings={"checkpoint": checkpoint, "rounds": values.rounds, "warmup": values.warmup},
    )


def _trained(config, path):
    """The run's model, and the name of its checkpoint without its folder."""
    from sp_transformer.model import builder

    model = builder.build_model(config)
    _, prefix = command_line.restore(model, path, config.evaluation.averaged_weights)
    return model, prefix.rpartition("/")[2]


def _merged(config, override):
    from google.protobuf import text_format

    changed = type(config).FromString(config.SerializeToString())
    text_format.Merge(override, changed)
    return changed


def _with_weights_of(trained, config):
    """The config's model with those of the trained weights that it has a place for."""
    from sp_transformer.model import builder, weights

    model = builder.build_model(config)
    stored = weights.named_variables(trained)
    for name, variable in weights.named_variables(model).items():
        variable.assign(stored[name])
    return model


def _score(config, model):
    from sp_transformer.evaluation import evaluator

    # Its tables are not what this program prints.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        return evaluator.evaluate(config, model, folder)["miou"]


def _labels_function(config, model, images):
    """A function without arguments: the labels of `images` as an export of their size computes them."""
    import tensorflow as tf

    from sp_transformer.model import inference, inference_form

    folded = inference_form.convert(model)
    labels = inference.Inference(folded, config.data, images.shape[1:3]).labels
    with inference_form.kernels():
        concrete = labels.get_concrete_function()
    # The model's variables live as long as the function does.
    return lambda keep_alive=folded: concrete(tf.constant(images)).numpy()


if __name__ == "__main__":
    command_line.run(main, define_flags)
