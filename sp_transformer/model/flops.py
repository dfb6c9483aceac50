"""Multiply-adds and kept activations of a traced function, read off its graph; nothing is executed.

Multiply-adds are counted as DeepLab2 publishes them (docs/model.md, "Counts"): the float operations of
TF1's profiler // 2, with Einsum counted and grouped convolutions left out (they stand apart here);
BatchNorm counts nothing because inference folds it into the convolutions, and resizes, gathers and
transcendental functions count nothing because the profiler knows no rule for them.
"""

import collections
import dataclasses
import itertools
import math
import re

import keras
import tensorflow as tf

from sp_transformer.model import rematerialization

# Float operations per element of the first input, then of the output, as the profiler has them.
_PER_INPUT = {
    "Reciprocal": 1,
    "Square": 1,
    "Log": 1,
    "Neg": 1,
    "Rsqrt": 2,
    "Softmax": 5,
    "BiasAdd": 1,
    "Mean": 1,
}
_PER_OUTPUT = dict.fromkeys(
    (
        "Add",
        "AddV2",
        "Sub",
        "Mul",
        "RealDiv",
        "Maximum",
        "Minimum",
        "Pow",
        "GreaterEqual",
        "Greater",
        "LessEqual",
        "Less",
        "Equal",
        "NotEqual",
    ),
    1,
) | {"SquaredDifference": 2}
_REDUCTIONS = ("Sum", "ArgMax", "ArgMin")
_POOLS = ("AvgPool", "MaxPool")
_MATMULS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
_CALL_ATTRIBUTES = {
    "PartitionedCall": ("f",),
    "StatefulPartitionedCall": ("f",),
    "While": ("cond", "body"),
    "StatelessWhile": ("cond", "body"),
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
}
UNSCOPED = "input"

# Gradients that read all inputs; products read an input only for the other's sake.
_PRODUCTS = ("Conv2D", "DepthwiseConv2dNative", "Mul", "Einsum", *_MATMULS)
_READ_INPUTS = (
    "SquaredDifference",
    "Square",
    "Erf",
    "Erfc",
    "Log",
    "Maximum",
    "Minimum",
    "Pow",
    "RealDiv",
    "MaxPool",
    "FusedBatchNormV3",
    "Softplus",
    "Abs",
)
_READ_OUTPUT = (
    "Relu",
    "Relu6",
    "Softmax",
    "LogSoftmax",
    "Rsqrt",
    "Sqrt",
    "Exp",
    "Tanh",
    "Sigmoid",
    "Elu",
    "Selu",
    "Reciprocal",
    "MaxPool",
)
_ALIASES = (
    "Identity",
    "IdentityN",
    "Reshape",
    "ExpandDims",
    "Squeeze",
    "StopGradient",
    "CheckNumerics",
    "PreventGradient",
)


@dataclasses.dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds of one function.

    Attributes:
      by_part: {part: multiply-adds by the rule}, ops outside all parts under UNSCOPED.
      grouped_by_part: The same for grouped and depthwise convolutions, which `by_part` leaves out.
    """

    by_part: dict[str, int]
    grouped_by_part: dict[str, int]

    @property
    def total(self):
        return sum(self.by_part.values())

    @property
    def grouped(self):
        return sum(self.grouped_by_part.values())


def trace(function, *specs):
    """Traces a Python function into a concrete function, without running it."""
    return tf.function(function, autograph=False).get_concrete_function(*specs)


def batch_norm_names(model):
    """Names of a model's BatchNormalization layers, which their ops carry as a scope."""
    return {
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    }


def count_multiply_adds(concrete, parts=(), folded=(), trailing_part=None):
    """Counts the multiply-adds of a concrete function with static shapes.

    Args:
      concrete: A tf ConcreteFunction, from `trace`. Bodies of loops count once: the number of turns
        is not in the graph.
      parts: Names of layers whose call scopes the count is grouped by.
      folded: Names of layers that count nothing; see `batch_norm_names`.
      trailing_part: The part that ops outside all scopes belong to if they come after the last
        scoped op; the others are counted under UNSCOPED.

    Returns:
      MultiplyAdds, with an entry for each of `parts`.

    Raises:
      ValueError: An op that counts has a shape that is not static.
    """
    operations = concrete.graph.get_operations()
    owners = [_owner(operation.name, parts) for operation in operations]
    last_scoped = max((i for i, owner in enumerate(owners) if owner), default=-1)
    float_ops, grouped = collections.Counter(), collections.Counter()
    for index, (operation, owner) in enumerate(zip(operations, owners, strict=True)):
        part = owner or (trailing_part if trailing_part and index > last_scoped else UNSCOPED)
        _count(operation, part, set(folded), float_ops, grouped)
    names = [*parts, *sorted({*float_ops, *grouped} - set(parts))]
    return MultiplyAdds(
        {name: float_ops[name] // 2 for name in names},
        {name: grouped[name] // 2 for name in names},
    )


def kept_activation_bytes(concrete, trained=None, behind=0):
    """Bytes of the forward tensors that the backward pass reads, for the batch size traced.

    A tensor is counted once if it depends on the function's inputs, is of a floating type, and the
    gradient of an op that uses it reads it: products (convolution, matmul, multiplication) keep an
    input if the other input needs a gradient; squares, GELU and max-pool keep their input; ReLU,
    softmax and reciprocal roots keep their output. Reshapes share their input's memory. Of a layer
    that is rematerialized the inputs are kept; its inner tensors are there once more while its
    gradient is taken, when what is kept behind it is free again. Left out: temporaries, and what XLA
    fuses or recomputes.

    Args:
      concrete: A tf ConcreteFunction of the forward pass in training mode.
      trained: The tf.Variables that gradients are taken by; default: those of `concrete` that were
        created trainable. Keras does not tell its variables' when a layer is frozen.
      behind: Bytes that whatever uses the outputs keeps, the loss for one.

    Returns:
      Bytes at the most, as an int.
    """
    graph = concrete.graph
    trained = concrete.trainable_variables if trained is None else trained
    handles = {id(variable.handle) for variable in trained}
    differentiable = {inner.name for outer, inner in graph.captures if id(outer) in handles}
    captured = {tensor.name for tensor in graph.internal_captures}
    varies, source, maker = set(), {}, {}
    kept, inside, kept_before = {}, collections.defaultdict(dict), {}

    def keep(tensors, where):
        for tensor in tensors:
            if tensor.name in varies and tensor.dtype.is_floating:
                where[tensor.name] = _elements(tensor) * tensor.dtype.size

    for operation in graph.get_operations():
        inputs = [source.get(tensor.name, tensor) for tensor in operation.inputs]
        if operation.type == "Placeholder":
            varies.update(t.name for t in operation.outputs if t.name not in captured)
        elif any(tensor.name in varies for tensor in inputs):
            varies.update(tensor.name for tensor in operation.outputs)
        differentiable.update(_differentiable_outputs(operation, differentiable))
        if operation.type in _ALIASES:
            for output, tensor in zip(operation.outputs, inputs, strict=False):
                source[output.name] = tensor
        layer = rematerialization.scope_of(operation.name)
        maker.update((tensor.name, layer) for tensor in operation.outputs)
        read = _read_by_gradient(operation, inputs, differentiable)
        if layer is None:
            keep(read, kept)
        else:
            keep([tensor for tensor in inputs if maker[tensor.name] != layer], kept)
            keep([tensor for tensor in read if maker[tensor.name] == layer], inside[layer])
            kept_before[layer] = len(kept)
    totals = list(itertools.accumulate(kept.values(), initial=0))
    recomputed = [
        totals[count] + sum(inside[layer].values()) for layer, count in kept_before.items()
    ]
    return max(totals[-1] + behind, *recomputed, 0)


def _differentiable_outputs(operation, differentiable):
    if operation.type == "StopGradient":
        return []
    flags = [tensor.name in differentiable for tensor in operation.inputs]
    if operation.type in _ALIASES:
        # A custom gradient's IdentityN has results and arguments side by side.
        pairs = zip(operation.outputs, flags, strict=False)
        return [tensor.name for tensor, is_differentiable in pairs if is_differentiable]
    return [tensor.name for tensor in operation.outputs] if any(flags) else []


def _read_by_gradient(operation, inputs, differentiable):
    """Tensors, out of `inputs` (aliases resolved) and the outputs."""
    if not any(tensor.name in differentiable for tensor in operation.outputs):
        return []
    read = []
    if operation.type in _PRODUCTS:
        # Not by `inputs`: behind a StopGradient there is none, though the memory is the same.
        flags = [tensor.name in differentiable for tensor in operation.inputs]
        read = [
            tensor
            for index, tensor in enumerate(inputs)
            if any(flag for i, flag in enumerate(flags) if i != index)
        ]
    elif operation.type in _READ_INPUTS:
        read = list(inputs)
    if operation.type in _READ_OUTPUT:
        read.append(operation.outputs[0])
    return read


def _owner(name, parts):
    for component in name.split("/"):
        # Keras and TensorFlow make scopes unique by appending _1, _2, ...
        if component in parts:
            return component
        stripped = re.sub(r"(_\d+)+$", "", component)
        if stripped in parts:
            return stripped
    return None


def _is_folded(name, folded):
    components = name.split("/")
    return any(
        component == layer or re.fullmatch(re.escape(layer) + r"(_\d+)+", component)
        for component in components
        for layer in folded
    )


def _count(operation, part, folded, float_ops, grouped):
    for attribute in _CALL_ATTRIBUTES.get(operation.type, ()):
        name = operation.get_attr(attribute).name
        # A nested graph does not repeat the caller's scopes: its ops belong to the caller's part.
        for inner in _function_graph(operation.graph, name).get_operations():
            _count(inner, part, folded, float_ops, grouped)
    amount, is_grouped = _float_operations(operation)
    if amount and not (folded and _is_folded(operation.name, folded)):
        (grouped if is_grouped else float_ops)[part] += amount


def _function_graph(graph, name):
    while graph is not None:
        function = graph._get_function(name)
        if function is not None:
            return function.graph
        graph = getattr(graph, "outer_graph", None)
    raise ValueError(f"the graph calls function {name!r}, which it does not hold")


def _float_operations(operation):
    """(Float operations, whether it is a grouped convolution) of one op."""
    kind = operation.type
    if kind in _PER_INPUT:
        return _PER_INPUT[kind] * _elements(operation.inputs[0]), False
    if kind in _PER_OUTPUT:
        return _PER_OUTPUT[kind] * _elements(operation.outputs[0]), False
    if kind in _REDUCTIONS:
        return _elements(operation.inputs[0]) - _elements(operation.outputs[0]), False
    if kind in _POOLS:
        window = math.prod(operation.get_attr("ksize"))
        return window * _elements(operation.outputs[0]), False
    if kind == "AddN":
        return (len(operation.inputs) - 1) * _elements(operation.inputs[0]), False
    if kind == "L2Loss":
        return 3 * _elements(operation.inputs[0]) - 1, False
    if kind in _MATMULS:
        transposed = operation.get_attr("transpose_a" if kind == "MatMul" else "adj_x")
        depth = operation.inputs[0].shape[-2 if transposed else -1]
        return 2 * depth * _elements(operation.outputs[0]), False
    if kind == "Einsum":
        return 2 * _einsum_products(operation), False
    if kind == "Conv2D":
        kernel = operation.inputs[1].shape
        channels_axis = 1 if operation.get_attr("data_format") == b"NCHW" else -1
        products = math.prod(kernel[:3]) * _elements(operation.outputs[0])
        return 2 * products, operation.inputs[0].shape[channels_axis] != kernel[2]
    if kind == "DepthwiseConv2dNative":
        kernel = operation.inputs[1].shape
        return 2 * math.prod(kernel[:2]) * _elements(operation.outputs[0]), True
    return 0, False


def _einsum_products(operation):
    equation = operation.get_attr("equation").decode()
    sizes = {}
    for labels, tensor in zip(equation.split("->")[0].split(","), operation.inputs, strict=True):
        head, dots, tail = labels.partition("...")
        if dots:
            count = tensor.shape.rank - len(head) - len(tail)
            # Broadcast axes align at the right.
            middle = [f"...{count - axis}" for axis in range(count)]
            names = [*head, *middle, *tail]
        else:
            names = list(labels)
        for name, size in zip(names, tensor.shape, strict=True):
            sizes[name] = max(sizes.get(name, 1), size)
    return math.prod(sizes.values())


def _elements(tensor):
    if not tensor.shape.is_fully_defined():
        raise ValueError(
            f"{tensor.name} has shape {tensor.shape}; counting needs static shapes, so trace with "
            "a fixed batch and image size"
        )
    return tensor.shape.num_elements()


__all__ = [
    "UNSCOPED",
    "MultiplyAdds",
    "batch_norm_names",
    "count_multiply_adds",
    "kept_activation_bytes",
    "trace",
]
