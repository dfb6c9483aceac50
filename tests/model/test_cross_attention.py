"""The cross-attention layer: the absorbed form against every projection on the pixels, and both against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import local_attention
from sp_transformer.model.cross_attention import CrossAttention
from sp_transformer.model.superpixel_grid import SuperpixelGrid

# (R, C, h, w): odd grids, one row, one column, a single superpixel, whole tiles; cells that are no squares.
GRIDS = [(3, 5, 2, 2), (1, 4, 3, 2), (5, 1, 1, 2), (1, 1, 4, 4), (4, 2, 2, 3)]
OPTIONS = [
    {"heads": 1},
    {"heads": 2},
    {"heads": 4},
    {"heads": 2, "feed_forward_width": 6},
    {"heads": 1, "projection": "linear"},
    {"heads": 2, "projection": "linear", "feed_forward_width": 6},
    {"heads": 4, "projection": "linear"},
]
# One odd grid for every option, every grid for the default; batches of one and two.
CASES = [((3, 5, 2, 2), options, 1 + index % 2) for index, options in enumerate(OPTIONS)]
CASES += [(grid, {"heads": 2}, 1 + index % 2) for index, grid in enumerate(GRIDS[1:])]
CHANNELS = 8


def tensors(grid, batch, seed=0):
    """Pixels, superpixels and their position embeddings, as maps in float64."""
    rows, columns, h, w = grid
    generator = np.random.default_rng(seed)
    maps = (rows * h, columns * w), (rows, columns)
    return [
        generator.normal(size=(size, *maps[index % 2], CHANNELS))
        for index, size in enumerate((batch, batch, 1, 1))
    ]


def layers(layer_reference, options, dtype="float32"):
    """{implementation: CrossAttention}, with the same weights."""
    result = {}
    for implementation in local_attention.IMPLEMENTATIONS:
        layer = CrossAttention(CHANNELS, implementation=implementation, dtype=dtype, **options)
        layer.build()
        # Larger weights than a fresh layer's: attention must be far from uniform.
        layer_reference.randomize(layer, scale=0.5)
        result[implementation] = layer
    return result


def apply(layer, grid, values):
    """(pixels, superpixels) as maps."""
    rows, columns, h, w = grid
    grid = SuperpixelGrid(rows, columns, h, w, local_attention.TILE[layer.implementation])

    def flat(x):
        return tf.reshape(x, [-1, grid.cells, CHANNELS])

    pixels, superpixels, pixel_position, superpixel_position = values
    pixels, superpixels = layer(
        grid.regroup(pixels), flat(superpixels), grid.regroup(pixel_position),
        flat(superpixel_position), grid=grid,
    )  # fmt: skip
    return grid.ungroup(pixels), tf.reshape(superpixels, [-1, rows, columns, CHANNELS])


def outputs_and_gradients(layer, grid, values):
    """Two outputs, and the gradients of a sum over them by four inputs and all weights."""
    values = [tf.cast(x, layer.compute_dtype) for x in values]
    with tf.GradientTape() as tape:
        tape.watch(values)
        outputs = apply(layer, grid, values)
        loss = tf.add_n([tf.reduce_sum(tf.sin(x)) for x in outputs])
    return outputs, tape.gradient(loss, [*values, *[v.value for v in layer.trainable_weights]])


def assert_same(layer_reference, actual, expected, tolerance, gradient_tolerance):
    for outputs in zip(actual[0], expected[0], strict=True):
        layer_reference.assert_close(*outputs, tolerance)
    # A gradient of nothing but rounding is measured by the others, not by itself.
    largest = max(np.abs(gradient).max() for gradient in expected[1])
    for fold, gather in zip(actual[1], expected[1], strict=True):
        bound = gradient_tolerance * max(np.abs(gather).max(), 1e-3 * largest)
        np.testing.assert_allclose(fold, gather, rtol=0, atol=bound)


@pytest.mark.parametrize(("grid", "options", "batch"), CASES, ids=str)
def test_absorbed_equals_every_projection_on_the_pixels_in_float64(
    grid, options, batch, layer_reference, double_precision
):
    values = tensors(grid, batch)
    results = {
        name: outputs_and_gradients(layer, grid, values)
        for name, layer in layers(layer_reference, options, "float64").items()
    }
    assert_same(layer_reference, results["fold"], results["gather"], 1e-12, 1e-10)


@pytest.mark.parametrize(
    ("options", "jit_compile"),
    [
        (OPTIONS[1], False),
        (OPTIONS[5], False),
        ({"heads": 2, "projection": "linear"}, True),
        pytest.param({"heads": 2}, True, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_absorbed_equals_every_projection_on_the_pixels_in_float32(
    options, jit_compile, layer_reference
):
    grid = (3, 5, 2, 2)
    values = tensors(grid, 2)
    run = outputs_and_gradients
    if jit_compile:
        run = tf.function(run, jit_compile=True)
    results = {
        name: run(layer, grid, values) for name, layer in layers(layer_reference, options).items()
    }
    assert_same(layer_reference, results["fold"], results["gather"], 1e-5, 1e-4)


@pytest.mark.parametrize("implementation", local_attention.IMPLEMENTATIONS)
@pytest.mark.parametrize(("grid", "options", "batch"), CASES, ids=str)
def test_equals_the_layer_written_out(
    grid, options, batch, implementation, layer_reference, reference
):
    layer = layers(layer_reference, options)[implementation]
    values = tensors(grid, batch)
    expected = layer_reference.cross_attention(layer, reference, *values)
    actual = apply(layer, grid, [tf.constant(x, tf.float32) for x in values])
    for pair in zip(actual, expected, strict=True):
        layer_reference.assert_close(*pair, 1e-5)


@pytest.mark.parametrize("options", [{"heads": 2}, OPTIONS[5]], ids=str)
def test_gradients_equal_differences_of_the_layer_written_out(
    options, layer_reference, reference, double_precision
):
    grid = (2, 3, 2, 1)
    layer = layers(layer_reference, options, "float64")["fold"]
    values = tensors(grid, 1)
    _, gradients = outputs_and_gradients(layer, grid, values)
    weights = [np.array(v) for v in layer.trainable_weights]

    def loss():
        for variable, value in zip(layer.trainable_weights, weights, strict=True):
            variable.assign(value)
        outputs = layer_reference.cross_attention(layer, reference, *values)
        return sum(np.sin(x).sum() for x in outputs)

    groups = [[value] for value in values] + [weights]
    by_group = [[gradient] for gradient in gradients[: len(values)]] + [gradients[len(values) :]]
    layer_reference.assert_gradients(loss, groups, by_group, 1e-6)


@pytest.mark.parametrize("options", [{"heads": 2}, {"heads": 2, "projection": "linear"}], ids=str)
def test_bias_of_pixel_keys_moves_nothing(options, layer_reference, double_precision):
    """It adds the same to all logits of a softmax; its gradient is there all the same, and zero."""
    grid, values = (3, 5, 2, 2), tensors((3, 5, 2, 2), 1)
    for layer in layers(layer_reference, options, "float64").values():
        outputs, gradients = outputs_and_gradients(layer, grid, values)
        bias = layer.pixel_key.output_layer.bias
        position = [v is bias for v in layer.trainable_weights].index(True)
        assert np.abs(gradients[len(values) + position]).max() < 1e-12
        bias.assign(bias + 3.0)
        moved, _ = outputs_and_gradients(layer, grid, values)
        for pair in zip(moved, outputs, strict=True):
            layer_reference.assert_close(*pair, 1e-12)


@pytest.mark.parametrize("implementation", local_attention.IMPLEMENTATIONS)
def test_grids_of_unknown_size_give_the_same(implementation, layer_reference):
    layer = layers(layer_reference, {"heads": 2})[implementation]
    grid, values = (3, 5, 2, 2), [tf.constant(x, tf.float32) for x in tensors((3, 5, 2, 2), 2)]

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, CHANNELS])] * 4)
    def unknown(*values):
        rows, columns = tf.unstack(tf.shape(values[1])[1:3])
        return apply(layer, (rows, columns, 2, 2), values)

    for pair in zip(unknown(*values), apply(layer, grid, values), strict=True):
        layer_reference.assert_close(*pair, 1e-6)


def test_unknown_implementation_is_named_before_anything_is_computed():
    with pytest.raises(
        ValueError, match=r"implementation must be one of fold, gather; got 'folded'"
    ):
        CrossAttention(CHANNELS, 2, implementation="folded")
    pixels, superpixels = tf.zeros([1, 1, 4, CHANNELS]), tf.zeros([1, 1, CHANNELS])
    with pytest.raises(ValueError, match="got 'folded'"):
        local_attention.attend_to_pixels(
            superpixels, pixels, pixels, SuperpixelGrid(1, 1, 2, 2), "folded"
        )
