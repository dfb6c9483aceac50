"""Pixel features -> superpixels, by local dual-path cross-attention (paper, section III-B and Fig. 3).

Letters as in superpixel_grid.py. Pixels are regrouped once, by tile, and stay so through all layers: everything but the
attention itself acts on the last axis.
"""

import math

import keras
from keras import ops

from sp_transformer.model import local_attention
from sp_transformer.model.association import resize_bilinear
from sp_transformer.model.projection import FeedForward, Projection
from sp_transformer.model.superpixel_grid import SuperpixelGrid

QUERIES = ("learned", "cell_mean")
PROJECTIONS = ("mlp", "linear")


@keras.saving.register_keras_serializable("sp_transformer")
class CrossAttention(keras.layers.Layer):
    """One dual-path layer: superpixels from pixels (Eq. 3) and pixels from superpixels (Eq. 4), both of the old values.

    Args:
      channels: E.
      heads: N, divides E.
      projection: "mlp" (Dense, GELU, Dense) or "linear", for queries, keys, values and outputs alike.
      feed_forward_width: hidden channels of a feed-forward layer behind each path; 0 for none.
      implementation: of the attention, "fold" or "gather".
    """

    def __init__(
        self,
        channels=256,
        heads=2,
        projection="mlp",
        feed_forward_width=0,
        implementation="fold",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if channels % heads:
            raise ValueError(f"heads must divide channels; got {heads} heads, {channels} channels")
        if projection not in PROJECTIONS:
            raise ValueError(f"projection must be one of {PROJECTIONS}; got {projection!r}")
        self.channels = channels
        self.heads = heads
        self.projection = projection
        self.feed_forward_width = feed_forward_width
        self.implementation = implementation

        def norm(name):
            return keras.layers.LayerNormalization(epsilon=1e-6, name=name, dtype=self.dtype_policy)

        def project(name):
            hidden = channels if projection == "mlp" else 0
            return Projection(channels, hidden, name=name, dtype=self.dtype_policy)

        self.pixel_norm = norm("pixel_norm")
        self.superpixel_norm = norm("superpixel_norm")
        self.superpixel_query = project("superpixel_query")
        self.pixel_key = project("pixel_key")
        self.pixel_value = project("pixel_value")
        self.pixel_query = project("pixel_query")
        self.superpixel_key = project("superpixel_key")
        self.superpixel_value = project("superpixel_value")
        self.superpixel_output = project("superpixel_output")
        self.pixel_output = project("pixel_output")
        self.superpixel_feed_forward = self.pixel_feed_forward = None
        if feed_forward_width:
            self.superpixel_feed_forward = FeedForward(
                feed_forward_width, name="superpixel_feed_forward", dtype=self.dtype_policy
            )
            self.pixel_feed_forward = FeedForward(
                feed_forward_width, name="pixel_feed_forward", dtype=self.dtype_policy
            )

    def build(self, *args, **kwargs):
        parts = [
            self.pixel_norm,
            self.superpixel_norm,
            self.superpixel_query,
            self.pixel_key,
            self.pixel_value,
            self.pixel_query,
            self.superpixel_key,
            self.superpixel_value,
            self.superpixel_output,
            self.pixel_output,
        ]
        if self.feed_forward_width:
            parts += [self.superpixel_feed_forward, self.pixel_feed_forward]
        # Every part acts on the last axis only, so the shape of a single token is enough.
        for layer in parts:
            layer.build((None, None, self.channels))

    def call(self, pixels, superpixels, pixel_position, superpixel_position, grid):
        """Both paths.

        Args:
          pixels: [B, G, P, E].
          superpixels: [B, R*C, E].
          pixel_position: [1, G, P, E], or None.
          superpixel_position: [1, R*C, E], or None.
          grid: the SuperpixelGrid, of the implementation's tile size.

        Returns:
          (pixels, superpixels), shapes kept.
        """
        x, y = self.pixel_norm(pixels), self.superpixel_norm(superpixels)
        if pixel_position is not None:
            x, y = x + pixel_position, y + superpixel_position
        from_pixels = local_attention.attend_to_pixels(
            self.superpixel_query(y),
            self.pixel_key(x),
            self.pixel_value(x),
            grid,
            self.heads,
            self.implementation,
        )
        from_superpixels = local_attention.attend_to_superpixels(
            self.pixel_query(x),
            self.superpixel_key(y),
            self.superpixel_value(y),
            grid,
            self.heads,
        )
        superpixels = superpixels + self.superpixel_output(from_pixels)
        pixels = pixels + self.pixel_output(from_superpixels)
        if self.feed_forward_width:
            superpixels = self.superpixel_feed_forward(superpixels)
            pixels = self.pixel_feed_forward(pixels)
        return pixels, superpixels

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "heads": self.heads,
            "projection": self.projection,
            "feed_forward_width": self.feed_forward_width,
            "implementation": self.implementation,
        }


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
        if implementation not in local_attention.IMPLEMENTATIONS:
            raise ValueError(
                f"implementation must be one of {local_attention.IMPLEMENTATIONS}; "
                f"got {implementation!r}"
            )
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

    def call(self, pixels):
        self._check_divides(pixels.shape[1:3])
        batch, height, width, channels = ops.shape(pixels)
        rows, columns = height // self.cell_size, width // self.cell_size
        tile = local_attention.TILE[self.implementation]
        grid = SuperpixelGrid(rows, columns, self.cell_size, self.cell_size, tile)

        superpixels = self._initial_superpixels(pixels, rows, columns)
        superpixels = ops.reshape(superpixels, [batch, grid.cells, channels])
        pixel_position = superpixel_position = None
        if self.position_embedding:
            pixel_position = grid.regroup(
                resize_bilinear(self._table(self.pixel_position_table), (height, width))
            )
            superpixel_position = ops.reshape(
                resize_bilinear(self._table(self.superpixel_position_table), (rows, columns)),
                [1, grid.cells, channels],
            )
        pixels = grid.regroup(pixels)
        for layer in self.cross_attentions:
            pixels, superpixels = layer(
                pixels, superpixels, pixel_position, superpixel_position, grid=grid
            )
        return grid.ungroup(pixels), ops.reshape(superpixels, [batch, rows, columns, channels])

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        sizes = [None if side is None else side // self.cell_size for side in (height, width)]
        return input_shape, (batch, *sizes, channels)

    def compute_output_spec(self, pixels):
        return tuple(
            keras.KerasTensor(shape, dtype=self.compute_dtype)
            for shape in self.compute_output_shape(pixels.shape)
        )

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

    def _initial_superpixels(self, pixels, rows, columns):
        batch, channels = ops.shape(pixels)[0], pixels.shape[-1]
        if self.queries == "cell_mean":
            cells = SuperpixelGrid(rows, columns, self.cell_size, self.cell_size).regroup(pixels)
            return ops.mean(cells, axis=2)
        queries = resize_bilinear(self._table(self.query_table), (rows, columns))
        return ops.broadcast_to(queries, [batch, rows, columns, channels])

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
