"""The models of compare_models.py, ready to be timed: random weights, inputs on the device, no arguments.

Letters: B batch; Y, X image height and width; K classes.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import peers
import tensorflow as tf

from sp_transformer.config import derived
from sp_transformer.model import builder, flops, inference_form, summary
from sp_transformer.protos import model_pb2
from sp_transformer.training import losses

SEED = 0


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A model that is ready to be timed.

    Attributes:
      run: computes once, from inputs that lie on the device; returns its outputs.
      parameters: trainable ones, BatchNorm's scale and shift counted in whether folded or not.
      multiply_adds: flops.MultiplyAdds of one image's logits.
      notes: what it computes, where the rules do not say enough.
    """

    run: Callable[[], Any]
    parameters: int
    multiply_adds: Any
    notes: tuple[str, ...] = ()


def build_contestant(name: str, config, settings) -> Contestant:
    """Builds a model of compare_models.MODELS with random weights, and traces nothing that is timed yet.

    Args:
      name: one of compare_models.MODELS.
      config: a validated ExperimentOptions.
      settings: compare_models.Settings.
    """
    keras.utils.set_random_seed(SEED)
    if name.startswith("ours"):
        return _build_ours(name, config, settings)
    return _build_peer(name, config, settings)


def _build_ours(name, config, settings):
    options = type(config)()
    options.CopyFrom(config)
    if name == "ours_gather":
        options.model.tokenizer.implementation = model_pb2.TokenizerOptions.GATHER
    model = builder.build_model(options)
    count = summary.model_multiply_adds(model, settings.size)
    parameters = _count_parameters(model)
    kernels = contextlib.nullcontext
    if settings.mode == "inference" and name != "ours_unfolded":
        model = inference_form.convert(model)
        kernels = functools.partial(inference_form.kernels, settings.jit_compile)

    def labels(images):
        with kernels():
            return model.labels(model.features(images, training=False))

    def loss(images, truth, *rule):
        # In the layout by cell, as in training: no logits need to be brought into the image's.
        logits = model.cell_semantic_logits(model.features(images, training=True))
        return losses.top_k_cross_entropy(logits, model.labels_by_cell(truth), *rule)

    return Contestant(_runner(model, labels, loss, config, settings), parameters, count)


def _build_peer(name, config, settings):
    peer = peers.build(name.removesuffix("_folded"), config, settings.size)
    traced = flops.trace(peer.logits, tf.TensorSpec([1, *settings.size, 3], tf.uint8))
    count = flops.count_multiply_adds(traced, folded=flops.batch_norm_names(peer.model))
    parameters, notes = _count_parameters(peer.model), (peer.note,)
    if name.endswith("_folded"):
        folded = peers.fold_batch_norm(peer.model)
        notes += (
            f"{name}: {folded} BatchNorm layers folded into the convolutions in front of them.",
        )

    def loss(images, truth, *rule):
        return losses.top_k_cross_entropy(peer.logits(images, training=True), truth, *rule)

    run = _runner(peer.model, peer.labels, loss, config, settings)
    return Contestant(run, parameters, count, notes)


def _count_parameters(model):
    return sum(variable.shape.num_elements() for variable in _values(model))


def _values(model):
    return [variable.value for variable in model.trainable_variables]


def _runner(model, labels, loss, config, settings):
    """The function that is timed, without arguments.

    Args:
      model: the Keras model, for its trainable variables.
      labels: uint8 [B, Y, X, 3] -> int32 [B, Y, X].
      loss: (uint8 [B, Y, X, 3], int32 [B, Y, X], ignore_label, fraction of the pixels that count) -> float32 [B].
      config: the ExperimentOptions.
      settings: compare_models.Settings.
    """
    shape = (settings.batch_size, *settings.size)
    images = tf.random.stateless_uniform((*shape, 3), (SEED, 0), 0, 256, tf.int32)
    images = tf.identity(tf.cast(images, tf.uint8))
    compiled = {"autograph": False, "jit_compile": settings.jit_compile}
    if settings.mode == "inference":
        predict = tf.function(labels, **compiled)

        def run_inference():
            predicted = predict(images).numpy()
            if predicted.shape != shape or predicted.dtype != "int32":
                raise ValueError(
                    f"labels {predicted.dtype} {predicted.shape} are not int32 {shape}"
                )
            return predicted

        return run_inference

    truth = tf.random.stateless_uniform(shape, (SEED, 1), 0, derived.num_classes(config), tf.int32)
    rule = derived.label_map(config).ignore_label, config.training.top_k_fraction

    def step(images, truth):
        values = _values(model)
        with tf.GradientTape() as tape:
            mean = tf.reduce_mean(loss(images, truth, *rule))
        # A variable that the loss does not depend on has no gradient.
        gradients = [x for x in tape.gradient(mean, values) if x is not None]
        return mean, [tf.convert_to_tensor(x) for x in gradients]

    step = tf.function(step, **compiled)
    return lambda: step(images, truth)


__all__ = ["Contestant", "build_contestant"]
