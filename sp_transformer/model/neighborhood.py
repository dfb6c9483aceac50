"""Which superpixels lie around each tile of cells, as index tables, and the two operations that follow from them.

Letters: B batch; R, C superpixel grid; t cells along each side of a tile; G = ceil(R/t)*ceil(C/t) tiles; r rings of
cells around a tile that belong to its window; S = (t+2r)^2 window slots; J heads; E channels.

With t=1, r=1 the window of a cell are the paper's nine neighbours. With t=2 a window of 16 serves four cells, so that
superpixels are copied 4 instead of 9 times and products are larger. Where t does not divide the grid's sides, the last
windows reach beyond it.

R and C may be Python ints or scalar tensors (images of any size in an exported graph).
"""

import dataclasses

import keras
import numpy as np
from keras import ops

# Below every masked logit, for slots that do not exist.
_NOTHING = -1e30


def is_static(*sizes) -> bool:
    """Whether all sizes are known when the graph is built."""
    return all(isinstance(size, (int, np.integer)) for size in sizes)


def namespace(static):
    """NumPy where sizes are known, so that tables become constants; keras.ops has the same names."""
    return np if static else ops


@dataclasses.dataclass(frozen=True)
class Neighborhood:
    """Windows of R x C superpixels around tiles of t x t cells."""

    rows: int
    columns: int
    tile: int = 1
    ring: int = 1

    @property
    def static(self) -> bool:
        return is_static(self.rows, self.columns)

    @property
    def cells(self):
        return self.rows * self.columns

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
    def slots_per_side(self) -> int:
        return self.tile + 2 * self.ring

    @property
    def slots(self) -> int:
        return self.slots_per_side**2

    def gather(self, superpixels, heads=1):
        """[B, R*C, J*E] -> windows [B, G, J*S, E], head-major; slots outside the grid hold zeros.

        Its gradient is `fold`: TensorFlow's own is a scatter, slow and on GPUs not deterministic.
        """

        @ops.custom_gradient
        def gather(x):
            return self._gather(x, heads), _backward(lambda upstream: self._fold(upstream, heads))

        return gather(superpixels)

    def fold(self, windows, heads=1):
        """[B, G, J*S, E] -> [B, R*C, J*E], the sum over all slots that show a superpixel: `gather` transposed."""

        @ops.custom_gradient
        def fold(x):
            return self._fold(x, heads), _backward(lambda upstream: self._gather(upstream, heads))

        return fold(windows)

    def fold_max(self, windows, heads=1):
        """As `fold`, with the maximum instead of the sum; without a gradient."""
        flat, index, exists = self._slots(ops.stop_gradient(windows), heads)
        largest = None
        for slot in range(index.shape[-1]):
            part = ops.take(flat, index[:, slot], axis=1)
            part = ops.where(ops.expand_dims(exists[:, slot], -1), part, _NOTHING)
            largest = part if largest is None else ops.maximum(largest, part)
        return self._join_heads(largest, heads)

    def _gather(self, superpixels, heads):
        batch, channels = ops.shape(superpixels)[0], superpixels.shape[-1] // heads
        by_head = ops.reshape(superpixels, [batch, self.cells * heads, channels])
        xp = namespace(self.static)
        index = xp.reshape(self.window_index(), [self.tiles, 1, self.slots])
        head = np.arange(heads, dtype=np.int32)[:, None]
        index = xp.where(index == self.cells, self.cells * heads, index * heads + head)
        # One row more, of zeros, for slots outside the grid.
        by_head = ops.pad(by_head, [[0, 0], [0, 1], [0, 0]])
        windows = ops.take(by_head, xp.reshape(index, [-1]), axis=1)
        return ops.reshape(windows, [batch, self.tiles, heads * self.slots, channels])

    def _fold(self, windows, heads):
        flat, index, exists = self._slots(windows, heads)
        # Slot by slot: one gather of all slots and a sum over them would write and read everything once more. In
        # float32 at least, as a reduction would.
        precision = keras.backend.result_type(windows.dtype, "float32")
        total = None
        for slot in range(index.shape[-1]):
            part = ops.cast(ops.take(flat, index[:, slot], axis=1), precision)
            if not (self.static and exists[:, slot].all()):
                part *= ops.expand_dims(ops.cast(exists[:, slot], part.dtype), -1)
            total = part if total is None else total + part
        return self._join_heads(ops.cast(total, windows.dtype), heads)

    def _join_heads(self, x, heads):
        return ops.reshape(x, [ops.shape(x)[0], self.cells, heads * x.shape[-1]])

    def _slots(self, windows, heads):
        """Windows as rows, and where each superpixel's slots are among them.

        Returns:
          [B, G*J*S, E]; indices [R*C*J, n] int32 of its axis 1; and whether there is such a slot, bool [R*C*J, n].
        """
        batch, channels = ops.shape(windows)[0], windows.shape[-1]
        flat = ops.reshape(windows, [batch, self.tiles * heads * self.slots, channels])
        xp = namespace(self.static)
        slots = self.slot_index()
        shown = slots.shape[-1]
        slots = xp.reshape(slots, [self.cells, 1, shown])
        exists = slots < self.tiles * self.slots
        slots = xp.where(exists, slots, 0)
        head = np.arange(heads, dtype=np.int32)[:, None]
        index = (slots // self.slots * heads + head) * self.slots + slots % self.slots
        exists = xp.broadcast_to(exists, [self.cells, heads, shown])
        shape = [self.cells * heads, shown]
        return flat, xp.reshape(index, shape), xp.reshape(exists, shape)

    def gather_clamped(self, superpixels):
        """As `gather` with one head, with the nearest superpixel of the grid in slots outside."""
        xp = namespace(self.static)
        row, _ = self._window_axis(xp, self.rows, self.tile_rows)
        column, _ = self._window_axis(xp, self.columns, self.tile_columns)
        row, column = xp.clip(row, 0, self.rows - 1), xp.clip(column, 0, self.columns - 1)
        index = row[:, None, :, None] * self.columns + column[None, :, None, :]
        windows = ops.take(superpixels, xp.reshape(index, [-1]), axis=1)
        batch, channels = ops.shape(superpixels)[0], superpixels.shape[-1]
        return ops.reshape(windows, [batch, self.tiles, self.slots, channels])

    def window_index(self):
        """Index of the superpixel in each slot, [G*S] int32; R*C stands for slots outside the grid."""
        xp = namespace(self.static)
        row, row_inside = self._window_axis(xp, self.rows, self.tile_rows)
        column, column_inside = self._window_axis(xp, self.columns, self.tile_columns)
        inside = xp.logical_and(row_inside[:, None, :, None], column_inside[None, :, None, :])
        index = row[:, None, :, None] * self.columns + column[None, :, None, :]
        return xp.reshape(xp.where(inside, index, self.cells), [-1])

    def slot_index(self):
        """Flat slots (g*S + s) in which each superpixel is shown, [R*C, n] int32; G*S stands for none."""
        xp = namespace(self.static)
        tile_row, slot_row, row_exists = self._slot_axis(xp, self.rows, self.tile_rows)
        tile_column, slot_column, column_exists = self._slot_axis(
            xp, self.columns, self.tile_columns
        )
        by_row = tile_row * self.tile_columns * self.slots + slot_row * self.slots_per_side
        by_column = tile_column * self.slots + slot_column
        exists = xp.logical_and(row_exists[:, None, :, None], column_exists[None, :, None, :])
        index = by_row[:, None, :, None] + by_column[None, :, None, :]
        index = xp.where(exists, index, self.tiles * self.slots)
        return xp.reshape(index, [self.cells, by_row.shape[-1] * by_column.shape[-1]])

    def _window_axis(self, xp, cells, tiles):
        start = xp.arange(tiles, dtype="int32")[:, None] * self.tile - self.ring
        index = start + np.arange(self.slots_per_side, dtype=np.int32)
        return index, xp.logical_and(index >= 0, index < cells)

    def _slot_axis(self, xp, cells, tiles):
        shifted = xp.arange(cells, dtype="int32")[:, None] + self.ring
        turn = np.arange(-(-self.slots_per_side // self.tile), dtype=np.int32)
        tile = shifted // self.tile - turn
        slot = shifted % self.tile + turn * self.tile
        exists = xp.logical_and(xp.logical_and(tile >= 0, tile < tiles), slot < self.slots_per_side)
        return tile, slot, exists


def _backward(function):
    def grad(*args, upstream=None):
        return function(args[0] if upstream is None else upstream)

    return grad
