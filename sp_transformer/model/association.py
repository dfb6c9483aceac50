"""Association of pixels with superpixels, and the projection of superpixel classes to pixels (paper, Eqs. 5 to 7).

Letters as in superpixel_grid.py, and Y, X the image; v, u the image pixels of a cell, (Y, X) = (R*v, C*u).

A pixel's association with its 9 superpixels is a product of features at the features' stride, interpolated to the
image. ALIGNED interpolates products with one and the same superpixel: each cell takes its own pixels and a ring of one
pixel around them, so that the interpolation never leaves what the cell's 9 superpixels know. RELATIVE interpolates the
9 channels "upper left", ..., "lower right" as they are; where two cells meet, a channel means a different superpixel on
either side.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from sp_transformer.model import local_attention
from sp_transformer.model.superpixel_grid import MASKED, SuperpixelGrid, is_static

ALIGNMENTS = ("aligned", "relative")


def association_logits(pixels, superpixels, output_size, alignment="aligned", scale=None):
    """Products of pixels with their 9 superpixels, interpolated bilinearly to the image (Eq. 5).

    Args:
      pixels: [B, H, W, E], normalised features.
      superpixels: [B, R, C, E], normalised features; R and C divide H and W.
      output_size: (Y, X); multiples of R and C.
      alignment: "aligned" or "relative".
      scale: factor on the products; E**-0.5 by default.

    Returns:
      float32 [B, Y, X, 9], the neighbours in row-major order from (-1, -1) to (1, 1), a large negative number where
      the neighbour lies outside the grid.

    Raises:
      ValueError: if sizes do not fit each other or the alignment is unknown.
    """
    cell = local_attention.cell_size(pixels.shape[1:3], superpixels.shape[1:3])
    view = local_attention.cell_size(output_size, superpixels.shape[1:3])
    rows, columns = ops.shape(superpixels)[1:3]
    grid = SuperpixelGrid(rows, columns, *cell)
    by_cell = cell_association_logits(pixels, superpixels, grid, view, alignment, scale)
    return SuperpixelGrid(rows, columns, *view).ungroup(ops.swapaxes(by_cell, 2, 3))


def project(logits, superpixel_logits):
    """Classes of superpixels to pixels: the softmax of `logits` mixes those of the 9 neighbours (Eq. 6).

    Args:
      logits: [B, Y, X, 9], from `association_logits`.
      superpixel_logits: [B, R, C, K]; R and C divide Y and X.

    Returns:
      float32 [B, Y, X, K].

    Raises:
      ValueError: if sizes do not fit each other.
    """
    view = local_attention.cell_size(logits.shape[1:3], superpixel_logits.shape[1:3])
    grid = SuperpixelGrid(*ops.shape(superpixel_logits)[1:3], *view)
    by_cell = ops.swapaxes(grid.regroup(logits), 2, 3)
    return grid.ungroup(cell_projection(by_cell, superpixel_logits, grid))


def hard_superpixels(logits, grid):
    """The superpixel with which each pixel is associated most (Eq. 7).

    Args:
      logits: [B, Y, X, 9], from `association_logits`.
      grid: (R, C), which divide Y and X.

    Returns:
      int32 [B, Y, X], the superpixel's index r*C + c.

    Raises:
      ValueError: if sizes do not fit each other.
    """
    view = local_attention.cell_size(logits.shape[1:3], grid)
    grid = SuperpixelGrid(*grid, *view)
    by_cell = ops.swapaxes(grid.regroup(logits), 2, 3)
    return ungroup_map(cell_superpixels(by_cell, grid), grid)


def cell_association_logits(pixels, superpixels, grid, view, alignment="aligned", scale=None):
    """`association_logits` in cell layout.

    Args:
      pixels: [B, H, W, E].
      superpixels: [B, R, C, E].
      grid: the SuperpixelGrid of tile 1 of the features.
      view: (v, u), the size of a cell in the image.
      alignment: "aligned" or "relative".
      scale: factor on the products; E**-0.5 by default.

    Returns:
      float32 [B, R*C, 9, v*u].
    """
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment must be one of {', '.join(ALIGNMENTS)}; got {alignment!r}")
    batch, channels = ops.shape(superpixels)[0], superpixels.shape[-1]
    pixels = grid.regroup(pixels * (channels**-0.5 if scale is None else scale))
    superpixels = ops.reshape(superpixels, [batch, grid.cells, channels])
    form = _aligned if alignment == "aligned" else _relative
    return form(pixels, superpixels, grid, view)


def cell_projection(logits, superpixel_logits, grid):
    """`project` in cell layout: [B, R*C, 9, v*u] and [B, R, C, K] -> float32 [B, R*C, v*u, K]."""
    batch, classes = ops.shape(superpixel_logits)[0], superpixel_logits.shape[-1]
    superpixel_logits = ops.reshape(superpixel_logits, [batch, grid.cells, classes])
    neighbors = grid.gather(ops.cast(superpixel_logits, "float32"))
    weights = ops.softmax(logits, axis=2)
    return ops.matmul(ops.swapaxes(weights, 2, 3), neighbors)


def cell_superpixels(logits, grid):
    """`hard_superpixels` in cell layout: [B, R*C, 9, v*u] -> int32 [B, R*C, v*u]."""
    neighbor = ops.cast(ops.argmax(logits, axis=2), "int32")
    cell = ops.reshape(ops.arange(grid.cells, dtype="int32"), [1, grid.cells, 1])
    return cell + (neighbor // 3 - 1) * grid.columns + neighbor % 3 - 1


def ungroup_map(by_cell, grid):
    """[B, R*C, v*u] -> [B, Y, X], for maps without channels."""
    return grid.ungroup(ops.expand_dims(by_cell, -1))[..., 0]


def _relative(pixels, superpixels, grid, view):
    products = _products(pixels, grid.gather(superpixels))
    image_size = (grid.rows * view[0], grid.columns * view[1])
    resized = resize_bilinear(grid.ungroup(products), image_size)
    image_grid = SuperpixelGrid(grid.rows, grid.columns, *view)
    by_cell = ops.swapaxes(image_grid.regroup(resized), 2, 3)
    # Only now: a mask in front of the resize would bleed into the next cell's valid neighbours.
    return by_cell + ops.expand_dims(ops.convert_to_tensor(grid.slot_mask()), -1)


def _aligned(pixels, superpixels, grid, view):
    batch = ops.shape(pixels)[0]
    # A pixel in the ring around a cell belongs to the next cell, from where neighbours may lie two cells off.
    products = _products(pixels, _windows_of_radius_two(superpixels, grid))
    products = ops.reshape(products, [batch, grid.cells * grid.pixels_per_tile * 25])
    ring_height, ring_width = grid.cell_height + 2, grid.cell_width + 2
    products = ops.take(products, ops.convert_to_tensor(_ring_index(grid)), axis=1)
    products = ops.reshape(products, [batch, grid.cells, 9, ring_height * ring_width])
    # Exact in front of the interpolation here: its weights sum to one and a channel keeps its superpixel.
    products += ops.expand_dims(ops.convert_to_tensor(grid.slot_mask()), -1)
    interpolation = np.kron(
        interpolation_matrix(grid.cell_height, view[0]),
        interpolation_matrix(grid.cell_width, view[1]),
    )
    return ops.matmul(products, interpolation.T)


def interpolation_matrix(cell, view) -> np.ndarray:
    """Bilinear interpolation (half-pixel centres) inside a cell, float32 [view, cell + 2].

    Args:
      cell: feature pixels along one side of a cell; the columns are these and one more at either end.
      view: image pixels along that side.
    """
    source = (np.arange(view) + 0.5) * cell / view - 0.5
    lower = np.floor(source)
    matrix = np.zeros((view, cell + 2), np.float64)
    first = lower.astype(int) + 1
    matrix[np.arange(view), first] += 1 - (source - lower)
    # A source on a feature pixel needs no second one, which may lie outside the ring.
    second = np.minimum(first + 1, cell + 1)
    matrix[np.arange(view), second] += source - lower
    return matrix.astype(np.float32)


def resize_bilinear(x, size):
    """[B, H, W, E] -> [B, *size, E]: half-pixel centres, no antialiasing; the same tensor if nothing changes."""
    if not is_static(*size):
        # keras.ops compares sizes with zero, which a symbolic size does not allow.
        return tf.cast(tf.image.resize(x, tf.stack(size), method="bilinear"), x.dtype)
    if tuple(x.shape[1:3]) == tuple(size):
        return x
    return ops.image.resize(
        x, size, interpolation="bilinear", antialias=False, data_format="channels_last"
    )


def _products(pixels, windows):
    """[B, R*C, h*w, E] and [B, R*C, S, E] -> float32 [B, R*C, h*w, S]."""
    return ops.cast(ops.matmul(pixels, ops.swapaxes(windows, 2, 3)), "float32")


def _windows_of_radius_two(superpixels, grid):
    """[B, R*C, E] -> [B, R*C, 25, E]: the 5x5 superpixels around each; zeros outside the grid."""
    nine = grid.gather(superpixels)
    batch, channels = ops.shape(superpixels)[0], superpixels.shape[-1]
    # Neighbours of the neighbours: 3x3 of 3x3 hold the 5x5, each at least once.
    again = grid.gather(ops.reshape(nine, [batch, grid.cells, 9 * channels]))
    again = ops.reshape(again, [batch, grid.cells, 81, channels])
    step = np.clip(np.arange(5) - 2, -1, 1)
    rest = np.arange(5) - 2 - step
    outer = (step[:, None] + 1) * 3 + step + 1
    inner = (rest[:, None] + 1) * 3 + rest + 1
    return ops.take(again, np.reshape(outer * 9 + inner, [-1]), axis=2)


def _ring_index(grid):
    """Where the products of each cell's ring lie in [R*C, h*w, 5*5]: flat int32 [R*C*9*(h+2)*(w+2)].

    Beyond the border of the image the outermost pixels repeat, as in a bilinear resize.
    """
    xp = np if grid.static else ops

    def axis(cells, cell):
        """(cell of the ring's pixel, pixel in that cell, slot of the neighbour), each [cells, 3, cell + 2]."""
        owner = xp.reshape(xp.arange(cells, dtype="int32"), [cells, 1, 1])
        ring = owner * cell - 1 + np.arange(cell + 2, dtype=np.int32)
        ring = xp.clip(ring, 0, cells * cell - 1)
        neighbor = owner + np.arange(-1, 2, dtype=np.int32)[:, None]
        return ring // cell, ring % cell, neighbor - ring // cell + 2

    row_cell, row_pixel, row_slot = axis(grid.rows, grid.cell_height)
    column_cell, column_pixel, column_slot = axis(grid.columns, grid.cell_width)
    size = grid.pixels_per_tile
    by_row = row_cell * grid.columns * size * 25 + row_pixel * grid.cell_width * 25 + row_slot * 5
    by_column = column_cell * size * 25 + column_pixel * 25 + column_slot
    ring_height, ring_width = grid.cell_height + 2, grid.cell_width + 2
    by_row = xp.reshape(by_row, [grid.rows, 1, 3 * ring_height, 1])
    by_column = xp.reshape(by_column, [1, grid.columns, 1, 3 * ring_width])
    index = xp.reshape(by_row + by_column, [grid.cells, 3, ring_height, 3, ring_width])
    return xp.reshape(xp.transpose(index, (0, 1, 3, 2, 4)), [-1])


@keras.saving.register_keras_serializable("sp_transformer")
class Association(keras.layers.Layer):
    """LayerNorms of pixels and superpixels and their association with each other (paper, section III-D).

    Call with pixels [B, H, W, E] and superpixels [B, R, C, E]; the result is float32 [B, Y, X, 9], the logits that
    `project` and `hard_superpixels` take, with (Y, X) = (H, W) * output_stride.

    Args:
      output_stride: image pixels per pixel feature.
      alignment: "aligned" or "relative".
      scale: factor on the products; channels**-0.5 by default.
    """

    def __init__(self, output_stride=8, alignment="aligned", scale=None, **kwargs):
        super().__init__(**kwargs)
        if alignment not in ALIGNMENTS:
            raise ValueError(f"alignment must be one of {', '.join(ALIGNMENTS)}; got {alignment!r}")
        self.output_stride = output_stride
        self.alignment = alignment
        self.scale = scale
        self.pixel_norm = keras.layers.LayerNormalization(
            epsilon=1e-6, name="pixel_norm", dtype=self.dtype_policy
        )
        self.superpixel_norm = keras.layers.LayerNormalization(
            epsilon=1e-6, name="superpixel_norm", dtype=self.dtype_policy
        )

    def build(self, pixels_shape, superpixels_shape):
        self.pixel_norm.build(pixels_shape)
        self.superpixel_norm.build(superpixels_shape)

    def call(self, pixels, superpixels):
        output_size = [size * self.output_stride for size in ops.shape(pixels)[1:3]]
        return association_logits(
            *self.normalize(pixels, superpixels), output_size, self.alignment, self.scale
        )

    def compute_output_shape(self, pixels_shape, superpixels_shape):
        sizes = [None if size is None else size * self.output_stride for size in pixels_shape[1:3]]
        return (pixels_shape[0], *sizes, 9)

    def compute_output_spec(self, pixels, superpixels):
        shape = self.compute_output_shape(pixels.shape, superpixels.shape)
        return keras.KerasTensor(shape, dtype="float32")

    def normalize(self, pixels, superpixels):
        """Features as Eq. 5 multiplies them, shapes kept."""
        return self.pixel_norm(pixels), self.superpixel_norm(superpixels)

    def cell_logits(self, pixels, superpixels, grid):
        """float32 [B, R*C, 9, v*u] of normalised features on a SuperpixelGrid of tile 1."""
        view = (grid.cell_height * self.output_stride, grid.cell_width * self.output_stride)
        return cell_association_logits(pixels, superpixels, grid, view, self.alignment, self.scale)

    def get_config(self):
        return {
            **super().get_config(),
            "output_stride": self.output_stride,
            "alignment": self.alignment,
            "scale": self.scale,
        }


__all__ = [
    "ALIGNMENTS",
    "MASKED",
    "Association",
    "association_logits",
    "cell_association_logits",
    "cell_projection",
    "cell_superpixels",
    "hard_superpixels",
    "interpolation_matrix",
    "project",
    "resize_bilinear",
    "ungroup_map",
]
