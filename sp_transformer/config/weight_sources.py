"""What published weights ask of the backbone that takes them, as it would silently compute something else otherwise.

Needs no TensorFlow, so that a config is refused in a fraction of a second.
"""

import math

from sp_transformer.config import registries
from sp_transformer.protos import model_pb2, training_pb2

Kind = training_pb2.InitializationOptions.Kind

_PLAIN_RESNET = {"stem_max_pool": False, "stride_in_first_conv": False, "conv_bias": False}
_IMAGENET = {"input_normalization": model_pb2.BackboneOptions.IMAGENET}
_MINUS_ONE_TO_ONE = {"input_normalization": model_pb2.BackboneOptions.MINUS_ONE_TO_ONE}

# kind -> [(backbones, {field of BackboneOptions: value})]
_REQUIREMENTS = {
    Kind.DEEPLAB2: [
        (("resnet50",), {**_PLAIN_RESNET, "batch_norm_epsilon": 1e-3, **_MINUS_ONE_TO_ONE}),
        (registries.CONVNEXTS, {"zero_padding": True, **_MINUS_ONE_TO_ONE}),
    ],
    Kind.KERAS_APPLICATIONS: [
        (
            registries.BOTTLENECK_RESNETS,
            {
                "stem_max_pool": True,
                "stride_in_first_conv": True,
                "conv_bias": True,
                "batch_norm_epsilon": 1.001e-5,
                "input_normalization": model_pb2.BackboneOptions.CAFFE,
            },
        ),
        (registries.CONVNEXTS, {"zero_padding": False, **_IMAGENET}),
    ],
    Kind.KERAS_CV: [
        (
            tuple(registries.KERAS_CV_PREFIX + name for name in registries.KERAS_CV_BACKBONES),
            {"input_normalization": model_pb2.BackboneOptions.ZERO_TO_ONE},
        )
    ],
    Kind.TORCHVISION: [
        (
            registries.RESNETS,
            {**_PLAIN_RESNET, "stem_max_pool": True, "batch_norm_epsilon": 1e-5, **_IMAGENET},
        ),
        # torchvision has no ConvNeXt-XL.
        (registries.CONVNEXTS[:-1], {"zero_padding": False, **_IMAGENET}),
    ],
}


def backbones(kind) -> tuple[str, ...]:
    """Names of the backbones that weights of a `Kind` fit; of CHECKPOINT all."""
    if kind not in _REQUIREMENTS:
        return registries.backbone_names()
    return tuple(name for names, _ in _REQUIREMENTS[kind] for name in names)


def required_options(kind, backbone: str) -> dict:
    """{field of BackboneOptions: value} with which the backbone computes what the source network did.

    Args:
      kind: a `Kind`.
      backbone: one of `backbones(kind)`.
    """
    for names, options in _REQUIREMENTS.get(kind, ()):
        if backbone in names:
            return dict(options)
    return {}


def differing_options(kind, backbone_options) -> dict:
    """Those of `required_options` that a BackboneOptions does not have, as {field: required value}."""
    return {
        field: value
        for field, value in required_options(kind, backbone_options.name).items()
        if not _equal(getattr(backbone_options, field), value)
    }


def textproto(field: str, value) -> str:
    """A field of BackboneOptions as a config writes it, such as "stem_max_pool: true"."""
    return f"{field}: {_text(field, value)}"


def _equal(first, second) -> bool:
    if isinstance(second, float):
        # A textproto may round it.
        return math.isclose(first, second, rel_tol=1e-6)
    return first == second


def _text(field, value) -> str:
    enum = model_pb2.BackboneOptions.DESCRIPTOR.fields_by_name[field].enum_type
    if enum is not None:
        return enum.values_by_number[value].name
    return str(value).lower() if isinstance(value, bool) else f"{value:.10g}"
