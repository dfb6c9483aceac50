"""The paper's form of local attention, against the model's: two opinions that share no code."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.benchmarking import attention_forms
from sp_transformer.model import local_attention

# (R, C, h, w): even, odd, a single row, cells that are not square.
GRIDS = [(4, 4, 2, 2), (3, 5, 2, 3), (1, 4, 3, 1)]
SLICES = {
    "superpixel": attention_forms.slices_superpixel_attention,
    "pixel": attention_forms.slices_pixel_attention,
}
OURS = {
    "superpixel": local_attention.superpixel_attention,
    "pixel": local_attention.pixel_attention,
}


def draw(direction, grid, dtype="float32", batch=2, heads=2, size=3):
    rows, columns, cell_height, cell_width = grid
    superpixels = (batch, rows, columns, heads, size)
    pixels = (batch, rows * cell_height, columns * cell_width, heads, size)
    shapes = [superpixels, pixels, pixels]
    if direction == "pixel":
        shapes = [pixels, superpixels, superpixels]
    generator = np.random.default_rng(0)
    return [tf.cast(generator.normal(size=shape), dtype) for shape in shapes]


def outputs_and_gradients(function, inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(*inputs)
    weights = np.random.default_rng(1).normal(size=outputs.shape).astype(np.float32)
    return [outputs, *tape.gradient(outputs, inputs, tf.cast(weights, outputs.dtype))]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("direction", ["superpixel", "pixel"])
def test_slices_equal_gather_in_outputs_and_gradients(direction, grid):
    inputs = draw(direction, grid)
    expected = outputs_and_gradients(
        lambda *x: OURS[direction](*x, implementation="gather"), inputs
    )
    actual = outputs_and_gradients(SLICES[direction], inputs)
    for ours, slices in zip(expected, actual, strict=True):
        assert slices.dtype == tf.float32
        np.testing.assert_allclose(slices, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", ["superpixel", "pixel"])
def test_slices_take_an_unknown_batch_and_compile(direction):
    inputs = draw(direction, (3, 4, 2, 2))
    signature = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in inputs]
    compiled = tf.function(SLICES[direction], input_signature=signature, jit_compile=True)
    np.testing.assert_allclose(compiled(*inputs), SLICES[direction](*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", ["superpixel", "pixel"])
def test_slices_keep_bfloat16_and_stay_near_float32(direction):
    inputs = draw(direction, (3, 4, 2, 2), "bfloat16")
    exact = SLICES[direction](*(tf.cast(x, tf.float32) for x in inputs))
    rounded = SLICES[direction](*inputs)
    assert rounded.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(rounded, tf.float32), exact, atol=0.05)
