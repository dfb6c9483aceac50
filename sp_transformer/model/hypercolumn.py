"""Backbone endpoints of several strides -> one map of pixel features (paper, section IV-A, "hypercolumn")."""

import keras
from keras import ops

from sp_transformer.model.interpolation import (
    reduce_samples,
    resize_bilinear,
    sample_for_reduction,
    upsample_to_tiles,
)
from sp_transformer.model.layer_normalization import LayerNormalization
from sp_transformer.model.projection import Projection


@keras.saving.register_keras_serializable("sp_transformer")
class Hypercolumn(keras.layers.Layer):
    """Each endpoint: LayerNorm, MLP and a bilinear resize to the output stride; then their sum.

    Call with endpoints {stride: [B, Y/stride, X/stride, C_stride]}; the result is [B, Y/output_stride,
    X/output_stride, channels], or regrouped by tile.

    A bilinear reduction reads few of its positions, and commutes with the MLP's last layer: norm and hidden layer act
    only on what is read, and the last layer follows the reduction. An enlargement comes last. That is the same function
    as the form above, which the attribute `as_written` switches to (the published counts are of that one).

    Args:
      strides: strides in image pixels of the endpoints used.
      output_stride: stride in image pixels of the result.
      channels: channels of the result.
      max_hidden_channels: an endpoint of C channels passes min(2C, max_hidden_channels) hidden units.
    """

    def __init__(
        self, strides=(2, 8, 32), output_stride=8, channels=256, max_hidden_channels=256, **kwargs
    ):
        super().__init__(**kwargs)
        self.strides = tuple(strides)
        self.output_stride = output_stride
        self.channels = channels
        self.max_hidden_channels = max_hidden_channels
        self.as_written = False
        # Tuples: tf.train.Checkpoint does not see layers in lists.
        self.norms = tuple(
            LayerNormalization(name=f"norm_stride{stride}", dtype=self.dtype_policy)
            for stride in self.strides
        )
        self.projections = ()

    def build(self, endpoint_shapes):
        missing = [stride for stride in self.strides if stride not in endpoint_shapes]
        if missing:
            raise ValueError(
                f"hypercolumn needs endpoints of strides {list(self.strides)}; "
                f"got {sorted(endpoint_shapes)}, {missing} missing"
            )
        for stride, norm in zip(self.strides, self.norms, strict=True):
            shape = endpoint_shapes[stride]
            projection = Projection(
                self.channels,
                min(2 * shape[-1], self.max_hidden_channels),
                name=f"projection_stride{stride}",
                dtype=self.dtype_policy,
            )
            norm.build(shape)
            projection.build(shape)
            self.projections += (projection,)

    def call(self, endpoints, grid=None):
        """The sum over endpoints.

        Args:
          endpoints: {stride: [B, Y/stride, X/stride, C_stride]}.
          grid: a SuperpixelGrid of the result, or None.

        Returns:
          [B, H, W, channels], or with a grid [B, G, P, channels], regrouped by it.
        """
        finest = min(self.strides)
        size = [side * finest // self.output_stride for side in ops.shape(endpoints[finest])[1:3]]
        total, enlarged = None, []
        for stride, norm, projection in zip(
            self.strides, self.norms, self.projections, strict=True
        ):
            features = endpoints[stride]
            if stride > self.output_stride and not self.as_written:
                enlarged.append((stride // self.output_stride, projection(norm(features))))
                continue
            total = self._add_at_output_stride(total, features, stride, size, norm, projection)
        if grid is not None and total is not None:
            total = grid.regroup(total)
        for factor, features in enlarged:
            resized = (
                resize_bilinear(features, size)
                if grid is None
                else upsample_to_tiles(features, factor, grid)
            )
            total = resized if total is None else total + resized
        return total

    def _add_at_output_stride(self, total, features, stride, size, norm, projection):
        """`total`, which may be None, plus an endpoint of at most the output's stride."""
        factor = self.output_stride // stride
        sizes = features.shape[1:3]
        fits = all(
            side is None or not isinstance(target, int) or side == target * factor
            for side, target in zip(sizes, size, strict=True)
        )
        if self.as_written or not fits:
            features = resize_bilinear(projection(norm(features)), size)
            return features if total is None else total + features
        hidden = projection.hidden_units_of(norm(sample_for_reduction(features, factor)))
        return projection.after_hidden_layer(reduce_samples(hidden, factor), residual=total)

    def compute_output_spec(self, endpoints, grid=None):
        shape = self.compute_output_shape({s: x.shape for s, x in endpoints.items()})
        if grid is not None:
            tiles = grid.tiles if grid.static else None
            shape = (shape[0], tiles, grid.pixels_per_tile, self.channels)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def compute_output_shape(self, endpoint_shapes):
        finest = min(self.strides)
        batch, height, width, _ = endpoint_shapes[finest]
        sizes = [
            None if side is None else side * finest // self.output_stride
            for side in (height, width)
        ]
        return (batch, *sizes, self.channels)

    def get_config(self):
        return {
            **super().get_config(),
            "strides": self.strides,
            "output_stride": self.output_stride,
            "channels": self.channels,
            "max_hidden_channels": self.max_hidden_channels,
        }
