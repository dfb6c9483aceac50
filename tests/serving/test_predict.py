"""Prediction over files of several kinds: what is written where, and what is skipped."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sp_transformer.data import image_io
from sp_transformer.serving import inputs as inputs_lib
from sp_transformer.serving import outputs as outputs_lib
from sp_transformer.serving.predict import predict

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
