"""Weights of keras_cv's backbones, for our `keras_cv/NAME`.

The file is read into the whole network, of which ours has the layers up to its largest endpoint.
"""

import numpy as np

from sp_transformer.model import weights
from sp_transformer.model.backbones import keras_cv_backbone
from sp_transformer.training.initialization import keras_file
from sp_transformer.training.initialization.matching import Key, Source


def open_source(path, backbone, endpoint_strides) -> Source:
    """Opens a weight file for the variables of a backbone.

    Args:
      path: the file.
      backbone: "keras_cv/NAME".
      endpoint_strides: those of our backbone.

    Raises:
      InitializationError: if it is no weight file of that network.
    """
    preset = backbone.removeprefix(keras_cv_backbone.PREFIX)
    network = keras_file.read_into_one_of(
        path, {f"keras_cv's {preset}": lambda: keras_cv_backbone.build_network(preset)}
    )
    twin = keras_cv_backbone.KerasCVBackbone(preset, endpoint_strides, network=network)
    named = weights.named_variables(twin)
    arrays = {name: np.asarray(variable) for name, variable in named.items()}
    ours = {id(variable) for variable in named.values()}
    arrays |= {v.path: np.asarray(v) for v in network.weights if id(v) not in ours}
    return Source(
        f"keras_cv's {preset} in {path}",
        arrays,
        Key,
        # What is left over lies behind the largest endpoint: the file is this network's.
        lambda _: True,
        "set model.backbone.name to the network that the file belongs to",
    )
