"""Makes the slow references importable by name, and shows what becomes of a graph before it runs."""

import collections
import importlib.util
import pathlib

import numpy as np
import pytest


def _load(name):
    path = pathlib.Path(__file__).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reference():
    """The module attention_reference.py."""
    return _load("attention_reference")


@pytest.fixture(scope="session")
def layer_reference():
    """The module layer_reference.py."""
    return _load("layer_reference")


@pytest.fixture
def double_precision(monkeypatch):
    """Lets layers and inputs of float64 stay float64 where the model computes in float32 on purpose.

    Those places round to 1e-7, which would hide any fault of that size in a form that claims to be exact.
    """
    from sp_transformer.model import layer_normalization, local_attention, superpixel_grid

    class DoubleOps:
        """keras.ops, with float64 wherever float32 is asked for or comes in."""

        def __init__(self, ops):
            self._ops = ops

        def __getattr__(self, name):
            return getattr(self._ops, name)

        def cast(self, x, dtype):
            return self._ops.cast(x, "float64" if dtype == "float32" else dtype)

        def convert_to_tensor(self, x):
            return self._ops.convert_to_tensor(x, dtype="float64")

    for module in (layer_normalization, local_attention):
        monkeypatch.setattr(module, "ops", DoubleOps(module.ops))
    neighbor_mask = superpixel_grid.SuperpixelGrid.neighbor_mask
    monkeypatch.setattr(
        superpixel_grid.SuperpixelGrid,
        "neighbor_mask",
        lambda grid, heads=1: np.float64(neighbor_mask(grid, heads)),
    )


@pytest.fixture
def optimized_ops():
    """A function that calls a tf.function and counts the ops that TensorFlow's optimizer left of its graph."""
    from tensorflow.python.eager import context

    def count(function, *arguments):
        context.enable_graph_collection()
        try:
            function(*arguments)
            metadata = context.context().export_run_metadata()
        finally:
            context.disable_graph_collection()
        return collections.Counter(
            node.op for graph in metadata.partition_graphs for node in graph.node
        )

    return count
