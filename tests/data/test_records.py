"""Records are read in parts and train as their source does; torn and foreign ones are refused."""

import json
import pathlib

import numpy as np
import pytest

from sp_transformer.config import derived
from sp_transformer.data import pipeline, preparation, sources
from sp_transformer.protos import data_pb2, experiment_pb2

from . import record_folders


def test_regions_read_only_their_tiles(tmp_path, save):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (400, 700, 3), dtype=np.uint8)
    save(tmp_path / "data" / "a.png", image)
    save(tmp_path / "data" / "ids" / "a.png", image[..., 0] % 3)
    options = data_pb2.DataOptions(dataset="folder", data_dir=str(tmp_path / "data"))
    options.folder.splits.add(name="train", images=["*.png"], labels=["ids/*.png"])
    for name in ("a", "b", "c"):
        options.label_map.classes.add(name=name, color="#102030")
    preparation.prepare(options, str(tmp_path / "out"))
    source = sources.create_source(record_folders.moved(options, tmp_path / "out"), "train")
    # The second time, the layout is known.
    for _ in range(2):
        part, label = source.read_region(0, lambda height, width: (130, 300, 100, 150))
        assert np.array_equal(part, image[130:230, 300:450])
        assert np.array_equal(label, image[130:230, 300:450, 0] % 3)
    fetched, _ = source.fetch(0, lambda height, width: (130, 300, 100, 150))
    assert len(fetched[1]) < image.size / 3


def test_training_from_records_is_training_from_the_source(prepared, cityscapes, make_config):
    def batches(options):
        config = experiment_pb2.ExperimentOptions()
        config.data.MergeFrom(options)
        config.training.batch_size = 4
        config.data.crop_height, config.data.crop_width = 32, 64
        config.data.augmentation.min_scale, config.data.augmentation.max_scale = 0.5, 2
        config.data.augmentation.color_policy = "jitter"
        dataset = pipeline.train_dataset(config, sources.create_source(options, "train"), 3)
        return list(dataset.take(3))

    for a, b in zip(
        batches(cityscapes), batches(record_folders.moved(cityscapes, prepared)), strict=True
    ):
        assert all(np.array_equal(a[key], b[key]) for key in ("image", "label"))


def _check(options, folder, message):
    with pytest.raises(ValueError, match=message) as error:
        sources.create_source(record_folders.moved(options, folder), "train")
    assert str(folder) in str(error.value)


def test_torn_foreign_and_old_folders_are_refused(prepared, cityscapes, tmp_path):
    shard = "cityscapes-train.tfrecord-00001-of-00002"
    torn = pathlib.Path(record_folders.copied(prepared, tmp_path / "torn"))
    (torn / shard).write_bytes((torn / shard).read_bytes()[:-100])
    _check(cityscapes, torn, rf"{shard} has \d+ bytes where its index says \d+; copy the folder")
    (torn / shard).unlink()
    _check(cityscapes, torn, rf"cannot open .*{shard}")
    index = pathlib.Path(record_folders.copied(prepared, tmp_path / "index"))
    (index / "index" / "train-00000-of-00002.npz").write_bytes(b"PK")
    _check(cityscapes, index, r"cannot read index .*train-00000")
    old = pathlib.Path(record_folders.copied(prepared, tmp_path / "old"))
    manifest = json.loads((old / "records.json").read_text())
    (old / "records.json").write_text(json.dumps({**manifest, "version": 0}))
    _check(cityscapes, old, "version 0, but this program reads .*version 1; prepare the data again")
    (old / "records.json").write_text("{")
    _check(cityscapes, old, r"records\.json is damaged")
    options = data_pb2.DataOptions(dataset="records", label_map=cityscapes.label_map)
    options.label_map.classes.add(name="road", color="#102030")
    _check(options, tmp_path, r"holds no records \(there is no records\.json\)")
    (tmp_path / "dataset_info.json").write_text("{}")
    _check(options, tmp_path, "was prepared by tensorflow_datasets")


def test_other_classes_are_refused(prepared, cityscapes):
    def with_map(classes, **fields):
        options = record_folders.moved(cityscapes, prepared)
        options.dataset = "records"
        for name in classes:
            options.label_map.classes.add(name=name, color="#102030")
        for key, value in fields.items():
            setattr(options.label_map, key, value)
        return options

    names = derived.data_label_map(cityscapes).names
    # The ids were mapped when the records were made; a config need not say how.
    assert len(sources.create_source(with_map(names), "train")) == 6
    _check(with_map(names[:-1]), prepared, "have 19 classes, not 18; use the label_map")
    swapped = (names[1], names[0], *names[2:])
    _check(with_map(swapped), prepared, "have class 0 'road', not 'sidewalk'")
    _check(with_map(names, ignore_label=254), prepared, "ignore_label 255, not 254")
    mapped = with_map(names)
    mapped.label_map.id_map.add(**{"from": 1, "to": 1})
    _check(mapped, prepared, "ids mapped by another id_map")
