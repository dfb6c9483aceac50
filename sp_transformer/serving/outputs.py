"""What is written of an image or of a video's frame.

Shapes: Y, X are the height and width of one image in pixels. Importing this imports no TensorFlow.
"""

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from sp_transformer.data import drawing, image_io
from sp_transformer.pictures import panels

LABELS = "labels"
TABLE = "json"
PANEL = "panel"
ERRORS = "errors"
LEGEND = "legend.png"
ERROR_LEGEND = "legend_errors.png"
_OVERLAY_ALPHA = 0.5
_BOUNDARY_COLOR = (255, 255, 0)


def _overlay(prediction, label_map):
    colors = drawing.colorize(prediction.labels, label_map)
    return drawing.blend(prediction.image, colors, _OVERLAY_ALPHA)


def _superpixels(prediction, _):
    # Opaque, dark lines as wide as the light ones would leave little to be seen of a small image.
    is_small = max(prediction.image.shape) < panels.MIN_SIDE
    return drawing.draw_boundaries(
        prediction.image,
        prediction.superpixels,
        _BOUNDARY_COLOR,
        outline_alpha=0.5 if is_small else 1.0,
    )


def _panel(prediction, label_map):
    return panels.segmentation_panel(
        prediction.image, prediction.labels, prediction.superpixels, label_map, prediction.truth
    )


def _mean_color(prediction, _):
    return panels.mean_colors(prediction.image, prediction.superpixels)


def _confidence(prediction, _):
    table = prediction.table
    if table.confidence is None:
        raise ValueError(
            "this export tells no confidence; export the model anew, or leave out that output"
        )
    confidence = np.zeros(int(table.ids.max()) + 1, np.float32)
    confidence[table.ids] = table.confidence
    return panels.confidence_map(confidence[prediction.superpixels])


def _errors(prediction, label_map):
    return panels.error_map(
        prediction.truth, prediction.labels, label_map.ignore_label, prediction.image
    )


# Prediction and LabelMap -> uint8 [y, x, 3], of the image's size but for scales and frames around it.
PICTURES = {
    "overlay": _overlay,
    "superpixels": _superpixels,
    PANEL: _panel,
    "mean_color": _mean_color,
    "confidence": _confidence,
    ERRORS: _errors,
}
NAMES = (LABELS, *PICTURES, TABLE)
DEFAULT = (LABELS, "overlay", "superpixels", TABLE)
# What shows ground truth.
OF_TRUTH = (PANEL, ERRORS)


def chosen(names: Sequence[str] | None, with_truth: bool = False) -> tuple[str, ...]:
    """The outputs that are written: those named, else DEFAULT, and OF_TRUTH where there is ground truth.

    Raises:
      ValueError: if there is no output, one that does not exist, or ground truth is needed by an output and not there,
        or there and shown by none.
    """
    if names is None:
        return DEFAULT + (OF_TRUTH if with_truth else ())
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        what = f"output {unknown[0]!r} does not exist" if unknown else "no output was named"
        raise ValueError(f"{what}; there are {', '.join(NAMES)}")
    if ERRORS in names and not with_truth:
        raise ValueError(f"output {ERRORS!r} needs labels to compare with; give --ground_truth")
    if with_truth and not set(OF_TRUTH) & set(names):
        raise ValueError(
            f"ground truth is shown by the outputs {' and '.join(OF_TRUTH)}, and neither is named; add one, or leave "
            "out --ground_truth"
        )
    return tuple(names)


def drawable(names: Sequence[str], has_truth: bool) -> list[str]:
    """Those of the outputs that an image or video with, or without, a label leads to."""
    return [name for name in names if has_truth or name != ERRORS]


def legend_names(names: Sequence[str]) -> list[str]:
    """The file names of the legends that go with outputs."""
    return [LEGEND, *([ERROR_LEGEND] if ERRORS in names else [])]


def legends(label_map, names: Sequence[str], with_truth: bool = False) -> dict[str, np.ndarray]:
    """The pictures that explain the colours of the outputs: {file name: uint8 [y, x, 3]}.

    Args:
      label_map: the LabelMap.
      names: of outputs.
      with_truth: whether there is ground truth, whose ignored pixels have a colour too.
    """
    keys = {LEGEND: drawing.legend(label_map, with_ignored=with_truth)}
    if ERRORS in names:
        keys[ERROR_LEGEND] = panels.error_legend()
    return keys


def paths(
    target: pathlib.Path, names: Sequence[str], is_video: bool = False
) -> dict[str, pathlib.Path]:
    """The files that one image or video leads to.

    Args:
      target: output path up to and without "_labels.png" and its like.
      names: of outputs.
      is_video: whether they are of a video.

    Returns:
      {name: path}.
    """
    endings = {LABELS: "_labels.mkv" if is_video else "_labels.png"}
    endings[TABLE] = "_superpixels.jsonl" if is_video else "_superpixels.json"
    picture = ".mp4" if is_video else ".png"
    return {
        name: target.with_name(target.name + endings.get(name, f"_{name}{picture}"))
        for name in names
    }


def label_image(labels: np.ndarray, label_map) -> np.ndarray:
    """int [Y, X] train ids as uint8, or as uint16 for more than 255 classes.

    By the number of classes, not by the ids seen: all files of a model are of one type.
    """
    return labels.astype(np.uint8 if len(label_map.names) <= 255 else np.uint16)


def write(
    target: pathlib.Path, prediction, label_map, names: Sequence[str], file_name: str
) -> None:
    """Writes the outputs of one image.

    Args:
      target: output path up to and without "_labels.png".
      prediction: the Prediction.
      label_map: the LabelMap.
      names: of outputs.
      file_name: of the image, for the table.
    """
    for name, path in paths(target, drawable(names, prediction.truth is not None)).items():
        if name == TABLE:
            contents = table(prediction, label_map, {"file": file_name})
            image_io.replace_file(path, (json.dumps(contents) + "\n").encode())
        elif name == LABELS:
            image_io.write_png(path, label_image(prediction.labels, label_map), fast=True)
        else:
            image_io.write_png(path, PICTURES[name](prediction, label_map), fast=True)
    for name, picture in prediction.pictures.items():
        image_io.write_png(target.with_name(f"{target.name}_{name}.png"), picture)


def table(prediction, label_map, about: dict) -> dict:
    """The superpixels of one image as an object for JSON; docs/predict.md describes it.

    Args:
      prediction: the Prediction.
      label_map: the LabelMap.
      about: what is told in front of the image's size.
    """
    height, width = prediction.labels.shape
    return {
        **about,
        "height": height,
        "width": width,
        "superpixels": _rows(prediction.table, label_map),
    }


def _rows(superpixels, label_map):
    classes = superpixels.classes.tolist()
    confidence = [None] * len(classes)
    if superpixels.confidence is not None:
        confidence = np.round(superpixels.confidence.astype(float), 4).tolist()
    columns = {
        "id": superpixels.ids.tolist(),
        "class": classes,
        "class_name": [label_map.names[number] for number in classes],
        "confidence": confidence,
        "centroid": np.round(superpixels.centroids.astype(float), 2).tolist(),
        "pixels": superpixels.pixels.tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
