"""Tiny data sets for the tests of data/."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
from PIL import Image

from sp_transformer.config.label_map import LabelMap
from sp_transformer.data import preparation
from sp_transformer.data.source import Source
from sp_transformer.protos import data_pb2, experiment_pb2

from . import official


class ArraySource(Source):
    """Random examples of the given sizes; counts how often each is read."""

    def __init__(self, sizes, num_classes=3, has_labels=True):
        generator = np.random.default_rng(0)
        self.has_labels = has_labels
        self.reads = []
        self.examples = [
            (
                generator.integers(0, 256, (*size, 3), dtype=np.uint8),
                generator.integers(0, num_classes, size, dtype=np.uint8) if has_labels else None,
            )
            for size in sizes
        ]

    def __len__(self):
        return len(self.examples)

    def name(self, index):
        return f"array/{index}"

    def read(self, index):
        self.reads.append(index)
        return self.examples[index]


@pytest.fixture
def array_source():
    """Returns the class, called with a list of (height, width)."""
    return ArraySource


@pytest.fixture
def label_map():
    """Returns a maker of label maps of three classes."""

    def make(**kwargs):
        colors = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)
        return LabelMap(names=("road", "pole", "sky"), colors=colors, **kwargs)

    return make


@pytest.fixture
def save():
    """Returns a function that writes an array as an image file and makes its folder."""

    def write(path, array, **kwargs):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, **kwargs)
        return path

    return write


@pytest.fixture
def split():
    """Returns a maker of SplitOptions."""

    def make(images=("images/*.png",), labels=("labels/*.png",), name="train"):
        return data_pb2.SplitOptions(name=name, images=images, labels=labels)

    return make


@pytest.fixture
def make_config():
    """Returns a maker of ExperimentOptions with crops of 8x12 pixels in batches of 4."""

    def make(batch_size=4, **data):
        config = experiment_pb2.ExperimentOptions()
        config.training.batch_size = batch_size
        options = {"dataset": "synthetic_streets", "crop_height": 8, "crop_width": 12, **data}
        config.data.MergeFrom(data_pb2.DataOptions(**options))
        return config

    return make


@pytest.fixture(scope="session")
def cityscapes(tmp_path_factory):
    """DataOptions of Cityscapes archives: 6 images in train, 3 in val and in test."""
    root = tmp_path_factory.mktemp("official")
    official.write_cityscapes_zips(root, official.cityscapes_files())
    return data_pb2.DataOptions(dataset="cityscapes", data_dir=str(root))


@pytest.fixture(scope="session")
def ade20k(tmp_path_factory):
    """DataOptions of the ADE20K archive: 4 images in train, 2 in val."""
    root = tmp_path_factory.mktemp("official")
    official.write_ade20k_zips(root, official.ade20k_files())
    return data_pb2.DataOptions(dataset="ade20k", data_dir=str(root))


@pytest.fixture(scope="session")
def prepared(cityscapes, tmp_path_factory):
    """A folder of records of `cityscapes` in 2 shards a split, which tests must not change."""
    output = str(tmp_path_factory.mktemp("records") / "cityscapes")
    preparation.prepare(cityscapes, output, num_shards=2)
    return output
