"""Label maps from options, and the shipped ones against the data sets' own definitions."""

import numpy as np
import pytest

from sp_transformer.config import ConfigError, derived, label_map, load_config, loading
from sp_transformer.protos import data_pb2, experiment_pb2

CITYSCAPES_CONFIG = "configs/cityscapes/resnet50.textproto"


def test_from_options_keeps_order_colors_and_ids():
    options = data_pb2.LabelMapOptions(ignore_label=9, ignore_unlisted_ids=True)
    options.classes.add(name="b", color="#0a0B0c")
    options.classes.add(name="a", color="#ff0001")
    entry = options.id_map.add(to=1)
    setattr(entry, "from", 300)
    result = label_map.from_options(options)
    assert result.names == ("b", "a") and result.num_classes == 2
    assert result.colors.dtype == np.uint8
    np.testing.assert_array_equal(result.colors, [[10, 11, 12], [255, 0, 1]])
    assert (result.ignore_label, result.ignore_unlisted_ids) == (9, True)
    assert result.id_map == {300: 1}


def test_from_options_without_classes_has_an_empty_color_table():
    assert label_map.from_options(data_pb2.LabelMapOptions()).colors.shape == (0, 3)


@pytest.mark.parametrize("text", ["", "#12345", "#1234567", "123456", "#12345g", "red", "#123456 "])
def test_parse_color_refuses_other_forms(text):
    with pytest.raises(ValueError, match="is not a colour"):
        label_map.parse_color(text)


def merged_label_map(name):
    """The label map of a shipped file merged onto the Cityscapes experiment."""
    text = (loading._BUNDLED_ROOTS[0] / "label_maps" / f"{name}.textproto").read_text()
    return derived.label_map(load_config(CITYSCAPES_CONFIG, [text]))


def test_cityscapes_file_has_the_official_classes_and_maps_every_id():
    from_file = merged_label_map("cityscapes")
    assert from_file.names[:3] == ("road", "sidewalk", "building")
    assert from_file.names[-1] == "bicycle" and from_file.num_classes == 19
    assert from_file.colors[[0, 13, 18]].tolist() == [[128, 64, 128], [0, 0, 142], [119, 11, 32]]
    # The license plate's -1 is 255 in 8 bits and 65535 in 16.
    assert sorted(from_file.id_map) == [*range(34), 255, 65535]
    scored = {file_id: to for file_id, to in from_file.id_map.items() if to != 255}
    # The data set's definition: these label ids are scored, in this order.
    assert list(scored) == [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
    assert list(scored.values()) == list(range(19))


def test_ade20k_file_shifts_150_ids_by_one():
    ade20k = merged_label_map("ade20k")
    assert ade20k.num_classes == 150
    assert ade20k.id_map == {0: 255} | {k: k - 1 for k in range(1, 151)}
    assert (
        ade20k.names[0] == "wall" and ade20k.names[12] == "person" and ade20k.names[149] == "flag"
    )
    assert tuple(ade20k.colors[12]) == (150, 5, 61)
    # Road and skyscraper share a colour in the benchmark's own table.
    assert len({tuple(color) for color in ade20k.colors.tolist()}) == 149


def test_camvid_file_ignores_unlabelled_pixels():
    camvid = merged_label_map("camvid")
    assert camvid.names == (
        *("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car"),
        *("Pedestrian", "Bicyclist"),
    )
    assert camvid.id_map == {11: 255} and camvid.ignore_label == 255


def test_cityscapes_without_ids_is_the_default_of_synthetic_streets_only():
    config = experiment_pb2.ExperimentOptions()
    config.data.dataset = "synthetic_streets"
    drawn = derived.label_map(config)
    assert drawn.names == merged_label_map("cityscapes").names
    assert drawn.id_map == {} and not drawn.ignore_unlisted_ids
    config.data.dataset = "folder"
    with pytest.raises(ValueError, match=r"folder.*list the classes"):
        derived.label_map(config)


@pytest.mark.parametrize(
    ("dataset", "bundled"),
    [("synthetic_streets", "cityscapes"), ("cityscapes", "cityscapes"), ("ade20k", "ade20k")],
)
def test_a_part_of_a_label_map_is_refused_where_the_data_set_has_its_own(write, dataset, bundled):
    text = f'data {{ dataset: "{dataset}" crop_height: 64 crop_width: 64 }}'
    parts = {
        "id_map { from: 7 to: 3 }": ["id_map"],
        "ignore_unlisted_ids: true": ["ignore_unlisted_ids true"],
        "ignore_unlisted_ids: true id_map { from: 300 to: 1 }": ["id_map", "ignore_unlisted_ids"],
    }
    if dataset != "synthetic_streets":
        parts["ignore_label: 254"] = ["ignore_label 254"]
    base = f'base_config: "configs/label_maps/{bundled}.textproto"'
    for part, fields in parts.items():
        override = f"data {{ label_map {{ {part} }} }}"
        with pytest.raises(ConfigError) as caught:
            load_config(write(text), [override])
        for field, fault in zip(fields, caught.value.faults, strict=True):
            assert fault.startswith(f"data.label_map.{field}")
            assert "no effect without data.label_map.classes" in fault
            assert f'base_config "configs/label_maps/{bundled}.textproto"' in fault
        if "ignore_label" not in part:
            load_config(write(base + text), [override])
    # The defaults may be written out.
    stated = "data { label_map { ignore_label: 255 ignore_unlisted_ids: false } }"
    load_config(write(text), [stated])
