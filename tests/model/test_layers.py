"""Hypercolumn, tokenizer, classifier and projections as layers of their own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model.classifier import SuperpixelClassifier
from sp_transformer.model.cross_attention import CrossAttention
from sp_transformer.model.hypercolumn import Hypercolumn
from sp_transformer.model.projection import FeedForward, Projection
from sp_transformer.model.tokenizer import Tokenizer


def randomize(layer, seed=0):
    """Weights without the zeros and ones of a fresh layer, which would hide faults."""
    generator = np.random.default_rng(seed)
    for variable in layer.weights:
        variable.assign(generator.normal(size=variable.shape) * 0.3)


def gelu(x):
    return np.array(tf.nn.gelu(tf.constant(x, tf.float64), approximate=False))


def layer_norm(x, layer):
    x = np.asarray(x, np.float64)
    centered = x - x.mean(-1, keepdims=True)
    normalized = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6)
    return normalized * np.array(layer.gamma) + np.array(layer.beta)


def dense(x, layer):
    return x @ np.array(layer.kernel, np.float64) + np.array(layer.bias, np.float64)


def mlp(x, projection):
    if projection.hidden is not None:
        x = gelu(dense(x, projection.hidden))
    return dense(x, projection.output_layer)


def test_hypercolumn_equals_numpy():
    layer = Hypercolumn(strides=(2, 8), output_stride=4, channels=6, max_hidden_channels=9)
    generator = np.random.default_rng(0)
    endpoints = {2: generator.normal(size=(2, 8, 12, 3)), 8: generator.normal(size=(2, 2, 3, 10))}
    layer({stride: tf.constant(x, tf.float32) for stride, x in endpoints.items()})
    randomize(layer)
    # min(2C, max_hidden_channels) hidden units: 6 for 3 channels, 9 for 10.
    assert [p.hidden_units for p in layer.projections] == [6, 9]
    expected = 0
    for stride, norm, projection in zip(layer.strides, layer.norms, layer.projections, strict=True):
        features = mlp(layer_norm(endpoints[stride], norm), projection)
        expected = expected + tf.image.resize(tf.constant(features, tf.float32), (4, 6)).numpy()
    actual = layer({stride: tf.constant(x, tf.float32) for stride, x in endpoints.items()})
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_hypercolumn_names_a_missing_endpoint():
    with pytest.raises(ValueError, match=r"\[32\] missing"):
        Hypercolumn(strides=(8, 32))({8: tf.zeros([1, 4, 4, 3]), 16: tf.zeros([1, 2, 2, 3])})


@pytest.mark.parametrize("implementation", ["fold", "gather"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"projection": "linear", "feed_forward_width": 7},
        {"queries": "cell_mean", "position_embedding": False},
    ],
    ids=str,
)
def test_tokenizer_equals_numpy(options, implementation, reference):
    channels, heads, cell = 4, 2, 2
    tokenizer = Tokenizer(
        (6, 10), cell, channels, 2, heads, position_embedding_stride=4,
        implementation=implementation, **options,
    )  # fmt: skip
    pixels = np.random.default_rng(1).normal(size=(2, 6, 10, channels))
    tokenizer(tf.constant(pixels, tf.float32))
    randomize(tokenizer)

    def table(variable, size):
        table = tf.constant(np.array(variable)[None], tf.float32)
        return tf.image.resize(table, size).numpy().astype(np.float64)

    pixel_position = superpixel_position = 0
    if tokenizer.position_embedding:
        # ceil(6/4) x ceil(10/4) and ceil(3/4) x ceil(5/4) entries.
        assert tokenizer.pixel_position_table.shape == (2, 3, channels)
        assert tokenizer.superpixel_position_table.shape == (1, 2, channels)
        pixel_position = table(tokenizer.pixel_position_table, (6, 10))
        superpixel_position = table(tokenizer.superpixel_position_table, (3, 5))
    if tokenizer.queries == "learned":
        superpixels = np.repeat(np.array(tokenizer.query_table, np.float64)[None], 2, axis=0)
    else:
        superpixels = pixels.reshape(2, 3, 2, 5, 2, channels).mean(axis=(2, 4))

    def split(x):
        return x.reshape(*x.shape[:-1], heads, channels // heads)

    i, s = pixels, superpixels
    for layer in tokenizer.cross_attentions:
        x = layer_norm(i, layer.pixel_norm) + pixel_position
        y = layer_norm(s, layer.superpixel_norm) + superpixel_position
        from_pixels = reference.superpixel_attention(
            split(mlp(y, layer.superpixel_query)),
            split(mlp(x, layer.pixel_key)),
            split(mlp(x, layer.pixel_value)),
        ).reshape(s.shape)
        from_superpixels = reference.pixel_attention(
            split(mlp(x, layer.pixel_query)),
            split(mlp(y, layer.superpixel_key)),
            split(mlp(y, layer.superpixel_value)),
        ).reshape(i.shape)
        s = s + mlp(from_pixels, layer.superpixel_output)
        i = i + mlp(from_superpixels, layer.pixel_output)
        if layer.feed_forward_width:
            for name in "superpixel", "pixel":
                part = getattr(layer, f"{name}_feed_forward")
                value = s if name == "superpixel" else i
                value = value + mlp(layer_norm(value, part.norm), part.network)
                s, i = (value, i) if name == "superpixel" else (s, value)

    actual_pixels, actual_superpixels = tokenizer(tf.constant(pixels, tf.float32))
    np.testing.assert_allclose(actual_pixels, i, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(actual_superpixels, s, rtol=1e-4, atol=1e-4)


def test_tokenizer_follows_the_size_of_its_input():
    tokenizer = Tokenizer((8, 8), 4, 8)
    assert [x.shape for x in tokenizer(tf.zeros([1, 8, 8, 8]))] == [(1, 8, 8, 8), (1, 2, 2, 8)]
    assert [x.shape for x in tokenizer(tf.zeros([3, 4, 20, 8]))] == [(3, 4, 20, 8), (3, 1, 5, 8)]
    with pytest.raises(ValueError, match="6x8 do not divide into cells of 4x4"):
        tokenizer(tf.zeros([1, 6, 8, 8]))
    with pytest.raises(ValueError, match="8 channels got features of 5"):
        Tokenizer((8, 8), 4, 8)(tf.zeros([1, 8, 8, 5]))


def test_tokenizer_in_a_functional_model_of_unknown_batch():
    features = keras.Input((8, 8, 8))
    pixels, superpixels = Tokenizer((8, 8), 4, 8)(features)
    model = keras.Model(features, [pixels, superpixels])
    assert [x.shape for x in model(tf.zeros([5, 8, 8, 8]))] == [(5, 8, 8, 8), (5, 2, 2, 8)]


def test_classifier_equals_numpy():
    classifier = SuperpixelClassifier(3, layers=2, heads=2, feed_forward_width=5)
    superpixels = np.random.default_rng(2).normal(size=(2, 3, 2, 4))
    classifier(tf.constant(superpixels, tf.float32))
    randomize(classifier)
    x = superpixels.reshape(2, 6, 4)
    layers = zip(classifier.self_attentions, classifier.feed_forwards, strict=True)
    for attention, feed_forward in layers:
        y = layer_norm(x, attention.norm)
        q, k, v = (dense(y, part) for part in (attention.query, attention.key, attention.value))
        attended = np.zeros_like(x)
        for head in (slice(0, 2), slice(2, 4)):
            logits = q[..., head] @ k[..., head].transpose(0, 2, 1) / np.sqrt(2)
            weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
            attended[..., head] = weights @ v[..., head]
        x = x + dense(attended, attention.output_layer)
        x = x + mlp(layer_norm(x, feed_forward.norm), feed_forward.network)
    expected = dense(layer_norm(x, classifier.norm), classifier.logits).reshape(2, 3, 2, 3)
    actual = classifier(tf.constant(superpixels, tf.float32))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Projection(6, 3), (2, 5, 4)),
        (FeedForward(7), (2, 5, 4)),
        (Tokenizer((4, 4), 2, 4, queries="cell_mean"), (1, 4, 4, 4)),
        (SuperpixelClassifier(3, 1, 2, 8), (1, 2, 2, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_survive_their_config(layer, shape):
    copy = type(layer).from_config(layer.get_config())
    x = tf.random.normal(shape)
    layer(x), copy(x)
    copy.set_weights(layer.get_weights())
    for expected, actual in zip(tf.nest.flatten(layer(x)), tf.nest.flatten(copy(x)), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossAttention(channels=6, heads=4), "4 heads, 6 channels"),
        (lambda: CrossAttention(projection="conv"), "projection must be one of .* got 'conv'"),
        (lambda: Tokenizer((8, 8), queries="random"), "queries must be one of .* got 'random'"),
        (lambda: Tokenizer((8, 8), implementation="cuda"), "got 'cuda'"),
        (lambda: SuperpixelClassifier(3, heads=3)(tf.zeros([1, 2, 2, 4])), "3 heads, 4 channels"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
