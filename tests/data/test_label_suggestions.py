"""Each guess on the data set that it is made for, and none where ids and classes fit."""

import dataclasses

import numpy as np
import pytest
from google.protobuf import text_format

from sp_transformer.config import label_map as label_maps
from sp_transformer.config import loading
from sp_transformer.data import examination, label_suggestions
from sp_transformer.protos import experiment_pb2

BUNDLED = loading.bundled_label_maps()
CITYSCAPES = BUNDLED["configs/label_maps/cityscapes.textproto"]
ADE20K = BUNDLED["configs/label_maps/ade20k.textproto"]


def _plain(label_map):
    return dataclasses.replace(label_map, id_map={})


def _classes(count, **kwargs):
    names = tuple(f"class{i}" for i in range(count))
    return label_maps.LabelMap(names, np.zeros((count, 3), np.uint8), **kwargs)


def _even(ids):
    return dict.fromkeys(ids, 100)


def _suggested(ids, label_map):
    """The suggestion, which must leave no id unknown."""
    suggestion = label_suggestions.suggest(_even(ids), label_map)
    assert suggestion is not None
    mended = dataclasses.replace(
        label_map, id_map=suggestion.id_map, ignore_label=suggestion.ignore_label
    )
    for file_id in ids:
        train_id = examination.train_id_of(file_id, mended)
        assert 0 <= train_id < len(mended.names) or train_id == mended.ignore_label, file_id
    return suggestion


@pytest.mark.parametrize(
    ("ids", "label_map"),
    [
        (range(34), CITYSCAPES),
        ([*range(19), 255], _plain(CITYSCAPES)),
        ([0, 3, 7, 255], _plain(CITYSCAPES)),
        (range(151), ADE20K),
        ([*range(150), 255], _plain(ADE20K)),
        ([0, 1, 2], _classes(3)),
        ([0, 1, 255], _classes(2)),
        ([7, 26], _classes(2, id_map={7: 0, 26: 1})),
        ([], _classes(2)),
        # Nothing is moved, and 255 is ignored either way.
        ([0, 1, 2, 255], _classes(3, id_map={3: 255})),
        ([0, 1, 2, 3], _classes(3, ignore_label=3)),
        (range(300), _classes(300, ignore_label=65535)),
    ],
)
def test_no_guess_where_ids_fit(ids, label_map):
    assert label_suggestions.suggest(_even(ids), label_map) is None


def test_cityscapes_label_ids_where_train_ids_are_expected():
    suggestion = _suggested(range(34), _plain(CITYSCAPES))
    assert dict(suggestion.id_map) == dict(CITYSCAPES.id_map)
    assert 'base_config: "configs/label_maps/cityscapes.textproto"' in suggestion.text
    # License plates are -1, which 8-bit files hold as 255.
    suggestion = _suggested([*range(34), 255], _plain(CITYSCAPES))
    assert "cityscapes.textproto" in suggestion.text


def test_cityscapes_train_ids_where_label_ids_are_expected():
    suggestion = _suggested([*range(19), 255], CITYSCAPES)
    assert not suggestion.id_map and suggestion.textproto() == ""
    assert "train ids" in suggestion.text and "remove id_map" in suggestion.text


def test_ade20k_of_one_more():
    # The original annotations, with the class table alone.
    suggestion = _suggested(range(151), _plain(ADE20K))
    assert dict(suggestion.id_map) == dict(ADE20K.id_map)
    assert "ade20k.textproto" in suggestion.text
    # Train ids, with the map for the original annotations.
    assert "remove id_map" in _suggested([*range(150), 255], ADE20K).text


def test_ids_from_one():
    suggestion = _suggested([0, 1, 2, 3], _classes(3))
    assert dict(suggestion.id_map) == {0: 255, 1: 0, 2: 1, 3: 2}
    assert "start at 1" in suggestion.text and '"class0"' in suggestion.text
    assert "does not occur" in _suggested([1, 2, 3], _classes(3)).text


@pytest.mark.parametrize("ignore_label", [255, 9])
def test_black_and_white_masks(ignore_label):
    suggestion = _suggested([0, 255], _classes(2, ignore_label=ignore_label))
    assert dict(suggestion.id_map) == {0: 0, 255: 1}
    assert suggestion.ignore_label == (254 if ignore_label == 255 else 9)
    assert "black and white" in suggestion.text


def test_ids_spread_for_the_eye():
    suggestion = _suggested([0, 85, 170, 255], _classes(4))
    assert dict(suggestion.id_map) == {0: 0, 85: 1, 170: 2, 255: 3}
    assert suggestion.ignore_label == 254
    assert "multiples of 85" in suggestion.text


@pytest.mark.parametrize("nothing", [255, -1, 65535])
def test_other_ways_to_write_nothing(nothing):
    suggestion = _suggested([0, 1, 2, nothing], _classes(3, ignore_label=100))
    assert suggestion.id_map[nothing] == 100
    assert f"only {nothing} fits no class" in suggestion.text
    # The config takes ids from 0 on.
    assert (suggestion.textproto() == "") == (nothing < 0)


def test_as_many_ids_as_classes():
    suggestion = _suggested([4, 40, 77, 255], _classes(3))
    assert dict(suggestion.id_map) == {4: 0, 40: 1, 77: 2}
    assert '40 "class1"' in suggestion.text
    assert label_suggestions.suggest(_even([4, 40]), _classes(3)) is None


def test_textproto_is_an_override():
    suggestion = _suggested([0, 1, 2, 3], _classes(3))
    config = text_format.Parse(suggestion.textproto(), experiment_pb2.ExperimentOptions())
    mended = label_maps.from_options(config.data.label_map)
    assert mended.id_map == suggestion.id_map and mended.ignore_label == 255
