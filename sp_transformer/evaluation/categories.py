"""Cityscapes' categories: the coarser classes that its official script scores too."""

from __future__ import annotations

from sp_transformer.evaluation.metrics import ConfusionMatrix

# cityscapesScripts, helpers/labels.py; the classes that are not evaluated are left out.
_CITYSCAPES = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}


def category_matrix(names, confusion: ConfusionMatrix) -> tuple[list[str], ConfusionMatrix] | None:
    """The confusion matrix of the categories, where the classes are those of Cityscapes.

    Args:
      names: class names in the order of the train ids.
      confusion: of these classes.

    Returns:
      Names of the categories and their matrix; None for other classes.
    """
    groups = {name: group for group, members in enumerate(_CITYSCAPES.values()) for name in members}
    if set(names) != set(groups):
        return None
    return list(_CITYSCAPES), confusion.grouped([groups[name] for name in names], len(_CITYSCAPES))
