"""Weights of keras.applications' ResNet-50, ResNet-101 and ConvNeXt.

The file is read into the network itself, so that Keras finds its way in every layout that it has had.
"""

import functools

import keras
import numpy as np

from sp_transformer.config import registries
from sp_transformer.training.initialization import backbone_names, keras_file
from sp_transformer.training.initialization.matching import Key, Source, permuted

_NETWORKS = {
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "convnext_tiny": "ConvNeXtTiny",
    "convnext_small": "ConvNeXtSmall",
    "convnext_base": "ConvNeXtBase",
    "convnext_large": "ConvNeXtLarge",
    "convnext_xlarge": "ConvNeXtXLarge",
}
_CONVNEXT_LAYERS = {
    "depthwise": "depthwise_conv",
    "norm": "layernorm",
    "expand": "pointwise_conv_1",
    "reduce": "pointwise_conv_2",
    "layer_scale": "layer_scale",
}


def open_source(path, backbone, _) -> Source:
    """Opens a weight file for the variables of a backbone.

    Args:
      path: the file.
      backbone: registered name of the backbone.

    Raises:
      InitializationError: if it is no weight file of that network.
    """
    name = _NETWORKS[backbone]
    build = getattr(keras.applications, name)
    network = keras_file.read_into_one_of(
        path,
        {
            f"{name} without its head": functools.partial(build, weights=None, include_top=False),
            f"{name} with its head": functools.partial(build, weights=None),
        },
    )
    is_resnet = backbone in registries.RESNETS
    return Source(
        f"keras.applications.{name} in {path}",
        _arrays(network),
        _resnet_key if is_resnet else functools.partial(_convnext_key, backbone),
        # What is left over belongs to the head, or to stages that we have not: the file is this network's.
        lambda _: True,
        "set model.backbone.name to the network that the file belongs to",
    )


def _arrays(network):
    """{"LAYER/VARIABLE": array}; layers have names of their own also where they lie in a Sequential."""
    arrays = {}
    for layer in network._flatten_layers():
        if not isinstance(layer, keras.Model):
            for variable in layer.weights:
                # Keras gives the layer scale's a number that grows in a process.
                is_scale = type(layer).__name__ == "LayerScale"
                arrays[f"{layer.name}/{'gamma' if is_scale else variable.name}"] = np.asarray(
                    variable
                )
    return arrays


def _resnet_key(name):
    stage, block, conv, layer, variable = backbone_names.parse_resnet(name)
    parent = f"conv{stage}_block{block + 1}_{conv}" if stage else "conv1"
    return Key(f"{parent}_{'conv' if layer == 'conv' else 'bn'}/{variable}")


def _convnext_key(backbone, name):
    stage, block, layer, variable = backbone_names.parse_convnext(name)
    if block is None:
        kind = "layernorm" if layer == "norm" else "conv"
        between = f"downsampling_{kind}_{stage - 2}"
        return Key(f"{backbone}_{f'stem_{kind}' if stage == 1 else between}/{variable}")
    key = Key(f"{backbone}_stage_{stage - 1}_block_{block}_{_CONVNEXT_LAYERS[layer]}/{variable}")
    if (layer, variable) == ("depthwise", "kernel"):
        # A grouped convolution's kernel there.
        return key._replace(convert=permuted(0, 1, 3, 2))
    return key
