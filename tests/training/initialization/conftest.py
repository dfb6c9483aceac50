"""Models that are initialised, random weights, and slow reference networks that share no code with ours."""

import importlib.util
import pathlib

import numpy as np
import pytest

import sp_transformer as spt
from sp_transformer.training import initialization

_CONFIG = """
model {{
  channels: 8
  backbone {{ name: "{name}" {backbone} }}
  hypercolumn {{ stride: 8 endpoint_strides: [{strides}] }}
  tokenizer {{ superpixel_stride: 32 layers: 1 }}
  classifier {{ layers: 1 heads: 2 feed_forward_width: 8 }}
}}
data {{ dataset: "synthetic_streets" crop_height: 32 crop_width: 32 }}
training {{ initialization {{ {initialization} }} }}
"""


class Initialized:
    """Builds models of a config and initialises them."""

    def __init__(self, folder):
        self._folder = folder

    def config(self, name, initialization, backbone="", strides="8, 32"):
        path = self._folder / "config.textproto"
        path.write_text(
            _CONFIG.format(
                name=name, backbone=backbone, strides=strides, initialization=initialization
            )
        )
        return spt.load_config(path)

    def __call__(self, name, initialization_text, backbone="", strides="8, 32"):
        """The initialised model, and the report."""
        config = self.config(name, initialization_text, backbone, strides)
        model = spt.build_model(config)
        return model, initialization.initialize(config, model)


@pytest.fixture
def initialized(tmp_path):
    """Function of (backbone name, text of InitializationOptions, text of BackboneOptions, strides)."""
    return Initialized(tmp_path)


@pytest.fixture(scope="session")
def references():
    """The module reference_networks.py."""
    return _load("reference_networks")


@pytest.fixture(scope="session")
def torch_files():
    """The module torch_files.py."""
    return _load("torch_files")


def _load(name):
    path = pathlib.Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def images():
    """uint8 [1, 64, 32, 3]."""
    return np.random.default_rng(0).integers(0, 256, (1, 64, 32, 3)).astype(np.uint8)
