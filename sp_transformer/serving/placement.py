"""Where an export goes: which folders may be taken, and how a finished one gets there. Imports no TensorFlow."""

import os
import pathlib
import shutil

from sp_transformer.serving import assets
from sp_transformer.serving.runtimes import MODEL_FILES

FILES = "files"  # Entry of version.json: the names in the export's folder.


def check_export_dir(export_dir, model_format, overwrite: bool) -> None:
    """Refuses a folder that is in use; cheap, so that binaries can ask before they build a model.

    Raises:
      ValueError: if `export_dir` is a file, or holds something, unless that is an export of this format, nothing else,
        and `overwrite` is set.
    """
    export_dir = pathlib.Path(export_dir)
    if export_dir.exists() and not export_dir.is_dir():
        raise ValueError(f"export_dir {str(export_dir)!r} is a file; name a folder")
    if not export_dir.is_dir() or not any(export_dir.iterdir()):
        return
    if not _is_export(export_dir, model_format):
        raise ValueError(
            f"export_dir {str(export_dir)!r} holds files that are no export of format {model_format!r}, so it is not "
            "replaced, with or without --overwrite; name a new folder"
        )
    if not overwrite:
        raise ValueError(
            f"export_dir {str(export_dir)!r} already holds an export; name a new folder, or replace it with --overwrite"
        )
    foreign = _foreign_files(export_dir)
    if foreign:
        raise ValueError(
            f"export_dir {str(export_dir)!r} holds {foreign[0]!r}, which the export that is to be replaced did not "
            "write; move it elsewhere, or name a new folder"
        )


def _is_export(folder, model_format):
    """Whether a folder is an export: many programs have a manifest.json, and few have version.json beside it."""
    if not (folder / MODEL_FILES[model_format]).is_file():
        return False
    try:
        about = assets.read_about(folder)
    except ValueError:
        return False
    return about.get("format", model_format) == model_format


def _foreign_files(folder):
    """Names in an export's folder that are not its own; none if it is older than their list."""
    own = assets.read_about(folder).get(FILES)
    return sorted({path.name for path in folder.iterdir()} - set(own)) if own else []


def own_files(folder) -> list[str]:
    """Names in the folder of an export that is being written, those that are written last among them."""
    names = {path.name for path in pathlib.Path(folder).iterdir()}
    return sorted(names | {assets.FOLDER, assets.VERIFICATION})


def move_into_place(temporary: pathlib.Path, export_dir: pathlib.Path, model_format: str) -> None:
    """Gives a finished export its name, in place of what `check_export_dir` let pass.

    By a rename, which is whole or not at all; where the folder cannot be renamed, as the volume of a container, by
    moving the files into it, the one that makes it an export last.

    Raises:
      OSError: if that fails; what is not in place yet is in `temporary` then.
    """
    if not export_dir.exists():
        os.rename(temporary, export_dir)
        return
    old = export_dir.with_name(f".{export_dir.name}.{os.getpid()}.old")
    try:
        os.rename(export_dir, old)
    except OSError:
        _move_files(temporary, export_dir, MODEL_FILES[model_format])
        return
    try:
        os.rename(temporary, export_dir)
    except OSError:
        os.rename(old, export_dir)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _move_files(temporary, export_dir, model_file):
    for path in sorted(export_dir.iterdir(), key=lambda path: path.name != model_file):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == model_file):
        shutil.move(path, export_dir / path.name)
