"""The table of superpixels against a NumPy count, on grids that end beyond the image and images of another scale."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model.superpixel_table import superpixel_table


@pytest.mark.parametrize(
    ("shape", "seen", "grid"),
    [
        ((24, 40), None, (3, 5)),
        # A grid beyond the image.
        ((21, 33), None, (3, 5)),
        ((21, 33), (21, 33), (3, 5)),
        # Images that the model sees smaller, and larger.
        ((45, 50), (23, 37), (3, 5)),
        ((11, 9), (24, 40), (3, 5)),
    ],
)
def test_numbers_are_those_of_the_map(shape, seen, grid):
    generator = np.random.default_rng(0)
    rows, columns = grid
    of_model = seen or shape
    # Each pixel belongs to a cell around its own, and none to the first one.
    own = [
        ((np.arange(side) + 0.5) * other / side).astype(int) // 8
        for side, other in zip(shape, of_model, strict=True)
    ]
    step = generator.integers(-1, 2, (2, 2, *shape))
    down = np.clip(own[0][:, None] + step[0], 0, rows - 1)
    right = np.clip(own[1] + step[1], 0, columns - 1)
    ids = np.maximum(down * columns + right, 1).astype(np.int32)
    cell = [8 * side / other for side, other in zip(shape, of_model, strict=True)]
    logits = generator.normal(size=(2, rows, columns, 4)).astype(np.float32)
    found = superpixel_table(tf.constant(ids), tf.constant(logits), seen, 8)
    found = {name: value.numpy() for name, value in found.items()}
    np.testing.assert_array_equal(found["superpixel_grid"], grid)
    flat = logits.reshape(2, -1, 4)
    np.testing.assert_array_equal(found["superpixel_classes"], flat.argmax(-1))
    likely = np.exp(flat).max(-1) / np.exp(flat).sum(-1)
    np.testing.assert_allclose(found["superpixel_confidence"], likely, rtol=1e-5)
    for image in range(2):
        for number in range(rows * columns):
            y, x = np.nonzero(ids[image] == number)
            assert found["superpixel_pixels"][image, number] == y.size
            middle = [y.mean(), x.mean()] if y.size else [(side - 1) / 2 for side in cell]
            centroid = found["superpixel_centroids"][image, number]
            np.testing.assert_allclose(centroid, middle, atol=1e-3)


def test_centroids_of_large_images_keep_their_digits():
    # Sums of positions would reach 10^10, where float32 knows steps of 1000.
    ids = np.zeros((1, 4, 250_000), np.int32)
    ids[:, :, 125_000:] = 1
    found = superpixel_table(tf.constant(ids), tf.zeros([1, 1, 2, 3]), None, 125_000)
    np.testing.assert_allclose(
        found["superpixel_centroids"][0], [[1.5, 62_499.5], [1.5, 187_499.5]], atol=0.1
    )
