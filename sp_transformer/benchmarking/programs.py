"""Variants -> functions without arguments that can be timed: inference and training step of the model.

Shapes: B batch; Y,X image height and width.
"""

import contextlib

import keras
import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from sp_transformer.benchmarking import variants
from sp_transformer.config import derived
from sp_transformer.model import builder, inference_form
from sp_transformer.protos import experiment_pb2
from sp_transformer.training import optimizer as optimizer_lib
from sp_transformer.training import train_step

_FAILURE_LETTERS = 300


def prepare_devices() -> None:
    """Lets TensorFlow take GPU memory as it needs it; has to come before anything else runs on a GPU."""
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


class Models:
    """Models by what they are built of, so that variants that differ in size or batch only share one."""

    def __init__(self):
        self._models = {}
        self._folded = {}

    def of(self, variant: variants.Variant):
        """The variant's SPTransformer with random weights from training.seed, BatchNorm as it is."""
        key = self._key(variant)
        if key not in self._models:
            keras.utils.set_random_seed(variant.config.training.seed % 2**32)
            self._models[key] = builder.build_model(variant.config)
        return self._models[key]

    def to_run(self, variant: variants.Variant):
        """The model that the variant runs: `of`, or its inference form."""
        return self.folded(variant) if variant.inference_form else self.of(variant)

    def folded(self, variant: variants.Variant):
        """The variant's model with BatchNorm folded; of the weights as they were when this was first called."""
        key = self._key(variant)
        if key not in self._folded:
            self._folded[key] = inference_form.convert(self.of(variant))
        return self._folded[key]

    def _key(self, variant):
        config = experiment_pb2.ExperimentOptions()
        config.CopyFrom(variant.config)
        for field in ("batch_size", "jit_compile"):
            config.training.ClearField(field)
        # A training step changes weights: nobody else's.
        own = variant.name if variant.mode == "training" else ""
        return own, config.SerializeToString(deterministic=True)


def program(variant: variants.Variant, models: Models):
    """The whole of a variant: a function without arguments, to be timed.

    Returns:
      In inference a function that gives NumPy int32 [B, Y, X]; in training one that takes a step and gives its loss.
    """
    if variant.mode == "training":
        return _training_program(variant, models.of(variant))
    return _inference_program(variant, models.to_run(variant))


def kernels(variant: variants.Variant) -> contextlib.AbstractContextManager:
    """The context that whatever the variant runs is traced in."""
    if variant.inference_form:
        return inference_form.kernels(variant.jit_compile)
    return contextlib.nullcontext()


def failure(name: str, error: Exception) -> str:
    """One line on a variant that cannot run: out of memory, or something that the compiler cannot do."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return f'"{name}" could not run and is left out: {reason[:_FAILURE_LETTERS]}'


def check_any(functions, failures: list[str]) -> None:
    """Raises ValueError if nothing is left to be timed."""
    if not functions:
        raise ValueError(f"nothing could be measured: {'; '.join(failures)}")


def random_images(variant: variants.Variant) -> tf.Tensor:
    """[B, Y, X, 3] with values 0..255: uint8 in inference, float32 in training as the data pipeline makes them."""
    generator = np.random.default_rng(variant.config.training.seed)
    images = generator.integers(0, 256, (variant.batch_size, *variant.size, 3), np.uint8)
    return tf.constant(images, tf.float32 if variant.mode == "training" else tf.uint8)


def random_labels(variant: variants.Variant) -> tf.Tensor:
    """int32 [B, Y, X], train ids."""
    generator = np.random.default_rng(variant.config.training.seed + 1)
    classes = derived.num_classes(variant.config)
    return tf.constant(
        generator.integers(0, classes, (variant.batch_size, *variant.size)), tf.int32
    )


def memory_case(variant: variants.Variant) -> tuple[str, dict]:
    """The variant's program as `memory.peak_memory` takes it: name of a function, and its arguments."""
    arguments = {
        "config": text_format.MessageToString(variant.config),
        "mode": variant.mode,
        "size": list(variant.size),
        "batch_size": variant.batch_size,
        "precision": variant.precision,
        "jit_compile": variant.jit_compile,
        "implementation": variant.implementation,
        "inference_form": variant.inference_form,
    }
    return f"{__name__}:from_memory_case", arguments


def from_memory_case(config: str, size, **arguments):
    """The program of the arguments that `memory_case` gives."""
    parsed = text_format.Parse(config, experiment_pb2.ExperimentOptions())
    variant = variants.Variant(
        name=parsed.experiment_name, config=parsed, size=tuple(size), **arguments
    )
    return program(variant, Models())


def _inference_program(variant, model):
    images = random_images(variant)
    labels = tf.function(
        lambda batch: model.labels(model.features(batch)), jit_compile=variant.jit_compile
    )
    # A static signature: the sizes are known where speed counts, and TensorFlow folds what depends on them.
    with kernels(variant):
        labels = labels.get_concrete_function(tf.TensorSpec(images.shape, images.dtype))
    return lambda: labels(images).numpy()


def _training_program(variant, model):
    images, labels = random_images(variant), random_labels(variant)
    options = variant.config.training
    loop = train_step.TrainLoop(
        model,
        optimizer_lib.create_optimizer(options, model),
        options,
        derived.label_map(variant.config).ignore_label,
        tf.distribute.get_strategy(),
    )
    step = tf.function(loop._replica_step, jit_compile=variant.jit_compile)
    return lambda: step(images, labels)[0].numpy()
