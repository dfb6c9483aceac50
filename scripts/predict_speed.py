"""Times `predict` on a folder of images against the model alone on the same images, in one run.

    python scripts/predict_speed.py --config_file configs/cityscapes/resnet50.textproto --json results/predict.json

The model has random weights, whose values do not matter for time. It is exported, or taken from --model, and opened
once.
"""

import pathlib
import sys
import tempfile

from absl import flags

from sp_transformer import command_line
from sp_transformer.serving import stablehlo_options

MODEL, PREDICT = "model alone", "predict"
_NOISE = 3.0
_COLUMNS = ["what", "seconds", "images/s", "ratio"]


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags in `values`."""
    command_line.define_config_flags(values)
    command_line.define_timing_flags(values, rounds=2, warmup=0)
    flags.DEFINE_string(
        "model",
        None,
        "Export to measure. Default: the config's model with random weights, as SavedModel.",
        flag_values=values,
    )
    flags.DEFINE_string("size", "512x1024", "HEIGHTxWIDTH of the images.", flag_values=values)
    flags.DEFINE_integer("images", 100, "Number of images.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool(
        "inference_form", True, "Exports the faster form of the model.", flag_values=values
    )


def main(values: flags.FlagValues) -> int:
    """Measures as the flags say; returns the exit code."""
    command_line.require(values, "config_file")
    size = stablehlo_options.parse_size(values.size)
    config = command_line.load_config(values)
    from sp_transformer.benchmarking import report, timing

    timing.check_rounds(values.rounds, values.warmup)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(config, values, size, pathlib.Path(folder))
    print(report.table(result))
    if values.json:
        report.write_json(result, values.json)
    return 0


def measure(config, values, size, folder):
    """A Report of both.

    Args:
      config: the ExperimentOptions.
      values: the parsed flags.
      size: (Y, X) of the images in pixels.
      folder: an empty folder for the export, the images and the predictions.
    """
    from sp_transformer import environment
    from sp_transformer.benchmarking import timing
    from sp_transformer.benchmarking.report import Report, format_number, format_spread
    from sp_transformer.data import image_io
    from sp_transformer.serving import predict, runtimes

    runtime = runtimes.open_model(values.model or _export(config, values, folder / "export"))
    paths = _write_images(folder / "images", size, values.images)
    images = [image_io.read_image(path) for path in paths]

    def model_alone():
        for image in images:
            runtime.run(image[None])

    def whole():
        predict.predict(runtime, str(folder / "images"), folder / "predictions")

    # What a first image sets up is neither's time.
    runtime.run(images[0][None])
    timings = timing.measure_interleaved(
        {MODEL: model_alone, PREDICT: whole},
        values.rounds,
        values.warmup,
        progress=lambda done, total: print(f"round {done} of {total}", file=sys.stderr),
    )
    ratio = timing.ratio(timings[PREDICT], timings[MODEL])
    rows = [
        {
            "what": name,
            "seconds": format_spread(taken),
            "images/s": format_number(len(images) / taken.median),
            "ratio": format_spread(ratio) if name == PREDICT else "1",
            "all_seconds": list(taken.seconds),
        }
        for name, taken in timings.items()
    ]
    rows[-1]["ratios"] = list(ratio.values)
    return Report(
        title=f"{config.experiment_name}: predict against its model on {len(images)} images of {values.size}",
        rules=[
            "Model alone: one image after the other, already decoded, through the export's outputs that predict asks "
            "for; NumPy in, NumPy out.",
            "Predict: the same images from PNG files (drawn streets with noise, as photographs have it) to the outputs "
            "that it writes by default: label map, overlay, superpixel outlines and table. Opening the model is left "
            "out.",
            "Interleaved in one process: each round runs both over all images, beginning with the other one each time.",
            "Given are the median and [first, third quartile] of the rounds; the ratio is that of the quotients of the "
            "same round.",
            "Weights: random. Inference form, unless --model names another export."
            if values.inference_form
            else "Weights: random, the plain form.",
        ],
        columns=_COLUMNS,
        rows=rows,
        notes=[f"predict takes {format_number(ratio.median)} times as long as its model alone."],
        environment=environment.describe(),
        settings={"images": len(images), "rounds": values.rounds, "warmup": values.warmup},
    )


def _export(config, values, folder):
    import keras

    from sp_transformer.model import builder
    from sp_transformer.serving import export, export_options

    keras.utils.set_random_seed(0)
    model = builder.build_model(config)
    # Random weights need no proof.
    options = export_options.ExportOptions(inference_form=values.inference_form, verify_images=0)
    return export.export_model(config, model, folder, options, weights="random")


def _write_images(folder, size, count):
    import numpy as np

    from sp_transformer.data import image_io, sources
    from sp_transformer.protos import data_pb2

    options = data_pb2.DataOptions(dataset="synthetic_streets", eval_split="val")
    options.synthetic_streets.height, options.synthetic_streets.width = size
    options.synthetic_streets.val_images = count
    source = sources.create_source(options, "val")
    generator = np.random.default_rng(0)
    paths = []
    for index in range(count):
        image, _ = source.read(index)
        image = np.clip(image + generator.normal(0, _NOISE, image.shape), 0, 255).astype(np.uint8)
        paths.append(folder / f"{index:04}.png")
        image_io.write_png(paths[-1], image)
    return paths


if __name__ == "__main__":
    command_line.run(main, define_flags)
