"""Names of our backbones' variables, taken apart, so that a source of weights can say where it keeps each."""

import re
from typing import NamedTuple

_RESNET = re.compile(
    r"(?:stem|stage(?P<stage>\d)/(?P<block>\d+)/(?:shortcut|convs/(?P<conv>\d)))/(?P<layer>conv|norm)/(?P<variable>\w+)"
)
_CONVNEXT = re.compile(
    r"(?:stem(?P<stem_norm>_norm)?|stage(?P<stage>\d)(?:_downsample(?P<norm>_norm)?|/(?P<block>\d+)/(?P<layer>\w+)))"
    r"/(?P<variable>\w+)"
)


class ResNetVariable(NamedTuple):
    """A variable of a ResNet.

    Attributes:
      stage: 2 to 5; 0 for the stem.
      block: position in the stage, from 0.
      conv: number of the convolution in its block, from 1; 0 for the shortcut and the stem.
      layer: "conv" or "norm".
      variable: "kernel", "bias", "gamma", "beta", "moving_mean" or "moving_variance".
    """

    stage: int
    block: int
    conv: int
    layer: str
    variable: str


class ConvNeXtVariable(NamedTuple):
    """A variable of a ConvNeXt.

    Attributes:
      stage: 1 to 4.
      block: position in the stage, from 0; None for the stem and the downsampling in front of a stage.
      layer: "conv" or "norm" outside blocks; "depthwise", "norm", "expand", "reduce" or "layer_scale" in them.
      variable: "kernel", "bias", "gamma" or "beta".
    """

    stage: int
    block: int | None
    layer: str
    variable: str


def parse_resnet(name) -> ResNetVariable:
    """Takes a name relative to the backbone apart, such as "stage2/0/convs/1/norm/gamma"."""
    match = _RESNET.fullmatch(name)
    conv = 0 if match["conv"] is None else int(match["conv"]) + 1
    return ResNetVariable(
        int(match["stage"] or 0), int(match["block"] or 0), conv, match["layer"], match["variable"]
    )


def parse_convnext(name) -> ConvNeXtVariable:
    """Takes a name relative to the backbone apart, such as "stage1/0/expand/kernel"."""
    match = _CONVNEXT.fullmatch(name)
    if match["block"] is not None:
        return ConvNeXtVariable(
            int(match["stage"]), int(match["block"]), match["layer"], match["variable"]
        )
    layer = "norm" if match["stem_norm"] or match["norm"] else "conv"
    return ConvNeXtVariable(int(match["stage"] or 1), None, layer, match["variable"])
