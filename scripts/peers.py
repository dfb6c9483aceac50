"""keras_cv 0.9.0's segmentation models, brought to the rules under which ours is measured. For compare_models.py.

Their layers, arithmetic and upsampling stay keras_cv's; weights are random, nothing is downloaded. What is changed:

- the softmax at the end is taken off: labels need none, and the training loss wants logits;
- SegFormer's blocks take every image for a square (keras_cv computes height and width as the root of the number of
  pixels), so that 1024x2048 fails in a reshape. For other images they are built with the real sides; see `mended_for`;
- on request, BatchNorm is folded into the convolutions in front of it, as ours is for inference.

Letters: B batch; Y, X image height and width; K classes; N pixels of a feature map, row by row; C channels.
"""

import contextlib
import dataclasses
import io
import math
import warnings

import keras
import numpy as np
import tensorflow as tf

from sp_transformer.config import derived
from sp_transformer.model import normalization
from sp_transformer.model.builder import dtype_policy, precision_policy
from sp_transformer.protos import model_pb2

# keras_cv has no table of these offline: its presets fetch even the layer sizes. {name: blocks of the four stacks}.
_RESNET_BLOCKS = {
    "resnet18": [2, 2, 2, 2],
    "resnet34": [3, 4, 6, 3],
    "resnet50": [3, 4, 6, 3],
    "resnet101": [3, 4, 23, 3],
}
_BASIC_BLOCKS = ("resnet18", "resnet34")
# MiT's blocks of the four stages and their channels (SegFormer, arXiv:2105.15203, Table 6).
_MIX_TRANSFORMERS = {
    "segformer_b0": ([2, 2, 2, 2], [32, 64, 160, 256]),
    "segformer_b2": ([3, 4, 6, 3], [64, 128, 320, 512]),
    "segformer_b5": ([3, 6, 40, 3], [64, 128, 320, 512]),
}
NAMES = ("deeplab_v3_plus", *_MIX_TRANSFORMERS)
# What every peer divides the image's sides by; keras_cv's decoders do not pad.
SIZE_MULTIPLE = 32


@dataclasses.dataclass(frozen=True)
class Peer:
    """A peer as it is measured.

    Attributes:
      model: keras.Model from normalised images [B, Y, X, 3] to logits [B, Y, X, K].
      normalization: one of normalization.NORMALIZATIONS.
      policy: the Keras dtype policy that it was built under.
      note: what it computes, in a sentence or two.
    """

    model: keras.Model
    normalization: str
    policy: str
    note: str

    def logits(self, images, training=False):
        """RGB images uint8 [B, Y, X, 3] -> float32 [B, Y, X, K]."""
        # keras_cv makes layers while it runs, which ask for the policy again.
        with dtype_policy(self.policy):
            compute_dtype = keras.config.dtype_policy().compute_dtype
            images = normalization.normalize(images, self.normalization, compute_dtype)
            return tf.cast(self.model(images, training=training), tf.float32)

    def labels(self, images):
        """RGB images uint8 [B, Y, X, 3] -> int32 [B, Y, X]."""
        return tf.argmax(self.logits(images), axis=-1, output_type=tf.int32)


def build(name, config, size) -> Peer:
    """Builds a peer with the classes, precision and input normalisation of a config.

    Args:
      name: one of NAMES.
      config: a validated ExperimentOptions.
      size: (Y, X) of the images, multiples of 32.

    Returns:
      A Peer with freshly initialised weights.

    Raises:
      ImportError: keras_cv is not installed.
      ValueError: an unknown name, or a size that keras_cv's decoders cannot join.
    """
    if name not in NAMES:
        raise ValueError(f"unknown peer {name!r}; known: {', '.join(NAMES)}")
    fit = [-(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in size]
    if list(size) != fit:
        raise ValueError(
            f"{name} needs sides that are multiples of {SIZE_MULTIPLE}, and {size[0]}x{size[1]} "
            f"are not; the next that are: {fit[0]}x{fit[1]}"
        )
    policy = precision_policy(config.training.precision)
    num_classes = derived.num_classes(config)
    with dtype_policy(policy):
        if name in _MIX_TRANSFORMERS:
            model, note = _segformer(name, num_classes, size)
        else:
            model, note = _deeplab(config.model.backbone.name, num_classes, size)
    form = model_pb2.BackboneOptions.InputNormalization.Name(
        config.model.backbone.input_normalization
    ).lower()
    return Peer(model, form, policy, note)


def _models():
    # Importing keras_cv prints a notice and warns about packages that are not used here.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            import keras_cv
        except ImportError as error:
            raise ImportError(
                "the peers need keras_cv 0.9.0: pip install keras-cv==0.9.0"
            ) from error
    return keras_cv.models


def _deeplab(backbone_name, num_classes, size):
    depth = backbone_name.removeprefix("keras_cv/")
    known = depth in _RESNET_BLOCKS
    depth = depth if known else "resnet50"
    models = _models()
    backbone = models.ResNetBackbone(
        stackwise_filters=[64, 128, 256, 512],
        stackwise_blocks=_RESNET_BLOCKS[depth],
        stackwise_strides=[1, 2, 2, 2],
        block_type="basic_block" if depth in _BASIC_BLOCKS else "block",
        include_rescaling=False,
        input_shape=(*size, 3),
    )
    model = models.DeepLabV3Plus(backbone=backbone, num_classes=num_classes)
    _take_softmax_off(model.segmentation_head.layers[-1])
    other = "" if known else f" (keras_cv has no {backbone_name} that it could take)"
    note = (
        f"deeplab_v3_plus: keras_cv's DeepLabV3Plus on its ResNetBackbone (v1) as {depth}{other}. Output stride 32, "
        "nothing dilated in the backbone (the paper of DeepLabV3+ has 16 or 8: keras_cv's is cheaper); ASPP with rates "
        "6, 12, 18 at stride 32; its decoder is one 1x1 convolution of 304 to 256 channels at stride 4, without the "
        "paper's two separable 3x3; the 256 channels, not the logits, are then resized to the image, where a 1x1 "
        "convolution makes the classes. Its backbone has a max-pool in the stem and strides in the first 1x1 "
        "convolutions, which ours has by option only."
    )
    return model, note


def _segformer(name, num_classes, size):
    depths, channels = _MIX_TRANSFORMERS[name]
    models = _models()
    square = size[0] == size[1]
    with contextlib.nullcontext() if square else mended_for(size):
        backbone = models.MiTBackbone(
            include_rescaling=False,
            depths=depths,
            embedding_dims=channels,
            input_shape=(*size, 3),
        )
        model = models.SegFormer(backbone=backbone, num_classes=num_classes)
    # The softmax stands in front of the resize: the class convolution is the layer before the last.
    _take_softmax_off(model.layers[-2])
    note = (
        f"{name}: keras_cv's SegFormer on MiT-{name[-2:].upper()}, decoder of 256 channels (the SegFormer paper's has "
        "768 from B2 on: keras_cv's is cheaper); logits at stride 4, resized to the image. In training "
        "with drop path and dropout of 0.1. In bfloat16 its logits are bfloat16, where the others' are float32."
    )
    if square:
        note += " As it comes, which shuffles pixels with channels in front of reduced attention."
    else:
        note += " keras_cv takes every image for a square and fails on others: its blocks get the real sides here."
    return model, note


def _take_softmax_off(layer):
    if getattr(layer, "activation", None) is not keras.activations.softmax:
        raise ValueError(
            f"{layer.name} of keras_cv's model has no softmax to take off; this was written for keras_cv 0.9.0"
        )
    layer.activation = keras.activations.linear


@contextlib.contextmanager
def mended_for(size):
    """While this lasts, MiT backbones are built for images of `size` (Y, X) in place of squares.

    The models built keep the mend; keras_cv is as before afterwards. The arithmetic is the SegFormer paper's:
    keras_cv's also transposes [B, N, C] to [B, C, N] before it takes the rows for an image, which mixes pixels with
    channels and costs two copies; the mended blocks do without.
    """
    from keras_cv.src.layers import hierarchical_transformer_encoder as encoder_lib

    encoder = encoder_lib.HierarchicalTransformerEncoder
    before = encoder_lib.SegFormerMultiheadAttention, encoder.MixFFN

    class RectangularAttention(before[0]):
        """[B, N, C] -> [B, N, C]: attention to the pixels of a map reduced sr_ratio-fold along each side."""

        def call(self, x):
            reduced = x
            if self.sr_ratio > 1:
                reduced = self.norm(_rows(self.sr(_image(x, size))))
            queries, keys, values = self.q(x), self.k(reduced), self.v(reduced)
            queries, keys, values = map(self._split, (queries, keys, values))
            products = keras.ops.matmul(queries, keras.ops.swapaxes(keys, 2, 3)) * self.scale
            attended = keras.ops.matmul(keras.ops.softmax(products, axis=-1), values)
            attended = keras.ops.transpose(attended, [0, 2, 1, 3])
            return self.proj(keras.ops.reshape(attended, [-1, *x.shape[1:]]))

        def _split(self, x):
            """[B, N, C] -> [B, heads, N, C/heads]."""
            _, pixels, channels = x.shape
            shape = [-1, pixels, self.num_heads, channels // self.num_heads]
            return keras.ops.transpose(keras.ops.reshape(x, shape), [0, 2, 1, 3])

    class RectangularMixFFN(before[1]):
        """[B, N, C] -> [B, N, C]: Dense, 3x3 depthwise convolution, GELU, Dense."""

        def call(self, x):
            mixed = _rows(self.dwconv(_image(self.fc1(x), size)))
            return self.fc2(keras.ops.gelu(mixed))

    encoder_lib.SegFormerMultiheadAttention, encoder.MixFFN = (
        RectangularAttention,
        RectangularMixFFN,
    )
    try:
        yield
    finally:
        encoder_lib.SegFormerMultiheadAttention, encoder.MixFFN = before


def _image(x, size):
    """[B, N, C] -> [B, y, x, C] with y/x as in size (Y, X)."""
    _, pixels, channels = x.shape
    height = math.isqrt(pixels * size[0] // size[1])
    width = pixels // max(height, 1)
    if height * width != pixels or height * size[1] != width * size[0]:
        raise ValueError(f"{pixels} pixels are no image with the sides of {size[0]}x{size[1]}")
    return keras.ops.reshape(x, [-1, height, width, channels])


def _rows(x):
    """[B, y, x, C] -> [B, y*x, C]."""
    _, height, width, channels = x.shape
    return keras.ops.reshape(x, [-1, height * width, channels])


def fold_batch_norm(model) -> int:
    """Folds each BatchNorm of a built Keras model that directly follows a convolution, for inference; in place.

    The scale goes into the kernel and what remains of BatchNorm is one addition, as a convolution's bias would be.
    The model must not be trained afterwards.

    Args:
      model: a Functional or Sequential model, or one that holds such as layers. A convolution that feeds anything
        beside one BatchNorm keeps it.

    Returns:
      How many were folded.
    """
    pairs = {id(norm): (conv, norm) for conv, norm in _pairs(model)}
    for conv, norm in pairs.values():
        gamma, beta, mean, variance = (
            np.asarray(weight, np.float64)
            for weight in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        )
        scale = gamma / np.sqrt(variance + norm.epsilon)
        conv.kernel.assign(np.asarray(conv.kernel, np.float64) * scale)
        if conv.use_bias:
            conv.bias.assign(np.asarray(conv.bias, np.float64) * scale)
        norm.call = _addition((beta - mean * scale).astype(np.float32))
    return len(pairs)


def _addition(shift):
    def call(x, training=None, mask=None):
        if training:
            raise ValueError("BatchNorm of this model is folded; build the model anew to train it")
        return tf.nn.bias_add(x, tf.cast(shift, x.dtype))

    return call


def _pairs(model):
    for part in [model, *model._flatten_layers(include_self=False)]:
        if isinstance(part, keras.Sequential):
            for conv, norm in zip(part.layers, part.layers[1:], strict=False):
                if _foldable(conv, norm):
                    yield conv, norm
        elif isinstance(part, keras.Model) and hasattr(part, "operations"):
            for conv in part.operations:
                # A layer stands in every graph that it was called in: all of them have to agree.
                nodes = [
                    node
                    for sent in getattr(conv, "_inbound_nodes", ())
                    for node in _consumers(sent)
                ]
                followers = {id(node.operation): node.operation for node in nodes}
                if len(followers) == 1 and _foldable(conv, *followers.values()):
                    yield conv, *followers.values()


def _consumers(node):
    return [after for after in node.operation._outbound_nodes if node in after.parent_nodes]


def _foldable(conv, norm):
    return (
        type(conv) is keras.layers.Conv2D
        and conv.activation is keras.activations.linear
        and isinstance(norm, keras.layers.BatchNormalization)
    )


__all__ = ["NAMES", "SIZE_MULTIPLE", "Peer", "build", "fold_batch_norm", "mended_for"]
