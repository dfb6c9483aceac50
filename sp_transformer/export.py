"""Writes a checkpoint in a form that runs without this package, and checks that it computes what the model does.

Examples:
  python -m sp_transformer.export --model_dir runs/streets --export_dir exports/streets
  python -m sp_transformer.export --model_dir runs/streets --export_dir exports/onnx --format onnx --size 512x1024
  python -m sp_transformer.export --model_dir runs/streets --export_dir exports/xla --format stablehlo --size 512x1024
"""

import os
import sys

from absl import flags

from sp_transformer import command_line, exit_codes
from sp_transformer.serving import export_options, placement, stablehlo_options
from sp_transformer.serving.runtimes import LITERT, ONNX, SAVED_MODEL, STABLEHLO

# Flags that go with one format only.
_FORMAT_OF_FLAG = {
    "inference_form": SAVED_MODEL,
    "jit_compile": SAVED_MODEL,
    "quantization": LITERT,
    "calibration_images": LITERT,
    "programs": STABLEHLO,
    "random_weights": STABLEHLO,
    "batch_size": STABLEHLO,
    "weights_dtype": STABLEHLO,
    "fold_batch_norm": STABLEHLO,
    "check_steps": STABLEHLO,
}


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    command_line.define_config_flags(values)
    command_line.define_checkpoint_flags(values)
    flags.DEFINE_enum(
        "format",
        SAVED_MODEL,
        export_options.FORMATS,
        "saved_model: for TensorFlow, any image size or one. onnx: for onnxruntime, OpenVINO, TensorRT; litert: for "
        "phones and small boards; stablehlo: for any machine with XLA. These three take one image of one size.",
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
    flags.DEFINE_string(
        "size",
        None,
        "HEIGHTxWIDTH of the images in pixels. Default: any size for saved_model, the config's for other formats. A "
        "SavedModel of one size takes one image at a time, and is faster with --inference_form.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "verify_images",
        4,
        "Images of the evaluation split, or drawn streets where it cannot be read, that the export is compared with "
        "the checkpoint on, in a fresh process. 0: no verification.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "inference_form",
        False,
        "saved_model: BatchNorm folded into the convolutions and, where this process sees no accelerator, kernels that "
        "only CPUs have. Faster, and equal to the checkpoint up to rounding: at most one pixel in 10,000 may differ.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "jit_compile",
        False,
        "saved_model of one --size: XLA compiles it on the machine that runs it, at the first call.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "quantization",
        export_options.NOT_QUANTIZED,
        export_options.QUANTIZATIONS,
        "litert: what weights are stored as. dynamic_range: int8, of which products are computed in int8; float16; "
        "int8: activations too, with ranges from images of the evaluation split.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "calibration_images",
        32,
        "litert with --quantization=int8: images that ranges are taken from.",
        lower_bound=1,
        flag_values=values,
    )
    _define_stablehlo_flags(values)
    flags.adopt_module_key_flags(command_line, values)


def _define_stablehlo_flags(values):
    flags.DEFINE_list(
        "programs",
        list(stablehlo_options.ANY_SIZE),
        "stablehlo: programs to write, of forward (images to labels), logits, superpixels, backbone, hypercolumn, "
        "tokenizer, classifier (the model up to and with that stage) and train_step. The first three are needed for "
        "the verification.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "random_weights",
        None,
        "stablehlo: exports freshly drawn weights of this seed, in place of a checkpoint's.",
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
    """Exports as the flags say; returns the exit code: 1 if the export is not what the checkpoint computes."""
    command_line.require(values, "export_dir")
    for name, model_format in _FORMAT_OF_FLAG.items():
        if values[name].present and values.format != model_format:
            raise command_line.UsageError(
                f"--{name} goes with --format={model_format}; {values.format} has no such choice"
            )
    path = _weights_path_or_none(values)
    options = _options(values)
    config = command_line.load_config(values)
    if options.format in (ONNX, LITERT):
        config = _in_float32(config)
    export_options.check(config, options)
    # Before the model is built, which takes longer.
    placement.check_export_dir(values.export_dir, options.format, options.overwrite)
    # The verification's process needs memory of the same GPU, if there is one.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # TensorFlow takes seconds to import: only once flags and config are known to be good.
    import keras

    from sp_transformer.model import builder
    from sp_transformer.serving import export, verification

    if path is None:
        keras.utils.set_random_seed(values.random_weights)
    model = builder.build_model(config)
    source = {"weights": f"random, seed {values.random_weights}"}
    if path is not None:
        step, checkpoint = command_line.restore(model, path, config.evaluation.averaged_weights)
        source = {"checkpoint": checkpoint, "step": step}
    try:
        export.export_model(config, model, values.export_dir, options, **source)
    except verification.VerificationError as error:
        print(f"export: nothing was exported: {error}", file=sys.stderr)
        return exit_codes.FAILED
    return exit_codes.DONE


def _options(values) -> export_options.ExportOptions:
    size = stablehlo_options.parse_size(values.size) if values.size else None
    programs = None
    if values.format == STABLEHLO:
        programs = stablehlo_options.StableHLOOptions(
            programs=tuple(values.programs),
            size=size,
            batch_size=values.batch_size,
            weights_dtype=values.weights_dtype,
            fold_batch_norm=values.fold_batch_norm,
            check_steps=values.check_steps,
        )
    return export_options.ExportOptions(
        format=values.format,
        image_size=size,
        inference_form=values.inference_form,
        jit_compile=values.jit_compile,
        quantization=values.quantization,
        calibration_images=values.calibration_images,
        overwrite=values.overwrite,
        verify_images=values.verify_images,
        stablehlo=programs,
    )


def _in_float32(config):
    """The config with computation in float32, as the runtimes of some formats have no bfloat16."""
    changed = type(config)()
    changed.CopyFrom(config)
    changed.training.precision = type(changed.training).FLOAT32
    return changed


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
