"""Label files that go with what is predicted: which belongs to which image or frame, and what their ids mean.

A label of image NAME is called NAME.png, or as Cityscapes calls it, and lies below the folder of labels where the
image's results lie below the output folder. Importing this imports no TensorFlow.

Shapes: Y, X are the height and width of one image in pixels.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from sp_transformer.data import image_io, train_ids
from sp_transformer.data.faults import FileFault
from sp_transformer.serving import inputs

_SUFFIX = ".png"
# Endings of Cityscapes' files. Its labelTrainIds are left alone, as they are in training: its label map reads labelIds.
_CITYSCAPES_IMAGE = "_leftImg8bit"
_CITYSCAPES_LABELS = ("_gtFine_labelIds", "_gtCoarse_labelIds")
# The number of a frame ends the name of its label, but for Cityscapes' endings.
_FRAME = re.compile(rf"(\d+)(?:{'|'.join(_CITYSCAPES_LABELS)})?$")


def find(
    path, sources: Sequence[inputs.Source], output_dir: pathlib.Path, names: Sequence[str]
) -> dict:
    """Finds the labels of images and videos.

    Args:
      path: the label of the only image, or a folder of labels.
      sources: the Sources.
      output_dir: of their results.
      names: of their outputs.

    Returns:
      {Source: path of its label, or of a video {number of a frame, from 0: path of its label}}, without those that have
      none.

    Raises:
      ValueError: if `path` does not exist or holds no label of any source, one of them is a camera, or an output would
        be written over a label.
    """
    path = pathlib.Path(path)
    if any(source.kind == inputs.CAMERA for source in sources):
        raise ValueError("a camera has no ground truth; leave out --ground_truth, or the camera")
    if path.is_file():
        found = {_only_image(path, sources): path}
    elif path.is_dir():
        found = _find_below(path, sources, output_dir)
    else:
        raise ValueError(
            f"ground truth {str(path)!r} does not exist; name the label file of an image, or a folder of label files"
        )
    labels = [
        file
        for label in found.values()
        for file in (label.values() if isinstance(label, dict) else [label])
    ]
    inputs.check_overwrites(sources, labels, output_dir, names)
    return found


def _find_below(path, sources, output_dir):
    """What `find` returns, of a folder."""
    found = {}
    for source in sources:
        target = path / source.target.relative_to(output_dir)
        if source.kind == inputs.VIDEO:
            label = _numbered(target) or (_numbered(path) if len(sources) == 1 else None)
        else:
            label = next((file for file in _candidates(target) if file.is_file()), None)
        if label:
            found[source] = label
    if not found:
        raise ValueError(
            f"ground truth {str(path)!r} holds no label that fits an input; that of "
            f"{str(sources[0].path)!r} is looked for as {_expected(path, sources[0], output_dir)}"
        )
    return found


class GroundTruth:
    """Reads labels as evaluation does: through the label map that the model was trained with."""

    def __init__(self, files: Mapping, label_map, label_map_file=None):
        """Takes what `find` found.

        Args:
          files: {Source: label}.
          label_map: the model's LabelMap.
          label_map_file: where it is written down, for errors.

        Raises:
          ValueError: if the label map does not say what becomes of ids.
        """
        if label_map.id_map is None:
            raise ValueError(
                "this export does not tell what the ids of label files become; export the model anew, or leave out "
                "--ground_truth"
            )
        self._files = files
        self._label_map = label_map
        self._label_map_file = label_map_file
        self._train_ids = train_ids.TrainIds(label_map)

    def of_image(self, source, image) -> np.ndarray:
        """The train ids [Y, X] of an image, uint8 [Y, X, 3].

        Raises:
          ValueError: if it has no label, or one that is unreadable, of another size, or with unknown ids.
        """
        if source not in self._files:
            raise ValueError("it has no label")
        return self.read(self._files[source], image, source.path)

    def of_video(self, source) -> "FrameLabels | None":
        """The labels of a video's frames; None if it has none."""
        files = self._files.get(source)
        return FrameLabels(self, files, source.path) if files else None

    def read(self, path, image, name) -> np.ndarray:
        """Reads one label.

        Args:
          path: of the label.
          image: uint8 [Y, X, 3].
          name: of the image, for errors.

        Returns:
          Train ids [Y, X].

        Raises:
          ValueError: if it is unreadable, of another size than the image, or holds unknown ids.
        """
        ids = image_io.read_label_ids(path)
        train_ids.check_sizes(image, name, ids, path)
        try:
            return self._train_ids(ids, str(path))
        except FileFault as fault:
            where = f"; the label map is that of {self._label_map_file}"
            raise ValueError(f"{fault}{where if self._label_map_file else ''}") from fault

    def nothing(self, image) -> np.ndarray:
        """Train ids [Y, X] that are all ignored."""
        return np.full(image.shape[:2], self._label_map.ignore_label, np.int32)


class FrameLabels:
    """The labels of one video's frames, in order.

    A frame without a readable one is ignored as a whole, so that all frames of a video show the same things.
    """

    def __init__(self, ground_truth, files, path):
        self._ground_truth = ground_truth
        self._files = files
        self._path = path
        self._num_frames = 0
        self._num_read = 0
        self._faults = []

    def next(self, image) -> np.ndarray:
        """The train ids [Y, X] of the next frame, uint8 [Y, X, 3]."""
        number = self._num_frames
        self._num_frames += 1
        if number in self._files:
            try:
                name = f"frame {number} of {self._path}"
                truth = self._ground_truth.read(self._files[number], image, name)
                self._num_read += 1
                return truth
            except (ValueError, OSError) as error:
                self._faults.append(str(error))
        return self._ground_truth.nothing(image)

    def fault(self) -> str | None:
        """What was wrong with the labels of the frames so far; None if nothing was."""
        if self._faults:
            others = len(self._faults) - 1
            return self._faults[0] + (f"; and {others} more of its labels" if others else "")
        if self._num_read == 0:
            return (
                f"none of its {self._num_frames} frames, which are numbered from 0, has a label: the labels are those "
                f"of frames {min(self._files)} to {max(self._files)}"
            )
        return None


def _only_image(path, sources):
    """The one source that a single label file can belong to."""
    if len(sources) > 1:
        raise ValueError(
            f"ground truth {str(path)!r} is one file, and there are {len(sources)} inputs; name a folder of label files"
        )
    if sources[0].kind == inputs.VIDEO:
        raise ValueError(
            f"ground truth {str(path)!r} is one file, and {str(sources[0].path)!r} a video; name a folder of label "
            "files whose names end in the numbers of their frames, from 0"
        )
    return sources[0]


def _candidates(target):
    """The files that may hold the label of an image whose results would lie at `target`."""
    names = [target.name]
    if target.name.endswith(_CITYSCAPES_IMAGE):
        scene = target.name.removesuffix(_CITYSCAPES_IMAGE)
        names = [scene + ending for ending in _CITYSCAPES_LABELS] + names
    return [target.with_name(name + _SUFFIX) for name in names]


def _numbered(folder):
    """{number: path} of the files in a folder whose names end in a number."""
    found = {}
    for path in sorted(folder.glob(f"*{_SUFFIX}")) if folder.is_dir() else ():
        match = _FRAME.search(path.stem)
        # macOS leaves "._NAME" beside NAME where it unpacks.
        if match is None or path.name.startswith("."):
            continue
        number = int(match.group(1))
        if number in found:
            raise ValueError(
                f"{str(found[number])!r} and {str(path)!r} are both labels of frame {number}; leave one of them"
            )
        found[number] = path
    return found


def _expected(path, source, output_dir):
    target = path / source.target.relative_to(output_dir)
    if source.kind == inputs.VIDEO:
        return f"{str(target / '000000.png')!r} and so on, by the number of the frame from 0"
    return " or ".join(repr(str(file)) for file in _candidates(target))
