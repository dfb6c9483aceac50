"""Runs an exported SavedModel on images and draws what it sees. Needs TensorFlow, NumPy and Pillow;
no Keras, no config.

Shapes: Y, X are the height and width of one image in pixels.
"""

import collections
import dataclasses
import glob
import json
import os
import pathlib
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from sp_transformer.config import label_map as label_maps
from sp_transformer.data import drawing, image_io

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LEGEND = "legend.png"
_LABEL_MAP = pathlib.PurePath("assets.extra", "label_map.json")
_SECONDS_BETWEEN_PROGRESS_LINES = 10.0
_OVERLAY_ALPHA = 0.5
_BOUNDARY_COLOR = (255, 255, 0)


@dataclasses.dataclass(frozen=True)
class PredictSummary:
    """What came of a run.

    Attributes:
      predicted: the images that were predicted.
      failed: (image, reason) of those that were skipped.
      seconds: wall time from the first image to the last, loading the model left out.
    """

    predicted: list[pathlib.Path]
    failed: list[tuple[pathlib.Path, str]]
    seconds: float


def predict(saved_model_dir, inputs: str | Sequence[str], output_dir) -> PredictSummary:
    """Predicts images and writes, for each of them, three pictures of its own size.

    NAME_labels.png holds train ids (8-bit; 16-bit for more than 255 classes), NAME_overlay.png the
    image blended with the colours of its classes, NAME_superpixels.png the image with the outlines
    of the superpixels. NAME is the image's name without its ending, or with it where two images of
    a folder differ only there. Folders below the input folder (or below the wildcard-free part of a
    glob) are kept below `output_dir`, so equal names in them do not collide.

    Args:
      saved_model_dir: what export_saved_model wrote.
      inputs: an image, a folder (searched with its subfolders), a glob ("**" for any depth), or
        several of these.
      output_dir: made if missing.

    Returns:
      The summary; images that cannot be read are listed there and skipped.

    Raises:
      ValueError: if the model or the inputs are missing or unfit, an output would overwrite an
        input or another output, or no image at all could be predicted.
    """
    output_dir = pathlib.Path(output_dir)
    targets = plan_outputs(
        [inputs] if isinstance(inputs, str | os.PathLike) else inputs, output_dir
    )
    label_map = read_label_map(saved_model_dir)
    loaded = _load(saved_model_dir)
    signature = loaded.signatures["superpixels"]
    predicted, failed = [], []
    start = last_line = time.monotonic()
    for number, (path, stem) in enumerate(targets, 1):
        try:
            image = image_io.read_image(path)
            _check_size(image, signature)
            outputs = signature(images=tf.constant(image[None]))
            labels, superpixels = (outputs[key][0].numpy() for key in ("labels", "superpixels"))
        except (ValueError, tf.errors.ResourceExhaustedError) as error:
            reason = str(error).splitlines()[0]
            logging.warning("skipped %s: %s", path, reason)
            failed.append((path, reason))
            continue
        _write_outputs(stem, image, labels, superpixels, label_map)
        predicted.append(path)
        now = time.monotonic()
        if now - last_line >= _SECONDS_BETWEEN_PROGRESS_LINES:
            last_line = now
            rate = len(predicted) / (now - start)
            logging.info("%d of %d images, %.2f images/s", number, len(targets), rate)
    summary = PredictSummary(predicted, failed, time.monotonic() - start)
    if predicted:
        image_io.write_png(output_dir / LEGEND, drawing.legend(label_map))
    else:
        listing = "\n".join(f"  {path}: {reason}" for path, reason in failed)
        raise ValueError(f"none of the {len(failed)} images could be predicted:\n{listing}")
    _print_summary(summary, output_dir)
    return summary


def plan_outputs(
    inputs: Sequence[str], output_dir: pathlib.Path
) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Finds the images and decides where the results of each go.

    Returns:
      (image, output path up to and without "_labels.png" and its like), sorted by image.

    Raises:
      ValueError: if an input matches no image, or two files would be written to one place, or over
        an input.
    """
    found = {}
    for entry in inputs:
        root, paths = _find_images(str(entry), output_dir)
        for path in paths:
            # Not resolved: two links to one file are two images with names of their own.
            found.setdefault(path.absolute(), (path, path.relative_to(root)))
    folders = collections.defaultdict(list)
    for _, relative in found.values():
        folders[relative.parent].append(relative.name)
    targets, taken = [], {}
    for path, relative in sorted(found.values()):
        # Case is folded, because some file systems do not tell A_labels.png from a_labels.png.
        names = [name.casefold() for name in folders[relative.parent]]
        stems = [os.path.splitext(name)[0] for name in names]
        stem = relative.stem.casefold()
        unique = stems.count(stem) == 1 and stem not in names
        target = output_dir / relative.parent / (relative.stem if unique else relative.name)
        if target in taken:
            raise ValueError(
                f"the results of {str(path)!r} and {str(taken[target])!r} would have the same "
                "name; predict them into different output folders"
            )
        taken[target] = path
        targets.append((path, target))
    resolved = {path.resolve() for path in found}
    for path, target in targets:
        for output in output_paths(target):
            if output.resolve() in resolved:
                raise ValueError(
                    f"the result {str(output)!r} of {str(path)!r} would overwrite an input; "
                    "name another output_dir"
                )
    return targets


def output_paths(target: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
    """The files that one image leads to: labels, overlay, superpixels."""
    return tuple(
        target.with_name(f"{target.name}_{kind}.png")
        for kind in ("labels", "overlay", "superpixels")
    )


def read_label_map(saved_model_dir) -> label_maps.LabelMap:
    """The class names and colours that travel with an export.

    Raises:
      ValueError: if `saved_model_dir` is not an export of this project.
    """
    path = pathlib.Path(saved_model_dir) / _LABEL_MAP
    if not (path.parents[1] / "saved_model.pb").exists():
        raise ValueError(
            f"model {str(saved_model_dir)!r} is not a SavedModel: it has no file saved_model.pb; "
            "name the folder that sp_transformer.export wrote"
        )
    try:
        contents = json.loads(path.read_text())
        return label_maps.LabelMap(
            names=tuple(entry["name"] for entry in contents["classes"]),
            colors=np.array(
                [label_maps.parse_color(entry["color"]) for entry in contents["classes"]], np.uint8
            ),
            ignore_label=contents["ignore_label"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"class names and colours cannot be read from {str(path)!r} "
            f"({type(error).__name__}: {error}); export the model again with sp_transformer.export"
        ) from error


def _load(saved_model_dir):
    """The SavedModel, checked to be one that gives labels and superpixels."""
    loaded = tf.saved_model.load(str(saved_model_dir))
    if "superpixels" not in loaded.signatures:
        raise ValueError(
            f"model {str(saved_model_dir)!r} has no signature 'superpixels', only "
            f"{sorted(loaded.signatures)}; export it with sp_transformer.export"
        )
    return loaded


def _check_size(image, signature) -> None:
    """Raises ValueError if the model was exported for images of another size."""
    taken = signature.structured_input_signature[1]["images"].shape[1:3]
    if not taken.is_compatible_with(image.shape[:2]):
        sizes = ["x".join(map(str, size)) for size in (image.shape[:2], taken)]
        raise ValueError(
            f"the image is {sizes[0]} and the model was exported for {sizes[1]} pixels; resize the "
            "image, or export the model without --size"
        )


def _find_images(entry: str, output_dir: pathlib.Path) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The folder that names are relative to, and the images of one input."""
    path = pathlib.Path(entry)
    if path.is_file():
        return path.parent, [path]
    is_folder = path.is_dir()
    if is_folder:
        root = path
        found = [file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES]
    elif glob.has_magic(entry):
        parts = list(path.parts)
        while any(glob.has_magic(part) for part in parts):
            parts.pop()
        root = pathlib.Path(*parts)
        found = [pathlib.Path(match) for match in glob.glob(entry, recursive=True)]
    else:
        raise ValueError(
            f"input {entry!r} does not exist; name an image, a folder or a quoted glob"
        )
    results = output_dir.resolve()
    if results == root.resolve():
        raise ValueError(
            f"output_dir {str(output_dir)!r} is the folder of the input {entry!r}, where results "
            "would be taken for images next time; name another output_dir"
        )
    if results.is_relative_to(root.resolve()):
        # What an earlier run wrote into a subfolder of the input is not to be predicted.
        found = [file for file in found if not file.resolve().is_relative_to(results)]
    found = [file for file in found if file.is_file()]
    if not found:
        what = f"holds no image ({', '.join(IMAGE_SUFFIXES)})" if is_folder else "matches no file"
        raise ValueError(f"input {entry!r} {what}")
    return root, found


def _write_outputs(target, image, labels, superpixels, label_map) -> None:
    """Writes the three pictures of one image.

    Args:
      target: output path up to and without "_labels.png".
      image: uint8 [Y, X, 3].
      labels: int32 [Y, X] of train ids.
      superpixels: int32 [Y, X] of superpixel ids.
      label_map: the LabelMap.
    """
    labels_path, overlay_path, superpixels_path = output_paths(target)
    # By the number of classes, not by the ids seen: all files of a model are of one type.
    narrow = len(label_map.names) <= 255
    image_io.write_png(labels_path, labels.astype(np.uint8 if narrow else np.uint16))
    overlay = drawing.blend(image, drawing.colorize(labels, label_map), _OVERLAY_ALPHA)
    image_io.write_png(overlay_path, overlay)
    image_io.write_png(
        superpixels_path, drawing.draw_boundaries(image, superpixels, _BOUNDARY_COLOR)
    )


def _print_summary(summary: PredictSummary, output_dir: pathlib.Path) -> None:
    rate = len(summary.predicted) / summary.seconds
    print(
        f"{len(summary.predicted)} images predicted into {output_dir}, {rate:.2f} images/s, "
        f"{len(summary.failed)} skipped"
    )
    for path, reason in summary.failed:
        print(f"  skipped {path}: {reason}")
