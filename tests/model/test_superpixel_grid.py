import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model.superpixel_grid import SuperpixelGrid

GRIDS = [(1, 1), (1, 5), (4, 1), (3, 3), (4, 6), (5, 2)]


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
    for heads in (1, 3):
        np.testing.assert_array_equal(unknown.slot_mask(heads), known.slot_mask(heads))
    padding = known.padding_mask()
    if padding is None:
        padding = np.zeros([known.tiles, known.pixels_per_tile])
    np.testing.assert_array_equal(unknown.padding_mask(), padding)


def test_masks_repeat_for_each_head():
    grid = SuperpixelGrid(3, 4, 2, 3, 2)
    assert grid.neighbor_mask(2).shape == (grid.pixels_per_tile, 2 * 16)
    np.testing.assert_array_equal(grid.neighbor_mask(2)[:, 16:], grid.neighbor_mask())
    np.testing.assert_array_equal(grid.slot_mask(2)[:, :16], grid.slot_mask())
