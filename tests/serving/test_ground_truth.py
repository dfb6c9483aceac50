"""Prediction with ground truth: which label belongs to what, what its ids become, and what is said of faulty ones."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from sp_transformer.config import label_map as label_maps
from sp_transformer.pictures import panels
from sp_transformer.serving import outputs as outputs_lib
from sp_transformer.serving.predict import PredictOptions, predict

SIZE = (12, 17)
# Raw id 7 is "bright", and 9 is ignored; 0 is "dark" as it is.
LABEL_MAP = label_maps.LabelMap(
    names=("dark", "bright"),
    colors=np.array([[40, 40, 120], [255, 255, 0]], np.uint8),
    ignore_label=255,
    id_map={7: 1, 9: 255},
)
ENDINGS = (
    "errors.png",
    "labels.png",
    "overlay.png",
    "panel.png",
    "superpixels.json",
    "superpixels.png",
)


@pytest.fixture
def runtime(NumpyRuntime):
    found = NumpyRuntime()
    found.label_map = LABEL_MAP
    return found


def save_image(path, seed=0, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(image).save(path)
    return image


def save_label(path, seed=0, size=SIZE, ids=(0, 7, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.random.default_rng(seed).choice(np.array(ids, np.uint8), size)
    Image.fromarray(label).save(path)
    return label


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def outputs(*names):
    written = [f"{name}_{ending}" for name in names for ending in ENDINGS]
    return sorted(["legend.png", "legend_errors.png", *written])


def read(path):
    return np.asarray(Image.open(path))


def options(path, *names):
    return PredictOptions(ground_truth=str(path), outputs=names or None)


def parts_of(panel):
    """Superpixels, prediction and truth of a panel [y, x, 3], each reduced to the image's size; captions left out."""
    width = (panel.shape[1] - 8) // 3
    factor = width // SIZE[1]
    return [
        panel[: SIZE[0] * factor : factor, left : left + width : factor]
        for left in (0, width + 4, 2 * width + 8)
    ]


def test_panel_and_errors_show_the_mapped_label(runtime, tmp_path, capsys):
    image = save_image(tmp_path / "street.png")
    raw = save_label(tmp_path / "truth.png")
    summary = predict(
        runtime, str(tmp_path / "street.png"), tmp_path / "out", options(tmp_path / "truth.png")
    )
    assert summary.exit_code == 0 and not summary.without_truth
    assert files(tmp_path / "out") == outputs("street")
    assert "no ground truth" not in capsys.readouterr().out
    truth = np.select([raw == 0, raw == 7], [0, 1], 255)
    predicted = (image[..., 0] > 127).astype(int)
    colors = np.array([*LABEL_MAP.colors.tolist(), [0, 0, 0]], np.uint8)
    _, *shown = parts_of(read(tmp_path / "out" / "street_panel.png"))
    np.testing.assert_array_equal(shown[0], colors[predicted])
    np.testing.assert_array_equal(shown[1], colors[np.minimum(truth, 2)])
    np.testing.assert_array_equal(
        read(tmp_path / "out" / "street_errors.png"),
        panels.error_map(truth, predicted, 255, image),
    )
    # The legend has a swatch for what is ignored: one row more than without ground truth.
    predict(runtime, str(tmp_path / "street.png"), tmp_path / "bare")
    legends = [read(tmp_path / name / "legend.png").shape[0] for name in ("out", "bare")]
    assert legends[0] > legends[1]


def test_labels_of_a_folder_pair_by_name_and_subfolder(runtime, tmp_path, capsys):
    names = ("a/x.png", "b/x.jpg", "b/c/y.png", "z.png", "twice.jpg", "twice.png")
    for seed, name in enumerate(names):
        save_image(tmp_path / "in" / name, seed)
    labels = tmp_path / "gt"
    raw = {
        name: save_label(labels / f"{name}.png", seed)
        for seed, name in enumerate(("a/x", "b/x", "b/c/y", "twice.jpg"))
    }
    save_label(labels / "stray.png")
    summary = predict(runtime, str(tmp_path / "in"), tmp_path / "out", options(labels))
    assert len(summary.predicted) == 6 and not summary.failed
    left = {path.name: reason for path, reason in summary.without_truth}
    assert left == {"z.png": "it has no label", "twice.png": "it has no label"}
    assert summary.exit_code == 1
    printed = capsys.readouterr().out
    assert "0 skipped" in printed and "no ground truth for" in printed and "z.png" in printed
    without = {"z_errors.png", "twice.png_errors.png"}
    assert set(files(tmp_path / "out")) == set(outputs(*raw, "z", "twice.png")) - without
    for name, label in raw.items():
        truth = parts_of(read(tmp_path / "out" / f"{name}_panel.png"))[2]
        np.testing.assert_array_equal((truth == 0).all(-1), label == 9)
    # Without a label there are two parts.
    wide, narrow = (read(tmp_path / "out" / f"{name}_panel.png").shape[1] for name in ("a/x", "z"))
    assert narrow < 0.7 * wide


def test_cityscapes_names_pair(runtime, tmp_path):
    scene = "frankfurt/frankfurt_000000_000294"
    save_image(tmp_path / "leftImg8bit" / f"{scene}_leftImg8bit.png")
    raw = save_label(tmp_path / "gtFine" / f"{scene}_gtFine_labelIds.png")
    # Train ids, which this label map does not read, and colours.
    save_label(tmp_path / "gtFine" / f"{scene}_gtFine_labelTrainIds.png", ids=(1, 255))
    save_image(tmp_path / "gtFine" / f"{scene}_gtFine_color.png")
    summary = predict(
        runtime,
        str(tmp_path / "leftImg8bit"),
        tmp_path / "out",
        options(tmp_path / "gtFine", "panel"),
    )
    assert summary.exit_code == 0
    truth = parts_of(read(tmp_path / "out" / f"{scene}_leftImg8bit_panel.png"))[2]
    np.testing.assert_array_equal((truth == 0).all(-1), raw == 9)


def test_labels_below_the_input_are_no_inputs(runtime, tmp_path):
    save_image(tmp_path / "data" / "x.jpg")
    save_label(tmp_path / "data" / "gt" / "x.png")
    summary = predict(
        runtime, str(tmp_path / "data"), tmp_path / "out", options(tmp_path / "data" / "gt")
    )
    assert [path.name for path in summary.predicted] == ["x.jpg"] and summary.exit_code == 0


def test_faulty_labels_are_named_and_cost_nothing_but_the_truth(runtime, tmp_path, capsys):
    names = ("colors", "good", "size", "torn", "unknown")
    for name in names:
        save_image(tmp_path / "in" / f"{name}.png")
    labels = tmp_path / "gt"
    save_image(labels / "colors.png")
    save_label(labels / "good.png")
    save_label(labels / "size.png", size=(6, 8))
    save_label(labels / "torn.png", size=(90, 90))
    (labels / "torn.png").write_bytes((labels / "torn.png").read_bytes()[:300])
    save_label(labels / "unknown.png", ids=(0, 7, 33))
    runtime.label_map_file = tmp_path / "run" / "config.textproto"
    summary = predict(runtime, str(tmp_path / "in"), tmp_path / "out", options(labels))
    assert len(summary.predicted) == 5 and not summary.failed and summary.exit_code == 1
    reasons = {path.stem: reason for path, reason in summary.without_truth}
    assert sorted(reasons) == sorted(set(names) - {"good"})
    size = reasons["size"]
    assert "gt/size.png is 6x8" in size and "in/size.png is 12x17" in size
    unknown = reasons["unknown"]
    assert "gt/unknown.png holds id 33" in unknown and "list it in label_map.id_map" in unknown
    assert "run/config.textproto" in unknown
    assert "colours" in reasons["colors"] and "cannot read label" in reasons["torn"]
    printed = capsys.readouterr().out
    for reason in reasons.values():
        assert reason in printed
    drawn = sorted(path.name for path in (tmp_path / "out").glob("*_errors.png"))
    assert drawn == ["good_errors.png", "legend_errors.png"]


def test_ground_truth_that_cannot_be_used_is_refused_before_anything_is_written(runtime, tmp_path):
    save_image(tmp_path / "in" / "x.png")
    save_image(tmp_path / "in" / "y.png")
    save_label(tmp_path / "other" / "stray.png")
    label = tmp_path / "gt" / "x.png"
    save_label(label)
    one, both = str(tmp_path / "in" / "x.png"), str(tmp_path / "in")
    cases = [
        (both, options(tmp_path / "absent"), "absent' does not exist"),
        (both, options(label), "is one file, and there are 2 inputs; name a folder"),
        (both, options(tmp_path / "other"), r"no label that fits an input.*other/x\.png"),
        ("camera:0", options(label.parent), "a camera has no ground truth"),
        (one, options(label, "labels"), "outputs panel and errors, and neither is named"),
        (one, PredictOptions(outputs=["errors"]), "'errors' needs labels.*--ground_truth"),
    ]
    for inputs, chosen, words in cases:
        with pytest.raises(ValueError, match=words):
            predict(runtime, inputs, tmp_path / "out", chosen)
    assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "x_panel.png").write_bytes(label.read_bytes())
    with pytest.raises(ValueError, match="would overwrite"):
        predict(runtime, one, tmp_path / "in", options(tmp_path / "in" / "x_panel.png"))
    runtime.label_map = dataclasses.replace(LABEL_MAP, id_map=None)
    with pytest.raises(ValueError, match="export the model anew"):
        predict(runtime, one, tmp_path / "out", options(label))


def test_an_export_maps_ids_as_its_assets_say(exported, tmp_path):
    """The stand-in's six classes have no map of their own: the file is edited, as a user might."""
    import shutil

    folder = shutil.copytree(exported, tmp_path / "model")
    path = folder / "assets.extra" / "label_map.json"
    contents = json.loads(path.read_text())
    assert contents["id_map"] == {} and contents["ignore_unlisted_ids"] is False
    image = tmp_path / "x.png"
    save_image(image)
    raw = save_label(tmp_path / "gt.png", ids=(20, 30))
    summary = predict(folder, str(image), tmp_path / "a", options(tmp_path / "gt.png", "panel"))
    ((_, reason),) = summary.without_truth
    assert "ids 20, 30" in reason and str(path) in reason
    path.write_text(json.dumps(contents | {"id_map": {"20": 5, "30": 255}}))
    summary = predict(folder, str(image), tmp_path / "b", options(tmp_path / "gt.png", "panel"))
    assert not summary.without_truth
    truth = parts_of(read(tmp_path / "b" / "x_panel.png"))[2]
    np.testing.assert_array_equal((truth == (0, 0, 35)).all(-1), raw == 20)
    np.testing.assert_array_equal((truth == 0).all(-1), raw == 30)
    del contents["id_map"]
    path.write_text(json.dumps(contents))
    with pytest.raises(ValueError, match="export the model anew"):
        predict(folder, str(image), tmp_path / "c", options(tmp_path / "gt.png"))
    path.write_text(json.dumps(contents | {"id_map": {"70000": 1}}))
    with pytest.raises(ValueError, match=r"id_map lists 70000.*0 to 65535"):
        predict(folder, str(image), tmp_path / "c", options(tmp_path / "gt.png"))


def test_truth_has_the_size_of_the_image_and_not_of_the_model(NumpyRuntime, tmp_path):
    save_image(tmp_path / "x.png")
    raw = save_label(tmp_path / "gt.png", ids=(0, 1, 255))
    chosen = dataclasses.replace(options(tmp_path / "gt.png", "errors"), resize=True)
    runtime = NumpyRuntime(image_size=(8, 16))
    summary = predict(runtime, str(tmp_path / "x.png"), tmp_path / "out", chosen)
    assert summary.exit_code == 0
    errors = read(tmp_path / "out" / "x_errors.png")
    assert errors.shape[:2] == SIZE
    hatched = (errors == errors[..., :1]).all(-1)
    assert (hatched == (raw == 255)).mean() > 0.95


def test_outputs_follow_from_whether_there_is_ground_truth():
    assert outputs_lib.chosen(None) == outputs_lib.DEFAULT
    assert outputs_lib.chosen(None, True) == (*outputs_lib.DEFAULT, "panel", "errors")
    assert outputs_lib.chosen(["panel"], True) == ("panel",)
