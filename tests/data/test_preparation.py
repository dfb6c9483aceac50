"""Records equal their source in every encoding, and are described as they are; tfds reads them."""

import hashlib
import json
import pathlib

import numpy as np
import pytest

from sp_transformer.config import derived
from sp_transformer.data import preparation, records, sources, tiles, verification
from sp_transformer.protos import data_pb2

from . import record_folders

ALL = ("auto", "tiles", "png", "webp")


@pytest.mark.parametrize("encoding", ALL)
@pytest.mark.parametrize("dataset", ["cityscapes", "ade20k"])
def test_every_image_equals_the_source(dataset, encoding, request, tmp_path):
    options = request.getfixturevalue(dataset)
    preparation.prepare(options, str(tmp_path / "out"), encoding=encoding)
    for split in sources.split_names(options):
        # The same config, and nothing but another data_dir.
        source = sources.create_source(record_folders.moved(options, tmp_path / "out"), split)
        assert isinstance(source, records.RecordsSource)
        record_folders.assert_equal_sources(sources.create_source(options, split), source)
    assert verification.verify(options, str(tmp_path / "out")) == []


def test_jpeg_files_stay_as_they_are(ade20k, tmp_path):
    preparation.prepare(ade20k, str(tmp_path / "out"))
    source = sources.create_source(ade20k, "train")
    prepared = sources.create_source(record_folders.moved(ade20k, tmp_path / "out"), "train")
    image, label = prepared.fetch(2, lambda height, width: (0, 0, height, width))
    # Of the image the bytes of its file, of which there is no layout of tiles.
    assert image[:2] == (None, source.image_file(2)) and label[0] is not None
    part = prepared.read_region(2, lambda height, width: (3, 5, 7, 11))
    for cut, whole in zip(part, source.read(2), strict=True):
        assert np.array_equal(cut, whole[3:10, 5:16])


def test_lossy_jpeg_keeps_sizes_and_labels(cityscapes, tmp_path):
    output = str(tmp_path / "out")
    manifest = preparation.prepare(cityscapes, output, ["train"], encoding="jpeg", quality=90)
    assert manifest["encoding"] == {"images": "jpeg", "quality": 90, "lossless": False}
    assert verification.verify(cityscapes, output) == []
    source = sources.create_source(cityscapes, "train")
    prepared = sources.create_source(record_folders.moved(cityscapes, output), "train")
    assert not np.array_equal(source.read(0)[0], prepared.read(0)[0])
    assert np.array_equal(source.read(0)[1], prepared.read(0)[1])


def test_ids_beyond_8_bits(tmp_path, save):
    ids = np.array([[0, 299, 300, 999]] * 4, np.uint16)
    save(tmp_path / "data" / "a.png", np.zeros((4, 4, 3), np.uint8))
    save(tmp_path / "data" / "ids" / "a.png", ids)
    options = data_pb2.DataOptions(dataset="folder", data_dir=str(tmp_path / "data"))
    options.folder.splits.add(name="train", images=["*.png"], labels=["ids/*.png"])
    options.label_map.ignore_label = 999
    for number in range(301):
        options.label_map.classes.add(name=f"class {number}", color="#102030")
    for encoding in ("tiles", "png"):
        output = str(tmp_path / encoding)
        manifest = preparation.prepare(options, output, encoding=encoding)
        _, label = sources.create_source(record_folders.moved(options, output), "train").read(0)
        assert label.dtype == np.int32 and np.array_equal(label, ids)
        assert manifest["splits"]["train"]["ignored_pixels"] == 4


def test_manifest_counts_sizes_pixels_and_checksums(prepared, cityscapes):
    manifest = json.loads(pathlib.Path(prepared, "records.json").read_text())
    train = manifest["splits"]["train"]
    assert train["num_examples"] == 6 and train["sizes"] == {"64x128": 6}
    assert [entry["num_examples"] for entry in train["files"]] == [3, 3]
    labels = np.stack([sources.create_source(cityscapes, "train").read(i)[1] for i in range(6)])
    names = derived.data_label_map(cityscapes).names
    assert train["label_pixels"] == {name: int((labels == i).sum()) for i, name in enumerate(names)}
    assert train["ignored_pixels"] == int((labels == 255).sum())
    for entry in train["files"]:
        for name, digest in (("file", "sha256"), ("index", "index_sha256")):
            content = pathlib.Path(prepared, entry[name]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry[digest]
    assert "label_pixels" not in manifest["splits"]["test"]
    assert not list(pathlib.Path(prepared).rglob("*.partial"))
    assert not pathlib.Path(prepared, records.UNFINISHED).exists()


def test_folders_behind_a_scheme(cityscapes):
    """What "gs://" does, with the file system that TensorFlow keeps in memory."""
    import tensorflow as tf

    for path in pathlib.Path(cityscapes.data_dir).glob("*.zip"):
        with tf.io.gfile.GFile(f"ram://zips/{path.name}", "wb") as file:
            file.write(path.read_bytes())
    remote = record_folders.moved(cityscapes, "ram://zips")
    preparation.prepare(remote, "ram://out", ["train", "test"], num_shards=2)
    assert verification.verify(cityscapes, "ram://out") == []
    for split in ("train", "test"):
        prepared = sources.create_source(record_folders.moved(cityscapes, "ram://out"), split)
        record_folders.assert_equal_sources(sources.create_source(cityscapes, split), prepared)
    assert tf.io.gfile.exists("ram://out/dataset_info.json")
    with pytest.raises(ValueError, match=r"ram://nothing"):
        sources.create_source(record_folders.moved(cityscapes, "ram://nothing"), "train")


def test_tfds_reads_what_was_prepared(cityscapes, prepared, tmp_path):
    import tensorflow_datasets as tfds

    output = str(tmp_path / "out")
    preparation.prepare(cityscapes, output, ["train", "val"], encoding="png", num_shards=2)
    builder = tfds.builder_from_directory(output)
    assert builder.name == "cityscapes"
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 6,
        "val": 3,
    }
    source = sources.create_source(cityscapes, "train")
    for index, features in enumerate(tfds.as_numpy(builder.as_dataset("train"))):
        image, label = source.read(index)
        assert features["name"].decode() == source.name(index)
        assert np.array_equal(features["image"], image)
        assert np.array_equal(features["label"][..., 0], label)
    # Tiles come as bytes, which this package decodes.
    builder = tfds.builder_from_directory(prepared)
    features = next(iter(tfds.as_numpy(builder.as_dataset("train"))))
    assert np.array_equal(tiles.decode(features["image"]), source.read(0)[0])
