"""Counts on the device against those of the host."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.config.label_map import LabelMap
from sp_transformer.evaluation import device_counts, metrics, scores
from sp_transformer.protos import evaluation_pb2


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("classes", "ignore_label"), [(19, 255), (150, 255), (2, -1), (1, 1)])
def test_equals_the_host(classes, ignore_label, jit_compile):
    generator = np.random.default_rng(classes)
    labels = generator.integers(0, classes, (3, 37, 53)).astype(np.int32)
    labels[generator.random(labels.shape) < 0.2] = ignore_label
    labels[2] = ignore_label
    predictions = generator.integers(0, classes, labels.shape).astype(np.int32)
    count = tf.function(device_counts.pair_counts, jit_compile=jit_compile)
    counts = count(labels, predictions, classes, ignore_label).numpy()
    assert counts.shape == (3, classes, classes)
    for image in range(3):
        expected = metrics.ConfusionMatrix(classes, ignore_label)
        expected.update(labels[image], predictions[image])
        np.testing.assert_array_equal(counts[image], expected.counts)
    assert counts[2].sum() == 0


def test_counts_more_than_float32_could():
    labels = tf.zeros((1, 4100, 4100), tf.int32)
    assert device_counts.pair_counts(labels, labels, 2, 255).numpy()[0, 0, 0] == 4100**2
    assert np.float32(4100**2 + 1) == 4100**2


def test_labels_that_are_no_class_are_not_counted_as_others():
    label_map = LabelMap(names=("road", "sky"), colors=((0, 0, 0), (1, 1, 1)), ignore_label=255)
    total = scores.SegmentationScores(label_map, evaluation_pb2.EvaluationOptions())
    label = np.array([[0, 2]], np.int32)
    counts = device_counts.pair_counts(label[None], np.zeros((1, 1, 2), np.int32), 2, 255)[0]
    with pytest.raises(ValueError, match="label 2 is not one of the 2 classes"):
        total.add_counts(label, counts.numpy())
    assert total.confusion.num_pixels == 0
