"""Pixel features -> superpixels, by local dual-path cross-attention (paper, section III-B and Fig. 3).

Letters as in superpixel_grid.py. Pixels are regrouped once, by tile, and stay so through all layers: everything but the
attention itself acts on the last axis.
"""

import functools
import math

import keras
from keras import ops

from sp_transformer.model import cpu_kernels, local_attention, rematerialization
from sp_transformer.model.cross_attention import CrossAttention
from sp_transformer.model.interpolation import resize_bilinear, upsample_to_tiles
from sp_transformer.model.superpixel_grid import SuperpixelGrid, is_static

QUERIES = ("learned", "cell_mean")


@keras.saving.register_keras_serializable("sp_transformer")
class Tokenizer(keras.layers.Layer):
    """Pixel features and learned queries -> updated pixel features and superpixels.

    Call with pixels [B, H, W, E], H and W multiples of cell_size; the result is (pixels [B, H, W, E], superpixels
    [B, H/cell_size, W/cell_size, E]).

    Args:
      pixel_grid: (H, W) that queries and position embeddings are laid out for; other sizes get them resized.
      cell_size: pixel features along each side of a superpixel's cell.
      channels: E.
      layers: number of cross-attention layers.
      heads: N, divides E.
      queries: "learned", or "cell_mean" for the mean of each cell's pixels (Eqs. 1 and 2).
      position_embedding: whether tokens get learned position embeddings.
      position_embedding_stride: grid cells per entry of the embedding tables, along each axis.
      projection, feed_forward_width, implementation: as in CrossAttention.

    Attributes:
      rematerialize: whether training keeps only the inputs of each layer for the backward pass.

    Raises:
      ValueError: if pixel_grid, or the static size of an input, is not a multiple of cell_size.
    """

    def __init__(
        self,
        pixel_grid,
        cell_size=4,
        channels=256,
        layers=2,
        heads=2,
        queries="learned",
        position_embedding=True,
        position_embedding_stride=4,
        projection="mlp",
        feed_forward_width=0,
        implementation="fold",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if queries not in QUERIES:
            raise ValueError(f"queries must be one of {QUERIES}; got {queries!r}")
        local_attention.check_implementation(implementation)
        self.pixel_grid = tuple(pixel_grid)
        self.cell_size = cell_size
        self.channels = channels
        self.layers = layers
        self.heads = heads
        self.queries = queries
        self.position_embedding = position_embedding
        self.position_embedding_stride = position_embedding_stride
        self.projection = projection
        self.feed_forward_width = feed_forward_width
        self.implementation = implementation
        # Not in the config of the layer: it says how training is run, not what is computed.
        self.rematerialize = False
        self._check_divides(self.pixel_grid)
        # A tuple: tf.train.Checkpoint does not see layers in lists.
        self.cross_attentions = tuple(
            CrossAttention(
                channels,
                heads,
                projection,
                feed_forward_width,
                implementation,
                name=f"cross_attention_{index}",
                dtype=self.dtype_policy,
            )
            for index in range(layers)
        )
        self.query_table = self.pixel_position_table = self.superpixel_position_table = None

    def build(self, input_shape):
        if input_shape[-1] != self.channels:
            raise ValueError(
                f"tokenizer of {self.channels} channels got features of {input_shape[-1]} channels"
            )
        superpixel_grid = [side // self.cell_size for side in self.pixel_grid]
        if self.queries == "learned":
            self.query_table = self._add_table("queries", superpixel_grid)
        if self.position_embedding:
            self.pixel_position_table = self._add_table(
                "pixel_position_embedding", self._table_size(self.pixel_grid)
            )
            self.superpixel_position_table = self._add_table(
                "superpixel_position_embedding", self._table_size(superpixel_grid)
            )
        for layer in self.cross_attentions:
            layer.build()

    def grid(self, rows, columns) -> SuperpixelGrid:
        """The grid of R x C superpixels that pixels are regrouped by."""
        tile = local_attention.TILE[self.implementation]
        return SuperpixelGrid(rows, columns, self.cell_size, self.cell_size, tile)

    def call(self, pixels, grid=None, training=False):
        """Tokenizes a map, or pixels that are regrouped already.

        Args:
          pixels: [B, H, W, E]; with a grid [B, G, P, E], regrouped by it.
          grid: a SuperpixelGrid of this layer's `grid`, or None.
          training: whether `rematerialize` applies; nothing else depends on it.

        Returns:
          (pixels in the layout they came in, superpixels [B, R, C, E]).
        """
        if grid is None:
            self._check_divides(pixels.shape[1:3])
            height, width = ops.shape(pixels)[1:3]
            grid = self.grid(height // self.cell_size, width // self.cell_size)
            pixels, superpixels = self._tokenize(grid.regroup(pixels), grid, training)
            return grid.ungroup(pixels), superpixels
        return self._tokenize(pixels, grid, training)

    def _tokenize(self, pixels, grid, training):
        batch, channels = ops.shape(pixels)[0], pixels.shape[-1]
        superpixels = self._initial_superpixels(pixels, grid)
        positions = functools.partial(self._positions, grid)
        pixel_position, superpixel_position = (
            cpu_kernels.constant(positions) if grid.static else positions()
        )
        for index, layer in enumerate(self.cross_attentions):
            side = None
            if cpu_kernels.enabled() and index == 0 and self._starts_from_weights(grid):
                side = cpu_kernels.constant(
                    lambda: self.cross_attentions[0].superpixel_side(
                        self._learned_queries(grid), superpixel_position
                    )
                )
                side = tuple(ops.broadcast_to(x, [batch, *x.shape[1:]]) for x in side)
            inputs = pixels, superpixels, pixel_position, superpixel_position
            if training and self.rematerialize:
                pixels, superpixels = rematerialization.call(layer, *inputs, grid=grid)
            else:
                pixels, superpixels = layer(*inputs, grid=grid, superpixel_side=side)
        return pixels, ops.reshape(superpixels, [batch, grid.rows, grid.columns, channels])

    def _starts_from_weights(self, grid):
        """Whether the superpixel side of the first layer is the same for all images."""
        return grid.static and self.queries == "learned" and self.implementation == "fold"

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        sizes = [None if side is None else side // self.cell_size for side in (height, width)]
        return input_shape, (batch, *sizes, channels)

    def compute_output_spec(self, pixels, grid=None, training=False):
        if grid is None:
            shapes = self.compute_output_shape(pixels.shape)
        else:
            sizes = (grid.rows, grid.columns) if grid.static else (None, None)
            shapes = pixels.shape, (pixels.shape[0], *sizes, self.channels)
        return tuple(keras.KerasTensor(shape, dtype=self.compute_dtype) for shape in shapes)

    def get_config(self):
        return {
            **super().get_config(),
            "pixel_grid": self.pixel_grid,
            "cell_size": self.cell_size,
            "channels": self.channels,
            "layers": self.layers,
            "heads": self.heads,
            "queries": self.queries,
            "position_embedding": self.position_embedding,
            "position_embedding_stride": self.position_embedding_stride,
            "projection": self.projection,
            "feed_forward_width": self.feed_forward_width,
            "implementation": self.implementation,
        }

    def _initial_superpixels(self, pixels, grid):
        """[B, R*C, E]."""
        batch, channels = ops.shape(pixels)[0], pixels.shape[-1]
        if self.queries == "cell_mean":
            cells = SuperpixelGrid(grid.rows, grid.columns, self.cell_size, self.cell_size)
            return ops.mean(cells.regroup(grid.ungroup(pixels)), axis=2)
        return ops.broadcast_to(self._learned_queries(grid), [batch, grid.cells, channels])

    def _learned_queries(self, grid):
        """[1, R*C, E]."""
        queries = resize_bilinear(self._table(self.query_table), (grid.rows, grid.columns))
        return ops.reshape(queries, [1, grid.cells, self.channels])

    def _positions(self, grid):
        """Position embeddings of pixels [1, G, P, E] and superpixels [1, R*C, E], or None and None."""
        if not self.position_embedding:
            return None, None
        table = self._table(self.superpixel_position_table)
        superpixels = resize_bilinear(table, (grid.rows, grid.columns))
        return self._pixel_position(grid), ops.reshape(superpixels, [1, grid.cells, self.channels])

    def _pixel_position(self, grid):
        """[1, G, P, E]."""
        table = self._table(self.pixel_position_table)
        size = (grid.rows * self.cell_size, grid.columns * self.cell_size)
        factor = self.position_embedding_stride
        if is_static(*size) and size == tuple(factor * side for side in table.shape[1:3]):
            return upsample_to_tiles(table, factor, grid)
        return grid.regroup(resize_bilinear(table, size))

    def _add_table(self, name, size):
        return self.add_weight(
            shape=(*size, self.channels),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name=name,
        )

    def _table(self, variable):
        return ops.expand_dims(ops.cast(variable, self.compute_dtype), 0)

    def _table_size(self, grid):
        return [math.ceil(side / self.position_embedding_stride) for side in grid]

    def _check_divides(self, size):
        for side in size:
            if side is not None and side % self.cell_size:
                raise ValueError(
                    f"pixel features of {'x'.join(map(str, size))} do not divide into cells of "
                    f"{self.cell_size}x{self.cell_size}; pad them to multiples of {self.cell_size}"
                )
