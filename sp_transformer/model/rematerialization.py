"""Layers whose inner activations are computed again in the backward pass instead of being kept (arXiv:1604.06174).

tf.recompute_grad does not do for Keras 3 layers: the second forward pass would move BatchNorm's statistics once more
and draw other masks for drop path. Here both passes are pure functions of the layer's weights: state changes once, in
the first, and the second sees the random state that the first one had.
"""

import contextlib
import contextvars
import re

import keras
import tensorflow as tf

# Not among tf.raw_ops, and XLA has no other way to keep two equal computations apart.
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from sp_transformer.model import custom_gradient

# Name scope of each layer's two passes in a graph.
_SCOPE = "rematerialized"
_BY_XLA = contextvars.ContextVar("compiled_by_xla", default=False)


@contextlib.contextmanager
def compiled_by_xla(compiled=True):
    """Tells `call` and `ordered_after` whether XLA compiles what is traced here."""
    token = _BY_XLA.set(compiled)
    try:
        yield
    finally:
        _BY_XLA.reset(token)


def call(layer, *inputs, **kwargs):
    """`layer(*inputs, **kwargs)`, of which only inputs and outputs are kept for the backward pass.

    Args:
      layer: a built layer.
      *inputs: tensors, or None.
      **kwargs: whatever else the layer takes; no gradient reaches it.

    Returns:
      What the layer returns: a tensor, or a nest of them.
    """
    given = [x is not None for x in inputs]
    tensors = [tf.convert_to_tensor(x) for x in inputs if x is not None]
    trained = layer.trainable_variables
    state = layer.non_trainable_variables
    # Read here, where a replica's part of a variable is that of its own device and the outer tape sees the reading.
    values = [tf.convert_to_tensor(v.value) for v in trained]
    before = [tf.identity(v.value) for v in state]
    changes = {}

    def forward(tensors, values):
        mapping = [*zip(trained, values, strict=True), *zip(state, before, strict=True)]
        with keras.StatelessScope(state_mapping=mapping) as scope, tf.name_scope(_SCOPE):
            rest = iter(tensors)
            outputs = layer(*[next(rest) if there else None for there in given], **kwargs)
        return outputs, [scope.get_current_value(v) for v in state]

    @custom_gradient.custom_gradient
    def run(*arguments):
        outputs, after = forward(arguments[: len(tensors)], arguments[len(tensors) :])
        changes.update({i: value for i, value in enumerate(after) if value is not before[i]})

        def backward(*gradients):
            # Or else the second pass would run beside the first.
            again = ordered_after(gradients, arguments)
            with tf.GradientTape() as tape:
                tape.watch(again)
                recomputed, _ = forward(again[: len(tensors)], again[len(tensors) :])
                recomputed = tf.nest.flatten(recomputed)
            return tape.gradient(
                recomputed,
                again,
                output_gradients=list(gradients),
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )

        return outputs, backward

    outputs = run(*tensors, *values)
    for index, value in changes.items():
        state[index].assign(value)
    return outputs


def ordered_after(done, tensors):
    """The same `tensors`, which exist only once all of `done` do, so that what uses them does not run beside it."""
    if _BY_XLA.get():
        # XLA knows no control dependencies.
        return list(gen_xla_ops.xla_optimization_barrier([*tensors, *done])[: len(tensors)])
    with tf.control_dependencies(done):
        return [tf.identity(tensor) for tensor in tensors]


def scope_of(name):
    """The scope of the `call` that an operation of this name is inside of, or None."""
    match = re.match(rf"(?:.*?/)?{_SCOPE}(?:_\d+)?(?=/)", name)
    return match and match[0]


__all__ = ["call", "compiled_by_xla", "ordered_after", "scope_of"]
