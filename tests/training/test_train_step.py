"""What the training step refuses, and accumulation; what else it computes is in test_loop.py and test_replicas.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import weights
from sp_transformer.training import train_step


def test_refuses_what_a_strategy_cannot_do(config):
    class FourReplicas:
        num_replicas_in_sync = 4

    config.training.batch_size = 6
    with pytest.raises(ValueError, match=r"6 does not divide by the 4 replicas.*4 and 8"):
        train_step.TrainLoop(None, None, config.training, 255, FourReplicas())
    config.training.batch_size = 8
    config.training.jit_compile = True
    with pytest.raises(ValueError, match="jit_compile works on one device"):
        train_step.TrainLoop(None, None, config.training, 255, FourReplicas())
    config.training.jit_compile = False

    class Optimizer:
        _distribution_strategy = None

    with pytest.raises(ValueError, match="scope"):
        train_step.TrainLoop(None, Optimizer(), config.training, 255, FourReplicas())


def weights_after_steps(tiny, parts, jit_compile=False):
    """Loss curve and weights after 3 steps of 4 images in `parts` parts, without what sees single images."""
    options = tiny.config.training
    options.gradient_accumulation_steps, options.jit_compile = parts, jit_compile
    options.gradient_clip_norm = 0.5
    keras.utils.set_random_seed(0)
    model = tiny.build_model(dropout=0.0)
    model.backbone.norm.trainable = False
    optimizer = tiny.SGD(0.1)
    optimizer.build(model.trainable_variables)
    loop = train_step.TrainLoop(model, optimizer, options, 255, tf.distribute.get_strategy())
    losses, norms = loop(iter(tiny.dataset(4)), 3)
    return losses, norms, {n: v.numpy() for n, v in weights.named_variables(model).items()}


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_gives_the_gradient_of_the_whole_batch(tiny, parts, jit_compile):
    losses, norms, whole = weights_after_steps(tiny, 1)
    part_losses, part_norms, accumulated = weights_after_steps(tiny, parts, jit_compile)
    np.testing.assert_allclose(part_losses, losses, rtol=1e-6)
    np.testing.assert_allclose(part_norms, norms, rtol=1e-5)
    for name, value in whole.items():
        np.testing.assert_allclose(accumulated[name], value, atol=1e-6, err_msg=name)


def test_parts_are_computed_one_after_the_other(tiny):
    """Each part waits for the gradients of the one before: or else all of them would be in memory at once."""
    tiny.config.training.gradient_accumulation_steps = 2
    model = tiny.build_model(dropout=0.0)
    optimizer = tiny.SGD(0.1)
    optimizer.build(model.trainable_variables)
    loop = train_step.TrainLoop(
        model, optimizer, tiny.config.training, 255, tf.distribute.get_strategy()
    )
    batch = next(iter(tiny.dataset(4)))
    graph = (
        tf.function(loop._replica_step).get_concrete_function(batch["image"], batch["label"]).graph
    )
    convolutions = [op for op in graph.get_operations() if op.type == "Conv2D"]
    assert len(convolutions) == 2

    def depends_on(op, other):
        queue, seen = [op], set()
        while queue:
            node = queue.pop()
            if node is other:
                return True
            if node.name not in seen:
                seen.add(node.name)
                queue += [x.op for x in node.inputs] + list(node.control_inputs)
        return False

    gradient = next(op for op in graph.get_operations() if op.type == "Conv2DBackpropFilter")
    assert any(depends_on(conv, gradient) for conv in convolutions)


def test_refuses_an_optimizer_that_sums_gradients_once_more(config):
    sgd = keras.optimizers.SGD(0.1)
    with pytest.raises(ValueError, match=r"SGD would sum the gradients.*SummedGradients"):
        train_step.TrainLoop(None, sgd, config.training, 255, tf.distribute.get_strategy())


def test_the_superpixel_loss_is_added_to_that_of_pixels(tiny):
    """Of a model whose superpixels are known: one cell, which is each pixel's nine neighbours."""

    class Model(type(tiny.build_model())):
        def association_by_cell(self, features):
            logits = self.semantic_logits(features)
            batch, pixels = tf.shape(logits)[0], logits.shape[1] * logits.shape[2]
            return tf.fill([batch, 1, 9, pixels], 1 / 9), tf.zeros([batch, 1, 9, logits.shape[-1]])

        def labels_by_cell(self, labels):
            return tf.reshape(labels, [tf.shape(labels)[0], 1, -1])

        def cell_semantic_logits(self, features):
            logits = self.semantic_logits(features)
            return tf.reshape(logits, [tf.shape(logits)[0], 1, -1, logits.shape[-1]])

    options = tiny.config.training
    batch = next(iter(tiny.dataset(4)))
    model = Model(dropout=0.0)
    model(tf.zeros([1, *batch["image"].shape[1:]]))
    optimizer = tiny.SGD(0.1)
    optimizer.build(model.trainable_variables)
    loop = train_step.TrainLoop(model, optimizer, options, 255, tf.distribute.get_strategy())
    of_pixels = loop._losses(batch["image"], batch["label"])
    options.superpixel_loss_weight = 0.4
    # Equal logits: the logarithm of the number of classes.
    np.testing.assert_allclose(
        loop._losses(batch["image"], batch["label"]), of_pixels + 0.4 * np.log(19), rtol=1e-5
    )
