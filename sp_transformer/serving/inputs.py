"""What is to be predicted, and where the results of each go.

Importing this imports no TensorFlow.
"""

import collections
import dataclasses
import glob
import os
import pathlib
from collections.abc import Sequence

from sp_transformer.serving import outputs

IMAGE = "image"
VIDEO = "video"
CAMERA = "camera"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv")
_CAMERA_PREFIX = "camera:"


@dataclasses.dataclass(frozen=True)
class Source:
    """One thing that is to be predicted.

    Attributes:
      kind: IMAGE, VIDEO or CAMERA.
      path: the file, or the camera's device.
      target: output path up to and without "_labels.png" and its like.
    """

    kind: str
    path: pathlib.Path
    target: pathlib.Path


def plan(
    inputs: Sequence[str],
    output_dir: pathlib.Path,
    names: Sequence[str],
    ground_truth: str | os.PathLike | None = None,
) -> tuple[list[Source], list[tuple[str, str]]]:
    """Finds images, videos and cameras and decides where the results of each go.

    Args:
      inputs: images, videos, folders (searched with their subfolders), globs ("**" for any depth), or "camera:0" and
        the like.
      output_dir: folder of the results.
      names: of all that is written of an image, as `outputs.paths` takes them.
      ground_truth: label file or folder of labels, which are no inputs where they lie below a folder that is one.

    Returns:
      The Sources, sorted by path, and (input, reason) of folders and globs that hold nothing.

    Raises:
      ValueError: if an input does not exist, all of them hold nothing, two files would be written to one place, or one
        over an input.
    """
    found, cameras, empty = {}, [], []
    for entry in map(str, inputs):
        camera = _camera(entry)
        if camera:
            cameras.append(camera)
            continue
        root, paths = _find_files(entry, output_dir, ground_truth)
        if not paths:
            empty.append((entry, _why_empty(entry)))
        for path in paths:
            # Not resolved: two links to one file are two images with names of their own.
            found.setdefault(path.absolute(), (path, path.relative_to(root)))
    if not found and not cameras:
        raise ValueError("; ".join(f"input {entry!r} {reason}" for entry, reason in empty))
    sources = [
        Source(CAMERA, device, output_dir / f"camera_{device.name}")
        for device in dict.fromkeys(cameras)
    ]
    sources += _name_targets(sorted(found.values()), output_dir)
    _check_targets(sources)
    check_overwrites(sources, found, output_dir, names)
    return sources, empty


def _name_targets(files, output_dir):
    folders = collections.defaultdict(list)
    for _, relative in files:
        folders[relative.parent].append(relative.name)
    sources = []
    for path, relative in files:
        # Case is folded, because some file systems do not tell A_labels.png from a_labels.png.
        names = [name.casefold() for name in folders[relative.parent]]
        stems = [os.path.splitext(name)[0] for name in names]
        stem = relative.stem.casefold()
        unique = stems.count(stem) == 1 and stem not in names
        target = output_dir / relative.parent / (relative.stem if unique else relative.name)
        kind = VIDEO if path.suffix.lower() in VIDEO_SUFFIXES else IMAGE
        sources.append(Source(kind, path, target))
    return sources


def check_overwrites(
    sources: Sequence[Source], files, output_dir: pathlib.Path, names: Sequence[str]
) -> None:
    """Raises ValueError if an output, or a legend in `output_dir`, would be written over one of these files."""
    files = {pathlib.Path(file).resolve() for file in files}
    written = [
        (output, f"the result {str(output)!r} of {str(source.path)!r}")
        for source in sources
        for output in outputs.paths(source.target, names, source.kind != IMAGE).values()
    ]
    legends = [output_dir / name for name in outputs.legend_names(names)]
    for output, what in [*written, *((path, f"the legend {str(path)!r}") for path in legends)]:
        if output.resolve() in files:
            raise ValueError(f"{what} would overwrite an input; name another output_dir")


def _check_targets(sources):
    taken = {}
    for source in sources:
        if source.target in taken:
            raise ValueError(
                f"the results of {str(source.path)!r} and {str(taken[source.target])!r} would have the same "
                "name; predict them into different output folders"
            )
        taken[source.target] = source.path


def _camera(entry: str) -> pathlib.Path | None:
    """The device of "camera:0", "camera:/dev/video0" or "/dev/video0"; None for anything else."""
    if entry.startswith(_CAMERA_PREFIX):
        device = entry.removeprefix(_CAMERA_PREFIX)
        return pathlib.Path(f"/dev/video{device}" if device.isdigit() else device)
    path = pathlib.Path(entry)
    return path if path.is_char_device() else None


def _find_files(
    entry: str, output_dir: pathlib.Path, ground_truth: str | os.PathLike | None
) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The folder that names are relative to, and the files of one input."""
    path = pathlib.Path(entry)
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        root = path
        suffixes = IMAGE_SUFFIXES + VIDEO_SUFFIXES
        found = [file for file in path.rglob("*") if file.suffix.lower() in suffixes]
    elif glob.has_magic(entry):
        parts = list(path.parts)
        while any(glob.has_magic(part) for part in parts):
            parts.pop()
        root = pathlib.Path(*parts)
        found = [pathlib.Path(match) for match in glob.glob(entry, recursive=True)]
    else:
        raise ValueError(
            f"input {entry!r} does not exist; name an image, a video, a folder, a quoted glob or a camera "
            f"({_CAMERA_PREFIX}0)"
        )
    results = output_dir.resolve()
    if results == root.resolve():
        raise ValueError(
            f"output_dir {str(output_dir)!r} is the folder of the input {entry!r}, where results "
            "would be taken for images next time; name another output_dir"
        )
    # What an earlier run wrote into a subfolder of the input is not to be predicted, and neither are labels.
    for apart in (results, *([pathlib.Path(ground_truth).resolve()] if ground_truth else [])):
        if apart.is_relative_to(root.resolve()) and apart != root.resolve():
            found = [file for file in found if not file.resolve().is_relative_to(apart)]
    return root, [file for file in found if file.is_file()]


def _why_empty(entry):
    if pathlib.Path(entry).is_dir():
        return f"holds no image ({', '.join(IMAGE_SUFFIXES)}) and no video ({', '.join(VIDEO_SUFFIXES)})"
    return "matches no file"
