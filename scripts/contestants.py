"""The models of compare_models.py, ready to be timed: random weights, inputs on the device, no arguments.

Letters: B batch; Y, X image height and width; K classes.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import peer_segmenter
import peers
import tensorflow as tf

from sp_transformer.config import derived
from sp_transformer.model import builder, flops, inference_form, summary
from sp_transformer.protos import model_pb2
from sp_transformer.training import averages, optimizer, train_step

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

    return Contestant(_runner(model, labels, config, settings), parameters, count)


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

    segmenter = peer_segmenter.PeerSegmenter(peer, derived.num_classes(config))
    run = _runner(segmenter, peer.labels, config, settings)
    return Contestant(run, parameters, count, notes)


def _count_parameters(model):
    return sum(variable.value.shape.num_elements() for variable in model.trainable_variables)


def _runner(model, labels, config, settings):
    """The function that is timed, without arguments.

    Args:
      model: the model that is trained, an SPTransformer or a PeerSegmenter.
      labels: uint8 [B, Y, X, 3] -> int32 [B, Y, X].
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
    step = tf.function(_training_step(model, config, settings), **compiled)
    # float32, as the training input gives them.
    images = tf.identity(tf.cast(images, tf.float32))
    return lambda: step(images, truth)


def _training_step(model, config, settings):
    """The step that training takes: (images, labels) -> loss and norm of the gradient."""
    options = type(config.training)()
    options.CopyFrom(config.training)
    options.batch_size = settings.batch_size
    strategy = tf.distribute.get_strategy()
    average = None
    if options.ema_decay:
        average = averages.WeightAverages(model, options.ema_decay, strategy)
    own_optimizer = optimizer.create_optimizer(options, model)
    ignore_label = derived.label_map(config).ignore_label
    return train_step.TrainLoop(
        model, own_optimizer, options, ignore_label, strategy, average
    )._replica_step


__all__ = ["Contestant", "build_contestant"]
