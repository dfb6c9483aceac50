"""Writes a checkpoint in a form that runs without this package, and checks that it computes what the model does.

Examples:
  python -m sp_transformer.export --model_dir runs/streets --export_dir exports/streets
  python -m sp_transformer.export --model_dir runs/streets --export_dir exports/xla --format stablehlo --size 512x1024
"""

from absl import flags

from sp_transformer import command_line
from sp_transformer.serving import stablehlo_options

SAVED_MODEL = "saved_model"
STABLEHLO = "stablehlo"
# A flag that the other format has no use for.
SAVED_MODEL_ONLY = "inference_form"
# Flags that a SavedModel has no use for.
_STABLEHLO_FLAGS = (
    "programs",
    "random_weights",
    "batch_size",
    "weights_dtype",
    "fold_batch_norm",
    "check_steps",
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    command_line.define_config_flags(values)
    command_line.define_checkpoint_flags(values)
    flags.DEFINE_enum(
        "format",
        SAVED_MODEL,
        [SAVED_MODEL, STABLEHLO],
        "saved_model: for TensorFlow, any image size or one. stablehlo: compiled programs of one image and batch size "
        "for any machine with XLA; scripts/run_stablehlo.py runs them.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "export_dir",
        None,
        "Folder that the export is written to; it must be new or empty. Required.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Replaces the export of the same format that export_dir already holds, once the new one is written and "
        "checked.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        SAVED_MODEL_ONLY,
        False,
        "saved_model: BatchNorm folded into the convolutions and, where this process sees no accelerator, kernels that "
        "only CPUs have. Faster, and equal to the checkpoint up to rounding: at most one pixel in 10,000 may differ.",
        flag_values=values,
    )
    _define_stablehlo_flags(values)
    flags.adopt_module_key_flags(command_line, values)


def _define_stablehlo_flags(values):
    flags.DEFINE_list(
        "programs",
        ["forward", "logits"],
        "stablehlo: programs to write, of forward (images to labels), logits, backbone, hypercolumn, tokenizer, "
        "classifier (the model up to and with that stage) and train_step.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "random_weights",
        None,
        "stablehlo: exports freshly drawn weights of this seed, in place of a checkpoint's.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "size",
        None,
        "HEIGHTxWIDTH of the images in pixels. Default: any size for saved_model, the config's for stablehlo. A "
        "SavedModel of one size takes one image at a time, and is faster with --inference_form.",
        flag_values=values,
    )
    flags.DEFINE_integer("batch_size", 1, "stablehlo: images in a batch.", flag_values=values)
    flags.DEFINE_string(
        "weights_dtype",
        "float32",
        "stablehlo: float32 or bfloat16, which stores rounded weights in half the space. What is computed in is the "
        "config's training.precision.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "fold_batch_norm",
        True,
        "stablehlo: folds BatchNorm into the convolutions of all programs but train_step.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "check_steps",
        3,
        "stablehlo: training steps to run here, whose losses are stored for the check there; 0 for none.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> int:
    """Exports as the flags say; returns the exit code."""
    command_line.require(values, "export_dir")
    if values.format == STABLEHLO:
        return _export_stablehlo(values)
    given = [name for name in _STABLEHLO_FLAGS if values[name].present]
    if given:
        raise command_line.UsageError(
            f"--{given[0]} goes with --format={STABLEHLO}; a SavedModel has no such choice"
        )
    image_size = stablehlo_options.parse_size(values.size) if values.size else None
    path = command_line.weights_path(values)
    config = command_line.load_config(values)
    # TensorFlow takes seconds to import: only once flags and config are known to be good.
    from sp_transformer.model import builder
    from sp_transformer.serving import export

    # Before the model is built, which takes longer.
    export.check_export_dir(values.export_dir, values.overwrite)
    model = builder.build_model(config)
    step, checkpoint = command_line.restore(model, path, config.evaluation.averaged_weights)
    export.export_saved_model(
        config,
        model,
        values.export_dir,
        overwrite=values.overwrite,
        in_inference_form=values.inference_form,
        image_size=image_size,
        checkpoint=checkpoint,
        step=step,
    )
    return 0


def _export_stablehlo(values):
    if values[SAVED_MODEL_ONLY].present:
        raise command_line.UsageError(
            f"--{SAVED_MODEL_ONLY} goes with --format={SAVED_MODEL}; for {STABLEHLO} there is --fold_batch_norm"
        )
    path = _weights_path_or_none(values)
    options = stablehlo_options.StableHLOOptions(
        programs=tuple(values.programs),
        size=stablehlo_options.parse_size(values.size) if values.size else None,
        batch_size=values.batch_size,
        weights_dtype=values.weights_dtype,
        fold_batch_norm=values.fold_batch_norm,
        check_steps=values.check_steps,
        overwrite=values.overwrite,
    )
    config = command_line.load_config(values)
    stablehlo_options.check(config, options)
    stablehlo_options.check_export_dir(values.export_dir, values.overwrite)
    # TensorFlow takes seconds to import: only once flags and config are known to be good.
    import keras

    from sp_transformer.model import builder
    from sp_transformer.serving import stablehlo

    if path is None:
        keras.utils.set_random_seed(values.random_weights)
    model = builder.build_model(config)
    about = {"weights": f"random, seed {values.random_weights}"}
    if path is not None:
        step, checkpoint = command_line.restore(model, path, config.evaluation.averaged_weights)
        about = {"checkpoint": str(checkpoint), "step": int(step)}
    stablehlo.export_stablehlo(config, model, values.export_dir, options, about)
    return 0


def _weights_path_or_none(values):
    """The checkpoint or model_dir, or None for random weights."""
    if values.random_weights is None:
        return command_line.weights_path(values)
    if values.checkpoint or values.model_dir:
        raise command_line.UsageError(
            "--random_weights takes the place of --checkpoint and --model_dir; give one of them"
        )
    if not 0 <= values.random_weights < 2**32:
        raise command_line.UsageError(
            f"--random_weights {values.random_weights} is no seed; seeds are 0 to {2**32 - 1}"
        )
    command_line.require(values, "config_file")
    return None


if __name__ == "__main__":
    command_line.run(main, define_flags)
