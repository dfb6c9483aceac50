"""One dual-path layer of local cross-attention with its projections (paper, section III-B and Fig. 3).

Letters as in superpixel_grid.py and local_attention.py.

Projections of pixels cost far more than the attention between them. Where a Dense layer is followed by nothing but a
product with something of the superpixels, that product can be taken on the superpixels' side first, exactly, and the
pixels never pass the Dense layer ("absorbed"):

  Eq. 3  q . (u Wk + bk)        = u . (Wk q) + const      the constant cancels in the softmax over pixels
         sum w (u Wv + bv)      = (sum w u) Wv + bv       weights sum to one
  Eq. 4  (u Wq + bq) . k        = u . (Wq k) + bq . k
         (sum w v) Wo + bo      = sum w (v Wo) + bo

u are the hidden units of a pixel's MLP, or its features if projections are linear; Wo is the first Dense layer of the
output's MLP. Which Dense layers can go: the last of key, value and query, and the first of the output.
"""

import keras
from keras import ops

from sp_transformer.model import local_attention
from sp_transformer.model.layer_normalization import LayerNormalization
from sp_transformer.model.projection import FeedForward, Projection

PROJECTIONS = ("mlp", "linear")


@keras.saving.register_keras_serializable("sp_transformer")
class CrossAttention(keras.layers.Layer):
    """One dual-path layer: superpixels from pixels (Eq. 3) and pixels from superpixels (Eq. 4), both of the old values.

    Args:
      channels: E.
      heads: N, divides E.
      projection: "mlp" (Dense, GELU, Dense) or "linear", for queries, keys, values and outputs alike.
      feed_forward_width: hidden channels of a feed-forward layer behind each path; 0 for none.
      implementation: of the attention, "fold" or "gather". "fold" also absorbs projections; "gather" computes all of
        them on the pixels, as the paper does.

    Raises:
      ValueError: if the heads do not divide the channels, or the projection or implementation is unknown.
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
        local_attention.check_implementation(implementation)
        self.channels = channels
        self.heads = heads
        self.projection = projection
        self.feed_forward_width = feed_forward_width
        self.implementation = implementation

        def norm(name):
            return LayerNormalization(name=name, dtype=self.dtype_policy)

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

    def call(
        self,
        pixels,
        superpixels,
        pixel_position,
        superpixel_position,
        grid,
        superpixel_side=None,
    ):
        """Both paths.

        Args:
          pixels: [B, G, P, E].
          superpixels: [B, R*C, E].
          pixel_position: [1, G, P, E], or None.
          superpixel_position: [1, R*C, E], or None.
          grid: the SuperpixelGrid, of the implementation's tile size.
          superpixel_side: what `superpixel_side` gives, for "fold", where the caller has it already.

        Returns:
          (pixels, superpixels), shapes kept.
        """
        x = self.pixel_norm(pixels)
        if pixel_position is not None:
            x = x + pixel_position
        if self.implementation == "fold":
            side = superpixel_side or self.superpixel_side(superpixels, superpixel_position)
            pixels, superpixels = self._attend_absorbed(x, side, pixels, superpixels, grid)
        else:
            y = self._normalized_superpixels(superpixels, superpixel_position)
            pixels, superpixels = self._attend(x, y, pixels, superpixels, grid)
        if self.feed_forward_width:
            superpixels = self.superpixel_feed_forward(superpixels)
            pixels = self.pixel_feed_forward(pixels)
        return pixels, superpixels

    def superpixel_side(self, superpixels, superpixel_position):
        """What absorbed attention takes of the superpixels alone.

        Args:
          superpixels: [B, R*C, E].
          superpixel_position: [1, R*C, E], or None.

        Returns:
          Queries of Eq. 3 and keys of Eq. 4 for hidden units of pixels [B, R*C, N*U], the keys' bias [B, R*C, N], and
          the values of Eq. 4 [B, R*C, N*U].
        """
        y = self._normalized_superpixels(superpixels, superpixel_position)
        scale = self._scale()
        queries = self._into_inputs(self.superpixel_query(y) * scale, self.pixel_key.output_layer)
        keys, query_bias = self.superpixel_key(y) * scale, self.pixel_query.output_layer.bias
        return (
            queries,
            self._into_inputs(keys, self.pixel_query.output_layer),
            ops.sum(self._by_head(keys) * self._by_head(query_bias), axis=-1),
            self._through(self.superpixel_value(y), self.pixel_output.first_layer),
        )

    def _normalized_superpixels(self, superpixels, superpixel_position):
        y = self.superpixel_norm(superpixels)
        return y if superpixel_position is None else y + superpixel_position

    def _attend(self, x, y, pixels, superpixels, grid):
        """Eqs. 3 and 4 as they are written: every projection first, then the attention.

        Args:
          x: [B, G, P, E], the pixels as projections read them.
          y: [B, R*C, E], the superpixels likewise.
          pixels: [B, G, P, E], to be updated.
          superpixels: [B, R*C, E], to be updated.
          grid: the SuperpixelGrid.

        Returns:
          (pixels, superpixels), updated.
        """

        def pixel_heads(projected):
            return local_attention.split_heads(projected, self.heads)

        def superpixel_heads(projected):
            projected = local_attention.split_heads(ops.expand_dims(projected, 1), self.heads)
            return ops.squeeze(projected, 1)

        scale = self._scale()
        from_pixels = local_attention.attend_to_pixels(
            superpixel_heads(self.superpixel_query(y) * scale),
            pixel_heads(self.pixel_key(x)),
            pixel_heads(self.pixel_value(x)),
            grid,
            self.implementation,
        )
        from_superpixels = local_attention.attend_to_superpixels(
            pixel_heads(self.pixel_query(x)),
            superpixel_heads(self.superpixel_key(y) * scale),
            superpixel_heads(self.superpixel_value(y)),
            grid,
        )
        from_pixels = local_attention.join_heads(ops.expand_dims(from_pixels, 1), self.heads)
        from_superpixels = local_attention.join_heads(from_superpixels, self.heads)
        return (
            self.pixel_output(from_superpixels, residual=pixels),
            self.superpixel_output(ops.squeeze(from_pixels, 1), residual=superpixels),
        )

    def _attend_absorbed(self, x, superpixel_side, pixels, superpixels, grid):
        """`_attend` with the projections next to the attention taken on the superpixels' side."""
        queries, keys, key_bias, values = superpixel_side
        attended = local_attention.attend_to_pixels(
            queries,
            self.pixel_key.hidden_units_of(x),
            self.pixel_value.hidden_units_of(x),
            grid,
            self.implementation,
        )
        from_pixels = self._out_of_inputs(attended, self.pixel_value.output_layer)
        # The key's bias cancels. With its gradient of zero no caller meets a variable without any.
        from_pixels += 0.0 * ops.sum(self.pixel_key.output_layer.bias)

        from_superpixels = local_attention.attend_to_superpixels(
            self.pixel_query.hidden_units_of(x), keys, values, grid, key_bias=key_bias
        )
        return (
            self.pixel_output.after_first_layer(from_superpixels, residual=pixels),
            self.superpixel_output(from_pixels, residual=superpixels),
        )

    def _scale(self):
        return (self.channels // self.heads) ** -0.5

    def _by_head(self, x):
        """[..., N*D] -> [..., N, D]."""
        return ops.reshape(x, [*ops.shape(x)[:-1], self.heads, self.channels // self.heads])

    def _into_inputs(self, x, layer):
        """[B, M, N*D] -> [B, M, N*U]: vectors to be multiplied with a layer's outputs, for its U inputs instead."""
        kernels = ops.split(layer.kernel, self.heads, axis=1)
        return self._per_head(x, [ops.transpose(kernel) for kernel in kernels])

    def _out_of_inputs(self, x, layer):
        """[B, M, N*U] -> [B, M, N*D]: each head's mean of a layer's inputs -> of its outputs."""
        return self._per_head(x, ops.split(layer.kernel, self.heads, axis=1)) + layer.bias

    def _through(self, x, layer):
        """[B, M, N*D] -> [B, M, N*U]: what each head's values contribute to a layer's U outputs, bias included.

        The weights of a head sum to one, so that each head can bring its share of the bias.
        """
        contributions = self._per_head(x, ops.split(layer.kernel, self.heads, axis=0))
        return contributions + ops.tile(layer.bias / self.heads, [self.heads])

    def _per_head(self, x, kernels):
        """[B, M, N*A] and N kernels [A, U] -> [B, M, N*U]."""
        parts = zip(ops.split(x, self.heads, axis=-1), kernels, strict=True)
        return ops.concatenate([ops.matmul(part, kernel) for part, kernel in parts], axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "heads": self.heads,
            "projection": self.projection,
            "feed_forward_width": self.feed_forward_width,
            "implementation": self.implementation,
        }
