"""Prediction over files of several kinds: what is written where, and what is skipped."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sp_transformer.data import image_io
from sp_transformer.serving import inputs as inputs_lib
from sp_transformer.serving import outputs as outputs_lib
from sp_transformer.serving import predict as predict_lib
from sp_transformer.serving.predict import PredictOptions, predict

ENDINGS = ("labels.png", "overlay.png", "superpixels.png", "superpixels.json")


def random_image(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def save(path, size=(12, 17), seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_image(size, seed)).save(path, **options)
    return path


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def outputs(*names):
    return sorted(["legend.png", *(f"{name}_{ending}" for name in names for ending in ENDINGS)])


@pytest.fixture
def photos(tmp_path):
    """An RGB JPEG, a grey PNG, a JPEG on its side, one with alpha, a corrupt file and one that is
    no image."""
    folder = tmp_path / "photos"
    save(folder / "street.jpg")
    Image.fromarray(random_image((9, 14))[..., 0]).save(folder / "grey.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "sideways.JPG", (8, 21), exif=exif)
    alpha = np.concatenate([random_image((6, 7)), np.full((6, 7, 1), 9, np.uint8)], -1)
    Image.fromarray(alpha).save(folder / "alpha.png")
    torn = save(folder / "torn.png", (30, 30))
    torn.write_bytes(torn.read_bytes()[:500])
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_all_kinds_of_images_get_three_pictures_of_their_size(
    exported, inference, config, photos, tmp_path, capsys
):
    out = tmp_path / "out"
    summary = predict(exported, str(photos), out)
    assert files(out) == outputs("street", "grey", "sideways", "alpha")
    assert [path.name for path, _ in summary.failed] == ["torn.png"]
    printed = capsys.readouterr().out
    assert "4 images" in printed and "images/s" in printed and "torn.png" in printed
    for name, size in (("street", (12, 17)), ("grey", (9, 14)), ("sideways", (21, 8))):
        (path,) = [path for path in summary.predicted if path.stem == name]
        image = image_io.read_image(path)
        assert image.shape[:2] == size
        expected, ids = (x.numpy()[0] for x in inference.labels_and_superpixels(image[None]))
        written = Image.open(out / f"{name}_labels.png")
        assert written.mode == "L"
        np.testing.assert_array_equal(np.asarray(written), expected)
        colors = np.array(
            [tuple(bytes.fromhex(c.color[1:])) for c in config.data.label_map.classes], float
        )
        overlay = np.asarray(Image.open(out / f"{name}_overlay.png"), float)
        assert np.abs(overlay - (image + colors[expected]) / 2).max() <= 0.5
        outlines = np.asarray(Image.open(out / f"{name}_superpixels.png"))
        changed = (outlines != image).any(-1)
        # The line between the 4x4 cells of the stand-in, and nothing inside of a cell.
        assert changed[3].any() and not changed[1, 1]
        assert ids.shape == size


def test_many_classes_are_written_with_16_bits(exported_300_classes, tmp_path):
    path = save(tmp_path / "image.png", (20, 31))
    predict(exported_300_classes, str(path), tmp_path / "out")
    written = Image.open(tmp_path / "out" / "image_labels.png")
    assert written.mode.startswith("I")
    loaded = tf.saved_model.load(str(exported_300_classes))
    expected = loaded.labels(tf.constant(random_image((20, 31))[None]))["labels"][0]
    np.testing.assert_array_equal(np.asarray(written), expected)
    assert np.max(expected) > 255


def test_equal_names_do_not_collide(exported, tmp_path):
    folder = tmp_path / "in"
    for name in ("a/x.png", "b/x.png", "b/c/x.jpg", "y.jpg", "y.png", "y.jpg.png", "z.png"):
        save(folder / name)
    out = tmp_path / "out"
    summary = predict(exported, str(folder), out)
    assert len(summary.predicted) == 7
    assert files(out) == outputs("a/x", "b/x", "b/c/x", "y.jpg", "y.png", "y.jpg.png", "z")


def test_glob_keeps_the_folders_below_its_fixed_part(exported, tmp_path):
    for name in ("a/x.png", "a/skip.jpg", "b/x.png", "b/c/x.png"):
        save(tmp_path / "in" / name)
    predict(exported, str(tmp_path / "in" / "**" / "*.png"), tmp_path / "out")
    assert files(tmp_path / "out") == outputs("a/x", "b/x", "b/c/x")


def test_several_inputs_and_one_named_twice(exported, tmp_path):
    first, second = save(tmp_path / "a" / "x.png"), save(tmp_path / "b" / "y.png")
    summary = predict(exported, [str(first), str(second), str(first)], tmp_path / "out")
    assert len(summary.predicted) == 2
    assert files(tmp_path / "out") == outputs("x", "y")


def test_a_second_run_does_not_predict_the_results_of_the_first(exported, tmp_path):
    save(tmp_path / "in" / "x.png")
    for _ in range(2):
        summary = predict(exported, str(tmp_path / "in"), tmp_path / "in" / "out")
        assert len(summary.predicted) == 1
    results = [f"out/{name}" for name in outputs("x")]
    assert files(tmp_path / "in") == sorted(["x.png", *results])


def test_links_keep_their_own_names(exported, tmp_path):
    path = save(tmp_path / "store" / "4711.png")
    (tmp_path / "in").mkdir()
    for name in ("left.png", "right.png"):
        os.symlink(path, tmp_path / "in" / name)
    predict(exported, str(tmp_path / "in"), tmp_path / "out")
    assert files(tmp_path / "out") == outputs("left", "right")


def test_inputs_that_cannot_be_served_are_refused_before_anything_is_written(exported, tmp_path):
    one = save(tmp_path / "a" / "x.png")
    other = save(tmp_path / "b" / "x.png")
    labels = save(tmp_path / "c" / "x_labels.png")
    save(tmp_path / "c" / "x.png")
    (tmp_path / "empty").mkdir()
    cases = [
        (str(tmp_path / "absent.png"), tmp_path / "out", "absent.png"),
        (str(tmp_path / "empty"), tmp_path / "out", "no image"),
        (str(tmp_path / "a" / "*.jpg"), tmp_path / "out", "matches no file"),
        ([str(one), str(other)], tmp_path / "out", "same name"),
        (str(tmp_path / "a"), tmp_path / "a", "name another output_dir"),
        (str(tmp_path / "c" / "x*.png"), tmp_path / "c", "name another output_dir"),
    ]
    for inputs, out, words in cases:
        with pytest.raises(ValueError, match=words):
            predict(exported, inputs, out)
    with pytest.raises(ValueError, match="overwrite"):
        inputs_lib.plan(
            [str(labels), str(tmp_path / "c" / "x.png")], labels.parent, outputs_lib.DEFAULT
        )
    for name in ("legend.png", "legend_errors.png", "x_association.png"):
        save(tmp_path / "d" / name)
        inputs = [str(tmp_path / "d" / name), str(one)]
        written = ("errors", "association")
        with pytest.raises(ValueError, match=f"{name}'.* would overwrite an input"):
            inputs_lib.plan(inputs, tmp_path / "d", written)
    assert not (tmp_path / "out").exists()
    assert files(tmp_path / "c") == ["x.png", "x_labels.png"]


def test_only_unreadable_images_are_an_error_that_lists_them(exported, tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"no image at all")
    with pytest.raises(ValueError, match="none of the 2") as error:
        predict(exported, str(tmp_path), tmp_path / "out")
    assert "a.png" in str(error.value) and "b.jpg" in str(error.value)


def test_folders_that_are_no_export_are_refused(exported, tmp_path):
    path = str(save(tmp_path / "x.png"))
    with pytest.raises(ValueError, match=r"no export.*saved_model\.pb"):
        predict(tmp_path, path, tmp_path / "out")
    bare = shutil.copytree(exported, tmp_path / "bare")
    shutil.rmtree(bare / "assets.extra")
    with pytest.raises(ValueError, match=r"assets\.extra.*export"):
        predict(bare, path, tmp_path / "out")
    other = tf.Module()
    other.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(other, str(tmp_path / "other"), signatures=other.double)
    shutil.copytree(exported / "assets.extra", tmp_path / "other" / "assets.extra")
    with pytest.raises(ValueError, match="no signature 'superpixels'"):
        predict(tmp_path / "other", path, tmp_path / "out")


def test_the_table_is_that_of_the_model(exported, inference, config, tmp_path):
    path = save(tmp_path / "street.png", (13, 22))
    predict(exported, str(path), tmp_path / "out")
    table = json.loads((tmp_path / "out" / "street_superpixels.json").read_text())
    assert list(table) == ["file", "height", "width", "superpixels"]
    assert (table["file"], table["height"], table["width"]) == ("street.png", 13, 22)
    expected = {
        name: value.numpy()[0]
        for name, value in inference.superpixels(random_image((13, 22))[None]).items()
        if value.shape.rank > 1
    }
    rows = table["superpixels"]
    assert [row["id"] for row in rows] == list(range(4 * 6))
    for row in rows:
        assert list(row) == ["id", "class", "class_name", "confidence", "centroid", "pixels"]
        number = row["id"]
        assert row["class"] == expected["superpixel_classes"][number]
        assert row["class_name"] == config.data.label_map.classes[row["class"]].name
        assert abs(row["confidence"] - expected["superpixel_confidence"][number]) < 1e-4
        assert np.abs(row["centroid"] - expected["superpixel_centroids"][number]).max() < 0.01
        assert row["pixels"] == expected["superpixel_pixels"][number]
    assert sum(row["pixels"] for row in rows) == 13 * 22


def test_every_output_can_be_had_and_unknown_ones_are_refused(NumpyRuntime, tmp_path):
    path = save(tmp_path / "x.png", (20, 31))
    # Errors take ground truth: tests/serving/test_ground_truth.py.
    outputs = [name for name in outputs_lib.NAMES if name != outputs_lib.ERRORS]
    options = PredictOptions(outputs=outputs)
    predict(NumpyRuntime(), str(path), tmp_path / "out", options)
    pictures = [f"x_{name}.png" for name in outputs_lib.PICTURES if name != outputs_lib.ERRORS]
    expected = ["legend.png", "x_labels.png", "x_superpixels.json", *pictures]
    assert files(tmp_path / "out") == sorted(expected)
    for name in ("overlay", "superpixels", "mean_color"):
        assert image_io.read_image(tmp_path / "out" / f"x_{name}.png").shape == (20, 31, 3)
    with pytest.raises(ValueError, match=r"output 'overlays' does not exist.*overlay"):
        predict(NumpyRuntime(), str(path), tmp_path / "o", PredictOptions(outputs=["overlays"]))
    with pytest.raises(ValueError, match="no output was named"):
        predict(NumpyRuntime(), str(path), tmp_path / "o", PredictOptions(outputs=[]))
    assert not (tmp_path / "o").exists()


def test_images_of_every_kind_are_predicted_or_named(NumpyRuntime, tmp_path, capsys):
    folder = tmp_path / "in"
    save(folder / "one_pixel.png", (1, 1))
    save(folder / "one_row.png", (1, 50))
    deep = np.random.default_rng(0).integers(0, 65536, (9, 8), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "sixteen_bits.png")
    Image.fromarray(random_image((9, 8))[..., 0]).save(folder / "grey.jpg")
    Image.fromarray(random_image((9, 8))).quantize(16).save(folder / "palette.png")
    Image.fromarray(random_image((9, 8))).convert("CMYK").save(folder / "print.jpg")
    Image.new("L", (10000, 10000)).save(folder / "huge.png")
    torn = save(folder / "torn.jpg", (60, 60))
    torn.write_bytes(torn.read_bytes()[:1500])
    (folder / "empty.png").write_bytes(b"")
    (tmp_path / "nothing").mkdir()
    options = PredictOptions(max_megapixels=64)
    inputs = [str(folder), str(tmp_path / "nothing")]
    summary = predict(NumpyRuntime(), inputs, tmp_path / "out", options)
    assert summary.exit_code == 1
    good = ["grey", "one_pixel", "one_row", "palette", "print", "sixteen_bits"]
    assert files(tmp_path / "out") == outputs(*good)
    reasons = {path.name: reason for path, reason in summary.failed}
    assert sorted(reasons) == ["empty.png", "huge.png", "nothing", "torn.jpg"]
    assert "10000x10000" in reasons["huge.png"] and "64" in reasons["huge.png"]
    assert "it is empty" in reasons["empty.png"] and "truncated" in reasons["torn.jpg"]
    assert "holds no image" in reasons["nothing"]
    printed = capsys.readouterr().out
    assert "6 images" in printed and "4 skipped" in printed
    for name in reasons:
        assert name in printed
    labels = np.asarray(Image.open(tmp_path / "out" / "sixteen_bits_labels.png"))
    np.testing.assert_array_equal(labels, deep >> 8 > 127)


def test_an_image_too_large_for_the_memory_is_not_even_decoded(NumpyRuntime, tmp_path, monkeypatch):
    Image.new("L", (10000, 10000)).save(tmp_path / "huge.png")
    save(tmp_path / "x.png")
    monkeypatch.setattr(predict_lib.memory, "available_bytes", lambda: 16 * 2**30)
    read = image_io.read_image
    decoded = []
    monkeypatch.setattr(image_io, "read_image", lambda path: decoded.append(path) or read(path))
    summary = predict(NumpyRuntime(), str(tmp_path), tmp_path / "out")
    assert [path.name for path in decoded] == ["x.png"]
    ((path, reason),) = summary.failed
    assert path.name == "huge.png" and "16.0 GiB are free" in reason


def test_an_image_that_the_model_fails_on_does_not_lose_the_others(NumpyRuntime, tmp_path):
    def fail_on_one_row(image):
        if image.shape[0] == 1:
            raise RuntimeError("out of memory\nwith a long story")

    for name, size in (("a", (4, 4)), ("b", (1, 4)), ("c", (5, 5))):
        save(tmp_path / f"{name}.png", size)
    runtime = NumpyRuntime(before_run=fail_on_one_row)
    summary = predict(runtime, str(tmp_path), tmp_path / "out")
    assert [path.stem for path in summary.predicted] == ["a", "c"]
    assert [(path.stem, reason) for path, reason in summary.failed] == [("b", "out of memory")]


def test_other_sizes_are_skipped_or_resized_as_asked(NumpyRuntime, tmp_path):
    save(tmp_path / "fits.png", (8, 16))
    save(tmp_path / "larger.png", (21, 30))
    runtime = NumpyRuntime(image_size=(8, 16))
    summary = predict(runtime, str(tmp_path), tmp_path / "out")
    ((path, reason),) = summary.failed
    assert path.name == "larger.png" and "21x30" in reason and "8x16" in reason
    summary = predict(runtime, str(tmp_path), tmp_path / "out", PredictOptions(resize=True))
    assert not summary.failed
    assert Image.open(tmp_path / "out" / "larger_labels.png").size == (30, 21)


def test_a_full_disk_ends_the_run_with_what_could_be_written_whole(
    NumpyRuntime, tmp_path, monkeypatch
):
    for name in "abcdef":
        save(tmp_path / "in" / f"{name}.png")
    replace = os.replace

    def fail_on_c(source, target):
        if os.path.basename(target) == "c_overlay.png":
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(image_io.os, "replace", fail_on_c)
    with pytest.raises(OSError, match="No space left"):
        predict(NumpyRuntime(), str(tmp_path / "in"), tmp_path / "out")
    written = files(tmp_path / "out")
    assert set(outputs("a", "b")) - {"legend.png"} <= set(written)
    assert not [name for name in written if name.endswith(".tmp")]


def test_memory_is_bounded_by_waiting_for_the_slowest(NumpyRuntime, tmp_path, monkeypatch):
    """Of images that are read and not yet written there are never more than the limit."""
    size = (40, 50)
    for number in range(12):
        save(tmp_path / "in" / f"{number:02}.png", size)
    monkeypatch.setattr(predict_lib, "_PIXELS_AHEAD", 2 * size[0] * size[1])
    held, most = [0], [0]
    read, write = image_io.read_image, outputs_lib.write

    def counting_read(path):
        held[0] += 1
        most[0] = max(most[0], held[0])
        return read(path)

    def counting_write(*arguments):
        write(*arguments)
        held[0] -= 1

    monkeypatch.setattr(image_io, "read_image", counting_read)
    monkeypatch.setattr(outputs_lib, "write", counting_write)
    summary = predict(NumpyRuntime(), str(tmp_path / "in"), tmp_path / "out")
    assert len(summary.predicted) == 12
    # Two that wait to be predicted, the one at hand, two that wait to be written.
    assert 2 <= most[0] <= 5


def test_an_export_of_another_version_is_run_with_a_warning(exported, tmp_path, caplog):
    other = shutil.copytree(exported, tmp_path / "other")
    path = other / "assets.extra" / "version.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sp_transformer": "7.8.9"}))
    with caplog.at_level("WARNING", logger="absl"):
        predict(other, str(save(tmp_path / "x.png")), tmp_path / "out")
    assert "7.8.9" in caplog.text and (tmp_path / "out" / "x_labels.png").exists()


def test_association_and_attention_are_drawn_of_runs_only(tiny_run, exported, tmp_path):
    path = str(save(tmp_path / "x.png", (50, 70)))
    options = PredictOptions(outputs=["labels"], pixel=(10, 20), superpixel=1)
    predict(tiny_run.model_dir, path, tmp_path / "out", options)
    drawn = [f"x_{name}.png" for name in ("assignment", "association", "attention", "labels")]
    assert files(tmp_path / "out") == sorted(["legend.png", *drawn])
    for pixel, superpixel, words in (((50, 0), None, "no pixel"), (None, 99, "no superpixel 99")):
        options = PredictOptions(pixel=pixel, superpixel=superpixel)
        with pytest.raises(ValueError, match=words):
            predict(tiny_run.model_dir, path, tmp_path / "o", options)
    with pytest.raises(ValueError, match=r"saved_model export.*model_dir"):
        predict(exported, path, tmp_path / "o", PredictOptions(superpixel=1))
