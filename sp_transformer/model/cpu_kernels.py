"""How an inference form is traced for CPUs: with TensorFlow's hidden kernels, and pieces of it compiled by XLA.

TensorFlow's own CPU kernels are the faster ones for products, but pass over a tensor once for every operation between
them. XLA joins such operations to one pass.
"""

import contextlib
import contextvars

import tensorflow as tf

_enabled = contextvars.ContextVar("cpu_kernels", default=False)


@contextlib.contextmanager
def cpu_kernels():
    """What is traced inside is for inference on CPUs only: no gradient, no accelerator, no other format.

    It keeps some of the weights as they are at that moment; trace anew when they change.
    """
    token = _enabled.set(True)
    try:
        yield
    finally:
        _enabled.reset(token)


def enabled() -> bool:
    """Whether the caller is traced inside `cpu_kernels`."""
    return _enabled.get()


def constant(function):
    """function(), inside `cpu_kernels` computed once, with the weights of this moment, and not in the graph.

    Args:
      function: without arguments, of nothing that the graph under construction holds.
    """
    if not enabled():
        return function()
    with tf.init_scope():
        return function()


def fused(function, *tensors):
    """function(*tensors), inside `cpu_kernels` compiled by XLA.

    Args:
      function: of as many tensors, to one.
      tensors: if one of them has a side of unknown length, nothing is compiled: XLA would do so again for every size
        that it meets, which takes longer than a few images gain.
    """
    if not enabled() or not all(tensor.shape.is_fully_defined() for tensor in tensors):
        return function(*tensors)
    return tf.function(function, jit_compile=True)(*tensors)
