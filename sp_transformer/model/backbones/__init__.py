"""Backbones: normalised images to endpoints {stride: features}, by registered name."""

from sp_transformer.config import registries
from sp_transformer.model.backbones import convnext, keras_cv_backbone, resnet

NAMES = (*resnet.NAMES, *convnext.NAMES)


def default_endpoint_strides(name):
    """Endpoint strides that the hypercolumn sums by default: the stem's, 8 and 32.

    Args:
      name: Registered name of a backbone.

    Returns:
      A list of strides in image pixels.

    Raises:
      ValueError: An unknown name.
    """
    return sorted({registries.backbone_strides(name)[0], 8, 32})


def create_backbone(
    name,
    *,
    endpoint_strides=None,
    drop_path_rate=0.0,
    batch_norm_epsilon=1e-3,
    batch_norm_momentum=0.99,
    stem_max_pool=False,
    stride_in_first_conv=False,
    conv_bias=False,
    zero_init_residual=True,
    zero_padding=False,
):
    """Creates a backbone layer, unbuilt and with random weights.

    Args:
      name: resnet{18,34,50,101}, convnext_{tiny,small,base,large,xlarge}, or keras_cv/NAME.
      endpoint_strides: Strides in image pixels of the wanted endpoints; stages beyond the largest
        are not built. Default: `default_endpoint_strides(name)`.
      drop_path_rate: Probability in [0, 1) of dropping the last residual block of an example; it
        grows linearly per block from 0. ResNet, ConvNeXt, and keras_cv's EfficientNets.
      batch_norm_epsilon: ResNet only; keras_cv's backbones keep their own.
      batch_norm_momentum: ResNet only; keras_cv's backbones keep their own.
      stem_max_pool: ResNet only: 3x3/2 max-pool after the stem.
      stride_in_first_conv: ResNet with bottlenecks only: stride in the first 1x1 convolution.
      conv_bias: ResNet only: convolutions carry a bias in front of BatchNorm.
      zero_init_residual: ResNet only: the last BatchNorm's scale of a residual branch starts at zero.
      zero_padding: ConvNeXt only: kMaX-DeepLab's padding.

    Returns:
      A Keras layer: normalised images [B,Y,X,3] -> {s: features [B,ceil(Y/s),ceil(X/s),C_s]}.

    Raises:
      ValueError: An unknown name or stride, or an option that this backbone does not have.
    """
    if endpoint_strides is None:
        endpoint_strides = default_endpoint_strides(name)
    if zero_padding and name not in convnext.NAMES:
        raise ValueError(
            f"backbone {name} has no option zero_padding; it is for ConvNeXt, unset it"
        )
    if name in resnet.NAMES:
        return resnet.ResNet(
            architecture=name,
            endpoint_strides=endpoint_strides,
            drop_path_rate=drop_path_rate,
            stem_max_pool=stem_max_pool,
            stride_in_first_conv=stride_in_first_conv,
            options=resnet.ConvNormOptions(
                batch_norm_epsilon,
                batch_norm_momentum,
                conv_bias,
                zero_init_residual=zero_init_residual,
            ),
            name="backbone",
        )
    for option, value in {
        "stem_max_pool": stem_max_pool,
        "stride_in_first_conv": stride_in_first_conv,
        "conv_bias": conv_bias,
        "zero_init_residual": not zero_init_residual,
    }.items():
        if value:
            raise ValueError(f"backbone {name} has no option {option}; it is for ResNets, unset it")
    if name in convnext.NAMES:
        return convnext.ConvNeXt(
            architecture=name,
            endpoint_strides=endpoint_strides,
            drop_path_rate=drop_path_rate,
            zero_padding=zero_padding,
            name="backbone",
        )
    if name.startswith(keras_cv_backbone.PREFIX):
        return keras_cv_backbone.KerasCVBackbone(
            preset=name.removeprefix(keras_cv_backbone.PREFIX),
            endpoint_strides=endpoint_strides,
            drop_path_rate=drop_path_rate,
            name="backbone",
        )
    raise ValueError(f"unknown backbone {name!r}; known: {', '.join(registries.backbone_names())}")


__all__ = ["NAMES", "create_backbone", "default_endpoint_strides"]
