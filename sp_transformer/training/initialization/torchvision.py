"""State dicts of torchvision's ResNets and ConvNeXts.

torch keeps convolution kernels as [out, in, height, width] and dense ones as [out, in].
"""

import re

from sp_transformer.config import registries
from sp_transformer.training.initialization import backbone_names, torch_file
from sp_transformer.training.initialization.matching import Key, Source, flattened, permuted

_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_CONVOLUTION = permuted(2, 3, 1, 0)
_DEPTHWISE = permuted(2, 3, 0, 1)
_DENSE = permuted(1, 0)
_CONVNEXT_LAYERS = {"depthwise": 0, "norm": 2, "expand": 3, "reduce": 5}
_CONVNEXT_KERNELS = {"depthwise": _DEPTHWISE, "expand": _DENSE, "reduce": _DENSE}


def open_source(path, backbone, stages) -> Source:
    """Opens a .pth file for the variables of a backbone.

    Args:
      path: the file.
      backbone: registered name of the backbone.
      stages: numbers of the stages that ours has.

    Raises:
      InitializationError: if it is no state dict, or cannot be read.
    """
    is_resnet = backbone in registries.RESNETS
    stage_of = _resnet_stage if is_resnet else _convnext_stage

    def is_expected_leftover(key):
        return key.endswith(".num_batches_tracked") or stage_of(key) not in stages

    return Source(
        f"torchvision's {backbone} in {path}",
        torch_file.read_state_dict(path),
        _resnet_key if is_resnet else _convnext_key,
        is_expected_leftover,
        "set model.backbone.name to the network of torchvision that the file belongs to",
    )


def _resnet_key(name):
    stage, block, conv, layer, variable = backbone_names.parse_resnet(name)
    if not stage:
        parent = "conv1" if layer == "conv" else "bn1"
    elif conv:
        parent = f"layer{stage - 1}.{block}.{'conv' if layer == 'conv' else 'bn'}{conv}"
    else:
        parent = f"layer{stage - 1}.{block}.downsample.{0 if layer == 'conv' else 1}"
    key = Key(f"{parent}.{_VARIABLES[variable]}")
    return key._replace(convert=_CONVOLUTION) if variable == "kernel" else key


def _resnet_stage(key):
    """Our number of the stage that a key belongs to; None for the classification head."""
    match = re.match(r"(?:conv1|bn1|layer(\d))\.", key)
    return match and (int(match[1]) + 1 if match[1] else 0)


def _convnext_key(name):
    stage, block, layer, variable = backbone_names.parse_convnext(name)
    if block is None:
        # The stem's norm comes behind its convolution, a downsampling's in front.
        position = int((layer == "norm") == (stage == 1))
        parent, kernel = f"features.{2 * stage - 2}.{position}", _CONVOLUTION
    elif layer == "layer_scale":
        return Key(f"features.{2 * stage - 1}.{block}.layer_scale", flattened)
    else:
        parent = f"features.{2 * stage - 1}.{block}.block.{_CONVNEXT_LAYERS[layer]}"
        kernel = _CONVNEXT_KERNELS.get(layer)
    key = Key(f"{parent}.{_VARIABLES[variable]}")
    return key._replace(convert=kernel) if variable == "kernel" else key


def _convnext_stage(key):
    match = re.match(r"features\.(\d)\.", key)
    return match and int(match[1]) // 2 + 1
