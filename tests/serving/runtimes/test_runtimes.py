"""Exports opened by path and run by their own runtimes, against the model that they were made from."""

import numpy as np
import pytest

from sp_transformer.serving import runtimes


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(5).integers(0, 256, (1, 33, 38, 3), np.uint8)


def test_a_saved_model_runs_as_the_model_does(exported, inference, image):
    for path in (exported, exported / "saved_model.pb"):
        model = runtimes.open_model(path)
        assert model.format == "saved_model" and model.image_size is None
        assert model.label_map.num_classes == 6 and model.about["step"] == 12
    found = model.run(image)
    expected = inference.superpixels(image)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    np.testing.assert_array_equal(model.labels(image), found["labels"])
    np.testing.assert_array_equal(model.file_labels(image), found["labels"])
    probabilities = model.probabilities(image)
    np.testing.assert_array_equal(probabilities, inference.probabilities(image))
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


def test_the_table_of_superpixels_is_that_of_their_map(exported, image):
    found = runtimes.open_model(exported).run(image)
    rows, columns = found["superpixel_grid"]
    assert (rows, columns) == (9, 10)
    ids = found["superpixels"][0]
    for number in range(rows * columns):
        y, x = np.nonzero(ids == number)
        assert found["superpixel_pixels"][0, number] == y.size
        if y.size:
            middle = found["superpixel_centroids"][0, number]
            np.testing.assert_allclose(middle, [y.mean(), x.mean()], atol=1e-4)


def test_images_that_do_not_fit_are_refused(exported, image):
    model = runtimes.open_model(exported)
    for wrong in (image[0], image.astype(np.float32), image[..., :1], np.concatenate([image] * 2)):
        with pytest.raises(ValueError, match=r"must be uint8 \[1, height, width, 3\]"):
            model.run(wrong)


def test_what_is_no_export_is_refused_with_what_is_taken(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "absent"):
        with pytest.raises(
            ValueError, match=r"saved_model\.pb.*model\.onnx.*model\.tflite.*manifest\.json"
        ):
            runtimes.open_model(path)
