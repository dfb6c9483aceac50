"""Tables of superpixels against loops, and images of another size than the model's."""

import numpy as np
import pytest
from PIL import Image

from sp_transformer.serving import prediction as prediction_lib


def random_image(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def check_geometry(table, superpixels):
    for row, number in enumerate(table.ids):
        y, x = np.nonzero(superpixels == number)
        assert table.pixels[row] == len(y)
        np.testing.assert_allclose(table.centroids[row], [y.mean(), x.mean()], rtol=1e-6)


def test_the_models_own_table_is_taken(NumpyRuntime):
    found = prediction_lib.predict_image(NumpyRuntime(), random_image((9, 14)))
    assert found.table.ids.tolist() == list(range(12))
    assert found.table.classes.tolist() == [0, 1] * 6
    assert found.table.confidence[[0, -1]].tolist() == [0.5, 1]
    check_geometry(found.table, found.superpixels)


def test_a_model_without_a_table_gets_one_of_its_maps(NumpyRuntime):
    found = prediction_lib.predict_image(NumpyRuntime(with_table=False), random_image((9, 14)))
    assert found.table.confidence is None and found.table.ids.tolist() == list(range(12))
    check_geometry(found.table, found.superpixels)
    for number, label in zip(found.table.ids, found.table.classes, strict=True):
        inside = found.labels[found.superpixels == number]
        assert label == np.bincount(inside).argmax()


def test_superpixels_without_a_pixel_are_not_in_a_table_of_maps():
    superpixels = np.array([[7, 7, 2], [7, 7, 2]])
    table = prediction_lib.table_of_maps(np.array([[1, 0, 3], [1, 1, 0]]), superpixels)
    assert table.ids.tolist() == [2, 7] and table.classes.tolist() == [0, 1]
    assert table.pixels.tolist() == [2, 4]
    assert table.centroids.tolist() == [[0.5, 2.0], [0.5, 0.5]]


def test_another_size_is_refused_or_resized_and_brought_back(NumpyRuntime):
    runtime, image = NumpyRuntime(image_size=(7, 15)), random_image((21, 30))
    with pytest.raises(ValueError, match=r"21x30.*7x15"):
        prediction_lib.predict_image(runtime, image)
    found = prediction_lib.predict_image(runtime, image, resize=True)
    small = np.asarray(Image.fromarray(image).resize((15, 7), Image.Resampling.BILINEAR))
    expected = prediction_lib.predict_image(runtime, small)
    rows = np.floor((np.arange(21) + 0.5) * 7 / 21).astype(int)
    columns = np.floor((np.arange(30) + 0.5) * 15 / 30).astype(int)
    for name in ("labels", "superpixels"):
        nearest = getattr(expected, name)[rows][:, columns]
        np.testing.assert_array_equal(getattr(found, name), nearest)
    np.testing.assert_array_equal(found.image, image)
    check_geometry(found.table, found.superpixels)
    np.testing.assert_array_equal(found.table.classes, expected.table.classes)
    np.testing.assert_array_equal(found.table.confidence, expected.table.confidence)


def test_an_image_of_the_models_size_is_not_resized(NumpyRuntime):
    image = random_image((8, 16))
    found = prediction_lib.predict_image(NumpyRuntime(image_size=(8, 16)), image, resize=True)
    np.testing.assert_array_equal(found.labels, image[..., 0] > 127)
