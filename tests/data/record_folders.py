"""What tests of records do with folders of them and with the sources that read them."""

import pathlib

import numpy as np

from sp_transformer.protos import data_pb2


def copied(folder, target) -> str:
    """Copies a folder of files; returns the copy."""
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            path_of_copy = target / path.relative_to(folder)
            path_of_copy.parent.mkdir(parents=True, exist_ok=True)
            path_of_copy.write_bytes(path.read_bytes())
    return str(target)


def moved(options, folder):
    """The same DataOptions with another data_dir."""
    result = data_pb2.DataOptions()
    result.CopyFrom(options)
    result.data_dir = str(folder)
    return result


def assert_equal_sources(first, second):
    """Names, images and labels of two sources are equal, types included."""
    assert len(first) == len(second) and first.has_labels == second.has_labels
    for index in range(len(first)):
        assert first.name(index) == second.name(index)
        (image, label), (other_image, other_label) = first.read(index), second.read(index)
        assert image.dtype == other_image.dtype == np.uint8
        assert np.array_equal(image, other_image)
        if first.has_labels:
            assert label.dtype == other_label.dtype and np.array_equal(label, other_label)
