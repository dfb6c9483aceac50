"""A peer behind the interface of our model, so that our loop trains it, saves it and scores it.

Letters: B batch; Y, X image height and width; K classes.
"""

import keras
import peers

from sp_transformer.config import derived

OUR_MOMENTUM = "_our_momentum"


class PeerSegmenter(keras.Model):
    """keras_cv's DeepLabV3+ or SegFormer where training, inference and evaluation expect an SPTransformer.

    It takes images of the training crop only, as keras_cv builds its models for one size.

    Args:
      peer: a `peers.Peer`.
      num_classes: K.
    """

    def __init__(self, peer, num_classes):
        super().__init__(name="peer", dtype=peer.policy)
        self._peer = peer
        self.network = peer.model
        self.num_classes = num_classes

    @property
    def backbone(self):
        """The part whose learning rate `backbone_learning_rate_multiplier` scales."""
        return self.network.backbone

    def build(self, images_shape):
        """Nothing: keras_cv builds its models at construction."""

    def call(self, images, training=False):
        return {"semantic_logits": self._peer.logits(images, training)}

    def features(self, images, training=False):
        """RGB images 0..255 [B, Y, X, 3] -> {"semantic_logits": float32 [B, Y, X, K]}."""
        return self(images, training=training)

    def semantic_logits(self, features):
        """float32 [B, Y, X, K]."""
        return features["semantic_logits"]

    def cell_semantic_logits(self, features):
        """The same: a peer has no cells, and the loss does not ask where pixels lie."""
        return features["semantic_logits"]

    def labels_by_cell(self, labels):
        """The same: labels [B, Y, X] in the order of `cell_semantic_logits`."""
        return labels

    def labels(self, features):
        """int32 [B, Y, X]."""
        return keras.ops.argmax(features["semantic_logits"], axis=-1)


def build(name, config):
    """Builds a peer for the training crop of `config`.

    Args:
      name: one of `peers.NAMES`; with OUR_MOMENTUM behind it, all its BatchNorm layers have the momentum of the
        config's backbone and not keras_cv's 0.99.
      config: a validated ExperimentOptions.

    Raises:
      ImportError, ValueError: as `peers.build`.
    """
    size = config.data.crop_height, config.data.crop_width
    peer = peers.build(name.removesuffix(OUR_MOMENTUM), config, size)
    if name.endswith(OUR_MOMENTUM):
        for layer in peer.model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = config.model.backbone.batch_norm_momentum
    return PeerSegmenter(peer, derived.num_classes(config))


__all__ = ["OUR_MOMENTUM", "PeerSegmenter", "build"]
