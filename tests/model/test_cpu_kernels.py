import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import cell_association, cpu_kernels
from sp_transformer.model.projection import Projection, gelu
from sp_transformer.model.superpixel_grid import SuperpixelGrid
from sp_transformer.model.tokenizer import Tokenizer


def compiled_functions(concrete):
    """Names of the functions of a graph that XLA is to compile."""
    library = concrete.graph.as_graph_def().library.function
    return [f.signature.name for f in library if f.attr["_XlaMustCompile"].b]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (None, 5)])
def test_fused_compiles_known_sizes_inside_the_context(inside, shape):
    @tf.function
    def run(x):
        return cpu_kernels.fused(gelu, x)

    with cpu_kernels.cpu_kernels() if inside else contextlib.nullcontext():
        concrete = run.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    assert bool(compiled_functions(concrete)) == (inside and None not in shape)
    x = np.linspace(-4, 4, 15, dtype=np.float32).reshape(3, 5)
    np.testing.assert_allclose(concrete(tf.constant(x)), gelu(x), rtol=1e-5, atol=1e-6)


def test_the_context_ends_with_an_error():
    with contextlib.suppress(KeyError), cpu_kernels.cpu_kernels():
        assert cpu_kernels.enabled()
        raise KeyError
    assert not cpu_kernels.enabled()


@pytest.mark.parametrize(("rows", "columns"), [(4, 3), (3, 5)])
def test_labels_and_superpixels_are_the_same_with_and_without(rows, columns):
    grid, view = SuperpixelGrid(rows, columns, 2, 2, 2), (8, 8)
    random = np.random.default_rng(rows)
    pixels = random.normal(size=(2, grid.tiles, grid.pixels_per_tile, 6)).astype(np.float32)
    superpixels = random.normal(size=(2, grid.cells, 6)).astype(np.float32)
    classes = random.normal(size=(2, grid.cells, 7)).astype(np.float32)

    @tf.function
    def maps(pixels, superpixels, classes):
        products = cell_association.ring_products(pixels, superpixels, grid, "aligned")
        return (
            cell_association.label_map(products, classes, grid, view),
            cell_association.superpixel_map(products, grid, view),
        )

    results = []
    for inside in (False, True):
        with cpu_kernels.cpu_kernels() if inside else contextlib.nullcontext():
            concrete = maps.get_concrete_function(pixels, superpixels, classes)
            results.append([x.numpy() for x in concrete(pixels, superpixels, classes)])
            assert len(compiled_functions(concrete)) == 2 * inside
        maps = tf.function(maps.python_function)
    for plain, fused in zip(*results, strict=True):
        assert plain.dtype == fused.dtype == np.int32
        np.testing.assert_array_equal(plain, fused)
        assert len(np.unique(plain)) > 3


def test_a_projection_behind_its_first_layer_is_the_same_with_and_without():
    layer = Projection(4, 6)
    layer.build((None, None, 3))
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 6)).astype(np.float32))
    plain = layer.after_first_layer(x)
    with cpu_kernels.cpu_kernels():
        concrete = tf.function(layer.after_first_layer).get_concrete_function(x)
    assert compiled_functions(concrete)
    np.testing.assert_allclose(concrete(x), plain, rtol=1e-5, atol=1e-6)


def small_tokenizer():
    keras.utils.set_random_seed(1)
    layer = Tokenizer((8, 12), cell_size=2, channels=8, position_embedding_stride=2)
    layer.build((None, None, None, 8))
    return layer


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [(8, 12), (6, 10)])
def test_a_tokenizer_keeps_what_depends_on_weights_alone(batch, size):
    layer = small_tokenizer()
    pixels = tf.random.stateless_normal((batch, *size, 8), (1, 2))
    plain = layer(pixels)
    with cpu_kernels.cpu_kernels():
        concrete = tf.function(layer).get_concrete_function(pixels)
    for found, expected in zip(concrete(pixels), plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    read = [id(tensor) for tensor in concrete.captured_inputs]
    first, second = (
        block.superpixel_query.hidden.kernel.value.handle for block in layer.cross_attentions
    )
    assert id(second) in read and id(first) not in read
    for table in (layer.pixel_position_table, layer.superpixel_position_table):
        assert id(table.value.handle) not in read


def test_a_tokenizer_of_unknown_size_computes_it_every_time():
    layer = small_tokenizer()
    pixels = tf.random.stateless_normal((1, 8, 12, 8), (1, 2))
    with cpu_kernels.cpu_kernels():
        concrete = tf.function(layer).get_concrete_function(tf.TensorSpec((None, None, None, 8)))
    plain = layer(pixels)
    for found, expected in zip(concrete(pixels), plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    layer.query_table.assign(layer.query_table + 1.0)
    assert np.max(np.abs(concrete(pixels)[1] - plain[1])) > 0.1
