"""A trained model -> the same function in the form that is fastest to infer.

In inference BatchNorm is a fixed scale and shift of each channel, which the convolution in front of it can carry in its
kernel and bias. On CPUs, kernels that only inference can use save passes over large tensors (`kernels`). The result
equals the trained form up to rounding, not bit by bit.
"""

import contextlib
import dataclasses

import numpy as np
import tensorflow as tf

from sp_transformer.model import cpu_kernels
from sp_transformer.model.backbones import resnet
from sp_transformer.model.sp_transformer import SPTransformer


def convert(model) -> SPTransformer:
    """A model that infers what `model` does, with BatchNorm folded into the convolutions in front of it.

    Args:
      model: a built SPTransformer.

    Returns:
      An SPTransformer with a new backbone, whose weights are computed from those of `model` at this moment; the other
      parts are shared with `model`. `model` itself if its backbone has nothing to fold: ConvNeXt has no BatchNorm, and
      keras_cv's backbones are left as they are.
    """
    backbone = model.backbone
    if not isinstance(backbone, resnet.ResNet) or not backbone.options.batch_norm:
        return model
    folded_model = SPTransformer(
        backbone=fold_resnet(backbone),
        hypercolumn=model.hypercolumn,
        tokenizer=model.tokenizer,
        classifier=model.classifier,
        association=model.association,
        input_normalization=model.input_normalization,
        name=model.name,
        dtype=model.dtype_policy,
    )
    folded_model.built = True
    return folded_model


def kernels(jit_compile=False) -> contextlib.AbstractContextManager:
    """The context to trace an inference form in, on the machine that is to run it.

    Args:
      jit_compile: whether XLA compiles, which makes its own kernels.

    Returns:
      `cpu_kernels.cpu_kernels()` where TensorFlow's own kernels run and no accelerator does; else a context that
      changes nothing.
    """
    accelerators = [x for x in tf.config.list_physical_devices() if x.device_type != "CPU"]
    if jit_compile or accelerators:
        return contextlib.nullcontext()
    return cpu_kernels.cpu_kernels()


def fold_resnet(backbone) -> resnet.ResNet:
    """A copy of a built ResNet whose convolutions carry scale and shift of the BatchNorm behind them."""
    config = backbone.get_config()
    config["options"] = dataclasses.replace(backbone.options, batch_norm=False)
    folded = resnet.ResNet.from_config(config)
    folded.build((None, None, None, 3))
    pairs = zip(_conv_norms(backbone), _conv_norms(folded), strict=True)
    for source, target in pairs:
        kernel, bias = fold(source.conv, source.norm)
        target.conv.kernel.assign(kernel)
        target.conv.bias.assign(bias)
    return folded


def fold(conv, norm) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of the convolution that equals `conv` followed by `norm` in inference."""
    gamma, beta, mean, variance = (
        np.asarray(weight, np.float64)
        for weight in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    scale = gamma / np.sqrt(variance + norm.epsilon)
    bias = np.asarray(conv.bias, np.float64) if conv.use_bias else 0.0
    return np.asarray(conv.kernel, np.float64) * scale, (bias - mean) * scale + beta


def _conv_norms(backbone):
    return [layer for layer in backbone._flatten_layers() if isinstance(layer, resnet.ConvNorm)]
