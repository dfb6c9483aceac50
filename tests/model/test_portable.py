"""What is traced for converters: the same maps, and nothing that converters drop."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import cell_association, portable
from sp_transformer.model.superpixel_grid import SuperpixelGrid


@pytest.mark.parametrize("rows", [4, 3])
def test_maps_are_the_same_without_a_loop(rows):
    grid, view = SuperpixelGrid(rows, 5, 2, 3), (4, 6)
    generator = np.random.default_rng(1)
    ring = (grid.cell_height + 2) * (grid.cell_width + 2)
    products = generator.normal(size=(2, grid.cells, 9, ring)).astype(np.float32)
    classes = generator.normal(size=(2, grid.cells, 7)).astype(np.float32)

    def maps(products, classes):
        labels = cell_association.label_map(products, classes, grid, view)
        return labels, cell_association.superpixel_map(products, grid, view)

    specs = [tf.TensorSpec(products.shape), tf.TensorSpec(classes.shape)]
    plain = tf.function(maps, input_signature=specs).get_concrete_function()
    with portable.portable():
        flat = tf.function(maps, input_signature=specs).get_concrete_function()
    kinds = {node.type for node in flat.graph.get_operations()}
    assert not any("While" in kind or "TensorList" in kind for kind in kinds)
    assert any("While" in node.type for node in plain.graph.get_operations())
    tensors = tf.constant(products), tf.constant(classes)
    for expected, found in zip(plain(*tensors), flat(*tensors), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not portable.enabled()
