"""A data set of a few odd-sized files, and an Inference whose prediction is known beforehand."""

import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sp_transformer.protos import experiment_pb2

NUM_CLASSES = 4
SIZES = [(5, 7), (5, 7), (5, 7), (9, 4), (5, 7), (3, 3), (3, 3)]


@pytest.fixture
def num_classes():
    return NUM_CLASSES


@pytest.fixture
def arrays():
    """Image and label of each example; class 3 occurs neither here nor in the predictions."""
    generator = np.random.default_rng(0)
    examples = []
    for size in SIZES:
        image = generator.integers(0, 256, (*size, 3), np.uint8)
        label = generator.choice([0, 1, 2, 255], size).astype(np.uint8)
        examples.append((image, label))
    return examples


@pytest.fixture
def data_dir(tmp_path, arrays):
    root = tmp_path / "data"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number, (image, label) in enumerate(arrays):
        Image.fromarray(image).save(root / "images" / f"{number}.png")
        Image.fromarray(label).save(root / "labels" / f"{number}.png")
    return root


@pytest.fixture
def config(data_dir):
    """A config with the parts that evaluation reads, built here and not loaded, so that only
    evaluation is tested."""
    config = experiment_pb2.ExperimentOptions(experiment_name="tests/tiny")
    data = config.data
    data.dataset = "folder"
    data.data_dir = str(data_dir)
    split = data.folder.splits.add(name="val")
    split.images.append("images/*.png")
    split.labels.append("labels/*.png")
    for number in range(NUM_CLASSES):
        data.label_map.classes.add(name=f"class {number}", color=f"#{number * 40 + 40:02x}0000")
    data.crop_height = data.crop_width = 32
    config.evaluation.batch_size = 2
    return config


@pytest.fixture
def inference():
    """Predicts a pixel's red value modulo 3, in superpixels of 2x2 pixels; counts the images that
    it sees."""

    def labels(images):
        fake.images_seen += int(tf.shape(images)[0])
        return tf.cast(images[..., 0] % 3, tf.int32)

    def labels_and_superpixels(images):
        rows, columns = (tf.range(size) // 2 for size in images.shape[1:3])
        ids = rows[:, None] * 100 + columns[None]
        ids = tf.broadcast_to(ids, images.shape[:3])
        return tf.cast(images[..., 0] % 3, tf.int32), ids

    fake = types.SimpleNamespace(
        labels=labels, labels_and_superpixels=labels_and_superpixels, images_seen=0
    )
    fake.of_shape = lambda batch_size, image_size: fake
    return fake
