"""Random numbers that differ between replicas.

A Keras SeedGenerator has the same state on all replicas, so that dropout and drop path would draw the same masks on
each of them. Folding the replica's number into the seed leaves the state as it is: what a checkpoint holds, and what a
run on one device draws, do not change.
"""

import keras
import tensorflow as tf

# Odd, and far from small multiples of itself: the seeds of two replicas share no first word.
_STRIDE = 0x9E3779B9


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A SeedGenerator that draws numbers of its own on every replica."""

    def next(self, ordered=True):
        seed = super().next(ordered)
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return seed
        replica = tf.cast(context.replica_id_in_sync_group, seed.dtype)
        return seed + tf.stack([replica * tf.constant(_STRIDE, seed.dtype), tf.zeros_like(replica)])


def differ_between_replicas(model):
    """Makes all layers of `model` that draw random numbers draw others on every replica; in place."""
    for layer in model._flatten_layers():
        for value in vars(layer).values():
            if type(value) is keras.random.SeedGenerator:
                # The generator itself stays: its state may be in use, and its name is the checkpoint's.
                value.__class__ = ReplicaSeedGenerator


__all__ = ["ReplicaSeedGenerator", "differ_between_replicas"]
