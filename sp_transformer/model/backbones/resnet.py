"""ResNet (He et al., 2016) as DeepLab2 builds it, with options for other published weights.

Shapes: B batch; Y,X image height and width; s a stride in image pixels; C_s its channels.

Endpoints are taken before the block's last ReLU (the stem's: before its ReLU), as kMaX's decoders
take DeepLab2's `stageN` outputs. Strided convolutions pad (k-1)//2 on each side and then run VALID:
at even sizes Keras' "same" would pad (2,3) instead of (3,3), which shifts every published weight.

Variants: the default is DeepLab2's (no max-pool, stride in the 3x3). torchvision's v1.5 is
`stem_max_pool=True` with epsilon 1e-5. keras.applications' v1 is `stem_max_pool=True,
stride_in_first_conv=True, conv_bias=True` with epsilon 1.001e-5; keras_cv's is that without biases.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from sp_transformer.model import batch_normalization, rematerialization
from sp_transformer.model.backbones.drop_path import DropPath

# Blocks of stages 2 to 5, and whether they are bottlenecks.
_ARCHITECTURES = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}
NAMES = tuple(_ARCHITECTURES)
STRIDES = (2, 4, 8, 16, 32)
DEFAULT_ENDPOINT_STRIDES = (2, 8, 32)
_STEM_CHANNELS = 64
_BOTTLENECK_EXPANSION = 4


@dataclasses.dataclass(frozen=True)
class ConvNormOptions:
    """What all convolution and BatchNorm pairs of a network share.

    Attributes:
      batch_norm_epsilon: BatchNorm's epsilon.
      batch_norm_momentum: BatchNorm's momentum.
      conv_bias: Whether convolutions carry a bias in front of BatchNorm.
      batch_norm: Whether there is a BatchNorm; without, the convolution carries a bias in its place
        (the inference form, see inference_form.py).
      zero_init_residual: Whether the last BatchNorm's scale of a residual branch starts at zero.
    """

    batch_norm_epsilon: float = 1e-3
    batch_norm_momentum: float = 0.99
    conv_bias: bool = False
    batch_norm: bool = True
    zero_init_residual: bool = True


class ConvNorm(keras.layers.Layer):
    """Convolution with symmetric padding, then synchronised BatchNorm; no activation.

    Args:
      filters: Output channels.
      kernel_size: Odd side of the kernel.
      strides: Stride.
      zero_gamma: Whether BatchNorm's scale starts at zero.
      options: ConvNormOptions, or its fields as a dict.
    """

    def __init__(
        self, filters, kernel_size, strides=1, zero_gamma=False, options=ConvNormOptions(), **kwargs
    ):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides
        self.zero_gamma = zero_gamma
        self.options = ConvNormOptions(**options) if isinstance(options, dict) else options
        margin = (kernel_size - 1) // 2
        explicit = strides > 1 and margin > 0
        self.pad = (
            keras.layers.ZeroPadding2D(
                margin, data_format="channels_last", name="pad", dtype=self.dtype_policy
            )
            if explicit
            else None
        )
        self.conv = keras.layers.Conv2D(
            filters,
            kernel_size,
            strides=strides,
            padding="valid" if explicit else "same",
            data_format="channels_last",
            use_bias=self.options.conv_bias or not self.options.batch_norm,
            kernel_initializer="he_normal",
            name="conv",
            dtype=self.dtype_policy,
        )
        self.norm = None
        if self.options.batch_norm:
            self.norm = batch_normalization.SynchronizedBatchNormalization(
                axis=-1,
                momentum=self.options.batch_norm_momentum,
                epsilon=self.options.batch_norm_epsilon,
                gamma_initializer="zeros" if zero_gamma else "ones",
                name="batch_norm",
                dtype=self.dtype_policy,
            )

    def build(self, input_shape):
        self.conv.build(input_shape)
        if self.norm is not None:
            self.norm.build((*input_shape[:-1], self.filters))
        self.built = True

    def call(self, inputs, training=None):
        """Maps [B,Y,X,C] to [B,ceil(Y/strides),ceil(X/strides),filters]."""
        x = self.conv(inputs if self.pad is None else self.pad(inputs))
        return x if self.norm is None else self.norm(x, training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "zero_gamma": self.zero_gamma,
            "options": dataclasses.asdict(self.options),
        }


def _apart(x):
    """`x` itself, for a ReLU that must not be fused with the sum in front of it, as others read that sum too.

    TensorFlow 2.21's remapper tries to all the same, fails ("fanout ... exist for missing node"), and then leaves every
    convolution of the graph without its bias and ReLU fused.
    """
    return tf.ensure_shape(x, x.shape)


class ResidualBlock(keras.layers.Layer):
    """A basic block (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1) up to the sum, without its last ReLU.

    Args:
      filters: Channels of the inner convolutions; a bottleneck gives 4 times as many.
      strides: Stride of the block.
      bottleneck: Which of the two forms.
      project: Whether the shortcut is a 1x1 convolution with BatchNorm, instead of the identity.
      stride_in_first_conv: Bottleneck only: the first 1x1 takes the stride instead of the 3x3.
      drop_path_rate: Probability in [0, 1) of dropping the residual branch of an example.
      options: ConvNormOptions, or its fields as a dict.
    """

    def __init__(
        self,
        filters,
        strides=1,
        bottleneck=True,
        project=False,
        stride_in_first_conv=False,
        drop_path_rate=0.0,
        options=ConvNormOptions(),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters, self.strides = filters, strides
        self.bottleneck, self.project = bottleneck, project
        self.stride_in_first_conv, self.drop_path_rate = stride_in_first_conv, drop_path_rate
        self.options = ConvNormOptions(**options) if isinstance(options, dict) else options
        shared = {"options": self.options, "dtype": self.dtype_policy}
        last = {"zero_gamma": self.options.zero_init_residual, **shared}
        # Tuples, because tf.train.Checkpoint silently leaves out layers in Keras 3 lists.
        if bottleneck:
            first, second = (strides, 1) if stride_in_first_conv else (1, strides)
            self.out_channels = filters * _BOTTLENECK_EXPANSION
            self.convs = (
                ConvNorm(filters, 1, first, name="conv1", **shared),
                ConvNorm(filters, 3, second, name="conv2", **shared),
                ConvNorm(self.out_channels, 1, name="conv3", **last),
            )
        else:
            self.out_channels = filters
            self.convs = (
                ConvNorm(filters, 3, strides, name="conv1", **shared),
                ConvNorm(filters, 3, name="conv2", **last),
            )
        self.shortcut = (
            ConvNorm(self.out_channels, 1, strides, name="shortcut", **shared) if project else None
        )
        self.relu = keras.layers.ReLU(name="relu", dtype=self.dtype_policy)
        self.drop_path = DropPath(drop_path_rate, name="drop_path", dtype=self.dtype_policy)

    def build(self, input_shape):
        shape = tuple(input_shape)
        for conv in self.convs:
            conv.build(shape)
            shape = (*shape[:-1], conv.filters)
        if self.shortcut is not None:
            self.shortcut.build(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        """Maps activated [B,Y,X,C] to pre-activation [B,ceil(Y/strides),ceil(X/strides),C']."""
        x = inputs
        for conv in self.convs[:-1]:
            x = self.relu(conv(x, training=training))
        x = self.drop_path(self.convs[-1](x, training=training), training=training)
        residual = inputs
        if self.shortcut is not None:
            residual = self.shortcut(inputs, training=training)
        return residual + x

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
            "bottleneck": self.bottleneck,
            "project": self.project,
            "stride_in_first_conv": self.stride_in_first_conv,
            "drop_path_rate": self.drop_path_rate,
            "options": dataclasses.asdict(self.options),
        }


class ResNet(keras.layers.Layer):
    """ResNet trunk up to the largest endpoint asked for.

    Args:
      architecture: One of NAMES.
      endpoint_strides: Strides in image pixels of the wanted endpoints, out of STRIDES.
      drop_path_rate: Probability in [0, 1) for the full network's last block, growing linearly per
        block from 0; stages beyond the largest endpoint are left out without changing the others.
      stem_max_pool: A 3x3/2 max-pool after the stem, instead of a stride in stage 2.
      stride_in_first_conv: Bottlenecks take their stride in the first 1x1 (v1) instead of the 3x3.
      options: ConvNormOptions, or its fields as a dict.

    Attributes:
      rematerialize: Whether training keeps only the inputs of each block for the backward pass.

    Raises:
      ValueError: An unknown architecture or stride, or v1 strides in a ResNet of basic blocks.
    """

    def __init__(
        self,
        architecture="resnet50",
        endpoint_strides=DEFAULT_ENDPOINT_STRIDES,
        drop_path_rate=0.0,
        stem_max_pool=False,
        stride_in_first_conv=False,
        options=ConvNormOptions(),
        **kwargs,
    ):
        super().__init__(**kwargs)
        if architecture not in _ARCHITECTURES:
            raise ValueError(f"unknown ResNet {architecture!r}; known: {', '.join(NAMES)}")
        depths, bottleneck = _ARCHITECTURES[architecture]
        if stride_in_first_conv and not bottleneck:
            raise ValueError(
                f"stride_in_first_conv needs bottlenecks, which {architecture} has not; leave it "
                "unset or use resnet50 or resnet101"
            )
        self.architecture = architecture
        self.endpoint_strides = sorted({int(stride) for stride in endpoint_strides})
        unknown = [stride for stride in self.endpoint_strides if stride not in STRIDES]
        if unknown or not self.endpoint_strides:
            raise ValueError(f"endpoint strides {unknown or []} of {architecture} not in {STRIDES}")
        self.drop_path_rate = drop_path_rate
        self.stem_max_pool = stem_max_pool
        self.stride_in_first_conv = stride_in_first_conv
        self.options = ConvNormOptions(**options) if isinstance(options, dict) else options

        # Not in the config of the layer: it says how training is run, not what is computed.
        self.rematerialize = False
        self.relu = keras.layers.ReLU(name="relu", dtype=self.dtype_policy)
        self.stem = ConvNorm(
            _STEM_CHANNELS, 7, 2, options=self.options, name="stem", dtype=self.dtype_policy
        )
        if stem_max_pool:
            self.pool_pad = keras.layers.ZeroPadding2D(
                1, data_format="channels_last", dtype=self.dtype_policy
            )
            self.pool = keras.layers.MaxPooling2D(
                3, 2, data_format="channels_last", dtype=self.dtype_policy
            )
        rates = iter(np.linspace(0.0, drop_path_rate, sum(depths)).tolist())
        in_channels, stages = _STEM_CHANNELS, []
        for index, depth in enumerate(depths):
            stride = STRIDES[index + 1]
            if stride > self.endpoint_strides[-1]:
                break
            filters = _STEM_CHANNELS * 2**index
            out_channels = filters * (_BOTTLENECK_EXPANSION if bottleneck else 1)
            blocks = []
            for position in range(depth):
                strides = 1 if position or (index == 0 and stem_max_pool) else 2
                blocks.append(
                    ResidualBlock(
                        filters,
                        strides,
                        bottleneck=bottleneck,
                        project=strides > 1 or in_channels != out_channels,
                        stride_in_first_conv=stride_in_first_conv,
                        drop_path_rate=next(rates),
                        options=self.options,
                        name=f"stage{index + 2}_block{position + 1}",
                        dtype=self.dtype_policy,
                    )
                )
                in_channels = out_channels
            # A tuple per stage gives checkpoints stable keys (stage2/0/convs/0/conv); layers in
            # Keras 3 lists would silently be left out of them.
            setattr(self, f"stage{index + 2}", tuple(blocks))
            stages.append((stride, f"stage{index + 2}"))
        self._stage_names = tuple(stages)

    def build(self, input_shape):
        shape = tuple(input_shape)
        self.stem.build(shape)
        shape = (*shape[:-1], _STEM_CHANNELS)
        for _, stage in self._stage_names:
            for block in getattr(self, stage):
                block.build(shape)
                shape = (*shape[:-1], block.out_channels)
        self.built = True

    def call(self, inputs, training=None):
        """Runs the trunk.

        Args:
          inputs: Normalised images [B,Y,X,3].
          training: Whether BatchNorm uses batch statistics and drop path is active.

        Returns:
          {s: features [B,ceil(Y/s),ceil(X/s),C_s] before their ReLU} for each endpoint stride s.
        """
        endpoints = {}
        x = self.stem(inputs, training=training)
        if 2 in self.endpoint_strides:
            endpoints[2] = x
        if not self._stage_names:
            return endpoints
        x = self.relu(x)
        if self.stem_max_pool:
            # Zeros never win against ReLU's output, so they pad as -inf would.
            x = self.pool(self.pool_pad(x))
        activated = True
        for stride, stage in self._stage_names:
            for block in getattr(self, stage):
                x = self._run(block, x if activated else self.relu(x), training)
                activated = False
            if stride in self.endpoint_strides:
                endpoints[stride] = x
                x = _apart(x)
        return endpoints

    def _run(self, block, x, training):
        if training and self.rematerialize:
            return rematerialization.call(block, x, training=True)
        return block(x, training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "architecture": self.architecture,
            "endpoint_strides": self.endpoint_strides,
            "drop_path_rate": self.drop_path_rate,
            "stem_max_pool": self.stem_max_pool,
            "stride_in_first_conv": self.stride_in_first_conv,
            "options": dataclasses.asdict(self.options),
        }
