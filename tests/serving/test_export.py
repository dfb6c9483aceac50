"""SavedModels: whole and equal to the model (without Keras: tests/test_export.py), and what all exports share."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

import sp_transformer as spt
from sp_transformer import version
from sp_transformer.model import inference as inference_lib
from sp_transformer.protos import experiment_pb2
from sp_transformer.serving import export, export_options, saved_model, verification

# Tests of the verification ask for it; it takes another process that imports the runtime.
UNVERIFIED = export_options.ExportOptions(verify_images=0)
OVERWRITE = dataclasses.replace(UNVERIFIED, overwrite=True)
SHAPES = [(1, 32, 32), (2, 17, 29), (1, 1, 1), (3, 40, 23)]


def random_images():
    generator = np.random.default_rng(5)
    return [generator.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]


def test_every_function_gives_the_models_labels_to_the_last(exported, inference, tmp_path):
    # Moved, because nothing in an export may point to where it was written.
    loaded = tf.saved_model.load(str(shutil.copytree(exported, tmp_path / "moved")))
    classes = set()
    for image in random_images():
        labels, ids = (output.numpy() for output in inference.labels_and_superpixels(image))
        classes |= set(np.unique(labels))
        batch = tf.constant(image)
        both = loaded.signatures["superpixels"](images=batch)
        for found, expected in (
            (loaded.signatures["serving_default"](images=batch)["labels"], labels),
            (both["labels"], labels),
            (both["superpixels"], ids),
            (loaded.labels(batch)["labels"], labels),
            (loaded.superpixels(batch)["superpixels"], ids),
        ):
            assert found.dtype == tf.int32
            np.testing.assert_array_equal(found, expected)
    # One class everywhere would be equal whatever the weights.
    assert len(classes) >= 3


def test_inference_form_labels_as_the_model_does(tmp_path):
    config = spt.load_config(
        "configs/synthetic/quickstart.textproto",
        ["model { channels: 16 tokenizer { layers: 1 } classifier { layers: 1 } }"],
    )
    model = spt.build_model(config)
    inference = inference_lib.Inference(model, config.data)
    target = export.export_model(
        config, model, tmp_path / "fast", dataclasses.replace(UNVERIFIED, inference_form=True)
    )
    about = json.loads((target / "assets.extra" / "version.json").read_text())
    assert about["inference_form"] is True
    loaded = tf.saved_model.load(str(target))
    different = pixels = 0
    for image in random_images():
        labels = loaded.signatures["serving_default"](images=tf.constant(image))["labels"]
        different += np.sum(labels.numpy() != inference.labels(image).numpy())
        pixels += labels.numpy().size
    assert different <= 1e-3 * pixels
    paths = [variable.name for variable in loaded.weights]
    assert len(paths) < len(model.variables), "BatchNorm's variables are not among what is saved"


@pytest.mark.parametrize("fast", [False, True])
def test_an_export_of_one_size_labels_as_the_model_does_and_takes_nothing_else(fast, tmp_path):
    config = spt.load_config(
        "configs/synthetic/quickstart.textproto",
        ["model { channels: 16 tokenizer { layers: 1 } classifier { layers: 1 } }"],
    )
    model = spt.build_model(config)
    options = dataclasses.replace(
        UNVERIFIED, inference_form=fast, jit_compile=fast, image_size=(70, 90)
    )
    target = export.export_model(config, model, tmp_path / "fixed", options)
    about = json.loads((target / "assets.extra" / "version.json").read_text())
    assert about["image_size"] == [70, 90] and about["jit_compile"] is fast
    signature = tf.saved_model.load(str(target)).signatures["superpixels"]
    image = np.random.default_rng(1).integers(0, 256, (1, 70, 90, 3), np.uint8)
    found = signature(images=tf.constant(image))
    expected = inference_lib.Inference(model, config.data).labels_and_superpixels(image)
    for name, values in zip(("labels", "superpixels"), expected, strict=True):
        assert np.mean(found[name].numpy() != values.numpy()) <= 1e-3 * fast
    with pytest.raises((ValueError, TypeError, tf.errors.InvalidArgumentError)):
        signature(images=tf.zeros([1, 70, 91, 3], tf.uint8))


def test_signatures_take_any_batch_of_rgb_bytes_and_nothing_else(exported):
    loaded = tf.saved_model.load(str(exported))
    names = ["encoded", "probabilities", "serving_default", "superpixels"]
    assert sorted(loaded.signatures) == names
    for name in names:
        (images,) = loaded.signatures[name].structured_input_signature[1].values()
        if name == "encoded":
            assert images.dtype == tf.string and images.shape.as_list() == [None]
            continue
        assert images.dtype == tf.uint8 and images.shape.as_list() == [None, None, None, 3]
    assert list(loaded.signatures["serving_default"].structured_outputs) == ["labels"]
    with pytest.raises((ValueError, TypeError, tf.errors.InvalidArgumentError)):
        loaded.signatures["serving_default"](images=tf.zeros([1, 8, 8, 4], tf.uint8))


def encoded_files():
    """{name: (bytes, pixels as NumPy reads them, or None where decoders may differ by rounding)}."""
    generator = np.random.default_rng(7)
    rgb = generator.integers(0, 256, (24, 31, 3), np.uint8)
    alpha = np.concatenate([rgb, generator.integers(0, 256, (24, 31, 1), np.uint8)], -1)
    deep = generator.integers(0, 2**16, (24, 31, 3), np.uint16)
    grey = np.repeat(rgb[..., :1], 3, -1)

    def pillow(pixels, kind):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()

    return {
        "rgb.png": (pillow(rgb, "PNG"), rgb),
        "grey.png": (pillow(rgb[..., 0], "PNG"), grey),
        # Alpha is dropped, and of 16 bits the upper 8 are kept, as docs/predict.md has it.
        "alpha.png": (pillow(alpha, "PNG"), rgb),
        "deep.png": (tf.io.encode_png(deep).numpy(), (deep >> 8).astype(np.uint8)),
        "rgb.jpg": (pillow(rgb, "JPEG"), None),
        "grey.jpg": (pillow(rgb[..., 0], "JPEG"), None),
    }


def test_encoded_files_are_labelled_as_their_pixels_are(exported):
    signatures = tf.saved_model.load(str(exported)).signatures
    files = encoded_files()
    decoded = []
    for name, (contents, pixels) in files.items():
        image = tf.io.decode_image(contents, channels=3, expand_animations=False)
        decoded.append(image)
        if pixels is not None:
            np.testing.assert_array_equal(image, pixels, err_msg=name)
    expected = signatures["serving_default"](images=tf.stack(decoded))["labels"]
    assert len(np.unique(expected)) >= 3
    # One by one, and files of all kinds in one batch.
    encoded = signatures["encoded"]
    together = encoded(encoded_images=tf.constant([contents for contents, _ in files.values()]))
    np.testing.assert_array_equal(together["labels"], expected)
    for index, (name, (contents, _)) in enumerate(files.items()):
        alone = encoded(encoded_images=tf.constant([contents]))["labels"]
        np.testing.assert_array_equal(alone[0], expected[index], err_msg=name)
    with pytest.raises(tf.errors.InvalidArgumentError, match="image"):
        encoded(encoded_images=tf.constant([b"no image"]))


def test_assets_tell_what_was_exported(exported, config):
    assets = exported / "assets.extra"
    read = experiment_pb2.ExperimentOptions()
    text_format.Parse((assets / "config.textproto").read_text(), read)
    assert read == config
    label_map = json.loads((assets / "label_map.json").read_text())
    assert label_map["ignore_label"] == 255
    assert label_map["id_map"] == {} and label_map["ignore_unlisted_ids"] is False
    assert label_map["classes"][5] == {"name": "class 5", "color": "#000023"}
    about = json.loads((assets / "version.json").read_text())
    assert about["sp_transformer"] == version.__version__
    assert about["checkpoint"] == "run/ckpt-12" and about["step"] == 12


def test_verdict_is_printed_and_written_and_nothing_lies_beside_the_export(
    config, model, tmp_path, capsys
):
    options = export_options.ExportOptions(verify_images=2)
    target = export.export_model(config, model, tmp_path / "model", options)
    printed = capsys.readouterr().out
    assert "labels equal the checkpoint's at 100.0000% of the pixels" in printed
    assert "2 images of split 'val'" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    report = json.loads((target / "verification.json").read_text())
    assert report["passed"] is True and report["equal_labels"] == 1
    assert report["max_probability_difference"] == report["max_logit_difference"] == 0
    # The last one is cut to an odd size.
    assert report["sizes"] == ["28x35", "33x38"]
    assert report["latency"]["labels"]["milliseconds"] > 0
    assert "tensorflow" in report["runtime"]


def test_folders_in_use_are_refused_and_left_alone(config, model, exported, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="foreign"):
            export.export_model(
                config, model, foreign, dataclasses.replace(UNVERIFIED, overwrite=overwrite)
            )
    assert (foreign / "thesis.tex").read_text() == "years of work"
    before = sorted(path.stat().st_mtime_ns for path in exported.rglob("*"))
    with pytest.raises(ValueError, match="--overwrite"):
        export.export_model(config, model, exported, UNVERIFIED)
    assert sorted(path.stat().st_mtime_ns for path in exported.rglob("*")) == before
    with pytest.raises(ValueError, match="is a file"):
        export.export_model(config, model, foreign / "thesis.tex", UNVERIFIED)


def test_overwrite_replaces_and_an_empty_folder_is_taken(config, model, exported, tmp_path):
    target = shutil.copytree(exported, tmp_path / "model")
    (target / "assets.extra" / "stale.txt").write_text("of the old export")
    export.export_model(config, model, target, OVERWRITE, step=99)
    assert not (target / "assets.extra" / "stale.txt").exists()
    assert json.loads((target / "assets.extra" / "version.json").read_text())["step"] == 99
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    empty = tmp_path / "empty"
    empty.mkdir()
    export.export_model(config, model, empty, UNVERIFIED)
    assert (empty / "saved_model.pb").exists()


def test_an_export_that_cannot_be_moved_is_kept(config, model, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(export.placement, "move_into_place", fail)
    with pytest.raises(OSError, match=r"cannot be moved to .*/model: No space .* kept in (.*)"):
        export.export_model(config, model, tmp_path / "model", UNVERIFIED)
    (kept,) = tmp_path.iterdir()
    assert (kept / "saved_model.pb").exists() and kept.name != "model"


def test_the_export_lies_where_a_link_points(config, model, tmp_path):
    (tmp_path / "disk" / "empty").mkdir(parents=True)
    (tmp_path / "model").symlink_to(tmp_path / "disk" / "empty")
    export.export_model(config, model, tmp_path / "model", UNVERIFIED)
    assert (tmp_path / "model").is_symlink()
    assert (tmp_path / "disk" / "empty" / "saved_model.pb").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "model"]


@pytest.mark.parametrize("old", [False, True])
def test_an_export_that_differs_from_the_model_leaves_what_was_there(
    config, model, exported, tmp_path, monkeypatch, old
):
    target = tmp_path / "model"
    if old:
        shutil.copytree(exported, target)
    save = tf.saved_model.save

    def save_other_weights(module, *arguments, **keywords):
        kernel = module.weights[0]
        value = kernel.numpy()
        kernel.assign(-value)
        save(module, *arguments, **keywords)
        kernel.assign(value)

    monkeypatch.setattr(tf.saved_model, "save", save_other_weights)
    options = export_options.ExportOptions(verify_images=1, overwrite=True)
    with pytest.raises(verification.VerificationError, match=r"equal_labels .* is below 100"):
        export.export_model(config, model, target, options)
    assert [path.name for path in tmp_path.iterdir()] == (["model"] if old else [])
    if old:
        about = json.loads((target / "assets.extra" / "version.json").read_text())
        assert about["step"] == 12


def test_an_export_that_decodes_files_otherwise_is_refused(config, model, tmp_path, monkeypatch):
    decode = saved_model._decode
    monkeypatch.setattr(saved_model, "_decode", lambda encoded: 255 - decode(encoded))
    options = export_options.ExportOptions(verify_images=1)
    with pytest.raises(verification.VerificationError, match=r"equal_labels .* is below 100"):
        export.export_model(config, model, tmp_path / "model", options)
