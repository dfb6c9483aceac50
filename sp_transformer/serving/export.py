"""Writes a model as a SavedModel that plain TensorFlow runs, without Keras or this package.

Shapes: B images; Y, X their height and width in pixels, any.
"""

import contextlib
import os
import pathlib
import shutil

import numpy as np
import tensorflow as tf
from absl import logging

from sp_transformer import version
from sp_transformer.config import derived
from sp_transformer.data import sources
from sp_transformer.model import inference as inference_lib
from sp_transformer.serving import assets, saved_model

_VERIFIED_SOURCE_IMAGES = 2
# Rounding decides between two classes that are as good as equally likely.
_INFERENCE_FORM_TOLERANCE = 1e-4


def export_saved_model(
    config,
    model,
    export_dir,
    *,
    overwrite=False,
    in_inference_form=False,
    image_size=None,
    jit_compile=False,
    checkpoint=None,
    step=None,
) -> pathlib.Path:
    """Saves `model` to `export_dir` and checks that what was saved labels images as the model does.

    Everything happens in a hidden folder beside `export_dir`, which is moved into place once the
    check has passed: whoever sees `export_dir` sees a whole, checked export.

    Args:
      config: a validated ExperimentOptions; copied to assets.extra/config.textproto.
      model: a built SPTransformer with the weights to be exported.
      export_dir: where to; must not exist, be empty, or be an older export with `overwrite`.
      overwrite: whether an older export may be replaced.
      in_inference_form: whether what is saved is the faster form of model/inference_form.py, for the kind of device
        that this process sees. It equals the model up to rounding: the check lets one pixel in 10,000 differ.
      image_size: (Y, X) in pixels of the only images that the export takes, one at a time; None for any batch of any
        size. Faster in inference form, as more can be compiled.
      jit_compile: whether XLA compiles the export on the machine that runs it; goes with an image_size.
      checkpoint: name of the checkpoint, written to assets.extra/version.json.
      step: training step of the weights, written there too.

    Returns:
      export_dir as a path.

    Raises:
      ValueError: if `export_dir` is in use.
      RuntimeError: if the saved model labels pixels otherwise than the model. Nothing is left
        behind then.
    """
    export_dir = pathlib.Path(export_dir).absolute()
    check_export_dir(export_dir, overwrite)
    export_dir.parent.mkdir(parents=True, exist_ok=True)
    inference = inference_lib.Inference(model, config.data)
    temporary = export_dir.with_name(f".{export_dir.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        saved_model.write(
            config,
            model,
            temporary,
            in_inference_form=in_inference_form,
            image_size=image_size,
            jit_compile=jit_compile,
        )
        about = {
            "sp_transformer": version.__version__,
            "tensorflow": tf.__version__,
            "experiment_name": config.experiment_name,
            "format": "saved_model",
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "step": None if step is None else int(step),
            "inference_form": in_inference_form,
            "image_size": None if image_size is None else list(image_size),
        }
        assets.write(temporary, config, derived.label_map(config), about)
        tolerance = _INFERENCE_FORM_TOLERANCE if in_inference_form else 0.0
        verdict = _verify(config, inference, temporary, tolerance, image_size)
        _move_into_place(temporary, export_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"{export_dir}: {verdict}", flush=True)
    return export_dir


def check_export_dir(export_dir, overwrite: bool) -> None:
    """Refuses a folder that is in use; cheap, so that binaries can ask before they build a model.

    Raises:
      ValueError: if `export_dir` is a file, or holds something, unless that is an export and
        `overwrite` is set.
    """
    export_dir = pathlib.Path(export_dir)
    if export_dir.exists() and not export_dir.is_dir():
        raise ValueError(f"export_dir {str(export_dir)!r} is a file; name a folder")
    if not export_dir.is_dir() or not any(export_dir.iterdir()):
        return
    if not (export_dir / "saved_model.pb").exists():
        raise ValueError(
            f"export_dir {str(export_dir)!r} holds files that are no SavedModel, so it is not "
            "replaced, with or without --overwrite; name a new folder"
        )
    if not overwrite:
        raise ValueError(
            f"export_dir {str(export_dir)!r} already holds a SavedModel; "
            "name a new folder, or replace it with --overwrite"
        )


def _move_into_place(temporary: pathlib.Path, export_dir: pathlib.Path) -> None:
    """Renames, because a rename within one folder is whole or not at all."""
    old = export_dir.with_name(f".{export_dir.name}.{os.getpid()}.old")
    if not export_dir.exists():
        os.rename(temporary, export_dir)
        return
    os.rename(export_dir, old)
    try:
        os.rename(temporary, export_dir)
    except OSError:
        os.rename(old, export_dir)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _verify(config, inference, folder: pathlib.Path, tolerance: float, image_size=None) -> str:
    """Compares every signature of the saved model with the model itself, pixel by pixel.

    Args:
      config: the ExperimentOptions.
      inference: the Inference of the model.
      folder: of the saved model.
      tolerance: share of an image's pixels that may differ.
      image_size: (Y, X) that the saved model takes, which images are cut or padded to; None for any.

    Returns:
      One line that says what was compared.

    Raises:
      RuntimeError: if more labels or superpixel ids differ.
    """
    loaded = tf.saved_model.load(str(folder))
    images, origin = _verification_images(config)
    if image_size is not None:
        images = [_cut_or_padded(image, image_size) for image in images]
    worst = 0.0
    for number, image in enumerate(images):
        batch = tf.constant(image[None])
        labels, superpixels = inference.labels_and_superpixels(batch)
        both = loaded.signatures["superpixels"](images=batch)
        comparisons = (
            (
                "labels",
                inference.labels(batch),
                loaded.signatures["serving_default"](images=batch)["labels"],
            ),
            ("labels beside superpixels", labels, both["labels"]),
            ("superpixels", superpixels, both["superpixels"]),
        )
        for name, expected, saved in comparisons:
            different = int(np.sum(expected.numpy() != saved.numpy()))
            worst = max(worst, different / saved.numpy().size)
            if different > tolerance * saved.numpy().size:
                raise RuntimeError(
                    f"the saved model's {name} differ from the model's at {different} of "
                    f"{saved.numpy().size} pixels of image {number} "
                    f"({image.shape[0]}x{image.shape[1]}, {origin}); nothing was exported"
                )
    sizes = ", ".join(f"{image.shape[0]}x{image.shape[1]}" for image in images)
    agreement = (
        f"differ from the model's at {worst:.4%} of the pixels at most, in {origin} ({sizes})"
    )
    if not worst:
        agreement = f"equal the model's on every pixel of {origin} ({sizes})"
    return f"reloaded; labels and superpixels {agreement}"


def _cut_or_padded(image, size):
    image = image[: size[0], : size[1]]
    below, right = size[0] - image.shape[0], size[1] - image.shape[1]
    return np.pad(image, [(0, below), (0, right), (0, 0)], mode="symmetric")


def _verification_images(config) -> tuple[list[np.ndarray], str]:
    """A few images of the evaluation split, if it can be read here, and one of an odd size.

    Returns:
      uint8 [Y, X, 3] images and words for what they are.
    """
    height, width = derived.input_size(config)
    noise = np.random.default_rng(0).integers(
        0, 256, (max(height - 5, 8), max(width - 3, 8), 3), np.uint8
    )
    # The data need not be there where a model is exported; that must not stop the export.
    with contextlib.suppress(OSError, ValueError):
        source = sources.create_source(config.data, config.data.eval_split)
        count = min(_VERIFIED_SOURCE_IMAGES, len(source))
        images = [source.read(index)[0] for index in range(count)]
        if images:
            return (
                [*images, noise],
                f"{count} images of split {config.data.eval_split!r} and 1 of noise",
            )
    logging.info("the evaluation split cannot be read here; the export is checked on noise")
    return [noise, noise[: height // 2 + 1]], "2 images of noise"
