import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model.neighborhood import Neighborhood

GRIDS = [(1, 1), (1, 5), (4, 1), (3, 3), (4, 6), (5, 2)]
WINDOWS = [(1, 1), (2, 1), (2, 2), (1, 2), (3, 1)]


def windows_by_hand(rows, columns, tile, ring):
    """For every tile, the superpixel in each slot, or None outside the grid."""
    for tile_row in range(-(-rows // tile)):
        for tile_column in range(-(-columns // tile)):
            yield [
                (r * columns + c) if 0 <= r < rows and 0 <= c < columns else None
                for r in range(tile_row * tile - ring, tile_row * tile + tile + ring)
                for c in range(tile_column * tile - ring, tile_column * tile + tile + ring)
            ]


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(("tile", "ring"), WINDOWS)
@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_gather_and_fold_by_hand(rows, columns, tile, ring, heads):
    neighborhood = Neighborhood(rows, columns, tile, ring)
    windows = list(windows_by_hand(rows, columns, tile, ring))
    slots = (tile + 2 * ring) ** 2
    assert (neighborhood.tiles, neighborhood.slots) == (len(windows), slots)
    x = np.random.default_rng(0).normal(size=(2, rows * columns, heads, 4)).astype(np.float32)
    flat = tf.constant(x.reshape(2, rows * columns, heads * 4))
    gathered = neighborhood.gather(flat, heads).numpy()
    assert gathered.shape == (2, len(windows), heads * slots, 4)
    values = np.random.default_rng(1).normal(size=gathered.shape).astype(np.float32)
    folded, largest = np.zeros_like(x), np.full_like(x, -np.inf)
    for g, window in enumerate(windows):
        for head in range(heads):
            for s, superpixel in enumerate(window):
                slot = head * slots + s
                expected = 0 if superpixel is None else x[:, superpixel, head]
                np.testing.assert_array_equal(gathered[:, g, slot], expected + np.zeros((2, 4)))
                if superpixel is not None:
                    folded[:, superpixel, head] += values[:, g, slot]
                    largest[:, superpixel, head] = np.maximum(
                        largest[:, superpixel, head], values[:, g, slot]
                    )
    values = tf.constant(values)
    by_head = (2, rows * columns, heads, 4)
    actual = np.reshape(neighborhood.fold(values, heads), by_head)
    np.testing.assert_allclose(actual, folded, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        np.reshape(neighborhood.fold_max(values, heads), by_head), largest
    )


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("tile", "ring"), WINDOWS)
def test_gather_and_fold_are_each_others_gradient(tile, ring, heads):
    neighborhood = Neighborhood(3, 4, tile, ring)
    x = tf.random.stateless_normal([2, 12, heads * 3], [0, 0])
    windows = tf.random.stateless_normal(
        [2, neighborhood.tiles, heads * neighborhood.slots, 3], [0, 1]
    )
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, windows])
        gathered = tf.reduce_sum(neighborhood.gather(x, heads) * windows)
        folded = tf.reduce_sum(neighborhood.fold(windows, heads) * x)
    # <G x, w> = <x, F w>: each is linear, and the gradient of one is the other.
    np.testing.assert_allclose(gathered, folded, rtol=1e-4)
    np.testing.assert_allclose(
        tape.gradient(gathered, x), neighborhood.fold(windows, heads), rtol=1e-6
    )
    np.testing.assert_array_equal(tape.gradient(folded, windows), neighborhood.gather(x, heads))


@pytest.mark.parametrize(("tile", "ring"), WINDOWS)
@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_clamped_windows_repeat_the_border(rows, columns, tile, ring):
    neighborhood = Neighborhood(rows, columns, tile, ring)
    x = np.arange(rows * columns, dtype=np.float32).reshape(1, rows * columns, 1)
    windows = neighborhood.gather_clamped(tf.constant(x)).numpy()
    for tile_row in range(neighborhood.tile_rows):
        for tile_column in range(neighborhood.tile_columns):
            r = np.clip(np.arange(tile + 2 * ring) + tile_row * tile - ring, 0, rows - 1)
            c = np.clip(np.arange(tile + 2 * ring) + tile_column * tile - ring, 0, columns - 1)
            np.testing.assert_array_equal(
                windows[0, tile_row * neighborhood.tile_columns + tile_column, :, 0],
                (r[:, None] * columns + c).ravel(),
            )


@pytest.mark.parametrize(("tile", "ring"), WINDOWS)
@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_tables_of_unknown_size_equal_those_of_known_size(rows, columns, tile, ring):
    known = Neighborhood(rows, columns, tile, ring)
    unknown = Neighborhood(tf.constant(rows), tf.constant(columns), tile, ring)
    for table in ("window_index", "slot_index"):
        np.testing.assert_array_equal(getattr(unknown, table)(), getattr(known, table)())
    x = tf.random.stateless_normal([1, rows * columns, 4], [0, 0])
    for heads in (1, 2):
        windows = known.gather(x, heads)
        np.testing.assert_array_equal(unknown.gather(x, heads), windows)
        np.testing.assert_array_equal(unknown.fold(windows, heads), known.fold(windows, heads))
    np.testing.assert_array_equal(unknown.gather_clamped(x), known.gather_clamped(x))
