"""Predictions as files, in the forms that benchmarks take: written, read back, checked and zipped.

    cityscapes   frankfurt_000000_000294_labelIds.png    label ids 0 to 33
    ade20k       ADE_val_00000001.png                    1 to 150
    train_ids    the image's name in its source, .png    train ids (8 bits, or 16 where 8 do not suffice)

All files of a benchmark lie in one folder, as its servers want them.

Shapes: Y, X are the height and width of one image in pixels.
"""

from __future__ import annotations

import os
import pathlib
import posixpath
import re
import zipfile
from collections.abc import Iterable

import numpy as np

from sp_transformer.config import derived
from sp_transformer.data import image_io
from sp_transformer.evaluation import passes, predictors

AUTO = "auto"
CITYSCAPES, ADE20K, TRAIN_IDS = "cityscapes", "ade20k", "train_ids"
FORMATS = (CITYSCAPES, ADE20K, TRAIN_IDS)
# The name that the official script looks a prediction up by: city, sequence and frame.
_CITYSCAPES_NAME = re.compile(r"([A-Za-z-]+_\d{6}_\d{6})(?:_.*)?")
_ADE20K_NAME = re.compile(r"(ADE_(?:train|val|test)_\d{8})")
_LISTED = 5


class SubmissionFormat:
    """File names and ids of one form.

    Attributes:
      name: one of FORMATS.
    """

    def __init__(self, name: str, config):
        """Looks up the ids.

        Args:
          name: one of FORMATS, or AUTO for the one of the config's data set.
          config: an ExperimentOptions.

        Raises:
          ValueError: for an unknown name, or classes that are not those of the benchmark.
        """
        if name == AUTO:
            known = config.data.dataset in (CITYSCAPES, ADE20K)
            name = config.data.dataset if known else TRAIN_IDS
        if name not in FORMATS:
            raise ValueError(f"format {name!r} is unknown; choose one of {', '.join(FORMATS)}")
        self.name = name
        label_map = derived.label_map(config)
        self._ignore_label = label_map.ignore_label
        if name == TRAIN_IDS:
            self._ids = np.arange(label_map.num_classes)
        else:
            self._ids = _official_ids(name, label_map)
        # 16 bits for all files of a data set or for none, whatever a prediction holds.
        wide = int(self._ids.max()) > 254
        self._dtype = np.uint16 if wide else np.uint8

    def file_name(self, image_name: str) -> str:
        """The file of an image, relative to the folder.

        Raises:
          ValueError: if the image's name is none of the benchmark.
        """
        if self.name == TRAIN_IDS:
            return f"{image_name}.png"
        pattern, ending = (
            (_CITYSCAPES_NAME, "_labelIds.png")
            if self.name == CITYSCAPES
            else (_ADE20K_NAME, ".png")
        )
        match = pattern.fullmatch(posixpath.basename(image_name))
        if match is None:
            raise ValueError(
                f"image {image_name!r} is not named as {self.name} names its images, so that its "
                f"prediction could not be matched; use format {TRAIN_IDS}, or the files as published"
            )
        return match[1] + ending

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Train ids [Y, X] as the ids of the files."""
        return self._ids[labels].astype(self._dtype)

    def decode(self, ids: np.ndarray, path) -> np.ndarray:
        """Ids of a file [Y, X] as train ids; other ids of the benchmark become the ignore label.

        Raises:
          ValueError: for an id that the benchmark does not have; it names the file.
        """
        largest = {CITYSCAPES: 33, ADE20K: 150}.get(self.name)
        table = np.full(1 + max(largest or 0, int(self._ids.max())), self._ignore_label)
        table[self._ids] = np.arange(len(self._ids))
        outside = (ids < 0) | (ids >= len(table))
        if self.name == TRAIN_IDS:
            outside &= ids != self._ignore_label
        if outside.any():
            raise ValueError(
                f"prediction {path} holds id {int(ids[outside][0])}, which format {self.name} does "
                f"not have; name the format that it is in ({', '.join(FORMATS)})"
            )
        return np.where(
            (ids >= 0) & (ids < len(table)), table[ids % len(table)], self._ignore_label
        )

    def check(self, path, size: tuple[int, int]) -> str | None:
        """What is wrong with a written file, or None.

        Args:
          path: of the file.
          size: (Y, X) of its image.
        """
        try:
            ids = image_io.read_label_ids(path)
        except (ValueError, OSError) as error:
            return str(error)
        if ids.shape != tuple(size):
            shown = "x".join(map(str, ids.shape))
            return f"{path} is {shown} pixels, its image {size[0]}x{size[1]}"
        strange = np.setdiff1d(np.unique(ids), self._ids)
        if len(strange):
            return f"{path} holds id {strange[0]}, which is no class to be predicted"
        return None


class SubmissionFolder:
    """A folder of predictions that is checked, and only then zipped.

    Attributes:
      zip_path: the archive, beside the folder.
    """

    def __init__(self, folder, submission_format: SubmissionFormat):
        """Makes the folder.

        Raises:
          ValueError: if it holds files already, which would end up in the archive.
        """
        self._folder = pathlib.Path(folder)
        self._format = submission_format
        self.zip_path = self._folder.with_name(self._folder.name + ".zip")
        if self._folder.is_dir() and any(self._folder.iterdir()):
            raise ValueError(
                f"submission folder {folder} is not empty, and what is in it would be submitted "
                "too; name a new one, or empty it"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sizes = {}

    def write(self, image_name: str, labels: np.ndarray) -> None:
        """Writes a prediction, train ids [Y, X].

        Raises:
          ValueError: if two images would have one file, or the name does not fit the format.
        """
        name = self._format.file_name(image_name)
        if name in self._sizes:
            raise ValueError(
                f"two images would be submitted as {name}; the second is {image_name!r}"
            )
        image_io.write_png(self._folder / name, self._format.encode(labels))
        self._sizes[name] = labels.shape

    def finish(self, image_names: Iterable[str]) -> pathlib.Path:
        """Reads all files back, compares them with what the split asks for, and zips them.

        Args:
          image_names: all images that must be there.

        Returns:
          The path of the archive.

        Raises:
          ValueError: listing what is missing, superfluous or wrong; nothing is zipped then.
        """
        wanted = {self._format.file_name(name) for name in image_names}
        there = {
            path.relative_to(self._folder).as_posix()
            for path in self._folder.rglob("*")
            if path.is_file()
        }
        faults = [f"{name} is missing" for name in sorted(wanted - there)]
        faults += [f"{name} belongs to no image of the split" for name in sorted(there - wanted)]
        for name in sorted(wanted & there):
            if name not in self._sizes:
                faults.append(f"{name} was not written by this run")
                continue
            fault = self._format.check(self._folder / name, self._sizes[name])
            if fault:
                faults.append(fault)
        if faults:
            more = f"\n  and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
            listing = "\n".join(f"  {fault}" for fault in faults[:_LISTED])
            raise ValueError(
                f"submission {self._folder} is not fit to be handed in, and was not zipped:\n"
                f"{listing}{more}"
            )
        _write_zip(self.zip_path, self._folder, sorted(wanted))
        return self.zip_path


def predict_into(folder: SubmissionFolder, config, source, inference) -> int:
    """Writes the predictions of the first of evaluation.modes for all images of a source.

    Args:
      folder: to write into; `finish` is left to the caller.
      config: an ExperimentOptions.
      source: a Source, with or without labels.
      inference: an Inference.

    Returns:
      The number of images.
    """
    # Every image must be there: none is left out for being torn, nor for max_images.
    config.data.skip_corrupt = False
    config.evaluation.count_on_device = False
    predictor = predictors.ModelPredictor(inference, config)
    mode, count = predictor.modes[0], 0
    for example in passes.predicted_examples(config, source, predictor, needs_labels=False):
        folder.write(example.name, example.predictions[mode])
        count += 1
    return count


class StoredPredictions:
    """Predictions in a folder, in one of FORMATS, for the evaluator: a predictor without a model."""

    batches_at_once = 1
    static_size = None
    counts = False

    def __init__(self, folder, submission_format: SubmissionFormat, mode: str):
        """Takes the folder; files are looked for when they are needed.

        Args:
          folder: that holds the files, at any depth.
          submission_format: of the files.
          mode: name that they are scored under.

        Raises:
          ValueError: if there is no such folder, or it holds no PNG.
        """
        self.modes = [mode]
        self._mode, self._format = mode, submission_format
        self._folder = pathlib.Path(folder)
        paths = sorted(self._folder.rglob("*.png")) if self._folder.is_dir() else []
        if not paths:
            raise ValueError(f"predictions {folder} is no folder that holds PNGs")
        # Official files are found by city, sequence and frame, whatever follows, as by the script.
        self._paths = {}
        for path in paths:
            key = path.relative_to(self._folder).as_posix()
            if submission_format.name != TRAIN_IDS:
                try:
                    key = submission_format.file_name(path.stem)
                except ValueError:
                    continue
            if key in self._paths:
                raise ValueError(f"predictions {self._paths[key]} and {path} are of one image")
            self._paths[key] = path

    def predict(self, batches: list[dict]) -> list:
        """As ModelPredictor.predict, for batches with "name" and "label"."""
        results = []
        for batch in batches:
            pairs = zip(batch["name"], batch["label"], strict=True)
            results.append(({self._mode: np.stack([self._read(*pair) for pair in pairs])}, None))
        return results

    def _read(self, name, label):
        path = self._paths.get(self._format.file_name(name))
        if path is None:
            raise ValueError(
                f"predictions {self._folder} hold none for image {name!r}; as {self._format.name} "
                f"its file is {self._format.file_name(name)}"
            )
        ids = image_io.read_label_ids(path)
        if ids.shape != label.shape:
            raise ValueError(
                f"prediction {path} is {ids.shape[0]}x{ids.shape[1]} pixels, its label "
                f"{label.shape[0]}x{label.shape[1]}; resize logits, never labels, to the label's size"
            )
        return self._format.decode(ids, path)


def _official_ids(name, label_map) -> np.ndarray:
    """The id of every train id in the benchmark's files, by the label map that comes with it."""
    official = derived.bundled_label_map(name)
    if tuple(label_map.names) != tuple(official.names):
        raise ValueError(
            f"format {name} is for the {official.num_classes} classes of {name}, in its order, but "
            f"the config has {label_map.num_classes} classes ({', '.join(label_map.names[:3])}, "
            f"...); use format {TRAIN_IDS}"
        )
    by_train_id = {train_id: file_id for file_id, train_id in official.id_map.items()}
    return np.array([by_train_id[train_id] for train_id in range(official.num_classes)])


def _write_zip(path, folder, names) -> None:
    """An archive of the files, the same bytes for the same files; the old one stays until it is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # PNGs do not shrink any more.
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes())
        with zipfile.ZipFile(temporary) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise OSError(f"{path} could not be written: {damaged} in it is damaged")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
