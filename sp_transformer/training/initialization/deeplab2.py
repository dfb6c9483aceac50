"""Encoders in TF2 checkpoints of DeepLab2: its `resnet50`, and kMaX-DeepLab's ConvNeXt.

Such a checkpoint names variables by attributes. The encoder lies below "encoder" (DeepLab2's trainer), below
"backbone/_encoder" (Model Garden's), or at the root (`save_weights`); it is found by its stem.
"""

import re

from sp_transformer.config import registries
from sp_transformer.training.initialization import backbone_names, checkpoint_arrays
from sp_transformer.training.initialization.errors import InitializationError
from sp_transformer.training.initialization.matching import Key, Source, flattened, permuted

_RESNET_STEM, _CONVNEXT_STEM = (
    "_stem/_conv/kernel",
    "downsample_layers/0/layer_with_weights-0/kernel",
)
_RESNET_CONVS = ("_shortcut", "_conv1_bn_act", "_conv2_bn_act", "_conv3_bn")
_CONVNEXT_LAYERS = {
    "depthwise": "depthwise_conv",
    "norm": "norm",
    "expand": "pointwise_conv1",
    "reduce": "pointwise_conv2",
}
_RESNET_PART = re.compile(r"_stem/|_stage(\d)/")
_CONVNEXT_PART = re.compile(r"(?:stages|downsample_layers)/(\d)/")


def open_source(path, backbone, stages) -> Source:
    """Opens a checkpoint for the variables of a backbone.

    Args:
      path: prefix of the checkpoint, one of its files, or a folder whose newest one is taken.
      backbone: registered name of the backbone.
      stages: numbers of the stages that ours has.

    Raises:
      InitializationError: if there is no such checkpoint, or no such encoder in it.
    """
    prefix = checkpoint_arrays.find(path)
    arrays = checkpoint_arrays.CheckpointArrays(prefix)
    is_resnet = backbone in registries.RESNETS
    root = _find_encoder(arrays, _RESNET_STEM if is_resnet else _CONVNEXT_STEM, prefix, backbone)
    key_of = _resnet_key if is_resnet else _convnext_key
    part = _RESNET_PART if is_resnet else _CONVNEXT_PART

    def is_expected_leftover(key):
        match = part.match(key.removeprefix(root)) if key.startswith(root) else None
        if match is None or checkpoint_arrays.is_optimizer_slot(key):
            return True
        stage = int(match[1] or 0) + (0 if is_resnet else 1)
        return stage not in stages

    return Source(
        f"DeepLab2's {backbone} in {prefix}",
        arrays,
        lambda name: _with_root(root, key_of(name)),
        is_expected_leftover,
        "set model.backbone.name to the encoder that the checkpoint holds",
    )


def _find_encoder(arrays, stem, prefix, backbone):
    roots = [key.removesuffix(stem) for key in arrays if key == stem or key.endswith("/" + stem)]
    if len(roots) == 1:
        return roots[0]
    if roots:
        raise InitializationError(
            f"{prefix} holds {len(roots)} encoders, below {', '.join(sorted(roots))}; save the one that is meant alone"
        )
    found = sorted({key.split("/")[0] for key in arrays})
    raise InitializationError(
        f"{prefix} holds no encoder {backbone} of DeepLab2: no variable ends with {stem}; at its root are "
        f"{', '.join(found[:8])}; give another checkpoint, or set model.backbone.name to the encoder in it"
    )


def _with_root(root, key):
    return key._replace(name=root + key.name)


def _resnet_key(name):
    stage, block, conv, layer, variable = backbone_names.parse_resnet(name)
    parent = f"_stage{stage}/_block{block + 1}/{_RESNET_CONVS[conv]}" if stage else "_stem"
    return Key(f"{parent}/{'_conv' if layer == 'conv' else '_batch_norm'}/{variable}")


def _convnext_key(name):
    stage, block, layer, variable = backbone_names.parse_convnext(name)
    if block is None:
        # The stem's norm comes behind its convolution, a downsampling's in front.
        position = int((layer == "norm") == (stage == 1))
        return Key(f"downsample_layers/{stage - 1}/layer_with_weights-{position}/{variable}")
    parent = f"stages/{stage - 1}/layer_with_weights-{block}"
    if layer == "layer_scale":
        return Key(f"{parent}/layer_scale", flattened)
    convert = permuted(0, 1, 3, 2) if (layer, variable) == ("depthwise", "kernel") else None
    key = Key(f"{parent}/{_CONVNEXT_LAYERS[layer]}/{variable}")
    return key._replace(convert=convert) if convert else key
