"""A small stand-in for SPTransformer with its methods, and exports of it: the real one takes a
minute to build and save."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model.inference import Inference
from sp_transformer.protos import experiment_pb2
from sp_transformer.serving import export, export_options

# Tests of the verification ask for it; it takes another process that imports the runtime.
UNVERIFIED = export_options.ExportOptions(verify_images=0)


class StandInModel(keras.Model):
    """Convolution, BatchNorm, softmax-free classes; superpixels are cells of 4x4 pixels; has a seed
    generator too."""

    def __init__(self, num_classes):
        super().__init__()
        self.convolution = keras.layers.Conv2D(8, 3, padding="same")
        self.norm = keras.layers.BatchNormalization()
        self.dropout = keras.layers.Dropout(0.5, seed=3)
        self.classes = keras.layers.Dense(num_classes, dtype="float32")

    superpixel_stride = size_multiple = 4
    # Nothing to fold.
    backbone = None

    def features(self, images, training=False):
        x = self.norm(self.convolution(tf.cast(images, tf.float32) / 127.5 - 1), training=training)
        x = self.dropout(x, training=training)
        shape = tf.shape(images)
        return {
            "pixels": x,
            "superpixel_logits": self.classes(x)[:, ::4, ::4],
            "image_size": (shape[1], shape[2]),
        }

    def semantic_logits(self, features):
        return self.classes(features["pixels"])

    def labels(self, features):
        return tf.argmax(self.semantic_logits(features), -1, tf.int32)

    def hard_superpixels(self, features):
        shape = tf.shape(features["pixels"])
        rows, columns = tf.range(shape[1]) // 4, tf.range(shape[2]) // 4
        ids = rows[:, None] * (1 + (shape[2] - 1) // 4) + columns[None]
        # Of the image in form, as those of the real model: converters would compute a constant, not convert it.
        nothing = tf.cast(0.4 * tf.tanh(tf.reduce_max(features["pixels"])), tf.int32)
        return tf.broadcast_to(ids, shape[:3]) + nothing

    def call(self, images, training=False):
        return self.semantic_logits(self.features(images, training))


def make_config(num_classes):
    config = experiment_pb2.ExperimentOptions(experiment_name="tests/stand-in")
    config.data.dataset = "synthetic_streets"
    config.data.synthetic_streets.height, config.data.synthetic_streets.width = 33, 38
    config.data.crop_height = config.data.crop_width = 32
    for number in range(num_classes):
        config.data.label_map.classes.add(name=f"class {number}", color=f"#{number * 7:06x}")
    return config


def make_model(num_classes):
    keras.utils.set_random_seed(1)
    model = StandInModel(num_classes)
    model(keras.Input((32, 32, 3), batch_size=1))
    generator = np.random.default_rng(2)
    for variable in model.weights:
        if "seed" not in variable.path:
            variable.assign(np.abs(variable) + generator.normal(0, 0.5, variable.shape) ** 2 - 0.1)
    # Signed kernels, so that several classes are predicted.
    for layer in (model.convolution, model.classes):
        layer.kernel.assign(generator.normal(size=layer.kernel.shape))
    return model


@pytest.fixture(scope="session")
def NumpyRuntime():
    """The class of tests/serving/numpy_runtime.py: a model that costs nothing."""
    path = pathlib.Path(__file__).parent / "numpy_runtime.py"
    spec = importlib.util.spec_from_file_location("numpy_runtime", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NumpyRuntime


@pytest.fixture(scope="session")
def config():
    return make_config(6)


@pytest.fixture(scope="session")
def model():
    return make_model(6)


@pytest.fixture(scope="session")
def inference(model, config):
    return Inference(model, config.data)


@pytest.fixture(scope="session")
def exported(config, model, tmp_path_factory):
    """An export of the stand-in, shared by the tests, which only read it."""
    folder = tmp_path_factory.mktemp("exports") / "model"
    return export.export_model(config, model, folder, UNVERIFIED, checkpoint="run/ckpt-12", step=12)


@pytest.fixture(scope="session")
def exported_300_classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "many"
    return export.export_model(make_config(300), make_model(300), folder, UNVERIFIED)
