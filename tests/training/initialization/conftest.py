"""Models that are initialised, random weights, and slow reference networks that share no code with ours."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest

import sp_transformer as spt
from sp_transformer.config import derived
from sp_transformer.model import builder, normalization
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


class BackboneModel(keras.Model):
    """The backbone of a model and its normalisation, which is all that weights from elsewhere reach."""

    def __init__(self, config):
        super().__init__()
        self.backbone = builder.build_backbone(config)
        number = config.model.backbone.input_normalization
        self.form = config.model.backbone.InputNormalization.Name(number).lower()
        height, width = derived.input_size(config)
        self(keras.Input((height, width, 3), batch_size=1))

    def call(self, images, training=False):
        inputs = normalization.normalize(images, self.form)
        return self.backbone(inputs, training=training)


class Initialized:
    """Builds models of a config, each once, and initialises them."""

    def __init__(self, folder):
        self._path = folder / "config.textproto"
        self._models = {}

    def __call__(self, name, initialization_text, backbone="", strides="8, 32"):
        """The initialised BackboneModel, and the report."""
        self._path.write_text(
            _CONFIG.format(
                name=name, backbone=backbone, strides=strides, initialization=initialization_text
            )
        )
        config = spt.load_config(self._path)
        key = (name, backbone, strides)
        if key not in self._models:
            self._models[key] = BackboneModel(config)
        return self._models[key], initialization.initialize(config, self._models[key])


@pytest.fixture(scope="package")
def initialized(tmp_path_factory):
    """Function of (backbone name, text of InitializationOptions, text of BackboneOptions, strides)."""
    return Initialized(tmp_path_factory.mktemp("initialized"))


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
