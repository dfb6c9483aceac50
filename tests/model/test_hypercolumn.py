"""The hypercolumn's fast form against the form as written, and both against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model.hypercolumn import Hypercolumn
from sp_transformer.model.superpixel_grid import SuperpixelGrid

# (strides, output stride, image size): reductions by 4, 2 and 1, enlargements, and images that do not divide.
DIVIDING = [
    ((2, 8, 32), 8, (64, 96)),
    ((2, 8, 32), 4, (32, 96)),
    ((4, 8, 32), 8, (96, 32)),
    ((4, 8, 32), 4, (32, 64)),
]
CASES = [*DIVIDING, ((2, 8, 32), 8, (40, 56)), ((4, 8), 4, (20, 44)), ((4, 16), 8, (44, 36))]
# An endpoint of ceil(Y/stride) rows that reduces to another size than the finest one, which is rounded down.
ROUNDED = [((2, 8, 32), 8, (44, 68)), ((2, 4), 8, (46, 38))]
CASES += ROUNDED
CHANNELS = {2: 3, 4: 3, 8: 5, 16: 6, 32: 6}


def endpoints(strides, image_size, batch=2):
    generator = np.random.default_rng(0)
    return {
        stride: generator.normal(
            size=(batch, *(-(-side // stride) for side in image_size), CHANNELS[stride])
        )
        for stride in strides
    }


def layer_of(layer_reference, strides, output_stride, dtype="float32"):
    layer = Hypercolumn(strides, output_stride, channels=4, max_hidden_channels=8, dtype=dtype)
    layer.build({stride: (None, None, None, CHANNELS[stride]) for stride in strides})
    layer_reference.randomize(layer, scale=0.5)
    return layer


def output_and_gradients(layer, inputs, grid=None):
    """The map, and the gradients of a sum over it by endpoints and weights."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = layer(inputs, grid=grid)
        if grid is not None:
            output = grid.ungroup(output)
        loss = tf.reduce_sum(tf.sin(output))
    variables = [v.value for v in layer.trainable_weights]
    return output, tape.gradient(loss, [*inputs.values(), *variables])


def forms(layer, inputs, grid=None, run=output_and_gradients):
    """Results as written and of the fast form."""
    layer.as_written = True
    written = run(layer, inputs)
    layer.as_written = False
    return written, run(layer, inputs, grid)


def tensors(case):
    return {stride: tf.constant(x, tf.float32) for stride, x in endpoints(*case).items()}


@pytest.mark.parametrize(("strides", "output_stride", "size"), CASES, ids=str)
def test_fast_form_equals_the_form_as_written(strides, output_stride, size, layer_reference):
    layer = layer_of(layer_reference, strides, output_stride)
    written, fast = forms(layer, tensors((strides, size)))
    layer_reference.assert_close(fast[0], written[0], 1e-5)
    for pair in zip(fast[1], written[1], strict=True):
        layer_reference.assert_close(*pair, 1e-4)


@pytest.mark.parametrize("tile", [1, 2])
@pytest.mark.parametrize(("strides", "output_stride", "size"), DIVIDING, ids=str)
def test_regrouped_form_equals_the_map_as_written(
    strides, output_stride, size, tile, layer_reference
):
    layer = layer_of(layer_reference, strides, output_stride)
    cell = 32 // output_stride
    # 2x3, 1x3, 3x1 and 1x2 superpixels of 32x32 image pixels: odd sides leave tiles half empty.
    grid = SuperpixelGrid(size[0] // 32, size[1] // 32, cell, cell, tile)
    written, fast = forms(layer, tensors((strides, size)), grid)
    layer_reference.assert_close(fast[0], written[0], 1e-5)
    for pair in zip(fast[1], written[1], strict=True):
        layer_reference.assert_close(*pair, 1e-4)


def test_compiled_form_equals_the_form_as_written(layer_reference):
    layer = layer_of(layer_reference, (2, 8, 32), 8)
    grid = SuperpixelGrid(2, 3, 4, 4, 2)
    run = tf.function(output_and_gradients, jit_compile=True)
    written, fast = forms(layer, tensors(((2, 8, 32), (64, 96))), grid, run)
    layer_reference.assert_close(fast[0], written[0], 1e-5)
    for pair in zip(fast[1], written[1], strict=True):
        layer_reference.assert_close(*pair, 1e-4)


@pytest.mark.parametrize(("strides", "output_stride", "size"), CASES, ids=str)
def test_equals_numpy(strides, output_stride, size, layer_reference):
    layer = layer_of(layer_reference, strides, output_stride)
    inputs = endpoints(strides, size, batch=1)
    finest = min(strides)
    output_size = [-(-side // finest) * finest // output_stride for side in size]
    expected = layer_reference.hypercolumn(layer, inputs, output_size)
    low = {stride: tf.constant(x, tf.float32) for stride, x in inputs.items()}
    for actual in forms(layer, low, run=lambda layer, x, grid=None: layer(x)):
        layer_reference.assert_close(actual, expected, 1e-5)


def test_unknown_sizes_give_the_same(layer_reference):
    layer = layer_of(layer_reference, (2, 8, 32), 8)
    signature = {s: tf.TensorSpec([None, None, None, CHANNELS[s]]) for s in layer.strides}
    unknown = tf.function(lambda x: layer(x), input_signature=[signature])
    for size in [(64, 96), (32, 32)]:
        inputs = tensors(((2, 8, 32), size))
        layer_reference.assert_close(unknown(inputs), layer(inputs), 1e-6)


def test_fast_form_computes_less(layer_reference):
    """A reduction by 4 passes 4 of 16 positions through the hidden layer, and 1 of 16 through the last one."""
    layer = layer_of(layer_reference, (2,), 8)
    inputs = tensors(((2,), (64, 64)))

    def rows_of_products():
        graph = tf.function(lambda x: layer(x)).get_concrete_function(inputs).graph
        return [op.outputs[0].shape[0] for op in graph.get_operations() if op.type == "MatMul"]

    assert rows_of_products() == [2 * 16 * 16, 2 * 8 * 8]
    layer.as_written = True
    assert rows_of_products() == [2 * 32 * 32, 2 * 32 * 32]
