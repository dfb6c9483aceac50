"""What keeps a traced function off a TPU: shapes that are not known, and ops that have no kernel there."""

import fnmatch

import tensorflow as tf

# By what was lowered for the platform TPU with tensorflow-tpu 2.20 (docs/tpu.md): the first group runs on hosts only or
# has no kernel, the second makes shapes depend on values. Patterns of op types.
NO_KERNEL = (
    "*PyFunc*",
    "Print*",
    "Decode*",
    "Encode*",
    "*File*",
    "String*",
    "AsString",
    "*Summary*",
    "Iterator*",
    "*Dataset*",
    "ResizeBicubic*",
    "ResizeArea",
    "ScaleAndTranslate*",
    "*Bincount",
)
VALUE_SHAPED = ("Where", "Unique*", "NonMaxSuppression*", "DynamicPartition", "ListDiff")
# Axes to sum over, which TensorFlow's shape inference does not know and XLA computes while it compiles.
_KNOWN_TO_XLA = "BroadcastGradientArgs"
# What follows on a top_k has the shape of its k.
_TOP_K = "TopKV2"


def faults(concrete) -> list[str]:
    """One line for each op of a concrete function, and of those that it calls, that a TPU cannot run."""
    graph = concrete.graph.as_graph_def(add_shapes=True)
    bodies = [("", graph.node)]
    bodies += [(f"{body.signature.name}/", body.node_def) for body in graph.library.function]
    return [
        f"{place}{node.name} ({node.op}): {fault}"
        for place, nodes in bodies
        for constants in [{node.name for node in nodes if node.op == "Const"}]
        for node in nodes
        for fault in _faults_of(node, constants)
    ]


def _faults_of(node, constants):
    if any(fnmatch.fnmatchcase(node.op, pattern) for pattern in NO_KERNEL):
        yield "no kernel on TPUs"
    if any(fnmatch.fnmatchcase(node.op, pattern) for pattern in VALUE_SHAPED):
        yield "its shape depends on values"
    if node.op == _TOP_K and node.input[1].split(":")[0] not in constants:
        yield "k is not a constant"
    if node.op == _KNOWN_TO_XLA:
        return
    for shape in node.attr["_output_shapes"].list.shape:
        shape = tf.TensorShape(shape)
        if not shape.is_fully_defined():
            yield f"shape {shape}"
