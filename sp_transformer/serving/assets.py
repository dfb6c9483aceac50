"""The files that travel with an export and that say what it is. Imports no TensorFlow.

An export's folder holds the model in the files of its format, assets.extra/ with the files below, and
verification.json.
"""

import json
import pathlib

import numpy as np

from sp_transformer.config import label_map as label_maps

# TensorFlow's own name for files that travel with a SavedModel and that the runtime never reads.
FOLDER = "assets.extra"
CONFIG = "config.textproto"
LABEL_MAP = "label_map.json"
VERSION = "version.json"
METRICS = "metrics.json"
VERIFICATION = "verification.json"


def write_json(path, contents) -> None:
    """Writes a dict as people read it."""
    pathlib.Path(path).write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def write(export_dir, config, label_map, about, metrics=None) -> None:
    """Writes assets.extra into an export.

    Args:
      export_dir: the export's folder.
      config: the ExperimentOptions.
      label_map: its LabelMap.
      about: dict of version.json.
      metrics: what the checkpoint's metrics.json holds, if it was evaluated.
    """
    from google.protobuf import text_format

    folder = pathlib.Path(export_dir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(text_format.MessageToString(config), encoding="utf-8")
    classes = [
        {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*(int(value) for value in color))}
        for name, color in zip(label_map.names, label_map.colors, strict=True)
    ]
    contents = {"classes": classes, "ignore_label": int(label_map.ignore_label)}
    write_json(folder / LABEL_MAP, contents)
    write_json(folder / VERSION, about)
    if metrics is not None:
        write_json(folder / METRICS, metrics)


def read_label_map(export_dir) -> label_maps.LabelMap:
    """The class names and colours that travel with an export.

    Raises:
      ValueError: if they cannot be read.
    """
    path = pathlib.Path(export_dir) / FOLDER / LABEL_MAP
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
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


def read_about(export_dir) -> dict:
    """What version.json says: package versions, checkpoint, step, format, image size.

    Raises:
      ValueError: if it cannot be read.
    """
    path = pathlib.Path(export_dir) / FOLDER / VERSION
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(contents, dict):
            raise ValueError("it holds no JSON object")
        return contents
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read ({type(error).__name__}: {error}); export the model again with "
            "sp_transformer.export"
        ) from error
