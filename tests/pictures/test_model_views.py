import numpy as np
import pytest
from google.protobuf import text_format

from sp_transformer.model import builder
from sp_transformer.pictures import model_views
from sp_transformer.protos import experiment_pb2

CONFIG = """
data { dataset: "synthetic_streets" crop_height: 48 crop_width: 64 }
model {
  channels: 16
  backbone { name: "resnet18" }
  hypercolumn { stride: 8 endpoint_strides: 2 endpoint_strides: 8 endpoint_strides: 16 }
  tokenizer { superpixel_stride: 16 position_embedding_stride: 2 }
  classifier { layers: 2 feed_forward_width: 24 }
}
"""
HEADS = 4
SIZES = [(16, 32), (37, 53), (1, 1)]


@pytest.fixture(scope="module")
def model():
    model = builder.build_model(text_format.Parse(CONFIG, experiment_pb2.ExperimentOptions()))
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign_add(generator.normal(size=variable.shape) * 0.1)
    return model


def image(size):
    return np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def slow_association(model, x):
    """{(y, x): {id: probability}} from products interpolated for each pixel and superpixel of its own."""
    features = model.features(x[None])
    pixels = model.pixel_map(features)[0].numpy().astype(np.float64)
    superpixels = features["superpixel_features"][0].numpy().astype(np.float64)
    rows, columns, channels = superpixels.shape
    found = {}
    for y in range(x.shape[0]):
        for left in range(x.shape[1]):
            row, column = y // 16, left // 16
            feature = bilinear(pixels, (y + 0.5) / 8 - 0.5, (left + 0.5) / 8 - 0.5)
            ids, logits = [], []
            for r in range(max(0, row - 1), min(rows, row + 2)):
                for c in range(max(0, column - 1), min(columns, column + 2)):
                    ids.append(r * columns + c)
                    logits.append(feature @ superpixels[r, c] / channels**0.5)
            found[y, left] = dict(zip(ids, softmax(np.array(logits)), strict=True))
    return found


def bilinear(pixels, y, x):
    height, width = pixels.shape[:2]
    y0, x0 = int(np.floor(y)), int(np.floor(x))
    total = 0
    for row, weight_y in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
        for column, weight_x in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
            total += (
                weight_y
                * weight_x
                * pixels[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
            )
    return total


@pytest.mark.parametrize("size", SIZES)
def test_association_and_assignment_match_a_slow_recomputation(model, size):
    x = image(size)
    expected = slow_association(model, x)
    rows, columns = model_views.grid_of(model, x)
    assert (rows, columns) == (-(-size[0] // 16), -(-size[1] // 16))
    for pixel in {(0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 3)}:
        found = model_views.association_of_pixel(model, x, pixel)
        assert found.pixel == pixel and found.probabilities.sum() == pytest.approx(1, abs=1e-6)
        pairs = zip(found.superpixels.flat, found.probabilities.flat, strict=True)
        inside = {int(i): p for i, p in pairs if i >= 0}
        assert inside == pytest.approx(expected[pixel], abs=1e-5)
        assert (found.probabilities[found.superpixels < 0] == 0).all()
    total = np.zeros(size)
    for cell in np.ndindex(rows, columns):
        found = model_views.assignment_of_superpixel(model, x, cell)
        index = cell[0] * columns + cell[1]
        slow = np.array(
            [[expected[y, left].get(index, 0) for left in range(size[1])] for y in range(size[0])]
        )
        np.testing.assert_allclose(found, slow, atol=1e-5)
        total += found
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_most_probable_superpixel_is_the_hard_one(model):
    x = image((37, 53))
    ids = model.hard_superpixels(model.features(x[None]))[0].numpy()
    for pixel in [(0, 0), (20, 31), (36, 52)]:
        found = model_views.association_of_pixel(model, x, pixel)
        assert found.superpixels.flat[found.probabilities.argmax()] == ids[pixel]


@pytest.mark.parametrize("size", SIZES)
def test_attention_matches_a_slow_recomputation(model, size):
    x = image(size)
    tokens = model.superpixel_tokens(x[None])
    rows, columns = tokens.shape[1:3]
    current = tokens.numpy().reshape(rows * columns, -1)
    cell = (rows - 1, columns // 2)
    token = cell[0] * columns + cell[1]
    for layer, attention in enumerate(model.classifier.self_attentions):
        y = attention.norm(current[None])[0].numpy().astype(np.float64)
        queries, keys = (
            y @ part.kernel.numpy().astype(np.float64) + part.bias.numpy()
            for part in (attention.query, attention.key)
        )
        by_head = []
        for head in range(HEADS):
            channels = slice(head * 4, head * 4 + 4)
            weights = softmax(queries[token, channels] @ keys[:, channels].T / 2)
            by_head.append(weights.reshape(rows, columns))
            found = model_views.attention_of_superpixel(model, x, cell, layer, head)
            np.testing.assert_allclose(found, by_head[-1], atol=1e-5)
        mean = model_views.attention_of_superpixel(model, x, cell, layer)
        assert mean.shape == (rows, columns) and mean.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(mean, np.mean(by_head, axis=0), atol=1e-5)
        current = model.classifier.feed_forwards[layer](attention(current[None]))[0].numpy()
    np.testing.assert_array_equal(
        mean, model_views.attention_of_superpixel(model, x, cell)
    )  # The last layer by default.


def test_confidence_is_the_probability_of_the_predicted_class(model):
    logits = model(image((48, 64))[None], training=False)["semantic_logits"].numpy()
    found = model_views.confidence(logits)
    np.testing.assert_allclose(found, softmax(logits.astype(np.float64)).max(-1), atol=1e-6)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("association_of_pixel", [(37, 0)], r"pixel \(37, 0\) lies outside the image.*37x53"),
        ("association_of_pixel", [(0, -1)], r"pixel \(0, -1\)"),
        ("assignment_of_superpixel", [(0, 4)], r"\(0, 4\) lies outside the grid, which is 3x4"),
        ("attention_of_superpixel", [(3, 0)], r"\(3, 0\) lies outside the grid"),
        ("attention_of_superpixel", [(0, 0), 2], "layer 2 is none of the 2"),
        ("attention_of_superpixel", [(0, 0), 0, 4], "head 4 is none of the 4"),
    ],
)
def test_what_is_not_there_is_refused(model, function, arguments, words):
    with pytest.raises(ValueError, match=words):
        getattr(model_views, function)(model, image((37, 53)), *arguments)
