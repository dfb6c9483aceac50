import numpy as np
import pytest

from sp_transformer.config import registries
from sp_transformer.data import augmentation, sources
from sp_transformer.data.folder import FolderSource
from sp_transformer.protos import data_pb2


def _folder_options(root, **kwargs):
    options = data_pb2.DataOptions(dataset="folder", data_dir=str(root), **kwargs)
    options.folder.splits.add(name="day", images=["*.png"])
    options.folder.splits.add(name="night", images=["night/*.png"])
    return options


def test_registries_agree_with_the_config():
    assert set(sources._SOURCES) == set(registries.DATASETS)
    assert set(augmentation.COLOR_POLICIES) == set(registries.COLOR_POLICIES)


def test_folder_split(tmp_path, save):
    save(tmp_path / "a.png", np.zeros((2, 3, 3), np.uint8))
    options = _folder_options(tmp_path)
    options.label_map.classes.add(name="road", color="#102030")
    source = sources.create_source(options, "day")
    assert isinstance(source, FolderSource)
    assert source.name(0) == "a"


def test_synthetic_streets():
    options = data_pb2.DataOptions(dataset="synthetic_streets")
    options.synthetic_streets.height, options.synthetic_streets.width = 32, 64
    options.synthetic_streets.train_images, options.synthetic_streets.val_images = 5, 3
    assert len(sources.create_source(options, "train")) == 5
    source = sources.create_source(options, "val")
    image, label = source.read(2)
    assert len(source) == 3 and image.shape == (32, 64, 3) and label.shape == (32, 64)


def test_unknown_split_lists_the_known(tmp_path):
    with pytest.raises(ValueError, match="split 'val' is unknown; this data set has day, night"):
        sources.create_source(_folder_options(tmp_path), "val")
    with pytest.raises(ValueError, match="split 'test' is unknown; this data set has train, val"):
        sources.create_source(data_pb2.DataOptions(dataset="synthetic_streets"), "test")


def test_unknown_data_set_and_missing_classes(tmp_path):
    with pytest.raises(ValueError, match="'cityscape' is not registered; choose one of ade20k, "):
        sources.create_source(data_pb2.DataOptions(dataset="cityscape"), "train")
    with pytest.raises(ValueError, match=r"label_map\.classes is empty"):
        sources.create_source(_folder_options(tmp_path), "day")
