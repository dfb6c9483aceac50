"""ADE20K's scene parsing benchmark (SceneParse150) as its authors ship it: the zip archives as they are, or unpacked.

    DATA/ADEChallengeData2016.zip    or DATA/ADEChallengeData2016/images/training/ADE_train_00000001.jpg
                                     and DATA/ADEChallengeData2016/annotations/training/ADE_train_00000001.png
    DATA/release_test.zip            or DATA/release_test/testing/ADE_test_00000001.jpg    for split "test"

DATA may be the folder ADEChallengeData2016 itself. In the label files 0 is "other" and k is class k - 1; the label map
says so.
"""

from __future__ import annotations

import posixpath

from sp_transformer.config import registries
from sp_transformer.data import storage
from sp_transformer.data.file_tree import FolderTree, TreeSource, ZipTree, drop_unpaired, pair

_ROOT, _TEST_ROOT = "ADEChallengeData2016", "release_test"
_FOLDER_OF_SPLIT = {"train": "training", "val": "validation"}
SPLITS = registries.ADE20K_SPLITS


def create_source(data_dir: str, split: str, label_map, skip_unpaired: bool = False) -> TreeSource:
    """Finds and pairs the files of one split.

    Args:
      data_dir: folder of the archives, of the unpacked folders, or ADEChallengeData2016 itself.
      split: one of SPLITS.
      label_map: a LabelMap of the benchmark's ids 0..150.
      skip_unpaired: whether files without a partner are left out instead of raised.

    Raises:
      ValueError: if files are missing or do not pair.
    """
    tree, folder = _locate(data_dir, split)
    if tree is None:
        root = _TEST_ROOT if split == "test" else _ROOT
        raise ValueError(
            f"split {split!r} of ADE20K needs {root}.zip or {root}/ in data_dir {data_dir or '(not set)'}, where there "
            "is neither; give the folder that holds it by --data_dir"
        )
    images = _find(
        tree, f"{folder}images/{_FOLDER_OF_SPLIT[split]}" if split != "test" else folder, ".jpg"
    )
    if not images:
        raise ValueError(
            f"split {split!r} of ADE20K has no images *.jpg in {tree.describe(folder)}; its unpacking is incomplete"
        )
    labels, left_out = None, []
    if split != "test":
        found = _find(tree, f"{folder}annotations/{_FOLDER_OF_SPLIT[split]}", ".png")
        if skip_unpaired:
            images, found, left_out = drop_unpaired(images, found)
        labels = pair(images, found, split, data_dir)
    parent = f"images/{_FOLDER_OF_SPLIT[split]}" if split != "test" else "testing"
    names = [f"{parent}/{key}" for key in images]
    return TreeSource(list(images.values()), labels, names, label_map, left_out)


def split_names(data_dir: str) -> list[str]:
    """Returns the splits that are there."""
    return [split for split in SPLITS if _locate(data_dir, split)[0] is not None]


def _locate(data_dir, split):
    """Returns the tree and the folder in it, ending in "/" for those with subfolders, of a split."""
    if split == "test":
        return _first(data_dir, _TEST_ROOT, "testing", f"{_TEST_ROOT}/testing")
    marker = f"images/{_FOLDER_OF_SPLIT[split]}"
    if storage.is_folder(storage.join(data_dir, *marker.split("/"))):
        return FolderTree(data_dir), ""
    return _first(data_dir, _ROOT, marker, f"{_ROOT}/")


def _first(data_dir, root, marker, folder):
    if storage.is_folder(storage.join(data_dir, root, *marker.split("/"))):
        return FolderTree(data_dir), folder
    archive = storage.join(data_dir, f"{root}.zip")
    if storage.exists(archive):
        return ZipTree(archive), folder
    return None, folder


def _find(tree, folder, suffix):
    """Returns {name without extension: (tree, path)} of the files in a folder, in order."""
    return {
        posixpath.basename(path).removesuffix(suffix): (tree, path)
        for path in tree.find(folder.rstrip("/"), suffix, depth=0)
    }
