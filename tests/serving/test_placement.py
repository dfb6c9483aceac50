"""Which folders an export may take, and that nothing of the user's is lost."""

import errno
import json
import os

import pytest

from sp_transformer.serving import export_options, placement
from sp_transformer.serving.runtimes import MODEL_FILES, SAVED_MODEL, STABLEHLO


def write_export(folder, model_format, contents="a model"):
    (folder / "assets.extra").mkdir(parents=True)
    (folder / MODEL_FILES[model_format]).write_text(contents)
    (folder / "verification.json").write_text("{}")
    about = {"format": model_format, placement.FILES: placement.own_files(folder)}
    (folder / "assets.extra" / "version.json").write_text(json.dumps(about))
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_in_use_is_only_replaced_if_it_is_such_an_export(tmp_path):
    for number, model_format in enumerate(export_options.FORMATS):
        folder = tmp_path / model_format
        placement.check_export_dir(folder, model_format, overwrite=False)
        write_export(folder, model_format)
        with pytest.raises(ValueError, match="--overwrite"):
            placement.check_export_dir(folder, model_format, overwrite=False)
        placement.check_export_dir(folder, model_format, overwrite=True)
        other = export_options.FORMATS[number - 1]
        with pytest.raises(ValueError, match=f"no export of format '{other}'"):
            placement.check_export_dir(folder, other, overwrite=True)
    with pytest.raises(ValueError, match="is a file"):
        placement.check_export_dir(folder / MODEL_FILES[model_format], model_format, True)


def test_a_folder_that_only_has_a_file_of_that_name_is_no_export(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    (tmp_path / "index.html").write_text("by hand")
    with pytest.raises(ValueError, match="no export of format 'stablehlo'"):
        placement.check_export_dir(tmp_path, STABLEHLO, overwrite=True)


def test_a_file_of_the_users_in_an_export_is_named_and_kept(tmp_path):
    folder = write_export(tmp_path / "model", SAVED_MODEL)
    (folder / "notes.txt").write_text("by hand")
    with pytest.raises(
        ValueError, match=r"'notes\.txt', which the export .* did not write; move it"
    ):
        placement.check_export_dir(folder, SAVED_MODEL, overwrite=True)
    about = {"format": SAVED_MODEL}
    # One that is older than the list.
    (folder / "assets.extra" / "version.json").write_text(json.dumps(about))
    placement.check_export_dir(folder, SAVED_MODEL, overwrite=True)


@pytest.fixture
def mounted(monkeypatch):
    """A function that makes a folder one that cannot be renamed, as a mounted volume."""
    rename, fixed = os.rename, set()

    def refuse(source, target):
        if source in fixed or target in fixed:
            raise OSError(errno.EBUSY, "Device or resource busy")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    return fixed.add


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("mount", [False, True])
def test_the_new_export_takes_the_place(tmp_path, mounted, old, mount):
    target = tmp_path / "model"
    if old:
        write_export(target, SAVED_MODEL, "old")
        (target / "stale").mkdir()
    else:
        target.mkdir()
    if mount:
        mounted(target)
    temporary = write_export(tmp_path / ".model.tmp", SAVED_MODEL, "new")
    placement.move_into_place(temporary, target, SAVED_MODEL)
    assert names(target) == ["assets.extra", "saved_model.pb", "verification.json"]
    assert (target / "saved_model.pb").read_text() == "new"
    assert set(names(tmp_path)) <= {"model", ".model.tmp"}
    assert not temporary.exists() or names(temporary) == []


def test_the_file_that_makes_it_an_export_comes_last(tmp_path, mounted, monkeypatch):
    target = tmp_path / "model"
    target.mkdir()
    mounted(target)
    temporary = write_export(tmp_path / ".model.tmp", SAVED_MODEL)
    seen = []
    move = placement.shutil.move
    monkeypatch.setattr(
        placement.shutil, "move", lambda a, b: (move(a, b), seen.append(names(target)))
    )
    placement.move_into_place(temporary, target, SAVED_MODEL)
    assert all("saved_model.pb" not in found for found in seen[:-1]) and len(seen) == 3
