"""The registered sources: from DataOptions and the name of a split to a Source."""

from __future__ import annotations

from sp_transformer.config import derived
from sp_transformer.data.folder import FolderSource
from sp_transformer.data.source import Source


def create_source(data_options, split: str) -> Source:
    """Returns the source of one split.

    Args:
      data_options: a DataOptions message.
      split: a name that the data set defines: "train" or "val" for synthetic_streets, one of
        `folder.splits` for folder.

    Raises:
      ValueError: if the data set or the split is unknown, or the source finds a fault in its files.
    """
    if data_options.dataset not in _SOURCES:
        raise ValueError(
            f"data.dataset {data_options.dataset!r} is not registered; choose one of "
            f"{', '.join(sorted(_SOURCES))}"
        )
    return _SOURCES[data_options.dataset](data_options, split)


def _folder(data_options, split):
    by_name = {options.name: options for options in data_options.folder.splits}
    _check_split(split, list(by_name))
    label_map = derived.data_label_map(data_options)
    return FolderSource(
        by_name[split], data_options.data_dir, label_map, skip_unpaired=data_options.skip_corrupt
    )


def _synthetic_streets(data_options, split):
    from sp_transformer.data.synthetic_streets import SyntheticStreets

    options = data_options.synthetic_streets
    num_images = {"train": options.train_images, "val": options.val_images}
    _check_split(split, list(num_images))
    return SyntheticStreets(
        height=options.height,
        width=options.width,
        num_images=num_images[split],
        split=split,
        seed=options.seed,
    )


def _check_split(split, known):
    if split not in known:
        raise ValueError(
            f"split {split!r} is unknown; this data set has {', '.join(known) or 'none'}"
        )


_SOURCES = {"folder": _folder, "synthetic_streets": _synthetic_streets}
