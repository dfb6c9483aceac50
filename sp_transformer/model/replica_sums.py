"""Sums over the replicas of a `tf.distribute` strategy.

`ReplicaContext.all_reduce` gives the same numbers, but takes minutes to trace (see custom_gradient.py).
"""

import tensorflow as tf

from sp_transformer.model import custom_gradient


def over_replicas(tensors):
    """Sums over all replicas, which all have to ask for them; without a gradient.

    Args:
      tensors: list of tensors, of the same shapes on every replica.

    Returns:
      List of tensors of the same shapes: the tensors themselves on a single replica, and outside of any.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1 or not tensors:
        return list(tensors)
    return list(context.merge_call(_sum, args=tuple(tensors)))


def differentiable(tensor):
    """The same of one tensor, with its gradient: the sum of the gradients on all replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tensor
    return _differentiable(tensor)


@custom_gradient.custom_gradient
def _differentiable(tensor):
    (total,) = over_replicas([tensor])
    return total, lambda gradient: over_replicas([gradient])


def _sum(strategy, *values):
    # Where one graph stands for all replicas (TPU), a value is a plain tensor, and where it goes to is its device.
    pairs = [(v, v.device if isinstance(v, tf.Tensor) else v) for v in values]
    return strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)


__all__ = ["differentiable", "over_replicas"]
