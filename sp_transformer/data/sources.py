"""The registered sources: from DataOptions and the name of a split to a Source."""

from __future__ import annotations

from sp_transformer.config import derived
from sp_transformer.data import ade20k, cityscapes, records
from sp_transformer.data.folder import FolderSource
from sp_transformer.data.source import Source


def create_source(data_options, split: str) -> Source:
    """Returns the source of one split.

    Where data_dir holds records that prepare_data wrote, these are read, whatever the data set.

    Args:
      data_options: a DataOptions message.
      split: a name that the data set defines: "train" or "val" for synthetic_streets, one of
        `folder.splits` for folder, those of the publisher for the others.

    Raises:
      ValueError: if the data set or the split is unknown, or the source finds a fault in its files.
    """
    _check_dataset(data_options)
    create = _SOURCES[data_options.dataset]
    if create is not _synthetic_streets and records.is_prepared(data_options.data_dir):
        create = _records
    return create(data_options, split)


def split_names(data_options) -> list[str]:
    """Returns the splits that a source has, where its data are.

    Raises:
      ValueError: if the data set is unknown, or nothing of it is found.
    """
    _check_dataset(data_options)
    names = _SPLIT_NAMES[data_options.dataset](data_options)
    if not names:
        raise ValueError(
            f"data_dir {data_options.data_dir or '(not set)'} holds no split of {data_options.dataset}; give the "
            "folder of its archives or unpacked folders by --data_dir"
        )
    return list(names)


def _check_dataset(data_options):
    if data_options.dataset not in _SOURCES:
        raise ValueError(
            f"data.dataset {data_options.dataset!r} is not registered; choose one of "
            f"{', '.join(sorted(_SOURCES))}"
        )


def _folder(data_options, split):
    by_name = {options.name: options for options in data_options.folder.splits}
    _check_split(split, list(by_name))
    label_map = derived.data_label_map(data_options)
    return FolderSource(
        by_name[split], data_options.data_dir, label_map, skip_unpaired=data_options.skip_corrupt
    )


def _cityscapes(data_options, split):
    _check_split(split, cityscapes.SPLITS)
    return cityscapes.create_source(
        data_options.data_dir,
        split,
        data_options.cityscapes.annotations,
        derived.data_label_map(data_options),
        skip_unpaired=data_options.skip_corrupt,
    )


def _ade20k(data_options, split):
    _check_split(split, ade20k.SPLITS)
    return ade20k.create_source(
        data_options.data_dir,
        split,
        derived.data_label_map(data_options),
        skip_unpaired=data_options.skip_corrupt,
    )


def _tfds(data_options, split):
    from sp_transformer.data.tfds_source import TfdsSource

    label_map = derived.data_label_map(data_options)
    return TfdsSource(data_options.tfds, data_options.data_dir, split, label_map)


def _records(data_options, split):
    label_map = derived.data_label_map(data_options)
    return records.RecordsSource(data_options.data_dir, split, label_map)


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


def _tfds_splits(data_options):
    from sp_transformer.data import tfds_source

    return tfds_source.split_names(data_options.tfds, data_options.data_dir)


_SOURCES = {
    "ade20k": _ade20k,
    "cityscapes": _cityscapes,
    "folder": _folder,
    "records": _records,
    "synthetic_streets": _synthetic_streets,
    "tfds": _tfds,
}

_SPLIT_NAMES = {
    "ade20k": lambda options: ade20k.split_names(options.data_dir),
    "cityscapes": lambda options: cityscapes.split_names(
        options.data_dir, options.cityscapes.annotations
    ),
    "folder": lambda options: [split.name for split in options.folder.splits],
    "records": lambda options: records.read_manifest(options.data_dir)["splits"],
    "synthetic_streets": lambda options: ["train", "val"],
    "tfds": _tfds_splits,
}
