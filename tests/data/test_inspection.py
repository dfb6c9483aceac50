"""Examinations, their sums, reports and the contact sheet, against slow NumPy on a few files."""

import io
import json

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

from sp_transformer.config import derived
from sp_transformer.data import (
    contact_sheet,
    examination,
    inspection,
    inspection_report,
    pipeline,
    sources,
)
from sp_transformer.protos import experiment_pb2


@pytest.fixture
def make(faulty_data, tmp_path):
    """Returns a function that writes a data set and gives its config."""

    def config(faults=(), good=4):
        root = faulty_data.write(tmp_path / "data", faults, good)
        message = text_format.Parse(faulty_data.CONFIG, experiment_pb2.ExperimentOptions())
        message.data.data_dir = str(root)
        return message

    return config


def test_statistics_equal_slow_ones(make, faulty_data):
    config = make()
    [report] = inspection.inspect(config, ["train"]).splits
    images = np.stack([faulty_data.picture(i) for i in range(4)]).astype(np.float64)
    labels = np.stack([faulty_data.ids(i) for i in range(4)])
    mean, std = report.color_mean_std()
    assert np.allclose(mean, images.mean((0, 1, 2))) and np.allclose(std, images.std((0, 1, 2)))
    expected = [(labels == i).sum() for i in (0, 1, 2, 255)]
    assert report.train_counts().tolist() == expected
    assert report.images_with_class().tolist() == [
        sum((label == i).any() for label in labels) for i in (0, 1, 2, 255)
    ]
    assert report.id_counts() == dict(zip((0, 1, 2, 255), expected, strict=True))
    assert report.ignored_share() == expected[-1] / labels.size
    assert report.sizes() == {(48, 64): 4}
    assert not report.faults and len(report.usable) == 4


def slow_balancing_weights(counts):
    """Of the classes that occur: one over the root of their pixels, divided by that of the average pixel."""
    raw = [1 / count**0.5 if count else None for count in counts]
    of_pixels = [raw[i] for i, count in enumerate(counts) for _ in range(count)]
    average = sum(of_pixels) / len(of_pixels)
    return [1 if weight is None else weight / average for weight in raw]


def test_printed_class_weights_are_a_config_of_mean_one(make):
    config = make()
    found = inspection.inspect(config, ["train", "val"])
    [train, _] = found.splits
    counts = train.train_counts()[:-1].tolist()
    expected = slow_balancing_weights(counts)
    assert np.allclose(train.balancing_weights(), expected, rtol=1e-12)
    assert len(set(expected)) > 1
    # Of the split that is trained on alone.
    [line] = [
        x for x in inspection_report.text(found, config).splitlines() if "class_weights: [" in x
    ]
    options = text_format.Parse(line, experiment_pb2.ExperimentOptions())
    assert np.allclose(options.training.class_weights, expected, atol=0.005)
    [as_json, _] = inspection_report.as_json(found, config, 0)["splits"]
    assert np.allclose(as_json["balancing_class_weights"], expected, atol=1e-4)


def test_class_weights_where_classes_are_missing(make, faulty_data, tmp_path):
    config = make(good=0)
    label = faulty_data.ids(0)
    label[label == 1] = 0
    picture = faulty_data.encoded(faulty_data.picture(0))
    faulty_data.put(tmp_path / "data", "train", "one", picture, faulty_data.encoded(label))
    [report] = inspection.inspect(config, ["train"]).splits
    counts = report.train_counts()[:-1].tolist()
    assert counts[1] == 0 and report.balancing_weights()[1] == 1
    assert np.allclose(report.balancing_weights(), slow_balancing_weights(counts))


def test_no_class_weights_where_nothing_counts(make, faulty_data, tmp_path):
    config = make(good=0)
    label = np.full_like(faulty_data.ids(0), 255)
    picture = faulty_data.encoded(faulty_data.picture(0))
    faulty_data.put(tmp_path / "data", "train", "void", picture, faulty_data.encoded(label))
    found = inspection.inspect(config, ["train"])
    assert found.splits[0].balancing_weights() is None
    assert "class_weights: [" not in inspection_report.text(found, config)
    [as_json] = inspection_report.as_json(found, config, 0)["splits"]
    assert as_json["balancing_class_weights"] is None


def test_all_faults_of_one_example_are_found(make, faulty_data, tmp_path):
    config = make()
    wide = np.full((10, 12), 99, np.uint16)
    faulty_data.put(
        tmp_path / "data",
        "train",
        "worst",
        faulty_data.encoded(faulty_data.picture(1)),
        faulty_data.encoded(wide),
    )
    found = inspection.inspect(config, ["train"])
    assert [fault.kind for fault in found.faults] == ["unknown_ids", "size_mismatch"]
    # Ids of faulty files are counted too: they are what a guess is drawn from.
    assert found.splits[0].id_counts()[99] == 120


def test_unlabelled_split_and_other_sources(make, make_config):
    config = make()
    config.data.folder.splits.add(name="test", images=["val/images/*.png"])
    [report] = inspection.inspect(config, ["test"]).splits
    assert not report.has_labels and not report.faults and report.ignored_share() is None
    text = inspection_report.text(inspection.inspect(config, ["test"]), config)
    assert "Split test: 4 images" in text and "pixels %" not in text
    streets = make_config()
    streets.data.synthetic_streets.train_images = 2
    [report] = inspection.inspect(streets, ["train"]).splits
    assert len(report.usable) == 2 and report.train_counts().sum() == 2 * 128 * 256


def test_source_without_files_names_its_examples(array_source, label_map):
    source = array_source([(4, 6)], num_classes=7)
    found = examination.examine(source, 0, label_map())
    assert {fault.kind for fault in found.faults} == {"unknown_ids"}
    assert all(fault.file == "array/0" for fault in found.faults)
    assert [int(str(f).split("train id ")[1].split(",")[0]) for f in found.faults] == [
        i for i in np.unique(source.examples[0][1]) if i > 2
    ]


def test_duplicates_in_a_split_and_across(make, faulty_data, tmp_path):
    config = make()
    same, label = (
        faulty_data.encoded(faulty_data.picture(0)),
        faulty_data.encoded(faulty_data.ids(0)),
    )
    faulty_data.put(tmp_path / "data", "train", "again", same, label)
    faulty_data.put(tmp_path / "data", "val", "leak", same, label)
    found = inspection.inspect(config, ["train", "val"])
    assert not found.faults
    kinds = {
        doubt.kind: sorted(file.rsplit("/", 1)[1] for file in doubt.files) for doubt in found.doubts
    }
    assert kinds == {
        "duplicate_in_split": ["again.png", "good0.png"],
        "duplicate_across_splits": ["again.png", "good0.png", "leak.png"],
    }
    assert inspection_report.exit_code(found) == inspection_report.DOUBTS == 3


def test_traits_are_counted(make, faulty_data, tmp_path):
    config = make(good=1)
    put, encoded = faulty_data.put, faulty_data.encoded
    label = encoded(faulty_data.ids(0))
    root, grey = tmp_path / "data", faulty_data.picture(1)[..., 0]
    put(root, "train", "grey", encoded(grey), label)
    put(root, "train", "deep", encoded(grey.astype(np.uint16) * 250), label)
    alpha = np.concatenate([faulty_data.picture(2), grey[..., None]], axis=-1)
    put(root, "train", "alpha", encoded(alpha), label)
    palette = Image.fromarray(faulty_data.ids(0))
    palette.putpalette(list(range(256)) * 3)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    turned = Image.Exif()
    turned[0x0112] = 3
    put(root, "train", "turned", encoded(faulty_data.picture(3), exif=turned), buffer.getvalue())
    [report] = inspection.inspect(config, ["train"]).splits
    assert not report.faults
    assert report.traits() == {
        "16-bit image": 1,
        "grey image": 1,
        "image turned by its EXIF orientation": 1,
        "image with alpha": 1,
        "palette label": 1,
    }


@pytest.mark.parametrize(("count", "wanted"), [(10, 0), (10, 10), (10, 3), (10, 1), (5, 50)])
def test_sample_is_spread(count, wanted):
    indices = inspection.spread(count, wanted)
    assert len(indices) == (min(count, wanted) or count)
    assert indices == sorted(set(indices)) and indices[0] == 0
    if len(indices) > 1:
        assert indices[-1] == count - 1


def test_report_suggests_a_map_that_mends(make, tmp_path):
    config = make()
    # Class table of 2 in place of 3, from ids 1 on.
    del config.data.label_map.classes[2]
    found = inspection.inspect(config, ["train", "val"])
    assert {fault.kind for fault in found.faults} == {"unknown_ids"}
    inspection_report.write(found, config, 0, tmp_path / "out")
    suggested = (tmp_path / "out" / inspection_report.SUGGESTED_MAP).read_text()
    text_format.Merge(suggested, config)
    assert not inspection.inspect(config, ["train", "val"]).faults
    # It is taken away once it is not needed any more.
    again = inspection.inspect(config, ["train", "val"])
    inspection_report.write(again, config, 0, tmp_path / "out")
    assert not (tmp_path / "out" / inspection_report.SUGGESTED_MAP).exists()


def test_text_and_json_agree(make, faulty_data):
    config = make(faulty_data.FAULTS)
    found = inspection.inspect(config, ["train", "val"])
    text = inspection_report.text(found, config)
    contents = json.loads(json.dumps(inspection_report.as_json(found, config, 0)))
    assert contents["exit_code"] == inspection_report.FAULTS
    assert len(contents["faults"]) == len(faulty_data.FAULTS)
    for fault in contents["faults"]:
        assert fault["file"] in fault["text"] and fault["text"] in text
    assert contents["splits"][0]["classes"][1]["name"] == "car"


def test_fault_lists_are_cut_short_in_the_text_only(make, faulty_data, tmp_path):
    config = make(good=1)
    for number in range(30):
        faulty_data.put(
            tmp_path / "data",
            "train",
            f"empty{number:02}",
            b"",
            faulty_data.encoded(faulty_data.ids(0)),
        )
    found = inspection.inspect(config, ["train"])
    text = inspection_report.text(found, config)
    assert "empty19" in text and "empty20" not in text and "and 10 more" in text
    assert len(inspection_report.as_json(found, config, 0)["faults"]) == 30


def test_progress_is_shown_in_time():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    stream, clock = io.StringIO(), Clock()
    progress = inspection_report.Progress(stream, clock)
    for done in range(1, 31):
        clock.now += 1
        progress("train", done, 30)
    assert stream.getvalue().splitlines() == [f"train: {n} of 30 images, 1/s" for n in (10, 20, 30)]


def test_progress_on_a_terminal_is_one_line():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = inspection_report.Progress(stream, iter(range(100)).__next__)
    for done in range(1, 4):
        progress("train", done, 3)
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().endswith("\n")
    assert [part.strip() for part in stream.getvalue().split("\r")[1:]] == [
        f"train: {n} of 3 images, 1/s" for n in (1, 2, 3)
    ]


def test_sheet_shows_what_training_reads(make, faulty_data):
    config = make(faulty_data.FAULTS)
    config.data.skip_corrupt = True
    source = sources.create_source(config.data, "train")
    usable = [one.index for one in inspection.inspect(config, ["train"]).splits[0].usable]
    assert len(usable) == 4
    subset = contact_sheet._Subset(source, usable)
    cells = contact_sheet.training_cells(config, subset, 12)
    assert sorted(cell.caption for cell in cells) == [f"train/images/good{i}" for i in range(4)]
    config.data.skip_corrupt = False
    batch = next(iter(pipeline.train_dataset(config, subset)))
    for cell, image, label in zip(cells, batch["image"], batch["label"], strict=False):
        assert np.abs(cell.image - image.numpy()).max() <= 0.5
        assert np.array_equal(cell.label, label)


def test_overlay_hatches_what_is_ignored(make):
    label_map = derived.label_map(make())
    image = np.full((16, 16, 3), 100, np.uint8)
    label = np.zeros((16, 16), np.int32)
    label[:, 8:] = 255
    drawn = contact_sheet.overlay(image, label, label_map)
    assert np.array_equal(drawn[0, 0], np.rint(0.4 * 100 + 0.6 * label_map.colors[0]))
    assert {tuple(color) for color in drawn[:, 8:].reshape(-1, 3)} == {(50,) * 3, (162,) * 3}


@pytest.mark.parametrize("crop", [(64, 64), (32, 128), (128, 32)])
def test_sheet_of_all_shapes(make, crop):
    config = make()
    config.data.crop_height, config.data.crop_width = crop
    sheet = contact_sheet.draw(config, inspection.inspect(config, ["train", "val"]))
    assert sheet.width == 1480 and 300 < sheet.height < 4000
    # Colours of the classes are on it.
    colors = {color for _, color in sheet.getcolors(10**7)}
    assert (128, 64, 128) in colors and (0, 0, 142) in colors


def test_no_sheet_without_labels(make):
    config = make()
    config.data.folder.splits.add(name="test", images=["val/images/*.png"])
    assert contact_sheet.draw(config, inspection.inspect(config, ["test"])) is None
