"""Association of pixels with superpixels in cell layout, and what is made of it (paper, Eqs. 5 to 7).

Letters as in superpixel_grid.py, and Y, X the image; v, u the image pixels of a cell, (Y, X) = (R*v, C*u); K classes.

A cell's image pixels interpolate between its h*w feature pixels and a ring of one around them. All of a cell's pixels
share their nine superpixels, so that interpolation is one constant matrix behind the products of feature size
("ring products", [B, R*C, 9, (h+2)*(w+2)]): small enough to keep, while everything of image size is made from them
where it is needed, by bands of cells if it need not be kept.
"""

import numpy as np
import tensorflow as tf
from keras import ops

from sp_transformer.model import cpu_kernels, portable
from sp_transformer.model.interpolation import interpolation_matrix, resize_bilinear
from sp_transformer.model.neighborhood import namespace
from sp_transformer.model.superpixel_grid import SuperpixelGrid

ALIGNMENTS = ("aligned", "relative")
# Neighbours of a ring's pixel may lie two cells off the cell whose ring it is.
_RING = 2
# Rows of cells whose full-size logits exist at the same time where only labels are asked for.
_BAND_ROWS = 4


def ring_products(pixels, superpixels, grid, alignment):
    """Products of each cell's pixels, and of those around it, with the cell's 9 superpixels.

    Args:
      pixels: [B, G, P, E], scaled.
      superpixels: [B, R*C, E].
      grid: the SuperpixelGrid.
      alignment: "aligned": a channel is one superpixel for the whole ring, relative to the cell; "relative": it is a
        direction from each pixel's own cell.

    Returns:
      float32 [B, R*C, 9, (h+2)*(w+2)], MASKED where the cell's neighbour lies outside the grid.

    Raises:
      ValueError: for an unknown alignment.
    """
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment must be one of {', '.join(ALIGNMENTS)}; got {alignment!r}")
    neighborhood = grid.neighborhood(_RING)
    windows = neighborhood.gather(superpixels)
    products = ops.cast(ops.matmul(pixels, ops.swapaxes(windows, 2, 3)), "float32")
    batch = ops.shape(pixels)[0]
    products = ops.reshape(
        products, [batch, grid.tiles * grid.pixels_per_tile * neighborhood.slots]
    )
    index = ops.convert_to_tensor(_ring_index(grid, neighborhood, alignment))
    products = ops.take(products, index, axis=1)
    ring = (grid.cell_height + 2) * (grid.cell_width + 2)
    products = ops.reshape(products, [batch, grid.cells, 9, ring])
    # Exact in front of the interpolation: its weights sum to one, and the mask is the same for the whole ring.
    return products + _outside(grid)


def image_logits(products, grid, view):
    """Ring products [..., 9, (h+2)*(w+2)] -> association logits of the cell's image pixels, [..., 9, v*u]."""
    interpolation = np.kron(
        interpolation_matrix(grid.cell_height, view[0]),
        interpolation_matrix(grid.cell_width, view[1]),
    )
    return ops.matmul(products, interpolation.T)


def logits_as_written(pixels, superpixels, grid, view):
    """Eq. 5 as the paper computes it: 9 relative channels, resized as a map, masked, and cut into cells.

    The same as `image_logits` of relative `ring_products`, at the cost that the published counts are of.

    Args:
      pixels: [B, G, P, E], scaled.
      superpixels: [B, R*C, E].
      grid: the SuperpixelGrid.
      view: (v, u).

    Returns:
      float32 [B, R*C, 9, v*u].
    """
    by_cell = SuperpixelGrid(grid.rows, grid.columns, grid.cell_height, grid.cell_width)
    pixels = by_cell.regroup(grid.ungroup(pixels))
    neighbors = by_cell.windows.gather(superpixels)
    products = ops.cast(ops.matmul(pixels, ops.swapaxes(neighbors, 2, 3)), "float32")
    image_size = (grid.rows * view[0], grid.columns * view[1])
    resized = resize_bilinear(by_cell.ungroup(products), image_size)
    image_grid = SuperpixelGrid(grid.rows, grid.columns, *view)
    logits = ops.swapaxes(image_grid.regroup(resized), 2, 3)
    # Only now: a mask in front of the resize would bleed into the next cell's valid neighbours.
    return logits + _outside(grid)


def cell_projection(logits, superpixel_logits, grid):
    """Eq. 6 in cell layout: [B, R*C, 9, v*u] and [B, R*C, K] -> float32 [B, R*C, v*u, K]."""
    weights = ops.softmax(logits, axis=2)
    return ops.matmul(ops.swapaxes(weights, 2, 3), neighbor_classes(superpixel_logits, grid))


def image_projection(logits, superpixel_logits, grid, view):
    """Eq. 6 as a map, [B, R*C, 9, v*u] and [B, R*C, K] -> float32 [B, Y, X, K].

    What is rearranged into rows of the image are the 9 weights of a pixel, not its K classes, so that a tensor of that
    size exists once.
    """
    batch, classes = ops.shape(superpixel_logits)[0], superpixel_logits.shape[-1]
    rows, columns = grid.rows, grid.columns
    weights = ops.reshape(ops.softmax(logits, axis=2), [batch * rows, columns, 9, *view])
    weights = ops.transpose(weights, (0, 3, 1, 4, 2))
    neighbors = neighbor_classes(superpixel_logits, grid)
    neighbors = ops.reshape(neighbors, [batch * rows, 1, columns, 9, classes])
    return ops.reshape(
        ops.matmul(weights, neighbors), [batch, rows * view[0], columns * view[1], classes]
    )


def neighbor_classes(superpixel_logits, grid):
    """[B, R*C, K] -> float32 [B, R*C, 9, K]."""
    by_cell = SuperpixelGrid(grid.rows, grid.columns, 1, 1)
    return by_cell.windows.gather(ops.cast(superpixel_logits, "float32"))


def label_map(products, superpixel_logits, grid, view):
    """The class with the largest logit (Eq. 6), band by band: ring products, [B, R*C, K] -> int32 [B, Y, X]."""

    def band_labels(band):
        band_products, classes = band
        logits = image_logits(band_products, grid, view)
        # The softmax's denominator is the same for all classes of a pixel.
        weights = ops.exp(logits - ops.max(logits, axis=2, keepdims=True))
        return _argmax(ops.matmul(ops.swapaxes(classes, 2, 3), weights), axis=2)

    def labels(products, superpixel_logits):
        classes = neighbor_classes(superpixel_logits, grid)
        return _map_bands(band_labels, (products, classes), grid, view)

    return cpu_kernels.fused(labels, products, superpixel_logits)


def superpixel_map(products, grid, view):
    """The superpixel with the largest logit (Eq. 7), band by band: ring products -> int32 [B, Y, X], r*C + c."""

    def band_superpixels(band):
        band_products, cells = band
        neighbor = _argmax(image_logits(band_products, grid, view), axis=2)
        return superpixel_ids(neighbor, cells, grid)

    def superpixels(products):
        batch = ops.shape(products)[0]
        cells = ops.reshape(ops.arange(grid.cells, dtype="int32"), [1, grid.cells, 1])
        cells = ops.broadcast_to(cells, [batch, grid.cells, 1])
        return _map_bands(band_superpixels, (products, cells), grid, view)

    return cpu_kernels.fused(superpixels, products)


def superpixel_ids(neighbor, cells, grid):
    """Index 0..8 of a neighbour of each cell -> its superpixel's index r*C + c."""
    neighbor = ops.cast(neighbor, "int32")
    return cells + (neighbor // 3 - 1) * grid.columns + neighbor % 3 - 1


def _argmax(x, axis):
    """int32. Keras' argmax first tells -0.0 from 0.0, in five passes over the tensor."""
    return tf.argmax(x, axis, output_type=tf.int32)


def _map_bands(function, tensors, grid, view):
    """Applies `function` to one band of a few rows of cells of the whole batch after the other.

    Args:
      function: a tuple of [B, n, ...] of n cells each -> whole numbers [B, n, v*u].
      tensors: of [B, R*C, ...].
      grid: the SuperpixelGrid.
      view: (v, u).

    Returns:
      int32 [B, Y, X].
    """
    batch, (height, width) = ops.shape(tensors[0])[0], view
    if portable.enabled():
        values = ops.reshape(function(tensors), [batch * grid.rows, grid.columns, height, width])
        values = ops.transpose(ops.cast(values, "int32"), (0, 2, 1, 3))
        return ops.reshape(values, [batch, grid.rows * height, grid.columns * width])
    rows = _BAND_ROWS
    if not grid.static or grid.rows % rows:
        rows = 1

    def by_band(x):
        x = ops.reshape(x, [batch, grid.rows // rows, rows * grid.columns, *x.shape[2:]])
        return ops.swapaxes(x, 0, 1)

    def image_rows(band):
        values = ops.reshape(function(band), [batch * rows, grid.columns, height, width])
        values = ops.transpose(ops.cast(values, "int32"), (0, 2, 1, 3))
        return ops.reshape(values, [batch, rows * height, grid.columns * width])

    bands = tf.map_fn(
        image_rows,
        tuple(by_band(x) for x in tensors),
        # More at a time would hold what this loop is there not to hold.
        parallel_iterations=1,
        fn_output_signature=tf.int32,
    )
    return ops.reshape(ops.swapaxes(bands, 0, 1), [batch, grid.rows * height, grid.columns * width])


def _outside(grid):
    """Additive mask [R*C, 9, 1] of neighbours outside the grid."""
    by_cell = SuperpixelGrid(grid.rows, grid.columns, 1, 1)
    return ops.expand_dims(ops.convert_to_tensor(by_cell.slot_mask()), -1)


def _ring_index(grid, neighborhood, alignment):
    """Where the products of each cell's ring lie in [G, P, S]: flat int32 [R*C*9*(h+2)*(w+2)].

    Beyond the border of the image the outermost pixels repeat, as in a bilinear resize.
    """
    xp = namespace(grid.static)

    def axis(cells, cell):
        """(tile of the ring's pixel, pixel in that tile, slot of the neighbour), each [cells, 3, cell + 2]."""
        owner = xp.reshape(xp.arange(cells, dtype="int32"), [cells, 1, 1])
        pixel = owner * cell - 1 + np.arange(cell + 2, dtype=np.int32)
        pixel = xp.clip(pixel, 0, cells * cell - 1)
        pixel_cell = pixel // cell
        step = np.arange(-1, 2, dtype=np.int32)[:, None]
        neighbor = (owner if alignment == "aligned" else pixel_cell) + step
        tile = pixel_cell // grid.tile
        # The window of a tile begins _RING cells before it.
        slot = neighbor - tile * grid.tile + _RING
        shape = [cells, 3, cell + 2]
        return (
            xp.broadcast_to(tile, shape),
            xp.broadcast_to(pixel - tile * grid.tile * cell, shape),
            xp.broadcast_to(slot, shape),
        )

    slots, side, size = neighborhood.slots, neighborhood.slots_per_side, grid.pixels_per_tile

    def flat(tile, pixel, slot, tile_step, pixel_step, slot_step):
        return (tile * (tile_step * size) + pixel * pixel_step) * slots + slot * slot_step

    by_row = flat(*axis(grid.rows, grid.cell_height), grid.tile_columns, grid.tile_width, side)
    by_column = flat(*axis(grid.columns, grid.cell_width), 1, 1, 1)
    ring_height, ring_width = grid.cell_height + 2, grid.cell_width + 2
    by_row = xp.reshape(by_row, [grid.rows, 1, 3 * ring_height, 1])
    by_column = xp.reshape(by_column, [1, grid.columns, 1, 3 * ring_width])
    index = xp.reshape(by_row + by_column, [grid.cells, 3, ring_height, 3, ring_width])
    return xp.reshape(xp.transpose(index, (0, 1, 3, 2, 4)), [-1])
