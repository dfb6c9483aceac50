"""Cityscapes as cityscapes-dataset.com ships it: the zip archives as they are, or unpacked.

    DATA/leftImg8bit_trainvaltest.zip     or DATA/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    DATA/gtFine_trainvaltest.zip          or DATA/gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png
    DATA/leftImg8bit_trainextra.zip       or DATA/leftImg8bit/train_extra/...           for split "train_extra"
    DATA/gtCoarse.zip                     or DATA/gtCoarse/train/..._gtCoarse_labelIds.png    for coarse annotations

Labels are read from the labelIds files, whatever else lies beside them; the label map turns their ids into train ids.
"""

from __future__ import annotations

import posixpath

from sp_transformer.config import registries
from sp_transformer.data import storage
from sp_transformer.data.file_tree import FolderTree, TreeSource, ZipTree, drop_unpaired, pair

# The archives of each folder, each with the splits that it holds.
_ARCHIVES = {
    "leftImg8bit": {
        "leftImg8bit_trainvaltest.zip": ("train", "val", "test"),
        "leftImg8bit_trainextra.zip": ("train_extra",),
    },
    "gtFine": {"gtFine_trainvaltest.zip": ("train", "val", "test")},
    "gtCoarse": {"gtCoarse.zip": ("train", "val", "train_extra")},
}
_IMAGES = "leftImg8bit"
_FOLDERS = {"fine": "gtFine", "coarse": "gtCoarse"}
_SUFFIXES = {
    "leftImg8bit": "_leftImg8bit.png",
    "gtFine": "_gtFine_labelIds.png",
    "gtCoarse": "_gtCoarse_labelIds.png",
}
SPLITS = registries.CITYSCAPES_SPLITS
# Without test: its label files are in the archive, but hold void alone.
LABELLED = registries.CITYSCAPES_LABELLED


def create_source(
    data_dir: str, split: str, annotations: str, label_map, skip_unpaired: bool = False
) -> TreeSource:
    """Finds and pairs the files of one split.

    Args:
      data_dir: folder of the archives or the unpacked folders.
      split: one of SPLITS.
      annotations: "fine" or "coarse".
      label_map: a LabelMap of the official ids 0..33.
      skip_unpaired: whether files without a partner are left out instead of raised.

    Raises:
      ValueError: if files are missing or do not pair.
    """
    images = _find(data_dir, _IMAGES, split)
    labels, left_out = None, []
    if split in LABELLED[annotations]:
        found = _find(data_dir, _FOLDERS[annotations], split)
        if skip_unpaired:
            images, found, left_out = drop_unpaired(images, found)
        labels = pair(images, found, split, data_dir)
    # A key is the city's folder and the name up to the package: aachen/aachen_000000_000019.
    names = [f"{_IMAGES}/{split}/{key}{_SUFFIXES[_IMAGES].removesuffix('.png')}" for key in images]
    return TreeSource(list(images.values()), labels, names, label_map, left_out)


def split_names(data_dir: str, annotations: str) -> list[str]:
    """Returns the splits whose images are there, and whose labels are too where there should be any."""
    return [
        split
        for split in SPLITS
        if _files(data_dir, _IMAGES, split)[1]
        and (
            split not in LABELLED[annotations] or _files(data_dir, _FOLDERS[annotations], split)[1]
        )
    ]


def _find(data_dir, folder, split):
    """Returns {key: (tree, path)} of the images or labels of a split, in order."""
    tree, paths = _files(data_dir, folder, split)
    suffix = _SUFFIXES[folder]
    if not paths:
        archives = [name for name, splits in _ARCHIVES[folder].items() if split in splits]
        raise ValueError(
            f"split {split!r} of Cityscapes needs {' or '.join([*archives, f'{folder}/{split}/'])} in data_dir "
            f"{data_dir or '(not set)'}, "
            + ("where there is neither" if tree is None else f"but no file in it ends in {suffix}")
            + "; give the folder that holds them by --data_dir"
        )
    # Two folders above a file's name are its split and its package.
    return {
        posixpath.join(*path.split("/")[-2:]).removesuffix(suffix): (tree, path) for path in paths
    }


def _files(data_dir, folder, split):
    """Returns the tree that holds the images or labels of a split, and their paths; None and [] without one."""
    tree = None
    if storage.is_folder(storage.join(data_dir, folder, split)):
        tree = FolderTree(data_dir)
    else:
        for name, splits in _ARCHIVES[folder].items():
            path = storage.join(data_dir, name)
            if split in splits and storage.exists(path):
                tree = ZipTree(path)
    return tree, tree.find(f"{folder}/{split}", _SUFFIXES[folder], depth=1) if tree else []
