"""ConvNeXt (Liu et al., 2022), trunk without the final norm.

Shapes: B batch; Y,X image height and width; s a stride in image pixels; C_s its channels.

The stem already has stride 4, so the smallest endpoint is its output; stage 1 has the same stride
and is no endpoint (DeepLab2's `stage1` of its ConvNeXt is the stem too).
"""

import keras
import numpy as np
from keras import ops

from sp_transformer.model import rematerialization
from sp_transformer.model.backbones.drop_path import DropPath
from sp_transformer.model.layer_normalization import LayerNormalization

# Blocks and channels of the four stages.
_ARCHITECTURES = {
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnext_xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
}
NAMES = tuple(_ARCHITECTURES)
STRIDES = (4, 8, 16, 32)
DEFAULT_ENDPOINT_STRIDES = (4, 8, 32)
_LAYER_SCALE = 1e-6
_EPSILON = 1e-6


def _truncated_normal():
    return keras.initializers.TruncatedNormal(stddev=0.02)


def _patchify(channels, stride, name, dtype, padded):
    # "same" pads only sizes that the stride does not divide, so that features are ceil(Y / stride).
    return keras.layers.Conv2D(
        channels,
        stride,
        strides=stride,
        padding="valid" if padded else "same",
        data_format="channels_last",
        kernel_initializer=_truncated_normal(),
        name=name,
        dtype=dtype,
    )


def _zero_padding(before, after, name, dtype):
    sides = (before, after)
    return keras.layers.ZeroPadding2D(
        (sides, sides), data_format="channels_last", name=name, dtype=dtype
    )


class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a learned factor that starts at 1e-6."""

    def build(self, input_shape):
        self.gamma = self.add_weight(
            name="gamma",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(_LAYER_SCALE),
        )
        self.built = True

    def call(self, inputs):
        """Maps [...,C] to [...,C]."""
        return inputs * ops.cast(self.gamma, inputs.dtype)


class ConvNeXtBlock(keras.layers.Layer):
    """Depthwise 7x7, LayerNorm, Dense(4C), GELU, Dense(C), layer scale, drop path, and the sum.

    Args:
      channels: C.
      drop_path_rate: Probability in [0, 1) of dropping the branch of an example.
    """

    def __init__(self, channels, drop_path_rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.channels, self.drop_path_rate = channels, drop_path_rate
        self.depthwise = keras.layers.DepthwiseConv2D(
            7,
            padding="same",
            data_format="channels_last",
            depthwise_initializer=_truncated_normal(),
            name="depthwise",
            dtype=self.dtype_policy,
        )
        self.norm = LayerNormalization(epsilon=_EPSILON, name="norm", dtype=self.dtype_policy)
        self.expand = keras.layers.Dense(
            4 * channels,
            kernel_initializer=_truncated_normal(),
            name="expand",
            dtype=self.dtype_policy,
        )
        self.reduce = keras.layers.Dense(
            channels, kernel_initializer=_truncated_normal(), name="reduce", dtype=self.dtype_policy
        )
        self.layer_scale = LayerScale(name="layer_scale", dtype=self.dtype_policy)
        self.drop_path = DropPath(drop_path_rate, name="drop_path", dtype=self.dtype_policy)

    def build(self, input_shape):
        self.depthwise.build(input_shape)
        self.norm.build(input_shape)
        self.expand.build(input_shape)
        self.reduce.build((*input_shape[:-1], 4 * self.channels))
        self.layer_scale.build(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        """Maps [B,Y,X,C] to [B,Y,X,C]."""
        x = self.norm(self.depthwise(inputs))
        x = self.reduce(ops.gelu(self.expand(x), approximate=False))
        return inputs + self.drop_path(self.layer_scale(x), training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "drop_path_rate": self.drop_path_rate,
        }


class ConvNeXt(keras.layers.Layer):
    """ConvNeXt trunk up to the largest endpoint asked for.

    Args:
      architecture: One of NAMES.
      endpoint_strides: Strides in image pixels of the wanted endpoints, out of STRIDES.
      drop_path_rate: Probability in [0, 1) for the full network's last block, growing linearly per
        block from 0; stages beyond the largest endpoint are left out without changing the others.
      zero_padding: kMaX-DeepLab's padding: a pixel above and left of the stem's patches, so that all
        features shift; at odd sizes zeros in front of a downsampling's LayerNorm, which makes them its
        beta, where without this option they come behind it.

    Attributes:
      rematerialize: Whether training keeps only the inputs of each block for the backward pass.

    Raises:
      ValueError: An unknown architecture or stride.
    """

    def __init__(
        self,
        architecture="convnext_tiny",
        endpoint_strides=DEFAULT_ENDPOINT_STRIDES,
        drop_path_rate=0.0,
        zero_padding=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if architecture not in _ARCHITECTURES:
            raise ValueError(f"unknown ConvNeXt {architecture!r}; known: {', '.join(NAMES)}")
        self.architecture = architecture
        self.endpoint_strides = sorted({int(stride) for stride in endpoint_strides})
        unknown = [stride for stride in self.endpoint_strides if stride not in STRIDES]
        if unknown or not self.endpoint_strides:
            raise ValueError(f"endpoint strides {unknown or []} of {architecture} not in {STRIDES}")
        self.drop_path_rate = drop_path_rate
        self.zero_padding = zero_padding

        depths, widths = _ARCHITECTURES[architecture]
        # Not in the config of the layer: it says how training is run, not what is computed.
        self.rematerialize = False
        self.stem_pad = self.downsample_pad = None
        if zero_padding:
            self.stem_pad = _zero_padding(1, 2, "stem_pad", self.dtype_policy)
            self.downsample_pad = _zero_padding(0, 1, "downsample_pad", self.dtype_policy)
        self.stem = _patchify(widths[0], STRIDES[0], "stem", self.dtype_policy, zero_padding)
        self.stem_norm = LayerNormalization(
            epsilon=_EPSILON, name="stem_norm", dtype=self.dtype_policy
        )
        rates = iter(np.linspace(0.0, drop_path_rate, sum(depths)).tolist())
        # A tuple per stage gives checkpoints stable keys (stage3/0/depthwise); layers in Keras 3
        # lists would silently be left out of them.
        stages = []
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stage, stride = f"stage{index + 1}", STRIDES[index]
            # Stage 1 has the stem's stride but comes after its endpoint.
            if stride > self.endpoint_strides[-1] or self.endpoint_strides[-1] == STRIDES[0]:
                break
            if index:
                norm_name, conv_name = f"{stage}_downsample_norm", f"{stage}_downsample"
                setattr(
                    self,
                    norm_name,
                    LayerNormalization(epsilon=_EPSILON, name=norm_name, dtype=self.dtype_policy),
                )
                setattr(
                    self, conv_name, _patchify(width, 2, conv_name, self.dtype_policy, zero_padding)
                )
            blocks = tuple(
                ConvNeXtBlock(
                    width, next(rates), name=f"{stage}_block{position + 1}", dtype=self.dtype_policy
                )
                for position in range(depth)
            )
            setattr(self, stage, blocks)
            stages.append((stride, stage, width))
        self._stage_names = tuple(stages)

    def build(self, input_shape):
        shape = tuple(input_shape)
        self.stem.build(shape)
        shape = (*shape[:-1], self.stem.filters)
        self.stem_norm.build(shape)
        for stride, stage, width in self._stage_names:
            if stride != STRIDES[0]:
                getattr(self, f"{stage}_downsample_norm").build(shape)
                getattr(self, f"{stage}_downsample").build(shape)
            shape = (*shape[:-1], width)
            for block in getattr(self, stage):
                block.build(shape)
        self.built = True

    def call(self, inputs, training=None):
        """Runs the trunk.

        Args:
          inputs: Normalised images [B,Y,X,3].
          training: Whether drop path is active.

        Returns:
          {s: features [B,ceil(Y/s),ceil(X/s),C_s]} for each endpoint stride s.
        """
        x = inputs if self.stem_pad is None else self.stem_pad(inputs)
        x = self.stem_norm(self.stem(x))
        endpoints = {STRIDES[0]: x} if STRIDES[0] in self.endpoint_strides else {}
        for stride, stage, _ in self._stage_names:
            if stride != STRIDES[0]:
                x = x if self.downsample_pad is None else self.downsample_pad(x)
                x = getattr(self, f"{stage}_downsample_norm")(x)
                x = getattr(self, f"{stage}_downsample")(x)
            for block in getattr(self, stage):
                if training and self.rematerialize:
                    x = rematerialization.call(block, x, training=True)
                else:
                    x = block(x, training=training)
            if stride != STRIDES[0] and stride in self.endpoint_strides:
                endpoints[stride] = x
        return endpoints

    def get_config(self):
        return {
            **super().get_config(),
            "architecture": self.architecture,
            "endpoint_strides": self.endpoint_strides,
            "drop_path_rate": self.drop_path_rate,
            "zero_padding": self.zero_padding,
        }
