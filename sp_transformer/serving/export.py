"""Writes a checkpoint in a form that runs without this package, and proves that it computes what the model does."""

import dataclasses
import os
import pathlib
import shutil

import tensorflow as tf

from sp_transformer import version
from sp_transformer.config import derived, resizing
from sp_transformer.model import inference as inference_lib
from sp_transformer.serving import (
    assets,
    export_options,
    litert_model,
    onnx_model,
    placement,
    provenance,
    saved_model,
    stablehlo,
    verification,
)
from sp_transformer.serving.runtimes import LITERT, ONNX, SAVED_MODEL, STABLEHLO


def export_model(
    config, model, export_dir, options=None, *, checkpoint=None, step=None, weights=None
) -> pathlib.Path:
    """Writes `model` to `export_dir` and checks, in a fresh process, that it computes there what it does here.

    Everything happens in a hidden folder beside `export_dir`, which is moved into place once the check has passed:
    whoever sees `export_dir` sees a whole, checked export.

    Args:
      config: a validated ExperimentOptions; copied to assets.extra/config.textproto.
      model: a built SPTransformer with the weights to be exported.
      export_dir: where to; must not exist, be empty, or be an older export of the format with `options.overwrite`.
      options: the ExportOptions; a SavedModel by default.
      checkpoint: prefix of the checkpoint, written to assets.extra/version.json with what its folder tells of the run;
        the checkpoint's metrics.json is copied beside it.
      step: training step of the weights, written there too.
      weights: words for where weights without a checkpoint come from.

    Returns:
      export_dir as an absolute path, links followed.

    Raises:
      ValueError: if options do not fit, or `export_dir` is in use.
      OSError: if a file cannot be written; a finished export that cannot be moved into place is kept, and named.
      VerificationError: if the export differs from the model by more than serving/tolerances.py allows, or does not
        run. Nothing is left behind then.
    """
    options = options or export_options.ExportOptions()
    export_options.check(config, options)
    if options.format != SAVED_MODEL:
        size = options.image_size or derived.input_size(config)
        options = dataclasses.replace(options, image_size=size)
    # Where a link points: the finished export is to lie there, on that disk, and not in place of the link.
    export_dir = pathlib.Path(export_dir).resolve()
    placement.check_export_dir(export_dir, options.format, options.overwrite)
    export_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = export_dir.with_name(f".{export_dir.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    source = {
        "checkpoint": checkpoint and str(checkpoint),
        "step": None if step is None else int(step),
        **({"weights": weights} if weights else {}),
    }
    about = {
        **_about(config, model, options),
        **source,
        **provenance.of_exporter(),
        **provenance.of_run(checkpoint, step),
    }
    try:
        if options.format == STABLEHLO:
            stablehlo.write(config, model, temporary, options.stablehlo, source)
        else:
            _WRITERS[options.format](config, model, temporary, options)
        metrics = provenance.metrics(checkpoint, step)
        about[placement.FILES] = placement.own_files(temporary)
        assets.write(temporary, config, derived.label_map(config), about, metrics)
        inference = inference_lib.Inference(model, config.data)
        report = verification.verify(config, inference, temporary, options)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    try:
        placement.move_into_place(temporary, export_dir, options.format)
    except OSError as error:
        raise OSError(
            f"the export is finished, and cannot be moved to {export_dir}: {error}. It is kept in {temporary}"
        ) from error
    shutil.rmtree(temporary, ignore_errors=True)
    print(f"{export_dir}: {verification.verdict(report)}", flush=True)
    return export_dir


def _about(config, model, options):
    """What version.json says of the export itself."""
    size = options.image_size
    about = {
        "sp_transformer": version.__version__,
        "tensorflow": tf.__version__,
        "experiment_name": config.experiment_name,
        "format": options.format,
        "image_size": size and list(size),
    }
    if size:
        about["superpixel_grid"] = _superpixel_grid(config, model, size)
    if options.format == SAVED_MODEL:
        about |= {
            "inference_form": options.inference_form,
            "jit_compile": options.jit_compile,
        }
    if options.format == LITERT:
        about["quantization"] = options.quantization
    return about


_WRITERS = {
    SAVED_MODEL: saved_model.write,
    ONNX: onnx_model.write,
    LITERT: litert_model.write,
}


def _superpixel_grid(config, model, size):
    """[R, C] of images of that size, which the model resizes and pads first."""
    multiple, stride = model.size_multiple, model.superpixel_stride
    resized = resizing.resized_size(*size, config.data)
    return [-(-int(side) // multiple) * multiple // stride for side in resized]
