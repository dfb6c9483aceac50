"""keras_cv 0.9.0's backbones as endpoint extractors, without weights.

keras_cv's own `from_preset` downloads even the layer table of a preset without weights, so the
tables stand here (as published with each architecture; the tests compare parameter counts with
those that keras_cv states). Nothing asks the network. Pyramid level P<l> is stride 2^l; its
features are whatever that architecture's block ends with, activated or not.

These are Functional models, so tf.train.Checkpoint keys their variables by layer index: checkpoints
fit the same preset with the same endpoints only. Acceptable here because the graph is fixed by
the preset's name; our own backbones are keyed by attribute names.
"""

import contextlib
import io
import warnings

import keras

from sp_transformer.config import registries
from sp_transformer.model import batch_normalization

PREFIX = registries.KERAS_CV_PREFIX


def _resnet(blocks, block_type="block"):
    return {
        "stackwise_filters": [64, 128, 256, 512],
        "stackwise_blocks": blocks,
        "stackwise_strides": [1, 2, 2, 2],
        "block_type": block_type,
    }


def _csp_darknet(width, depths):
    return {
        "stackwise_channels": [width, 2 * width, 4 * width, 8 * width],
        "stackwise_depth": depths,
    }


def _efficientnet_lite(width_coefficient, depth_coefficient):
    return {
        "width_coefficient": width_coefficient,
        "depth_coefficient": depth_coefficient,
        "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
        "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
        "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
        "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
        "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
        "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
    }


def _efficientnet_v2(repeats, filters, width_coefficient=1.0, depth_coefficient=1.0):
    # Sizes M and L have a seventh stack.
    stacks = len(repeats)
    return {
        "width_coefficient": width_coefficient,
        "depth_coefficient": depth_coefficient,
        "stackwise_kernel_sizes": [3] * stacks,
        "stackwise_num_repeats": list(repeats),
        "stackwise_input_filters": list(filters[:-1]),
        "stackwise_output_filters": list(filters[1:]),
        "stackwise_expansion_ratios": [1, 4, 4, 4, 6, 6, 6][:stacks],
        "stackwise_squeeze_and_excite_ratios": [0, 0, 0, 0.25, 0.25, 0.25, 0.25][:stacks],
        "stackwise_strides": [1, 2, 2, 2, 1, 2, 1][:stacks],
        "stackwise_conv_types": ["fused"] * 3 + ["unfused"] * (stacks - 3),
    }


_V2_BASE = ((1, 2, 2, 3, 5, 8), (32, 16, 32, 48, 96, 112, 192))
_MOBILENET_SMALL = {
    "stackwise_expansion": [1, 72 / 16, 88 / 24, 4, 6, 6, 3, 3, 6, 6, 6],
    "stackwise_filters": [16, 24, 24, 40, 40, 40, 48, 48, 96, 96, 96],
    "stackwise_kernel_size": [3] * 3 + [5] * 8,
    "stackwise_stride": [2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1],
    "stackwise_se_ratio": [0.25, None, None] + [0.25] * 8,
    "stackwise_activation": ["relu"] * 3 + ["hard_swish"] * 8,
}
_MOBILENET_LARGE = {
    "stackwise_expansion": [1, 4, 3, 3, 3, 3, 6, 2.5, 2.3, 2.3, 6, 6, 6, 6, 6],
    "stackwise_filters": [16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160],
    "stackwise_kernel_size": [3, 3, 3, 5, 5, 5, 3, 3, 3, 3, 3, 3, 5, 5, 5],
    "stackwise_stride": [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1],
    "stackwise_se_ratio": [None] * 3 + [0.25] * 3 + [None] * 4 + [0.25] * 5,
    "stackwise_activation": ["relu"] * 6 + ["hard_swish"] * 9,
}
# Preset name -> (class in keras_cv.models, its constructor arguments).
_PRESETS = {
    "resnet18": ("ResNetBackbone", _resnet([2, 2, 2, 2], "basic_block")),
    "resnet34": ("ResNetBackbone", _resnet([3, 4, 6, 3], "basic_block")),
    "resnet50": ("ResNetBackbone", _resnet([3, 4, 6, 3])),
    "resnet101": ("ResNetBackbone", _resnet([3, 4, 23, 3])),
    "resnet152": ("ResNetBackbone", _resnet([3, 8, 36, 3])),
    "resnet18_v2": ("ResNetV2Backbone", _resnet([2, 2, 2, 2], "basic_block")),
    "resnet34_v2": ("ResNetV2Backbone", _resnet([3, 4, 6, 3], "basic_block")),
    "resnet50_v2": ("ResNetV2Backbone", _resnet([3, 4, 6, 3])),
    "resnet101_v2": ("ResNetV2Backbone", _resnet([3, 4, 23, 3])),
    "resnet152_v2": ("ResNetV2Backbone", _resnet([3, 8, 36, 3])),
    "mobilenet_v3_small": ("MobileNetV3Backbone", _MOBILENET_SMALL),
    "mobilenet_v3_large": ("MobileNetV3Backbone", _MOBILENET_LARGE),
    "csp_darknet_tiny": ("CSPDarkNetBackbone", _csp_darknet(48, [1, 3, 3, 1])),
    "csp_darknet_s": ("CSPDarkNetBackbone", _csp_darknet(64, [1, 3, 3, 1])),
    "csp_darknet_m": ("CSPDarkNetBackbone", _csp_darknet(96, [2, 6, 6, 2])),
    "csp_darknet_l": ("CSPDarkNetBackbone", _csp_darknet(128, [3, 9, 9, 3])),
    "csp_darknet_xl": ("CSPDarkNetBackbone", _csp_darknet(170, [4, 12, 12, 4])),
    "densenet121": ("DenseNetBackbone", {"stackwise_num_repeats": [6, 12, 24, 16]}),
    "densenet169": ("DenseNetBackbone", {"stackwise_num_repeats": [6, 12, 32, 32]}),
    "densenet201": ("DenseNetBackbone", {"stackwise_num_repeats": [6, 12, 48, 32]}),
    "efficientnetv2_b0": ("EfficientNetV2Backbone", _efficientnet_v2(*_V2_BASE)),
    "efficientnetv2_b1": ("EfficientNetV2Backbone", _efficientnet_v2(*_V2_BASE, 1.0, 1.1)),
    "efficientnetv2_b2": ("EfficientNetV2Backbone", _efficientnet_v2(*_V2_BASE, 1.1, 1.2)),
    "efficientnetv2_b3": ("EfficientNetV2Backbone", _efficientnet_v2(*_V2_BASE, 1.2, 1.4)),
    "efficientnetv2_s": (
        "EfficientNetV2Backbone",
        _efficientnet_v2((2, 4, 4, 6, 9, 15), (24, 24, 48, 64, 128, 160, 256)),
    ),
    "efficientnetv2_m": (
        "EfficientNetV2Backbone",
        _efficientnet_v2((3, 5, 5, 7, 14, 18, 5), (24, 24, 48, 80, 160, 176, 304, 512)),
    ),
    "efficientnetv2_l": (
        "EfficientNetV2Backbone",
        _efficientnet_v2((4, 7, 7, 10, 19, 25, 7), (32, 32, 64, 96, 192, 224, 384, 640)),
    ),
    "efficientnetlite_b0": ("EfficientNetLiteBackbone", _efficientnet_lite(1.0, 1.0)),
    "efficientnetlite_b1": ("EfficientNetLiteBackbone", _efficientnet_lite(1.0, 1.1)),
    "efficientnetlite_b2": ("EfficientNetLiteBackbone", _efficientnet_lite(1.1, 1.2)),
    "efficientnetlite_b3": ("EfficientNetLiteBackbone", _efficientnet_lite(1.2, 1.4)),
    "efficientnetlite_b4": ("EfficientNetLiteBackbone", _efficientnet_lite(1.4, 1.8)),
}
PRESETS = tuple(_PRESETS)


def build_network(preset):
    """The whole backbone of keras_cv, with random weights, as its weight files have it.

    Raises:
      ImportError: keras_cv is not installed.
      ValueError: An unknown preset.
    """
    if preset not in _PRESETS:
        raise ValueError(
            f"unknown keras_cv backbone {preset!r}; known: "
            f"{', '.join(PREFIX + name for name in PRESETS)}"
        )
    class_name, arguments = _PRESETS[preset]
    # Importing keras_cv prints a notice and warns about packages that we do not use.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            import keras_cv
        except ImportError as error:
            raise ImportError(
                f"backbone {PREFIX + preset} needs keras_cv 0.9.0: pip install keras-cv==0.9.0"
            ) from error
        # Normalisation is the model's, as `backbone.input_normalization` says.
        return getattr(keras_cv.models, class_name)(include_rescaling=False, **arguments)


def _strides(model):
    """{stride: layer name} of a keras_cv backbone."""
    levels = model.pyramid_level_inputs
    return {2 ** int(level[1:]): name for level, name in levels.items()}


def _set_drop_path(network, rate):
    """Sets the rates of all blocks' dropout, which grow with the block's number.

    In the network as it is built, so that whatever the rate the layers stay those that checkpoints and
    weight files have: built with a rate of zero it would lack some. keras_cv counts the blocks without
    the preset's depth coefficient, so that only the proportions of its rates are of use.
    """
    dropouts = [x for x in network._flatten_layers() if isinstance(x, keras.layers.Dropout)]
    largest = max((dropout.rate for dropout in dropouts), default=0) or 1
    for dropout in dropouts:
        dropout.rate = rate * (dropout.rate / largest)


class KerasCVBackbone(keras.layers.Layer):
    """A keras_cv backbone, cut to the wanted pyramid levels.

    All its BatchNormalization layers are synchronised across replicas; their epsilon and momentum
    stay keras_cv's, as its weights need.

    Args:
      preset: One of PRESETS.
      endpoint_strides: Strides in image pixels of the wanted endpoints.
      drop_path_rate: Probability in [0, 1) for the whole network's last residual block, growing
        linearly per block from 0. EfficientNets only, which keras_cv alone would train with 0.2.
      network: The network to cut, from `build_network`; default: a new one.

    Raises:
      ImportError: keras_cv is not installed.
      ValueError: An unknown preset, a stride that it has no pyramid level for, or a drop path rate that
        it has no use for.
    """

    def __init__(self, preset, endpoint_strides, drop_path_rate=0.0, network=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop path rate {drop_path_rate} must be in [0, 1)")
        if drop_path_rate and preset not in registries.KERAS_CV_WITH_DROP_PATH:
            raise ValueError(
                f"backbone {PREFIX}{preset} has no drop path; set drop_path_rate to 0 instead of "
                f"{drop_path_rate}, or use a ResNet, a ConvNeXt, or an EfficientNet of keras_cv"
            )
        # keras_cv's layers know the global dtype policy only.
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.dtype_policy)
        try:
            model = network or build_network(preset)
        finally:
            keras.config.set_dtype_policy(before)
        _set_drop_path(model, drop_path_rate)
        available = _strides(model)
        self.preset = preset
        self.drop_path_rate = drop_path_rate
        self.endpoint_strides = sorted({int(stride) for stride in endpoint_strides})
        unknown = [stride for stride in self.endpoint_strides if stride not in available]
        if unknown or not self.endpoint_strides:
            raise ValueError(
                f"endpoint strides {unknown} of {PREFIX}{preset} are not among its "
                f"{sorted(available)}"
            )
        outputs = [model.get_layer(available[stride]).output for stride in self.endpoint_strides]
        self.trunk = keras.Model(model.inputs, outputs, name="trunk")
        for layer in self.trunk._flatten_layers():
            if type(layer) is keras.layers.BatchNormalization:
                # It has the same weights, and all layers keep their names.
                layer.__class__ = batch_normalization.SynchronizedBatchNormalization
                layer.synchronized = True
        self.built = True

    def call(self, inputs, training=None):
        """Maps normalised images [B,Y,X,3] to {s: features [B,ceil(Y/s),ceil(X/s),C_s]}."""
        features = self.trunk(inputs, training=training)
        features = features if isinstance(features, (list, tuple)) else [features]
        return dict(zip(self.endpoint_strides, features, strict=True))

    def get_config(self):
        return {
            **super().get_config(),
            "preset": self.preset,
            "endpoint_strides": self.endpoint_strides,
            "drop_path_rate": self.drop_path_rate,
        }
