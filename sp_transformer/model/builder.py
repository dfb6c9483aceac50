"""ExperimentOptions -> a built model."""

import contextlib

import keras

from sp_transformer.config import derived
from sp_transformer.model import backbones
from sp_transformer.model.association import Association
from sp_transformer.model.classifier import SuperpixelClassifier
from sp_transformer.model.hypercolumn import Hypercolumn
from sp_transformer.model.sp_transformer import SPTransformer
from sp_transformer.model.tokenizer import Tokenizer
from sp_transformer.protos import model_pb2, training_pb2


def build_model(config) -> SPTransformer:
    """Builds the model that a config describes, with all its variables.

    Args:
      config: a validated ExperimentOptions, from `load_config`.

    Returns:
      A keras.Model; see SPTransformer for its inputs and outputs. Its weights are freshly initialised.
    """
    options = config.model
    height, width = derived.input_size(config)
    with dtype_policy(precision_policy(config.training.precision)):
        backbone = build_backbone(config)
        stride = options.hypercolumn.stride
        model = SPTransformer(
            backbone=backbone,
            hypercolumn=Hypercolumn(
                derived.endpoint_strides(config),
                stride,
                options.channels,
                options.hypercolumn.max_hidden_channels,
                name="hypercolumn",
            ),
            tokenizer=_build_tokenizer(options, (height // stride, width // stride)),
            classifier=SuperpixelClassifier(
                derived.num_classes(config),
                options.classifier.layers,
                options.classifier.heads,
                options.classifier.feed_forward_width,
                name="classifier",
            ),
            association=Association(
                stride,
                _enum_name(model_pb2.AssociationOptions.Alignment, options.association.alignment),
                options.association.scale or None,
                name="association",
            ),
            input_normalization=_enum_name(
                model_pb2.BackboneOptions.InputNormalization,
                options.backbone.input_normalization,
            ),
            name="sp_transformer",
        )
        backbone.rematerialize = config.training.rematerialize_backbone
        model.tokenizer.rematerialize = config.training.rematerialize_tokenizer
        # A symbolic call creates every variable without computing anything.
        model(keras.Input((height, width, 3), batch_size=1))
        if options.zero_initialized_branches:
            for kernel in _branch_kernels(model):
                kernel.assign(keras.ops.zeros_like(kernel))
    return model


def precision_policy(precision) -> str:
    """The Keras dtype policy of a TrainingOptions.Precision."""
    if precision == training_pb2.TrainingOptions.BFLOAT16:
        return "mixed_bfloat16"
    return "float32"


@contextlib.contextmanager
def dtype_policy(name):
    """Keras's global dtype policy for a while: keras_cv's layers know no other way to be told."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build_backbone(config):
    """The backbone alone, not built yet; see `backbones.create_backbone`."""
    options = config.model.backbone
    return backbones.create_backbone(
        options.name,
        endpoint_strides=derived.endpoint_strides(config),
        drop_path_rate=options.drop_path_rate,
        batch_norm_epsilon=options.batch_norm_epsilon,
        batch_norm_momentum=options.batch_norm_momentum,
        stem_max_pool=options.stem_max_pool,
        stride_in_first_conv=options.stride_in_first_conv,
        conv_bias=options.conv_bias,
        zero_init_residual=options.zero_init_residual,
        zero_padding=options.zero_padding,
    )


def _build_tokenizer(options, pixel_grid):
    tokenizer = options.tokenizer
    return Tokenizer(
        pixel_grid,
        tokenizer.superpixel_stride // options.hypercolumn.stride,
        options.channels,
        tokenizer.layers,
        tokenizer.heads,
        queries=_enum_name(model_pb2.TokenizerOptions.Queries, tokenizer.queries),
        position_embedding=tokenizer.position_embedding,
        position_embedding_stride=tokenizer.position_embedding_stride,
        projection=_enum_name(model_pb2.TokenizerOptions.Projection, tokenizer.projection),
        feed_forward_width=tokenizer.feed_forward_width,
        implementation=_enum_name(
            model_pb2.TokenizerOptions.Implementation, tokenizer.implementation
        ),
        name="tokenizer",
    )


def _branch_kernels(model):
    """Kernels of the last layer of each residual branch behind the hypercolumn."""
    last = []
    for layer in model.tokenizer.cross_attentions:
        projections = [layer.superpixel_output, layer.pixel_output]
        if layer.feed_forward_width:
            projections += [layer.superpixel_feed_forward.network, layer.pixel_feed_forward.network]
        last += [projection.output_layer for projection in projections]
    for attention, feed_forward in zip(
        model.classifier.self_attentions, model.classifier.feed_forwards, strict=True
    ):
        last += [attention.output_layer, feed_forward.network.output_layer]
    return [layer.kernel for layer in last]


def _enum_name(enum, value) -> str:
    return enum.Name(value).lower()
