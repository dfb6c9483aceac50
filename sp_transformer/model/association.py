"""Association of pixels with superpixels, and the projection of superpixel classes to pixels (paper, Eqs. 5 to 7).

Letters as in superpixel_grid.py and cell_association.py.

A pixel's association with its 9 superpixels is a product of features at the features' stride, interpolated to the
image. ALIGNED interpolates products with one and the same superpixel: each cell takes its own pixels and a ring of one
pixel around them, so that the interpolation never leaves what the cell's 9 superpixels know. RELATIVE interpolates the
9 channels "upper left", ..., "lower right" as they are; where two cells meet, a channel means a different superpixel on
either side.
"""

import keras
from keras import ops

from sp_transformer.model import cell_association, local_attention
from sp_transformer.model.cell_association import ALIGNMENTS
from sp_transformer.model.layer_normalization import LayerNormalization
from sp_transformer.model.superpixel_grid import MASKED, SuperpixelGrid


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
    batch, rows, columns, channels = ops.shape(superpixels)
    grid = SuperpixelGrid(rows, columns, *cell)
    pixels = grid.regroup(pixels * (channels**-0.5 if scale is None else scale))
    superpixels = ops.reshape(superpixels, [batch, grid.cells, channels])
    products = cell_association.ring_products(pixels, superpixels, grid, alignment)
    by_cell = cell_association.image_logits(products, grid, view)
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
    batch, rows, columns, classes = ops.shape(superpixel_logits)
    grid = SuperpixelGrid(rows, columns, *view)
    by_cell = ops.swapaxes(grid.regroup(logits), 2, 3)
    superpixel_logits = ops.reshape(superpixel_logits, [batch, grid.cells, classes])
    return cell_association.image_projection(by_cell, superpixel_logits, grid, view)


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
    neighbor = ops.argmax(grid.regroup(logits), axis=-1)
    cells = ops.reshape(ops.arange(grid.cells, dtype="int32"), [1, grid.cells, 1])
    ids = cell_association.superpixel_ids(neighbor, cells, grid)
    return grid.ungroup(ops.expand_dims(ids, -1))[..., 0]


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
        self.as_written = False
        self.pixel_norm = LayerNormalization(name="pixel_norm", dtype=self.dtype_policy)
        self.superpixel_norm = LayerNormalization(name="superpixel_norm", dtype=self.dtype_policy)

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
        """Features as Eq. 5 multiplies them, shapes kept; pixels in any layout."""
        return self.pixel_norm(pixels), self.superpixel_norm(superpixels)

    def ring_products(self, pixels, superpixels, grid):
        """float32 [B, R*C, 9, (h+2)*(w+2)] of normalised pixels [B, G, P, E] and superpixels [B, R, C, E]."""
        scaled = self._scaled(superpixels, grid)
        return cell_association.ring_products(pixels, scaled, grid, self.alignment)

    def cell_logits(self, pixels, superpixels, grid):
        """float32 [B, R*C, 9, v*u] of normalised pixels [B, G, P, E] and superpixels [B, R, C, E]."""
        view = self.view(grid)
        if self.as_written:
            # The published counts are of this form; see summary.paper_form.
            scaled = self._scaled(superpixels, grid)
            return cell_association.logits_as_written(pixels, scaled, grid, view)
        products = self.ring_products(pixels, superpixels, grid)
        return cell_association.image_logits(products, grid, view)

    def view(self, grid) -> tuple[int, int]:
        """(v, u), the image pixels of a cell."""
        return grid.cell_height * self.output_stride, grid.cell_width * self.output_stride

    def _scaled(self, superpixels, grid):
        """[B, R, C, E] -> [B, R*C, E], with the factor on the products."""
        batch, channels = ops.shape(superpixels)[0], superpixels.shape[-1]
        superpixels = ops.reshape(superpixels, [batch, grid.cells, channels])
        return superpixels * (channels**-0.5 if self.scale is None else self.scale)

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
    "hard_superpixels",
    "project",
]
