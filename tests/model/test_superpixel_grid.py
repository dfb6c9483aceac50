import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model.superpixel_grid import SuperpixelGrid

GRIDS = [(1, 1), (1, 5), (4, 1), (3, 3), (4, 6), (5, 2)]


def windows_by_hand(rows, columns, tile):
    """For every tile, the superpixel in each slot, or None outside the grid."""
    for tile_row in range(-(-rows // tile)):
        for tile_column in range(-(-columns // tile)):
            yield [
                (r * columns + c) if 0 <= r < rows and 0 <= c < columns else None
                for r in range(tile_row * tile - 1, tile_row * tile + tile + 1)
                for c in range(tile_column * tile - 1, tile_column * tile + tile + 1)
            ]


@pytest.mark.parametrize("tile", [1, 2])
@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_gather_and_fold_by_hand(rows, columns, tile):
    grid = SuperpixelGrid(rows, columns, 2, 3, tile)
    x = np.random.default_rng(0).normal(size=(2, rows * columns, 4)).astype(np.float32)
    windows = list(windows_by_hand(rows, columns, tile))
    gathered = grid.gather(tf.constant(x)).numpy()
    assert gathered.shape == (2, len(windows), (tile + 2) ** 2, 4)
    folded = np.zeros_like(x)
    values = np.random.default_rng(1).normal(size=gathered.shape).astype(np.float32)
    largest = np.full_like(x, -np.inf)
    for g, window in enumerate(windows):
        for s, superpixel in enumerate(window):
            expected = 0 if superpixel is None else x[:, superpixel]
            np.testing.assert_array_equal(gathered[:, g, s], expected + np.zeros((2, 4)))
            if superpixel is not None:
                folded[:, superpixel] += values[:, g, s]
                largest[:, superpixel] = np.maximum(largest[:, superpixel], values[:, g, s])
    np.testing.assert_allclose(grid.fold(tf.constant(values)), folded, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(grid.fold_max(tf.constant(values)), largest)


@pytest.mark.parametrize("tile", [1, 2])
@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_regroup_puts_each_cell_into_its_tile_and_back(rows, columns, tile):
    grid = SuperpixelGrid(rows, columns, 2, 3, tile)
    pixels = tf.random.normal([2, rows * 2, columns * 3, 5])
    regrouped = grid.regroup(pixels)
    assert regrouped.shape == (2, grid.tiles, grid.pixels_per_tile, 5)
    np.testing.assert_array_equal(
        regrouped[0, 0, : min(tile, columns) * 3], pixels[0, 0, : min(tile, columns) * 3]
    )
    np.testing.assert_array_equal(grid.ungroup(regrouped), pixels)


@pytest.mark.parametrize("tile", [1, 2])
@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_tables_of_unknown_size_equal_those_of_known_size(rows, columns, tile):
    known = SuperpixelGrid(rows, columns, 2, 3, tile)
    unknown = SuperpixelGrid(tf.constant(rows), tf.constant(columns), 2, 3, tile)
    for table in ("window_index", "slot_index", "slot_mask"):
        np.testing.assert_array_equal(getattr(unknown, table)(), getattr(known, table)())
    padding = known.padding_mask()
    if padding is None:
        padding = np.zeros([known.tiles, known.pixels_per_tile])
    np.testing.assert_array_equal(unknown.padding_mask(), padding)
