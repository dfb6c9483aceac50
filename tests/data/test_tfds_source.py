"""Data sets of tfds are read at random; what is not there is named."""

import numpy as np
import pytest

from sp_transformer.config import derived
from sp_transformer.data import preparation, sources
from sp_transformer.protos import data_pb2

from . import record_folders


def test_source_tfds_reads_at_random(cityscapes, tmp_path):
    output = str(tmp_path / "out")
    preparation.prepare(cityscapes, output, ["train", "val"], encoding="png", num_shards=2)
    # As any other data set of tfds.
    (tmp_path / "out" / "records.json").unlink()
    options = data_pb2.DataOptions(dataset="tfds", data_dir=output)
    options.tfds.label_key, options.tfds.name_key = "label", "name"
    for name in derived.data_label_map(cityscapes).names:
        options.label_map.classes.add(name=name, color="#102030")
    assert sources.split_names(options) == ["train", "val"]
    source = sources.create_source(options, "train")
    record_folders.assert_equal_sources(sources.create_source(cityscapes, "train"), source)
    part = sources.create_source(options, "train[2:5]")
    assert len(part) == 3 and np.array_equal(part.read(1)[0], source.read(3)[0])
    options.tfds.name_key = ""
    assert sources.create_source(options, "train").name(4) == "train/000004"
    options.tfds.label_key = ""
    unlabelled = sources.create_source(options, "val")
    assert not unlabelled.has_labels and unlabelled.read(0)[1] is None
    options.tfds.image_key = "picture"
    with pytest.raises(ValueError, match=r"'picture' is no image feature of .*image, label"):
        sources.create_source(options, "train")
    options.tfds.image_key = "image"
    with pytest.raises(ValueError, match=r"split 'trian' is unknown; .* has train, val"):
        sources.create_source(options, "trian")
    file = tmp_path / "out" / "cityscapes-train.tfrecord-00000-of-00002"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match="00000-of-00002 ends within a record"):
        sources.create_source(options, "train")


def test_tfds_that_is_not_there_is_named(tmp_path):
    options = data_pb2.DataOptions(dataset="tfds", data_dir=str(tmp_path))
    options.label_map.classes.add(name="road", color="#102030")
    with pytest.raises(ValueError, match=r"data\.tfds\.name is not set"):
        sources.create_source(options, "train")
    options.tfds.name = "no_such_data_set"
    with pytest.raises(ValueError, match="tfds knows no data set 'no_such_data_set'"):
        sources.create_source(options, "train")
    options.tfds.name = "cityscapes/semantic_segmentation"
    with pytest.raises(ValueError, match="has not prepared cityscapes/semantic_segmentation"):
        sources.create_source(options, "train")
