"""tf.data service: training batches prepared by other machines than those that train.

The workers of a tf.data service get the graph of the dataset, and Python code is no part of a graph:
`tf.numpy_function` leaves a token in it that means something in its own process only. Reading examples is Python
code (palette PNGs have no other reader), so its operation gets a token that follows from the config,
and a worker started by `sp_transformer.data_service` knows the same reader by the same token.
"""

from __future__ import annotations

import hashlib

import tensorflow as tf
from tensorflow.python.ops import script_ops

# Fields that may differ between a worker and those it serves: they say where and how, not what is read.
_LOCAL_FIELDS = ("data_dir", "data_service", "parallel_calls", "cache_in_memory", "deterministic")

READER = "sp_transformer/train_reader/"

# The registry of TensorFlow holds its functions weakly.
_registered = {}


def python_op(config, function, output_types):
    """Makes an operation of a Python function.

    Args:
      config: an ExperimentOptions; where its data.data_service is set, the operation can also be
        run by a worker of that service that has registered its own function for this config.
      function: takes and returns arrays; must be a pure function of its arguments.
      output_types: list of dtypes of these arrays.

    Returns:
      A function of tensors that gives a list of tensors of unknown shape.
    """
    if not config.data.data_service:
        return lambda *inputs: tf.numpy_function(
            function, list(inputs), output_types, stateful=False
        )
    token = reader_token(config)
    return lambda *inputs: tf.raw_ops.PyFuncStateless(
        input=list(inputs), token=token, Tout=output_types
    )


def register_reader(config, function) -> str:
    """Makes this process answer the readers of `python_op` for this config; returns the token."""
    token = reader_token(config)
    _registered[token] = function
    # There is no public way to choose a token. What this relies on is covered by a test that runs dispatcher and
    # worker as processes of their own.
    script_ops._py_funcs._funcs[token] = function
    return token


def reader_token(config) -> str:
    """Name of the reader of a config's training split: equal where the same examples are read."""
    data = type(config.data)()
    data.CopyFrom(config.data)
    for field in _LOCAL_FIELDS:
        data.ClearField(field)
    digest = hashlib.sha256(data.SerializeToString(deterministic=True)).hexdigest()[:16]
    return READER + digest


def distribute(dataset, address: str):
    """Lets the workers of the service at `address` ("grpc://host:port") compute a dataset; "" does not.

    Its elements are divided among the workers (each is computed by one of them) and come in no order.
    """
    if not address:
        return dataset
    return dataset.apply(
        tf.data.experimental.service.distribute(
            tf.data.experimental.service.ShardingPolicy.DYNAMIC, address
        )
    )
