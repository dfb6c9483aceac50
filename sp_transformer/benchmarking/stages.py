"""The five stages of the paper's Table IV as functions that can be timed one by one.

What one stage hands to the next is passed on as it is: only the model knows its layout.
"""

import keras
import tensorflow as tf

from sp_transformer.benchmarking import programs, variants
from sp_transformer.config import derived
from sp_transformer.model import builder, normalization
from sp_transformer.training import losses

WHOLE = "whole"
BACKBONE = "backbone"
OURS_FOLDED = "ours, BatchNorm folded"
KERAS_RESNET50 = "keras.applications"
# Their values are of no account; far from 1 they would only overflow.
_GRADIENT_SCALE = 1e-3


def stage_programs(variant: variants.Variant, models: programs.Models) -> dict:
    """{stage: function without arguments}, in the order of rules.PAPER_STAGES_MS, and WHOLE.

    Every stage holds the finished outputs of the stage before.
    """
    model = models.to_run(variant)
    images = programs.random_images(variant)
    make = _training_stage if variant.mode == "training" else _inference_stage
    training = variant.mode == "training"
    grid = model.superpixel_grid(*variant.size)
    made = {}

    def add(name, stage, inputs, variables, differentiable=True):
        with programs.kernels(variant):
            made[name], outputs = make(
                stage, inputs, variables, differentiable, variant.jit_compile
            )
        return outputs

    endpoints = add(
        BACKBONE,
        lambda batch: model.backbone(_normalized(model, batch), training=training),
        images,
        model.backbone.trainable_variables,
        # Nothing in front of the images learns.
        differentiable=False,
    )
    hypercolumn = add(
        "hypercolumn",
        lambda given: model.hypercolumn(given, grid=grid),
        endpoints,
        model.hypercolumn.trainable_variables,
    )
    pixels, superpixels = add(
        "superpixel tokenization",
        lambda given: model.tokenizer(given, grid=grid),
        hypercolumn,
        model.tokenizer.trainable_variables,
    )
    superpixel_logits = add(
        "self-attention", model.classifier, superpixels, model.classifier.trainable_variables
    )
    add(
        "association",
        _association_with_loss(variant, model) if training else _association(variant, model),
        (pixels, superpixels, superpixel_logits),
        model.association.trainable_variables,
    )
    made[WHOLE] = programs.program(variant, models)
    return made


def backbone_programs(variant: variants.Variant, models: programs.Models) -> dict:
    """{name: function without arguments}: backbones alone that no stage of the variant has timed yet."""
    made = {}
    if variant.mode == "inference" and not variant.inference_form:
        model = models.folded(variant)
        made[OURS_FOLDED] = _backbone_program(variant, model, model.backbone)
    if variant.config.model.backbone.name == "resnet50":
        made[KERAS_RESNET50] = _backbone_program(
            variant, models.to_run(variant), _keras_resnet50(variant)
        )
    return made


def _keras_resnet50(variant):
    policy = builder.precision_policy(variant.config.training.precision)
    with builder.dtype_policy(policy):
        return keras.applications.ResNet50(
            include_top=False, weights=None, input_shape=(*variant.size, 3)
        )


def _backbone_program(variant, model, backbone):
    training = variant.mode == "training"
    make = _training_stage if training else _inference_stage
    run, _ = make(
        lambda batch: backbone(_normalized(model, batch), training=training),
        programs.random_images(variant),
        backbone.trainable_variables,
        False,
        variant.jit_compile,
    )
    return run


def _normalized(model, images):
    return normalization.normalize(images, model.input_normalization, model.compute_dtype)


def _features(variant, model, inputs):
    pixels, superpixels, superpixel_logits = inputs
    pixels, superpixels = model.association.normalize(pixels, superpixels)
    return {
        "pixel_features": pixels,
        "superpixel_features": superpixels,
        "superpixel_logits": superpixel_logits,
        "image_size": variant.size,
    }


def _association(variant, model):
    return lambda inputs: model.labels(_features(variant, model, inputs))


def _association_with_loss(variant, model):
    labels = programs.random_labels(variant)
    ignore_label = derived.label_map(variant.config).ignore_label

    def loss(inputs):
        per_image = losses.top_k_cross_entropy(
            model.cell_semantic_logits(_features(variant, model, inputs)),
            model.labels_by_cell(labels),
            ignore_label,
            variant.config.training.top_k_fraction,
        )
        return tf.reduce_mean(per_image)

    return loss


def _inference_stage(stage, inputs, variables, differentiable, jit_compile):
    """(Function without arguments, its outputs); `variables` and `differentiable` are for training only."""
    del variables, differentiable
    compiled = _compile(stage, jit_compile, inputs)
    return lambda: compiled(inputs), compiled(inputs)


def _training_stage(stage, inputs, variables, differentiable, jit_compile):
    """(Function without arguments that runs a stage forward and backward, the stage's outputs)."""

    def forward_backward(given, output_gradients):
        sources = [x for x in tf.nest.flatten(given) if differentiable and x.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs = stage(given)
        gradients = tape.gradient(
            tf.nest.flatten(outputs),
            sources + [variable.value for variable in variables],
            output_gradients=output_gradients,
        )
        # The outputs too: the next stage needs them.
        return outputs, [tf.convert_to_tensor(g) for g in gradients if g is not None]

    outputs = _compile(stage, jit_compile, inputs)(inputs)
    output_gradients = [
        tf.cast(tf.random.normal(x.shape, stddev=_GRADIENT_SCALE, seed=0), x.dtype)
        for x in tf.nest.flatten(outputs)
    ]
    compiled = _compile(forward_backward, jit_compile, inputs, output_gradients)
    return lambda: compiled(inputs, output_gradients), outputs


def _compile(function, jit_compile, *examples):
    """The one graph for inputs like `examples`.

    Not a tf.function, which would take several functions made by one line for retracings of one, and warn.
    """
    return tf.function(function, jit_compile=jit_compile).get_concrete_function(*examples)
