import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import interpolation
from sp_transformer.model.superpixel_grid import SuperpixelGrid


def normal(*shape, seed=0):
    return tf.random.stateless_normal(shape, [seed, 1])


def test_interpolation_rows_sum_to_one():
    for entries, view in [(4, 32), (4, 16), (1, 1), (8, 12), (3, 7)]:
        matrix = interpolation.interpolation_matrix(entries, view)
        assert matrix.shape == (view, entries + 2)
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)


# (R, C, cell, tile, factor): odd grids; factors of a cell, of a tile, larger than a tile, and one that divides neither.
CASES = [
    (4, 6, 4, 2, 4),
    (3, 5, 4, 2, 4),
    (3, 5, 4, 2, 2),
    (1, 2, 4, 1, 4),
    (4, 4, 2, 2, 4),
    (4, 8, 1, 2, 4),
    (2, 3, 3, 1, 2),
    (2, 2, 4, 2, 1),
]


@pytest.mark.parametrize(("rows", "columns", "cell", "tile", "factor"), CASES)
def test_upsampling_to_tiles_is_a_resize_regrouped(rows, columns, cell, tile, factor):
    grid = SuperpixelGrid(rows, columns, cell, cell, tile)
    size = (rows * cell, columns * cell)
    x = normal(2, -(-size[0] // factor), -(-size[1] // factor), 5)
    expected = grid.regroup(tf.image.resize(x, size))
    actual = interpolation.upsample_to_tiles(x, factor, grid)
    assert actual.shape == expected.shape
    # Pixels that fill up tiles of odd grids belong to nobody.
    np.testing.assert_allclose(grid.ungroup(actual), grid.ungroup(expected), rtol=1e-5, atol=1e-5)


def test_upsampling_to_tiles_of_unknown_size_and_its_gradient():
    grid = SuperpixelGrid(4, 6, 4, 4, 2)
    x, weights = normal(1, 4, 6, 3), normal(1, 6, 64, 3, seed=1)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def unknown(x):
        rows, columns = tf.shape(x)[1], tf.shape(x)[2]
        return interpolation.upsample_to_tiles(x, 4, SuperpixelGrid(rows, columns, 4, 4, 2))

    np.testing.assert_allclose(unknown(x), interpolation.upsample_to_tiles(x, 4, grid), rtol=1e-6)
    gradients = []
    for resize in (
        lambda x: interpolation.upsample_to_tiles(x, 4, grid),
        lambda x: grid.regroup(tf.image.resize(x, (16, 24))),
    ):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(resize(x) * weights)
        gradients.append(tape.gradient(loss, x))
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8])
def test_a_reduction_is_the_mean_of_its_samples(factor):
    x = normal(2, 2 * factor, 3 * factor, 4)
    sampled = interpolation.sample_for_reduction(x, factor)
    assert sampled.shape[1] == (2 if factor in (1, 3, 5) else 4)
    reduced = interpolation.reduce_samples(sampled, factor)
    np.testing.assert_allclose(reduced, tf.image.resize(x, (2, 3)), rtol=1e-5, atol=1e-6)
