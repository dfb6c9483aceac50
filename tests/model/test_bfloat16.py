"""bfloat16: how far the fast forms may be from float64, measured by how far the paper's form is."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import local_attention
from sp_transformer.model.cross_attention import CrossAttention
from sp_transformer.model.superpixel_grid import SuperpixelGrid

# Errors are random: over thousands of numbers, on a grid that fills no whole tiles, they average out.
ROWS, COLUMNS, CELL, CHANNELS, BATCH = 5, 7, 4, 32, 2
# No further from float64 than `gather` is, times this.
MARGIN = 1.3
KINDS = ("outputs", "gradients of inputs", "gradients of weights")


def rounded(generator, *shape):
    """Numbers that bfloat16 holds exactly, so that the forms' own rounding is all that is measured."""
    return tf.cast(tf.constant(generator.normal(size=shape), tf.bfloat16), tf.float64)


def with_gradients(function, inputs, upstreams, variables=()):
    """Lists of outputs, of the gradients of inputs, and of those of variables."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(*inputs)
        # The products are summed up in float64: that sum is no part of the form.
        loss = tf.add_n(
            [
                tf.reduce_sum(tf.cast(output, tf.float64) * upstream)
                for output, upstream in zip(outputs, upstreams, strict=True)
            ]
        )
    gradients = tape.gradient(loss, [*inputs, *variables])
    return list(outputs), gradients[: len(inputs)], gradients[len(inputs) :]


def assert_fold_is_as_good(layer_reference, fold, gather, exact):
    """Each output and each input's gradient on its own; weights' gradients together, few of them are numbers enough."""
    for kind, low, plain, true in zip(KINDS, fold, gather, exact, strict=True):
        groups = [[tensor] for tensor in range(len(true))]
        if kind == "gradients of weights":
            groups = [range(len(true))] if true else []
        for group in groups:
            error, allowed = (
                layer_reference.error_norm([x[i] for i in group], [true[i] for i in group])
                for x in (low, plain)
            )
            assert 0 < error <= MARGIN * allowed, (
                f"{kind} {list(group)}: {error:.2e} by fold, {allowed:.2e} by gather"
            )


def attention_case(path):
    """(function, inputs, upstream) with 2 heads."""
    generator = np.random.default_rng(0)
    superpixels = (BATCH, ROWS, COLUMNS, 2, CHANNELS // 2)
    pixels = (BATCH, ROWS * CELL, COLUMNS * CELL, 2, CHANNELS // 2)
    shapes = [superpixels, pixels, pixels]
    if path == "pixel":
        shapes = [pixels, superpixels, superpixels]
    function = getattr(local_attention, f"{path}_attention")
    inputs = [rounded(generator, *shape) for shape in shapes]
    return function, inputs, [rounded(generator, *shapes[0])]


def dense_attention(path, queries, keys, values):
    """Eqs. 3 and 4 with all pairs, those that are no neighbours masked; in the inputs' precision."""
    pixels = keys if path == "superpixel" else queries
    row = np.arange(pixels.shape[1])[None] // CELL - np.arange(ROWS)[:, None]
    column = np.arange(pixels.shape[2])[None] // CELL - np.arange(COLUMNS)[:, None]
    near = (np.abs(row) <= 1)[:, None, :, None] & (np.abs(column) <= 1)[None, :, None, :]
    near = near.reshape(ROWS * COLUMNS, -1)
    if path == "pixel":
        near = near.T
    batch, heads, size = queries.shape[0], queries.shape[3], queries.shape[4]
    q, k, v = (tf.reshape(x, [batch, -1, heads, size]) for x in (queries, keys, values))
    logits = tf.einsum("bqnd,bknd->bnqk", q, k) / size**0.5
    weights = tf.nn.softmax(tf.where(near, logits, -np.inf), axis=-1)
    return tf.reshape(tf.einsum("bnqk,bknd->bqnd", weights, v), queries.shape)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("path", ["superpixel", "pixel"])
def test_attention_by_fold_is_as_exact_as_by_gather(path, jit_compile, layer_reference):
    function, inputs, upstreams = attention_case(path)

    def run(function, inputs):
        outputs, gradients, _ = with_gradients(lambda *x: [function(*x)], inputs, upstreams)
        return outputs, gradients, []

    exact = run(lambda *x: dense_attention(path, *x), inputs)
    low = [tf.cast(x, tf.bfloat16) for x in inputs]
    results = []
    for implementation in local_attention.IMPLEMENTATIONS:
        attend = functools.partial(function, implementation=implementation)
        compiled = functools.partial(run, attend)
        if jit_compile:
            compiled = tf.function(compiled, jit_compile=True)
        results.append(compiled(low))
    assert_fold_is_as_good(layer_reference, *results, exact)


def cross_attention(implementation, options, dtype, layer_reference):
    layer = CrossAttention(CHANNELS, 2, implementation=implementation, dtype=dtype, **options)
    layer.build()
    layer_reference.randomize(layer, scale=CHANNELS**-0.5)
    for variable in layer.weights:
        variable.assign(tf.cast(tf.cast(variable.value, tf.bfloat16), variable.dtype))
    grid = SuperpixelGrid(ROWS, COLUMNS, CELL, CELL, local_attention.TILE[implementation])

    def run(pixels, superpixels, pixel_position, superpixel_position):
        pixels, superpixels = layer(
            grid.regroup(pixels), superpixels, grid.regroup(pixel_position), superpixel_position,
            grid=grid,
        )  # fmt: skip
        return grid.ungroup(pixels), superpixels

    return run, [v.value for v in layer.trainable_weights]


@pytest.mark.parametrize(
    ("options", "jit_compile"),
    [
        ({}, False),
        ({"projection": "linear", "feed_forward_width": 48}, False),
        pytest.param({"projection": "linear"}, True, marks=pytest.mark.slow),
        pytest.param({}, True, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_cross_attention_absorbed_is_as_exact_as_by_gather(
    options, jit_compile, layer_reference, request
):
    generator = np.random.default_rng(0)
    maps = (ROWS * CELL, COLUMNS * CELL, CHANNELS), (ROWS * COLUMNS, CHANNELS)
    inputs = [rounded(generator, size, *maps[i % 2]) for i, size in enumerate((BATCH, BATCH, 1, 1))]
    upstreams = [rounded(generator, BATCH, *shape) for shape in maps]
    low = [tf.cast(x, tf.bfloat16) for x in inputs]
    results = {}
    for implementation in local_attention.IMPLEMENTATIONS:
        function, variables = cross_attention(
            implementation, options, "mixed_bfloat16", layer_reference
        )

        def run(*x, function=function, variables=variables):
            return with_gradients(function, list(x), upstreams, variables)

        if jit_compile:
            run = tf.function(run, jit_compile=True)
        results[implementation] = run(*low)
    # Only now: the low precision's float32 places have to stay as they are.
    request.getfixturevalue("double_precision")
    function, variables = cross_attention("gather", options, "float64", layer_reference)
    exact = with_gradients(function, inputs, upstreams, variables)
    assert_fold_is_as_good(layer_reference, results["fold"], results["gather"], exact)
