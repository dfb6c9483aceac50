"""A stand-in model and data set with the interfaces that training uses, small enough to train in a
second."""

import importlib.util
import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model.batch_normalization import SynchronizedBatchNormalization
from sp_transformer.protos import experiment_pb2
from sp_transformer.training import loop, optimizer

HEIGHT, WIDTH, CLASSES, IGNORE = 12, 20, 19, 255


class TinyBackbone(keras.layers.Layer):
    def __init__(self):
        super().__init__(name="backbone")
        self.conv = keras.layers.Conv2D(8, 3, strides=2, padding="same")
        self.norm = SynchronizedBatchNormalization()

    def call(self, images, training=False):
        images = keras.ops.cast(images, self.compute_dtype)
        return self.norm(self.conv(images / 127.5 - 1.0), training=training)


class TinyModel(keras.Model):
    """Stride-2 features, dropout, a list of layers, a learned vector, and full-size logits."""

    def __init__(self, dropout=0.3, width=8):
        super().__init__()
        self.backbone = TinyBackbone()
        self.blocks = [keras.layers.Dense(width, activation="gelu") for _ in range(2)]
        self.dropout = keras.layers.Dropout(dropout)
        self.head = keras.layers.Dense(CLASSES, dtype="float32")
        self.upsampling = keras.layers.UpSampling2D(2, dtype="float32")
        self.queries = self.add_weight(shape=(8,), initializer="random_normal", name="queries")

    def features(self, images, training=False):
        x = self.backbone(images, training=training)
        x = x + tf.cast(self.queries.value, x.dtype)
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(self.dropout(x, training=training))}

    def cell_semantic_logits(self, features):
        """The stand-in has no cells: its logits stay in the order of the image."""
        return self.semantic_logits(features)

    def labels_by_cell(self, labels):
        return labels

    def semantic_logits(self, features):
        return self.upsampling(features["logits"])

    def labels(self, features):
        return tf.argmax(self.semantic_logits(features), axis=-1, output_type=tf.int32)

    def hard_superpixels(self, features):
        rows, columns = tf.meshgrid(tf.range(HEIGHT) // 4, tf.range(WIDTH) // 4, indexing="ij")
        batch = tf.shape(features["logits"])[0]
        return tf.tile((rows * (WIDTH // 4) + columns)[None], [batch, 1, 1])

    def call(self, images, training=False):
        return self.semantic_logits(self.features(images, training=training))


def build_tiny_model(config, **kwargs):
    bfloat16 = config.training.precision == config.training.BFLOAT16
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if bfloat16 else "float32")
    try:
        model = TinyModel(**kwargs)
        model(tf.zeros([1, HEIGHT, WIDTH, 3]))
    finally:
        keras.config.set_dtype_policy(previous)
    return model


def tiny_dataset(batch_size, first_step=0):
    """Batches that depend on the step only; bright pixels are of class 1, and some pixels are
    ignored."""

    def batch(step):
        seed = tf.stack([tf.constant(7, tf.int64), step])
        images = tf.random.stateless_uniform([batch_size, HEIGHT, WIDTH, 3], seed, 0.0, 255.0)
        labels = tf.cast(images[..., 0] > 128.0, tf.int32)
        return {"image": images, "label": tf.where(images[..., 1] > 230.0, IGNORE, labels)}

    return tf.data.Dataset.counter(start=np.int64(first_step), dtype=tf.int64).map(batch)


def shared_tiny_dataset(config, first_step=0, context=None):
    """The part of tiny_dataset that falls to an input pipeline, a tf.distribute.InputContext."""
    replicas = context.num_replicas_in_sync if context else 1
    dataset = tiny_dataset(config.training.batch_size, first_step)
    if replicas > 1:
        dataset = dataset.unbatch().batch(config.training.batch_size // replicas)
        # Of each step's batches, one a replica, a worker takes those of its own replicas.
        dataset = dataset.shard(context.num_input_pipelines, context.input_pipeline_id)
    return dataset


class SGD(optimizer.SummedGradients, keras.optimizers.SGD):
    """Plain gradient descent, in which rounding stays rounding."""


def make_config():
    """Options of a run of 10 steps that saves every 4 and logs every 2."""
    config = experiment_pb2.ExperimentOptions(experiment_name="test/tiny")
    config.data.dataset = "synthetic_streets"
    config.data.crop_height, config.data.crop_width = HEIGHT, WIDTH
    options = config.training
    options.batch_size, options.steps, options.warmup_steps = 4, 10, 3
    options.learning_rate = 1e-2
    options.save_interval_steps, options.log_interval_steps = 4, 2
    options.picture_interval_steps = 0
    return config


@pytest.fixture(scope="session")
def stand_ins():
    """This module, which pytest does not let tests import."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def run_driver():
    """The module run_driver.py."""
    path = pathlib.Path(__file__).with_name("run_driver.py")
    spec = importlib.util.spec_from_file_location("run_driver", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config():
    return make_config()


def make_run_of(config):
    """Function that makes a TrainingRun of the tiny model; `spoil` maps a dataset to a worse
    one."""

    def make(model_dir, spoil=lambda dataset: dataset, strategy=None, **model_kwargs):
        def make_dataset(first_step, context=None):
            return spoil(shared_tiny_dataset(config, first_step, context))

        return loop.TrainingRun(
            config,
            model_dir,
            lambda config: build_tiny_model(config, **model_kwargs),
            make_dataset,
            strategy,
        )

    return make


@pytest.fixture
def make_run(config):
    return make_run_of(config)


class Tiny:
    """The stand-ins of this file, for tests that need them one by one."""

    def __init__(self, config):
        self.config = config
        self.dataset = tiny_dataset
        self.SGD = SGD

    def build_model(self, **kwargs):
        return build_tiny_model(self.config, **kwargs)


@pytest.fixture
def tiny(config):
    return Tiny(config)
