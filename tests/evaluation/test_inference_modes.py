"""Scales, mirroring and sliding windows against NumPy loops."""

import types

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.data import sources
from sp_transformer.evaluation import inference_modes
from sp_transformer.protos import data_pb2, evaluation_pb2


def mode(**values):
    return evaluation_pb2.InferenceMode(name="m", **values)


def images(size=(11, 14), count=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def logits(seen):
    """Three classes that depend on colours, and on where in what is seen a pixel lies."""
    seen = tf.cast(seen, tf.float32) / 64
    shape = tf.shape(seen)
    row = tf.cast(tf.range(shape[1]), tf.float32)[:, None] / 5
    column = tf.cast(tf.range(shape[2]), tf.float32)[None] / 3
    place = tf.broadcast_to((row + column)[None], shape[:3])
    return tf.stack([seen[..., 0] * 2, seen[..., 1] + place, seen[..., 2] - place], -1)


def resized(array, size):
    return tf.image.resize(tf.cast(array, tf.float32), size, method="bilinear").numpy()


def softmax(array):
    array = np.exp(array - array.max(-1, keepdims=True))
    return array / array.sum(-1, keepdims=True)


def slow_windows(seen, window, stride):
    """Mean logits of all windows, placed by hand."""
    height, width = seen.shape[1:3]

    def starts(extent, size, step):
        if size >= extent:
            return [0]
        found = [0]
        while found[-1] + size < extent:
            found.append(min(found[-1] + step, extent - size))
        return found

    total, count = 0, np.zeros((height, width, 1))
    for top in starts(height, window[0], stride[0]):
        for left in starts(width, window[1], stride[1]):
            part = (slice(top, top + window[0]), slice(left, left + window[1]))
            placed = np.zeros((*seen.shape[:3], 3))
            placed[:, *part] = logits(seen[:, *part]).numpy()
            total, count[part] = total + placed, count[part] + 1
    return total / count


@pytest.mark.parametrize(
    ("window", "stride", "used"),
    [
        ((4, 6), (0, 0), (2, 4)),
        ((4, 6), (4, 6), (4, 6)),
        ((5, 5), (3, 1), (3, 1)),
        ((40, 6), (0, 6), (26, 6)),
        ((11, 14), (0, 0), (7, 9)),
        ((1, 1), (0, 0), (1, 1)),
    ],
)
@pytest.mark.parametrize("in_graph", [False, True])
def test_windows_equal_a_loop_and_cover_every_pixel(window, stride, used, in_graph):
    options = mode(
        window_height=window[0],
        window_width=window[1],
        stride_height=stride[0],
        stride_width=stride[1],
    )
    seen = images()

    def run(x):
        return inference_modes.window_logits(x, logits, options)

    if in_graph:
        run = tf.function(run, input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
    expected = slow_windows(seen, window, used)
    np.testing.assert_allclose(run(tf.constant(seen, tf.float32)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("resize", "full"), [({}, (11, 14)), ({"resize_longer_side": 28}, (22, 28))]
)
def test_scales_and_mirrored_images_average_probabilities_at_the_images_own_size(resize, full):
    seen, scales = images(), [0.5, 1.0, 1.75]
    found = inference_modes.averaged_scores(
        tf.constant(seen), logits, data_pb2.DataOptions(**resize), mode(scales=scales, flip=True)
    )
    total = 0
    for scale in scales:
        size = [int(np.floor(extent * scale + 0.5)) for extent in full]
        scaled = resized(seen, size)
        for step in (1, -1):
            of_scale = logits(scaled[:, :, ::step]).numpy()[:, :, ::step]
            total = total + softmax(resized(of_scale, seen.shape[1:3]))
    np.testing.assert_allclose(found, total / 6, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(found, -1), 1, rtol=1e-5)


def test_a_scale_alone_resizes_logits_and_not_labels():
    seen = images()
    found = inference_modes.averaged_scores(
        tf.constant(seen), logits, data_pb2.DataOptions(), mode(scales=[2])
    )
    expected = resized(logits(resized(seen, (22, 28))), (11, 14))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        (mode(), True),
        (mode(scales=[1]), True),
        (mode(scales=[1, 1]), False),
        (mode(scales=[0.5]), False),
        (mode(flip=True), False),
        (mode(window_height=3, window_width=3), False),
    ],
)
def test_only_the_whole_image_seen_once_is_plain(options, plain):
    assert inference_modes.is_plain(options) == plain


def test_a_mode_is_traced_once_however_often_its_model_is_evaluated():
    traces = []

    class Model:
        def features(self, images, training):
            return images

        def semantic_logits(self, images):
            traces.append(1)
            return logits(images)

    inference = types.SimpleNamespace(model=Model(), labels=None)
    options, data = mode(scales=[0.5, 2], flip=True), data_pb2.DataOptions()
    for size in ((11, 14), (9, 7)):
        run = inference_modes.labels_function(inference, data, options)
        found = run(tf.constant(images(size)))
        scores = inference_modes.averaged_scores(tf.constant(images(size)), logits, data, options)
        np.testing.assert_array_equal(found, np.argmax(scores, -1))
    assert len(traces) == 1
    other = inference_modes.labels_function(inference, data, mode(scales=[2]))
    assert other is not run


def test_the_smallest_scaled_image_has_a_pixel():
    assert int(inference_modes.scaled_extent(3, 0.1)) == 1
    assert int(inference_modes.scaled_extent(tf.constant(3), 0.5)) == 2


def test_the_real_model_in_windows_sees_a_mirrored_image_mirrored(tiny_run):
    model, data = tiny_run.inference.model, tiny_run.config.data
    seen = sources.create_source(data, "val").read(0)[0][None]
    options = mode(scales=[0.75, 1.5], flip=True, window_height=32, window_width=64)

    def real_logits(images):
        return model.semantic_logits(model.features(images))

    there, back = (
        inference_modes.averaged_scores(tf.constant(images), real_logits, data, options).numpy()
        for images in (seen, seen[:, :, ::-1])
    )
    assert there.shape == (1, 40, 72, 19)
    # 54 and 108 columns take windows of 64 symmetrically.
    np.testing.assert_allclose(there, back[:, :, ::-1], atol=1e-4)
    assert np.abs(there - there[:, :, ::-1]).max() > 1e-2
