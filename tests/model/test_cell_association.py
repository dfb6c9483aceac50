"""Consumers of the features by cell and by band, against maps of the image composed of plain operations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model.association import ALIGNMENTS, Association
from sp_transformer.model.classifier import SuperpixelClassifier
from sp_transformer.model.hypercolumn import Hypercolumn
from sp_transformer.model.sp_transformer import SPTransformer
from sp_transformer.model.tokenizer import Tokenizer
from sp_transformer.training import losses

# (R, C, cell, output stride, batch): rows that fill bands of four and rows that do not, odd grids, cells of 1x1.
CASES = [
    (3, 5, 2, 4, 2),
    (4, 3, 4, 2, 1),
    (8, 2, 1, 3, 2),
    (5, 4, 2, 2, 1),
    (1, 4, 3, 2, 2),
    (6, 1, 2, 5, 1),
    (1, 1, 4, 8, 2),
]
CHANNELS, CLASSES, FAR = 5, 7, -1e9


def model_of(case, alignment="aligned", implementation="fold"):
    """An SPTransformer of which only what follows the features is used; that has no variables."""
    rows, columns, cell, stride, _ = case
    return SPTransformer(
        keras.layers.Identity(),
        Hypercolumn((stride,), stride, CHANNELS),
        Tokenizer(
            (rows * cell, columns * cell), cell, CHANNELS, 1, 1, implementation=implementation
        ),
        SuperpixelClassifier(CLASSES, 1, 1),
        Association(stride, alignment, scale=0.5),
    )


def values_of(case, seed=0):
    """Pixel features as a map, superpixel features, and their class logits."""
    rows, columns, cell, _, batch = case
    generator = np.random.default_rng(seed)
    shapes = [(rows * cell, columns * cell, CHANNELS), (rows, columns, CHANNELS)]
    shapes += [(rows, columns, CLASSES)]
    return [tf.constant(generator.normal(size=(batch, *s)) * 2, tf.float32) for s in shapes]


def features_of(model, values):
    pixels, superpixels, classes = values
    rows, columns = keras.ops.shape(superpixels)[1:3]
    stride = model.superpixel_stride
    return {
        "pixel_features": model.tokenizer.grid(rows, columns).regroup(pixels),
        "superpixel_features": superpixels,
        "superpixel_logits": classes,
        "image_size": (rows * stride, columns * stride),
    }


def neighbors(x, repeats, outside=0.0):
    """[B, R, C, E] -> [B, R*repeats, C*repeats, 9, E]: at each pixel the nine neighbours of its cell."""
    rows, columns = x.shape[1:3]
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=outside)
    slices = [padded[:, k // 3 : k // 3 + rows, k % 3 : k % 3 + columns] for k in range(9)]
    stacked = tf.stack(slices, axis=3)
    return tf.repeat(tf.repeat(stacked, repeats, axis=1), repeats, axis=2)


def plain_logits(case, alignment, pixels, superpixels):
    """Eq. 5 on the image, [B, Y, X, 9]: interpolated features with one superpixel, or interpolated channels."""
    rows, columns, cell, stride, _ = case
    size = (rows * cell * stride, columns * cell * stride)
    if alignment == "aligned":
        pixels, repeats = tf.image.resize(pixels, size), cell * stride
    else:
        repeats = cell
    logits = 0.5 * tf.einsum("byxe,byxke->byxk", pixels, neighbors(superpixels, repeats))
    inside = neighbors(tf.ones([1, rows, columns, 1]), cell * stride)[..., 0]
    return tf.where(inside > 0, tf.image.resize(logits, size), FAR)


def plain_semantic_logits(case, alignment, pixels, superpixels, classes):
    """Eq. 6 on the image, [B, Y, X, K], with the nine superpixels' classes at each pixel."""
    weights = tf.nn.softmax(plain_logits(case, alignment, pixels, superpixels))
    return tf.einsum("byxk,byxkc->byxc", weights, neighbors(classes, case[2] * case[3]))


def with_gradients(function, values):
    with tf.GradientTape() as tape:
        tape.watch(values)
        output = function(*values)
        loss = tf.reduce_sum(tf.sin(output))
    return output, *tape.gradient(loss, values)


def as_map(case, by_cell):
    """[B, R*C, v*u, K] -> [B, Y, X, K]."""
    rows, columns, cell, stride, batch = case
    side = cell * stride
    by_cell = tf.reshape(by_cell, [batch, rows, columns, side, side, -1])
    return tf.reshape(
        tf.transpose(by_cell, [0, 1, 3, 2, 4, 5]), [batch, rows * side, columns * side, -1]
    )


def assert_all_close(layer_reference, actual, expected):
    layer_reference.assert_close(actual[0], expected[0], 1e-5)
    for pair in zip(actual[1:], expected[1:], strict=True):
        layer_reference.assert_close(*pair, 1e-4)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_logits_as_map_and_by_cell_equal_the_composed_form(case, alignment, layer_reference):
    model, values = model_of(case, alignment), values_of(case)
    expected = with_gradients(lambda *x: plain_semantic_logits(case, alignment, *x), values)
    as_image = with_gradients(lambda *x: model.semantic_logits(features_of(model, x)), values)
    assert_all_close(layer_reference, as_image, expected)
    by_cell = with_gradients(
        lambda *x: as_map(case, model.cell_semantic_logits(features_of(model, x))), values
    )
    assert_all_close(layer_reference, by_cell, expected)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_gather_shares_the_association(alignment, layer_reference):
    """Its pixels lie by cell and not by tile of four, which must make no difference behind the tokenizer."""
    case = CASES[0]
    expected = plain_semantic_logits(case, alignment, *values_of(case))
    model = model_of(case, alignment, "gather")
    actual = model.semantic_logits(features_of(model, values_of(case)))
    layer_reference.assert_close(actual, expected, 1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_form_of_the_published_counts_equals_relative(case, layer_reference):
    model, values = model_of(case, "relative"), values_of(case)

    def logits(*x):
        return model.semantic_logits(features_of(model, x))

    expected = with_gradients(logits, values)
    model.association.as_written = True
    assert_all_close(layer_reference, with_gradients(logits, values), expected)


def assert_largest(chosen, scores):
    """`chosen` [B, Y, X] are the largest of `scores` [B, Y, X, n], up to rounding where two are alike."""
    assert chosen.dtype == tf.int32
    of_chosen = tf.gather(scores, chosen, batch_dims=3)
    largest = tf.reduce_max(scores, -1)
    margin = 1e-5 * np.abs(scores.numpy()[scores.numpy() > FAR / 2]).max()
    assert tf.reduce_all(of_chosen >= largest - margin)
    assert tf.reduce_mean(tf.cast(tf.argmax(scores, -1, tf.int32) == chosen, tf.float32)) > 0.999


def neighbor_of(case, ids):
    """Superpixels r*C + c at each pixel -> which of the nine neighbours of its cell that is."""
    rows, columns, cell, stride, _ = case
    side = cell * stride
    row, column = np.mgrid[0 : rows * side, 0 : columns * side] // side
    return tf.cast((ids // columns - row + 1) * 3 + ids % columns - column + 1, tf.int32)


def assert_labels_and_superpixels(case, alignment, labels, ids):
    values = values_of(case)
    assert_largest(labels, plain_semantic_logits(case, alignment, *values))
    assert_largest(neighbor_of(case, ids), plain_logits(case, alignment, *values[:2]))


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_labels_and_superpixels_by_bands_are_the_largest_of_the_image(case, alignment):
    model, values = model_of(case, alignment), values_of(case)
    features = features_of(model, values)
    assert_labels_and_superpixels(
        case, alignment, model.labels(features), model.hard_superpixels(features)
    )


def test_consumers_compile(layer_reference):
    case = CASES[1]
    model, values = model_of(case), values_of(case)

    @tf.function(jit_compile=True)
    def consume(*values):
        features = features_of(model, values)
        return (
            with_gradients(lambda *x: model.semantic_logits(features_of(model, x)), list(values)),
            model.labels(features),
            model.hard_superpixels(features),
        )

    logits, labels, ids = consume(*values)
    expected = with_gradients(lambda *x: plain_semantic_logits(case, "aligned", *x), values)
    assert_all_close(layer_reference, logits, expected)
    assert_labels_and_superpixels(case, "aligned", labels, ids)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_unknown_sizes_give_the_same(alignment, layer_reference):
    model = model_of(CASES[0], alignment)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, n]) for n in (CHANNELS, CHANNELS, CLASSES)
        ]
    )
    def consume(*values):
        features = features_of(model, values)
        return (
            model.semantic_logits(features),
            model.labels(features),
            model.hard_superpixels(features),
        )

    # One graph for rows that fill no band of four, that fill one, and for a single superpixel.
    for case in [CASES[0], (4, 3, 2, 4, 1), (1, 1, 2, 4, 1)]:
        values = values_of(case)
        logits, labels, ids = consume(*values)
        expected = plain_semantic_logits(case, alignment, *values)
        layer_reference.assert_close(logits, expected, 1e-5)
        assert_labels_and_superpixels(case, alignment, labels, ids)


@pytest.mark.parametrize("fraction", [0.2, 1.0])
@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=str)
def test_loss_by_cell_equals_the_loss_on_the_map(case, fraction, layer_reference):
    model, values = model_of(case), values_of(case)
    height, width = features_of(model, values)["image_size"]
    generator = np.random.default_rng(1)
    labels = generator.integers(0, CLASSES, (case[4], height, width)).astype(np.int32)
    labels[generator.random(labels.shape) < 0.2] = 255

    def by_cell(*values):
        logits = model.cell_semantic_logits(features_of(model, values))
        return losses.top_k_cross_entropy(logits, model.labels_by_cell(labels), 255, fraction)

    def on_the_map(*values):
        logits = plain_semantic_logits(case, "aligned", *values)
        return losses.top_k_cross_entropy(logits, labels, 255, fraction)

    assert_all_close(
        layer_reference, with_gradients(by_cell, values), with_gradients(on_the_map, values)
    )
