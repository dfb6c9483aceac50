import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import local_attention

# (R, C, h, w): odd grids, one row, one column, a single superpixel, cells from 1x1 to 8x8.
GRIDS = [
    (2, 4, 2, 3),
    (3, 5, 1, 1),
    (1, 4, 3, 2),
    (5, 1, 2, 2),
    (1, 1, 4, 4),
    (3, 2, 4, 4),
    (2, 3, 8, 8),
    (4, 4, 2, 2),
]
BATCH, HEADS, SIZE = 2, 2, 3


def inputs(grid, seed=0):
    rows, columns, h, w = grid
    generator = np.random.default_rng(seed)

    def normal(*shape):
        return generator.normal(size=shape) * 2

    superpixels = (BATCH, rows, columns, HEADS, SIZE)
    pixels = (BATCH, rows * h, columns * w, HEADS, SIZE)
    return normal, superpixels, pixels


def case(path, grid):
    """(function, reference name, [queries, keys, values])."""
    normal, superpixels, pixels = inputs(grid)
    if path == "superpixel":
        return local_attention.superpixel_attention, [
            normal(*superpixels),
            normal(*pixels),
            normal(*pixels),
        ]
    return local_attention.pixel_attention, [
        normal(*pixels),
        normal(*superpixels),
        normal(*superpixels),
    ]


@pytest.mark.parametrize("implementation", local_attention.IMPLEMENTATIONS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("path", ["superpixel", "pixel"])
def test_forward_equals_loops(path, grid, implementation, reference):
    function, arguments = case(path, grid)
    expected = getattr(reference, f"{path}_attention")(*arguments)
    actual = function(*[x.astype(np.float32) for x in arguments], implementation=implementation)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("implementation", local_attention.IMPLEMENTATIONS)
@pytest.mark.parametrize(
    "grid", [(2, 2, 2, 1), (3, 5, 1, 1), (1, 4, 3, 2), (3, 1, 1, 2), (1, 2, 8, 8)], ids=str
)
@pytest.mark.parametrize("path", ["superpixel", "pixel"])
def test_gradients_equal_differences_of_loops(path, grid, implementation, reference):
    function, arguments = case(path, grid)
    slow = getattr(reference, f"{path}_attention")
    upstream = np.random.default_rng(1).normal(size=arguments[0].shape)
    variables = [tf.constant(x, tf.float32) for x in arguments]
    with tf.GradientTape() as tape:
        tape.watch(variables)
        loss = tf.reduce_sum(function(*variables, implementation=implementation) * upstream)
    gradients = tape.gradient(loss, variables)
    step = 1e-5
    generator = np.random.default_rng(2)
    for position, gradient in enumerate(gradients):
        largest = np.abs(gradient).max()
        for flat in generator.choice(gradient.shape.num_elements(), 8, replace=False):
            index = np.unravel_index(flat, gradient.shape)
            ends = []
            for sign in (-1, 1):
                moved = [x.copy() for x in arguments]
                moved[position][index] += sign * step
                ends.append(np.sum(slow(*moved) * upstream))
            expected = (ends[1] - ends[0]) / (2 * step)
            np.testing.assert_allclose(
                gradient[index].numpy(), expected, rtol=1e-4, atol=1e-4 * largest
            )


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("path", ["superpixel", "pixel"])
def test_fold_equals_gather_with_all_gradients(path, grid):
    function, arguments = case(path, grid)
    variables = [tf.constant(x, tf.float32) for x in arguments]
    results = {}
    for implementation in local_attention.IMPLEMENTATIONS:
        with tf.GradientTape() as tape:
            tape.watch(variables)
            output = function(*variables, implementation=implementation)
            loss = tf.reduce_sum(tf.sin(output))
        results[implementation] = [output, *tape.gradient(loss, variables)]
    for fold, gather in zip(results["fold"], results["gather"], strict=True):
        scale = np.abs(gather).max()
        np.testing.assert_allclose(fold, gather, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("path", ["superpixel", "pixel"])
def test_large_logits_stay_finite(path):
    function, arguments = case(path, (3, 3, 2, 2))
    arguments = [tf.constant(x * 1e3, tf.float32) for x in arguments]
    for implementation in local_attention.IMPLEMENTATIONS:
        assert np.isfinite(function(*arguments, implementation=implementation)).all()


def test_outside_neighbors_have_weight_zero():
    """With equal keys everywhere a corner averages its 4 existing cells; zeros from outside would pull it down."""
    queries = tf.ones([1, 3, 3, 1, 2])
    pixels = tf.ones([1, 6, 6, 1, 2])
    for implementation in local_attention.IMPLEMENTATIONS:
        attended = local_attention.superpixel_attention(queries, pixels, pixels, implementation)
        np.testing.assert_allclose(attended, np.ones([1, 3, 3, 1, 2]), rtol=1e-6)
        attended = local_attention.pixel_attention(pixels, queries, queries, implementation)
        np.testing.assert_allclose(attended, np.ones([1, 6, 6, 1, 2]), rtol=1e-6)


@pytest.mark.parametrize("path", ["superpixel", "pixel"])
def test_bfloat16_and_compiled(path, reference):
    function, arguments = case(path, (3, 4, 2, 2))
    expected = getattr(reference, f"{path}_attention")(*arguments)
    for implementation in local_attention.IMPLEMENTATIONS:
        compiled = tf.function(function, jit_compile=True)
        actual = compiled(
            *[tf.constant(x, tf.float32) for x in arguments], implementation=implementation
        )
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
        actual = function(
            *[tf.constant(x, tf.bfloat16) for x in arguments], implementation=implementation
        )
        assert actual.dtype == tf.bfloat16
        error = np.abs(tf.cast(actual, tf.float64) - expected)
        assert np.sqrt(np.mean(error**2)) < 0.03 * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize(
    ("queries", "keys", "implementation", "message"),
    [
        ((1, 2, 2, 1, 4), (1, 5, 4, 1, 4), "fold", "5x4 does not divide into 2x2"),
        ((1, 2, 2, 1, 4), (1, 4, 4, 2, 4), "fold", "agree in heads"),
        ((1, 2, 2, 4), (1, 4, 4, 1, 4), "fold", r"must be \[B, R, C, N, D\]"),
        ((1, 2, 2, 1, 4), (1, 4, 4, 1, 4), "slices", "fold, gather; got 'slices'"),
    ],
)
def test_bad_input_is_named(queries, keys, implementation, message):
    with pytest.raises(ValueError, match=message):
        local_attention.superpixel_attention(
            tf.zeros(queries), tf.zeros(keys), tf.zeros(keys), implementation
        )
