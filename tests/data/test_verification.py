"""Verification notices what differs between records and their source."""

import pathlib

import pytest

from sp_transformer.data import preparation, records, sources, verification

from . import official, record_folders


def test_a_source_that_changed_is_noticed(cityscapes, tmp_path):
    files = official.cityscapes_files()
    official.write_folder(tmp_path / "data", files)
    options = record_folders.moved(cityscapes, tmp_path / "data")
    output = str(tmp_path / "out")
    preparation.prepare(options, output, ["train"])
    path = next(p for p in files if p.startswith("leftImg8bit/train/ulm"))
    image, _ = official.scene(77, (64, 128), [0])
    (tmp_path / "data" / path).write_bytes(official.encoded(image))
    (fault,) = verification.verify(options, output)
    assert path.removesuffix(".png") in fault and "pixels of the image differ" in fault


def test_damaged_records_name_image_and_shard(prepared, cityscapes, tmp_path):
    folder = pathlib.Path(record_folders.copied(prepared, tmp_path / "out"))
    shard = folder / "cityscapes-train.tfrecord-00000-of-00002"
    index = records.ShardIndex.load(str(folder / "index" / "train-00000-of-00002.npz"))
    content = bytearray(shard.read_bytes())
    content[index.images[1, 0] + index.images[1, 1] - 3] ^= 1
    shard.write_bytes(content)
    source = sources.create_source(record_folders.moved(cityscapes, folder), "train")
    source.read(0)
    with pytest.raises(ValueError, match=rf"image {source.name(1)} in .*00000-of-00002 is damaged"):
        source.read(1)
    faults = verification.verify(cityscapes, str(folder))
    assert any("SHA-256" in fault for fault in faults)
    assert any(source.name(1) in fault for fault in faults)
