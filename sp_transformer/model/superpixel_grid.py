"""The superpixel grid as index tables: which cells are whose neighbours, and the layouts that follow from it.

Letters: B batch; H, W pixel grid; R, C superpixel grid; h, w pixels of a cell, (H, W) = (R*h, C*w); t cells along each
side of a tile; G = ceil(R/t)*ceil(C/t) tiles; P = t*h*t*w pixels of a tile; S = (t+2)^2 window slots of a tile: its own
cells and one ring of neighbours; E channels.

A tile of one cell (t=1) has the nine neighbours of the paper as its window. With t=2 a window of 16 serves four cells,
so that superpixels are copied 4 instead of 9 times and products are larger; a constant mask keeps the nine true
neighbours. Grids of odd size are padded to whole tiles with cells that nobody attends to.

R and C may be Python ints or scalar tensors (images of any size in an exported graph); h and w are always ints.
"""

import dataclasses

import numpy as np
from keras import ops

# Additive masks stay finite: bfloat16 and float32 hold them, and no row is ever masked as a whole.
MASKED = -1e9
# Below every masked logit, for slots that do not exist.
_NOTHING = -1e30


def is_static(*sizes) -> bool:
    """Whether all sizes are known when the graph is built."""
    return all(isinstance(size, (int, np.integer)) for size in sizes)


def pad_bottom_right(x, rows, columns):
    """Zero-pads [B, Y, X, E] by `rows` and `columns`, which may be scalar tensors."""
    if is_static(rows, columns) and rows == 0 and columns == 0:
        return x
    return ops.pad(x, [[0, 0], [0, rows], [0, columns], [0, 0]])


@dataclasses.dataclass(frozen=True)
class SuperpixelGrid:
    """R x C superpixels of h x w pixels each, worked on in tiles of t x t cells."""

    rows: int
    columns: int
    cell_height: int
    cell_width: int
    tile: int = 1

    @property
    def static(self) -> bool:
        return is_static(self.rows, self.columns)

    @property
    def tile_rows(self):
        return (self.rows + self.tile - 1) // self.tile

    @property
    def tile_columns(self):
        return (self.columns + self.tile - 1) // self.tile

    @property
    def tiles(self):
        return self.tile_rows * self.tile_columns

    @property
    def cells(self):
        return self.rows * self.columns

    @property
    def slots(self) -> int:
        return (self.tile + 2) ** 2

    @property
    def pixels_per_tile(self) -> int:
        return self.tile**2 * self.cell_height * self.cell_width

    def regroup(self, pixels):
        """[B, H, W, E] -> [B, G, P, E], the pixels of each tile in row-major order."""
        batch, channels = ops.shape(pixels)[0], pixels.shape[-1]
        tile_height, tile_width = self.tile * self.cell_height, self.tile * self.cell_width
        pixels = pad_bottom_right(
            pixels,
            (self.tile_rows * self.tile - self.rows) * self.cell_height,
            (self.tile_columns * self.tile - self.columns) * self.cell_width,
        )
        pixels = ops.reshape(
            pixels,
            [batch * self.tile_rows, tile_height, self.tile_columns, tile_width * channels],
        )
        pixels = ops.transpose(pixels, (0, 2, 1, 3))
        return ops.reshape(pixels, [batch, self.tiles, self.pixels_per_tile, channels])

    def ungroup(self, pixels):
        """[B, G, P, E] -> [B, H, W, E], the inverse of `regroup`."""
        batch, channels = ops.shape(pixels)[0], pixels.shape[-1]
        tile_height, tile_width = self.tile * self.cell_height, self.tile * self.cell_width
        pixels = ops.reshape(
            pixels,
            [batch * self.tile_rows, self.tile_columns, tile_height, tile_width * channels],
        )
        pixels = ops.transpose(pixels, (0, 2, 1, 3))
        height, width = self.tile_rows * tile_height, self.tile_columns * tile_width
        pixels = ops.reshape(pixels, [batch, height, width, channels])
        used_height, used_width = self.rows * self.cell_height, self.columns * self.cell_width
        if self.static and (used_height, used_width) == (height, width):
            return pixels
        return pixels[:, :used_height, :used_width, :]

    def gather(self, superpixels):
        """[B, R*C, E] -> windows [B, G, S, E]; slots outside the grid hold zeros. Its gradient is `fold`."""

        @ops.custom_gradient
        def gather(x):
            return self._gather(x), _backward(self._fold)

        return gather(superpixels)

    def fold(self, windows):
        """[B, G, S, E] -> [B, R*C, E], the sum over all slots that show a superpixel: `gather` transposed."""

        @ops.custom_gradient
        def fold(x):
            return self._fold(x), _backward(self._gather)

        return fold(windows)

    def fold_max(self, windows):
        """As `fold`, with the maximum instead of the sum; without a gradient."""
        return ops.max(self._take_slots(ops.stop_gradient(windows), _NOTHING), axis=2)

    def _gather(self, superpixels):
        return ops.reshape(
            _take_with_fallback(superpixels, self.window_index(), 0.0),
            [ops.shape(superpixels)[0], self.tiles, self.slots, superpixels.shape[-1]],
        )

    def _fold(self, windows):
        return ops.sum(self._take_slots(windows, 0.0), axis=2)

    def _take_slots(self, windows, fallback):
        batch, channels = ops.shape(windows)[0], windows.shape[-1]
        flat = ops.reshape(windows, [batch, self.tiles * self.slots, channels])
        index = self.slot_index()
        taken = _take_with_fallback(flat, ops.reshape(index, [-1]), fallback)
        return ops.reshape(taken, [batch, self.cells, index.shape[-1], channels])

    def window_index(self):
        """Index of the superpixel in each slot, [G*S] int32; R*C stands for slots outside the grid."""
        xp = _namespace(self.static)
        row, row_inside = self._window_axis(xp, self.rows, self.tile_rows)
        column, column_inside = self._window_axis(xp, self.columns, self.tile_columns)
        inside = xp.logical_and(row_inside[:, None, :, None], column_inside[None, :, None, :])
        index = row[:, None, :, None] * self.columns + column[None, :, None, :]
        return xp.reshape(xp.where(inside, index, self.cells), [-1])

    def slot_index(self):
        """Flat slots (g*S + s) in which each superpixel is shown, [R*C, n] int32; G*S stands for none."""
        xp = _namespace(self.static)
        tile_row, slot_row, row_exists = self._slot_axis(xp, self.rows, self.tile_rows)
        tile_column, slot_column, column_exists = self._slot_axis(
            xp, self.columns, self.tile_columns
        )
        by_row = tile_row * self.tile_columns * self.slots + slot_row * (self.tile + 2)
        by_column = tile_column * self.slots + slot_column
        exists = xp.logical_and(row_exists[:, None, :, None], column_exists[None, :, None, :])
        index = by_row[:, None, :, None] + by_column[None, :, None, :]
        index = xp.where(exists, index, self.tiles * self.slots)
        return xp.reshape(index, [self.cells, by_row.shape[-1] * by_column.shape[-1]])

    def neighbor_mask(self) -> np.ndarray:
        """Additive mask [P, S] that keeps, for each pixel of a tile, the nine superpixels around its cell."""
        tile, slots_per_side = self.tile, self.tile + 2
        cell_row = np.arange(tile * self.cell_height) // self.cell_height
        cell_column = np.arange(tile * self.cell_width) // self.cell_width
        slot = np.arange(slots_per_side)
        row_near = np.abs(cell_row[:, None] + 1 - slot) <= 1
        column_near = np.abs(cell_column[:, None] + 1 - slot) <= 1
        near = row_near[:, None, :, None] & column_near[None, :, None, :]
        near = near.reshape(self.pixels_per_tile, self.slots)
        return np.where(near, 0.0, MASKED).astype(np.float32)

    def slot_mask(self):
        """Additive mask [G, S], MASKED where a slot lies outside the grid."""
        xp = _namespace(self.static)
        index = xp.reshape(self.window_index(), [self.tiles, self.slots])
        return xp.where(index == self.cells, np.float32(MASKED), np.float32(0.0))

    def padding_mask(self):
        """Additive mask [G, P], MASKED at pixels of cells that only fill up a tile; None if no tile needs any."""
        if self.static and self.rows % self.tile == 0 and self.columns % self.tile == 0:
            return None
        xp = _namespace(self.static)
        row_real = self._padding_axis(xp, self.rows, self.tile_rows, self.cell_height)
        column_real = self._padding_axis(xp, self.columns, self.tile_columns, self.cell_width)
        real = xp.logical_and(row_real[:, None, :, None], column_real[None, :, None, :])
        mask = xp.where(real, np.float32(0.0), np.float32(MASKED))
        return xp.reshape(mask, [self.tiles, self.pixels_per_tile])

    def _window_axis(self, xp, cells, tiles):
        start = xp.arange(tiles, dtype="int32")[:, None] * self.tile - 1
        index = start + np.arange(self.tile + 2, dtype=np.int32)
        return index, xp.logical_and(index >= 0, index < cells)

    def _slot_axis(self, xp, cells, tiles):
        shifted = xp.arange(cells, dtype="int32")[:, None] + 1
        turn = np.arange((self.tile + 2) // self.tile, dtype=np.int32)
        tile = shifted // self.tile - turn
        slot = shifted % self.tile + turn * self.tile
        return tile, slot, xp.logical_and(tile >= 0, tile < tiles)

    def _padding_axis(self, xp, cells, tiles, cell_size):
        cell = np.arange(self.tile * cell_size, dtype=np.int32) // cell_size
        return xp.arange(tiles, dtype="int32")[:, None] * self.tile + cell < cells


def _namespace(static):
    """NumPy where sizes are known, so that tables become constants; keras.ops has the same names."""
    return np if static else ops


def _backward(function):
    def grad(*args, upstream=None):
        return function(args[0] if upstream is None else upstream)

    return grad


def _take_with_fallback(x, index, fallback):
    """x [B, M, E], index [I] with values 0..M -> [B, I, E]; index M gives `fallback`."""
    extra = ops.full([ops.shape(x)[0], 1, x.shape[-1]], fallback, dtype=x.dtype)
    return ops.take(ops.concatenate([x, extra], axis=1), index, axis=1)
