"""Bilinear interpolation (half-pixel centres, no antialiasing) of maps, plain and by tile.

Letters as in superpixel_grid.py.
"""

import numpy as np
import tensorflow as tf
from keras import ops

from sp_transformer.model.neighborhood import Neighborhood
from sp_transformer.model.superpixel_grid import is_static


def resize_bilinear(x, size):
    """[B, H, W, E] -> [B, *size, E]; the same tensor if nothing changes."""
    if not is_static(*size):
        # keras.ops compares sizes with zero, which a symbolic size does not allow.
        return tf.cast(tf.image.resize(x, tf.stack(size), method="bilinear"), x.dtype)
    if tuple(x.shape[1:3]) == tuple(size):
        return x
    return ops.image.resize(
        x, size, interpolation="bilinear", antialias=False, data_format="channels_last"
    )


def upsample_to_tiles(x, factor, grid):
    """[B, H/factor, W/factor, E] -> [B, G, P, E]: `grid.regroup(resize_bilinear(x, (H, W)))`, in one product.

    Each tile of pixels depends on few entries of `x`, and in the same way, so that one constant matrix serves all: no
    map of the full size is made first and regrouped after. A factor that does not divide the tile's sides takes the
    long way.

    Args:
      x: [B, H/factor, W/factor, E].
      factor: int, pixels of the grid per entry of `x` along each axis.
      grid: the SuperpixelGrid.
    """
    if factor == 1:
        return grid.regroup(x)
    tile = grid.tile_height // factor
    if grid.tile_height != grid.tile_width or grid.tile_height % factor:
        size = (grid.rows * grid.cell_height, grid.columns * grid.cell_width)
        return grid.regroup(resize_bilinear(x, size))
    batch, rows, columns, channels = ops.shape(x)
    windows = Neighborhood(rows, columns, tile, ring=1).gather_clamped(
        ops.reshape(x, [batch, rows * columns, channels])
    )
    matrix = interpolation_matrix(tile, grid.tile_height)
    matrix = ops.convert_to_tensor(np.kron(matrix, matrix), dtype=x.dtype)
    return ops.matmul(matrix, windows)


def interpolation_matrix(entries, view) -> np.ndarray:
    """Weights of a stretch of entries and of one more at either end, float32 [view, entries + 2].

    Args:
      entries: number of entries along one side.
      view: positions that they are interpolated to.
    """
    source = (np.arange(view) + 0.5) * entries / view - 0.5
    lower = np.floor(source)
    matrix = np.zeros((view, entries + 2), np.float64)
    first = lower.astype(int) + 1
    matrix[np.arange(view), first] += 1 - (source - lower)
    # A source on an entry needs no second one, which may lie beyond the end.
    second = np.minimum(first + 1, entries + 1)
    matrix[np.arange(view), second] += source - lower
    return matrix.astype(np.float32)


def sample_for_reduction(x, factor):
    """The positions that a bilinear reduction by `factor` reads: [B, Y, X, E] -> [B, n*Y/factor, n*X/factor, E].

    n is 2 for an even factor and 1 for an odd one; `reduce_samples` takes their mean. What acts on each position by
    itself can so act on n*n of factor*factor positions.
    """
    if factor == 1:
        return x
    batch, height, width, channels = ops.shape(x)
    count, start = _samples(factor), (factor - 1) // 2
    rows, columns = height // factor, width // factor
    x = ops.reshape(x, [batch * rows, factor, columns, factor * channels])
    x = ops.slice(
        x, [0, start, 0, start * channels], [batch * rows, count, columns, count * channels]
    )
    return ops.reshape(x, [batch, rows * count, columns * count, channels])


def reduce_samples(x, factor):
    """Mean of each position's samples, [B, n*H, n*W, E] -> [B, H, W, E]; see `sample_for_reduction`."""
    count = _samples(factor)
    if count == 1:
        return x
    return ops.average_pool(x, count, strides=count, data_format="channels_last")


def _samples(factor):
    return 1 if factor % 2 else 2
