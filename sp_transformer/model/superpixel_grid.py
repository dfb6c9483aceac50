"""The superpixel grid over the pixels: the layout by tile that the decoder keeps, and the masks of its windows.

Letters as in neighborhood.py, and H, W pixel grid; h, w pixels of a cell, (H, W) = (R*h, C*w); P = t*h*t*w pixels of a
tile. Grids of odd size are padded to whole tiles with cells that nobody attends to.

R and C may be Python ints or scalar tensors; h and w are always ints.
"""

import dataclasses
import functools

import numpy as np
from keras import ops

from sp_transformer.model.neighborhood import Neighborhood, is_static, namespace

# Additive masks stay finite: bfloat16 and float32 hold them, and no row is ever masked as a whole.
MASKED = -1e9


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

    @functools.cached_property
    def windows(self) -> Neighborhood:
        """Each tile's own superpixels and one ring around them."""
        return self.neighborhood(ring=1)

    def neighborhood(self, ring) -> Neighborhood:
        return Neighborhood(self.rows, self.columns, self.tile, ring)

    @property
    def static(self) -> bool:
        return is_static(self.rows, self.columns)

    @property
    def tile_rows(self):
        return self.windows.tile_rows

    @property
    def tile_columns(self):
        return self.windows.tile_columns

    @property
    def tiles(self):
        return self.windows.tiles

    @property
    def cells(self):
        return self.rows * self.columns

    @property
    def tile_height(self) -> int:
        """Pixels along a tile's vertical side."""
        return self.tile * self.cell_height

    @property
    def tile_width(self) -> int:
        return self.tile * self.cell_width

    @property
    def pixels_per_tile(self) -> int:
        return self.tile_height * self.tile_width

    def regroup(self, pixels):
        """[B, H, W, E] -> [B, G, P, E], the pixels of each tile in row-major order."""
        batch, channels = ops.shape(pixels)[0], pixels.shape[-1]
        pixels = pad_bottom_right(
            pixels,
            (self.tile_rows * self.tile - self.rows) * self.cell_height,
            (self.tile_columns * self.tile - self.columns) * self.cell_width,
        )
        # Rank 4 throughout: folded axes transpose as fast as a rank 6 form, and LiteRT takes them.
        pixels = ops.reshape(
            pixels,
            [
                batch * self.tile_rows,
                self.tile_height,
                self.tile_columns,
                self.tile_width * channels,
            ],
        )
        pixels = ops.transpose(pixels, (0, 2, 1, 3))
        return ops.reshape(pixels, [batch, self.tiles, self.pixels_per_tile, channels])

    def ungroup(self, pixels):
        """[B, G, P, E] -> [B, H, W, E], the inverse of `regroup`."""
        batch, channels = ops.shape(pixels)[0], pixels.shape[-1]
        pixels = ops.reshape(
            pixels,
            [
                batch * self.tile_rows,
                self.tile_columns,
                self.tile_height,
                self.tile_width * channels,
            ],
        )
        pixels = ops.transpose(pixels, (0, 2, 1, 3))
        height, width = self.tile_rows * self.tile_height, self.tile_columns * self.tile_width
        pixels = ops.reshape(pixels, [batch, height, width, channels])
        used_height, used_width = self.rows * self.cell_height, self.columns * self.cell_width
        if self.static and (used_height, used_width) == (height, width):
            return pixels
        return pixels[:, :used_height, :used_width, :]

    def neighbor_mask(self, heads=1) -> np.ndarray:
        """Additive mask [P, J*S] that keeps, for each pixel of a tile, the nine superpixels around its cell."""
        slot = np.arange(self.windows.slots_per_side)
        cell_row = np.arange(self.tile_height) // self.cell_height
        cell_column = np.arange(self.tile_width) // self.cell_width
        row_near = np.abs(cell_row[:, None] + 1 - slot) <= 1
        column_near = np.abs(cell_column[:, None] + 1 - slot) <= 1
        near = row_near[:, None, :, None] & column_near[None, :, None, :]
        near = near.reshape(self.pixels_per_tile, self.windows.slots)
        return np.tile(np.where(near, 0.0, MASKED).astype(np.float32), [1, heads])

    def slot_mask(self, heads=1):
        """Additive mask [G, J*S], MASKED where a slot lies outside the grid."""
        xp = namespace(self.static)
        index = xp.reshape(self.windows.window_index(), [self.tiles, self.windows.slots])
        mask = xp.where(index == self.cells, np.float32(MASKED), np.float32(0.0))
        return xp.tile(mask, [1, heads])

    def padding_mask(self):
        """Additive mask [G, P], MASKED at pixels of cells that only fill up a tile; None if no tile needs any."""
        if self.static and self.rows % self.tile == 0 and self.columns % self.tile == 0:
            return None
        xp = namespace(self.static)
        row_real = self._padding_axis(xp, self.rows, self.tile_rows, self.cell_height)
        column_real = self._padding_axis(xp, self.columns, self.tile_columns, self.cell_width)
        real = xp.logical_and(row_real[:, None, :, None], column_real[None, :, None, :])
        mask = xp.where(real, np.float32(0.0), np.float32(MASKED))
        return xp.reshape(mask, [self.tiles, self.pixels_per_tile])

    def _padding_axis(self, xp, cells, tiles, cell_size):
        cell = np.arange(self.tile * cell_size, dtype=np.int32) // cell_size
        return xp.arange(tiles, dtype="int32")[:, None] * self.tile + cell < cells


__all__ = ["MASKED", "SuperpixelGrid", "is_static", "pad_bottom_right"]
