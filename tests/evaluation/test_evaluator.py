"""The evaluator over a small folder of images of several odd sizes."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

from sp_transformer.evaluation import evaluator


def evaluate(config, output_dir, inference, **arguments):
    return evaluator.evaluate(config, None, output_dir, inference=inference, **arguments)


def expected_counts(arrays, num_classes):
    """Counts by a loop over pixels."""
    counts = np.zeros((num_classes, num_classes), int)
    for image, label in arrays:
        for position in np.ndindex(*label.shape):
            if label[position] != 255:
                counts[label[position], image[position][0] % 3] += 1
    return counts


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_every_image_counts_once_whatever_the_batches(
    config, arrays, num_classes, inference, tmp_path, batch_size
):
    config.evaluation.batch_size = batch_size
    results = evaluate(config, tmp_path / "out", inference)
    counts = expected_counts(arrays, num_classes)
    assert results["confusion_matrix"] == counts.tolist()
    assert results["num_images"] == inference.images_seen == len(arrays)
    assert results["num_pixels"] == counts.sum() == sum((label != 255).sum() for _, label in arrays)


def test_metrics_file_holds_what_is_returned(
    config, arrays, num_classes, inference, tmp_path, capsys
):
    results = evaluate(config, tmp_path / "a" / "b", inference, step=17, checkpoint="run/ckpt-17")
    written = json.loads((tmp_path / "a" / "b" / "metrics.json").read_text())
    assert written == results
    names = sorted(path.name for path in (tmp_path / "a" / "b").iterdir())
    assert names == ["metrics.json", "per_image.json"]
    assert written["step"] == 17 and written["checkpoint"] == "run/ckpt-17"
    assert written["experiment_name"] == "tests/tiny" and written["split"] == "val"
    counts = expected_counts(arrays, num_classes)[:3, :3]
    iou = np.diag(counts) / (counts.sum(0) + counts.sum(1) - np.diag(counts))
    assert written["per_class_iou"].pop("class 3") is None
    np.testing.assert_allclose(list(written["per_class_iou"].values()), iou, rtol=1e-12)
    assert written["miou"] == pytest.approx(iou.mean(), rel=1e-12)
    assert written["pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum(), rel=1e-12)
    recalls = np.diag(counts) / counts.sum(1)
    assert written["mean_accuracy"] == pytest.approx(recalls.mean(), rel=1e-12)
    assert written["images_per_second"] == pytest.approx(7 / written["seconds"])
    table = capsys.readouterr().out
    assert f"{100 * iou[0]:.2f}" in table and "class 3" in table and "7 images" in table


def test_per_image_scores_are_those_of_each_image(config, arrays, inference, tmp_path):
    evaluate(config, tmp_path, inference)
    listed = json.loads((tmp_path / "per_image.json").read_text())
    assert [entry["name"] for entry in listed] == [f"images/{i}" for i in range(len(arrays))]
    for entry, (image, label) in zip(listed, arrays, strict=True):
        counted = label != 255
        right = (label == image[..., 0] % 3) & counted
        assert entry["num_pixels"] == counted.sum()
        assert entry["pixel_accuracy"] == right.sum() / counted.sum()
        prediction = image[..., 0] % 3
        ious = [
            (right & (label == k)).sum() / (counted & ((label == k) | (prediction == k))).sum()
            for k in range(3)
            if (counted & ((label == k) | (prediction == k))).any()
        ]
        assert entry["miou"] == pytest.approx(np.mean(ious), rel=1e-12)


def test_modes_are_scored_under_their_names_and_the_first_one_stands_at_the_top(
    config, arrays, num_classes, inference, tmp_path, capsys
):
    config.evaluation.modes.add(
        name="windows", window_height=2, window_width=2, stride_height=2, stride_width=2
    )
    config.evaluation.modes.add(name="plain")

    class Model:
        """Logits that favour class 2 in the left upper pixel of what it sees, and class 1 elsewhere."""

        def features(self, images, training):
            return images

        def semantic_logits(self, images):
            shape = tf.shape(images)[:3]
            first = tf.reshape(tf.range(tf.size(images[0, ..., 0])) == 0, [1, shape[1], shape[2]])
            chosen = tf.broadcast_to(tf.where(first, 2, 1), shape)
            return tf.one_hot(chosen, num_classes)

    inference.model = Model()
    results = evaluate(config, tmp_path, inference)
    assert results["mode"] == "windows" and list(results["modes"]) == ["windows", "plain"]
    assert results["modes"]["plain"]["confusion_matrix"] == (
        expected_counts(arrays, num_classes).tolist()
    )
    assert results["confusion_matrix"] == results["modes"]["windows"]["confusion_matrix"]
    # Every image has several windows; seen whole, it would have one pixel of class 2.
    assert np.array(results["confusion_matrix"]).sum(0)[2] > len(arrays)
    table = capsys.readouterr().out
    assert "\nwindows\n" in table and "\nplain\n" in table


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_static_size_pads_images_and_scores_what_was_there(
    config, arrays, num_classes, inference, tmp_path, batch_size
):
    config.evaluation.batch_size = batch_size
    config.evaluation.static_height, config.evaluation.static_width = 9, 8
    shapes = set()
    labels = inference.labels

    def noted(images):
        shapes.add(tuple(images.shape))
        return labels(images)

    inference.labels = noted
    results = evaluate(config, tmp_path, inference)
    assert shapes == {(batch_size, 9, 8, 3)}
    assert results["confusion_matrix"] == expected_counts(arrays, num_classes).tolist()
    assert results["num_images"] == len(arrays)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_counting_on_the_device_gives_the_same_scores(config, inference, tmp_path, batch_size):
    options = config.evaluation
    options.batch_size, options.boundary_iou_width = batch_size, 0
    options.static_height, options.static_width = 9, 8
    found = []
    for counts in (False, True):
        options.count_on_device = counts
        folder = tmp_path / str(counts)
        results = evaluate(config, folder, inference)
        for varying in ("seconds", "images_per_second"):
            del results[varying]
        found.append((results, (folder / "per_image.json").read_text()))
    assert found[0] == found[1]


def test_counting_on_the_device_finds_labels_that_are_no_class(config, inference, tmp_path):
    options = config.evaluation
    options.boundary_iou_width, options.count_on_device = 0, True
    options.static_height, options.static_width = 9, 8
    del config.data.label_map.classes[2:]
    with pytest.raises(ValueError, match=r"0\.png holds id 2, .* neither one of the 2 classes"):
        evaluate(config, tmp_path, inference)


def test_failure_analysis_adds_up_to_the_whole(config, arrays, num_classes, inference, tmp_path):
    config.evaluation.failure_analysis.enabled = True
    results = evaluate(config, tmp_path, inference)
    counted = sum(int((label != 255).sum()) for _, label in arrays)
    for bins in results["failure_analysis"].values():
        assert sum(entry["pixels"] for entry in bins) == counted == results["num_pixels"]
    assert results == json.loads((tmp_path / "metrics.json").read_text())


def test_boundary_iou_can_be_left_out(config, inference, tmp_path, capsys):
    config.evaluation.boundary_iou_width = 0
    assert "boundary_iou" not in evaluate(config, tmp_path, inference)
    assert "boundary IoU  " not in capsys.readouterr().out.replace("boundary IoU %", "")


def test_superpixels_are_measured_in_the_same_pass(config, arrays, inference, tmp_path, capsys):
    config.evaluation.superpixels.enabled = True
    config.evaluation.superpixels.slic_factors.append(0)
    evaluate(config, tmp_path, inference)
    written = json.loads((tmp_path / "superpixels.json").read_text())
    # Cells of 2x2 pixels, of which the borders cut some.
    counts = [math.ceil(y / 2) * math.ceil(x / 2) for y, x in (i.shape[:2] for i, _ in arrays)]
    assert [entry["superpixels"] for entry in written["per_image"]] == counts
    kinds = ["model", "model, connected components", "grid"]
    assert [kind["kind"] for kind in written["kinds"]] == kinds
    assert written["kinds"][0]["superpixels"] == pytest.approx(np.mean(counts))
    assert inference.images_seen == 0
    assert "ASA %" in capsys.readouterr().out


def test_max_images_takes_the_first(config, arrays, num_classes, inference, tmp_path):
    config.evaluation.max_images = 3
    results = evaluate(config, tmp_path, inference)
    assert results["num_images"] == 3
    assert results["confusion_matrix"] == expected_counts(arrays[:3], num_classes).tolist()


def test_summaries_hold_scalars_and_as_many_pictures_as_asked(config, inference, tmp_path):
    config.evaluation.pictures = 5
    writer = tf.summary.create_file_writer(str(tmp_path / "events"))
    results = evaluate(config, tmp_path, inference, step=40, summary_writer=writer)
    events = event_accumulator.EventAccumulator(
        str(tmp_path / "events"), size_guidance={"images": 0, "tensors": 0}
    )
    events.Reload()
    tags = events.Tags()["tensors"]
    pictures = [tag for tag in tags if tag.startswith("pictures/")]
    assert len(pictures) == 5
    (event,) = events.Tensors("eval/miou")
    assert event.step == 40
    assert tf.make_ndarray(event.tensor_proto) == pytest.approx(results["miou"])
    assert "iou/class 0" in [tag.replace("_", " ") for tag in tags]
    assert not any("class 3" in tag for tag in tags)
    # Three panels of 5x7 pixels, magnified by 73, with gaps between them, of images from all over the split.
    assert pictures == [f"pictures/images/{number}" for number in (0, 1, 2, 4, 5)]
    width, height, png = tf.make_ndarray(events.Tensors(pictures[0])[0].tensor_proto)[:3]
    assert (int(height), int(width)) == tf.io.decode_png(png).shape[:2]
    assert int(height) == 5 * 73 + 24 and int(width) == 3 * 7 * 73 + 8


def test_report_is_written_where_it_is_asked_for(config, arrays, inference, tmp_path):
    evaluate(config, tmp_path / "without", inference)
    assert not (tmp_path / "without" / "report.html").exists()
    config.evaluation.report.enabled = True
    results = evaluate(config, tmp_path / "with", inference, step=40)
    text = (tmp_path / "with" / "report.html").read_text()
    assert f"{100 * results['miou']:.1f}" in text and "step 40" in text
    # All seven images are shown once, outlined.
    for number in range(len(arrays)):
        assert text.count(f"<b>images/{number}</b>") == 1
        assert f"Superpixels of images/{number}" in text
    assert "SLIC, as many of" not in text
    config.evaluation.superpixels.enabled = True
    evaluate(config, tmp_path / "compared", inference)
    text = (tmp_path / "compared" / "report.html").read_text()
    assert text.count("SLIC, as many of images/") == len(arrays)


def test_prediction_that_fits_the_truth_scores_one(config, data_dir, arrays, inference, tmp_path):
    for number, (image, label) in enumerate(arrays):
        truth = np.where(label == 255, 255, image[..., 0] % 3).astype(np.uint8)
        Image.fromarray(truth).save(data_dir / "labels" / f"{number}.png")
    results = evaluate(config, tmp_path, inference)
    assert results["miou"] == results["pixel_accuracy"] == results["mean_accuracy"] == 1.0


def test_label_of_another_size_is_an_error_that_names_the_image(
    config, data_dir, inference, tmp_path
):
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(data_dir / "labels" / "3.png")
    with pytest.raises(ValueError, match="3") as error:
        evaluate(config, tmp_path, inference)
    assert "images/3" in str(error.value) or "3.png" in str(error.value)
    assert not (tmp_path / "metrics.json").exists()


def test_unknown_label_is_an_error_that_names_file_and_id(config, data_dir, inference, tmp_path):
    Image.fromarray(np.full((9, 4), 77, np.uint8)).save(data_dir / "labels" / "3.png")
    with pytest.raises(ValueError, match="77") as error:
        evaluate(config, tmp_path, inference)
    assert "3.png" in str(error.value)
    assert "Traceback" not in str(error.value) and not str(error.value).startswith("{{")


def test_torn_image_is_an_error_that_names_the_file(config, data_dir, inference, tmp_path):
    path = data_dir / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"2\.png"):
        evaluate(config, tmp_path, inference)


def test_skip_corrupt_leaves_files_out_and_lists_them(
    config, data_dir, arrays, num_classes, inference, tmp_path, capsys
):
    torn = data_dir / "images" / "4.png"
    torn.write_bytes(torn.read_bytes()[:60])
    (data_dir / "labels" / "6.png").unlink()
    config.data.skip_corrupt = True
    results = evaluate(config, tmp_path / "out", inference)
    kept = [arrays[i] for i in (0, 1, 2, 3, 5)]
    assert results["confusion_matrix"] == expected_counts(kept, num_classes).tolist()
    assert results["num_images"] == 5
    assert list(results["skipped_files"]) == [str(data_dir / "images" / "6.png"), "images/4"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == results
    printed = capsys.readouterr().out
    assert "data.skip_corrupt skipped 2 files" in printed and str(torn) in printed
    for path in (data_dir / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="no image of split 'val' can be used"):
        evaluate(config, tmp_path / "out", inference)


def test_prediction_of_an_unknown_class_is_an_error(config, inference, tmp_path):
    inference.labels = lambda images: tf.fill(tf.shape(images)[:3], 9)
    with pytest.raises(ValueError, match="prediction 9") as error:
        evaluate(config, tmp_path, inference)
    assert "images/0" in str(error.value)


def test_split_of_ignored_pixels_only_is_an_error(config, data_dir, arrays, inference, tmp_path):
    for number, (_, label) in enumerate(arrays):
        Image.fromarray(np.full_like(label, 255)).save(data_dir / "labels" / f"{number}.png")
    with pytest.raises(ValueError, match="every pixel"):
        evaluate(config, tmp_path, inference)


def test_split_without_labels_is_an_error(config, inference, tmp_path):
    config.data.folder.splits[0].ClearField("labels")
    with pytest.raises(ValueError, match="no labels"):
        evaluate(config, tmp_path, inference)


def test_a_folder_that_cannot_be_written_is_found_out_first(config, tmp_path):
    (tmp_path / "scores").write_text("a file")

    class Untouched:
        modes = ("single_scale",)

    with pytest.raises(OSError, match=r"scores cannot be written: .*; name another folder"):
        evaluator.evaluate(config, None, tmp_path / "scores", predictor=Untouched())


def test_scores_are_told_before_they_are_written(config, inference, tmp_path, monkeypatch, capsys):
    def fill(path, contents):
        raise OSError("No space left on device")

    monkeypatch.setattr(evaluator, "write_json", fill)
    with pytest.raises(OSError, match="No space"):
        evaluate(config, tmp_path, inference)
    assert "mIoU" in capsys.readouterr().out


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    evaluator.write_json(path, {"miou": 0.5})
    with pytest.raises(ValueError, match="JSON"):
        evaluator.write_json(path, {"miou": float("nan")})
    assert json.loads(path.read_text()) == {"miou": 0.5}
    assert list(tmp_path.iterdir()) == [path]
