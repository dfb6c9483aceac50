"""The whole model (paper, Fig. 2): backbone, hypercolumn, tokenizer, classifier, association.

One trunk, `features`, ends in front of the association; what is made of it (full-size logits, labels, hard superpixels,
logits for the loss) are separate consumers, so that none has to hold what another needs.

Letters as in superpixel_grid.py. From the hypercolumn to the association, pixels stay regrouped by tile.
"""

import math

import keras
from keras import ops

from sp_transformer.config import checks
from sp_transformer.model import cell_association, normalization
from sp_transformer.model.superpixel_grid import SuperpixelGrid, is_static


class SPTransformer(keras.Model):
    """Superpixel Transformer for semantic segmentation.

    Call with RGB images [B, Y, X, 3], values 0..255, uint8 or float, of any size; the result is a dict of
    "semantic_logits", float32 [B, Y, X, num_classes], and "superpixel_logits", float32 [B, R, C, num_classes].

    Images that do not divide by `size_multiple` are padded at the bottom and right with the mean colour and the outputs
    cropped back. In training they are an error, where the size is known: the padding would be learned from.

    Args:
      backbone: a layer from normalised images to endpoints {stride: [B, Y/stride, X/stride, C]}.
      hypercolumn: a Hypercolumn.
      tokenizer: a Tokenizer.
      classifier: a SuperpixelClassifier.
      association: an Association, of the hypercolumn's stride.
      input_normalization: one of normalization.NORMALIZATIONS.

    Raises:
      ValueError: if the normalization is unknown.
    """

    def __init__(
        self,
        backbone,
        hypercolumn,
        tokenizer,
        classifier,
        association,
        input_normalization="minus_one_to_one",
        **kwargs,
    ):
        # `normalize` casts, after it has computed in float32: Keras would round images to bfloat16 before.
        super().__init__(autocast=False, **kwargs)
        normalization.check(input_normalization)
        self.backbone = backbone
        self.hypercolumn = hypercolumn
        self.tokenizer = tokenizer
        self.classifier = classifier
        self.association = association
        self.input_normalization = input_normalization

    @property
    def superpixel_stride(self) -> int:
        """Side in image pixels of a superpixel's cell."""
        return self.hypercolumn.output_stride * self.tokenizer.cell_size

    @property
    def size_multiple(self) -> int:
        """What both sides of an image must divide by to need no padding."""
        return math.lcm(self.superpixel_stride, *self.hypercolumn.strides)

    @property
    def num_classes(self) -> int:
        return self.classifier.num_classes

    def build(self, images_shape):
        """Nothing of its own: each part builds itself when the first call reaches it."""

    def call(self, images, training=False):
        features = self.features(images, training=training)
        return {
            "semantic_logits": self.semantic_logits(features),
            "superpixel_logits": features["superpixel_logits"],
        }

    def features(self, images, training=False, return_endpoints=False):
        """Everything up to the association.

        Args:
          images: [B, Y, X, 3], RGB, values 0..255, uint8 or float.
          training: whether BatchNorm and drop path act as in training; in a backbone that is not `trainable` they
            never do.
          return_endpoints: whether the backbone's endpoints are among the results.

        Returns:
          A dict of "pixel_features" [B, G, P, E], regrouped by the tiles of `superpixel_grid` (`pixel_map` gives them
          as a map), and "superpixel_features" [B, R, C, E], both as Eq. 5 multiplies them; "superpixel_logits" float32
          [B, R, C, num_classes]; "image_size" (Y, X); and "endpoints" {stride: [B, Y/stride, X/stride, C]} if asked
          for. All but the last size belong to the padded image.

        Raises:
          ValueError: if `training` and a side of the images, where it is known, needs padding.
        """
        images, image_size = self.prepare(images, training)
        endpoints, pixels, superpixels = self._tokens(images, training)
        superpixel_logits = self.classifier(superpixels)
        pixels, superpixels = self.association.normalize(pixels, superpixels)
        features = {
            "pixel_features": pixels,
            "superpixel_features": superpixels,
            "superpixel_logits": superpixel_logits,
            "image_size": image_size,
        }
        if return_endpoints:
            features["endpoints"] = endpoints
        return features

    def superpixel_tokens(self, images):
        """[B, Y, X, 3] -> [B, R, C, E], the superpixels as the classifier takes them, in inference."""
        return self._tokens(self.prepare(images)[0], training=False)[-1]

    def superpixel_grid(self, height, width) -> SuperpixelGrid:
        """The grid, and the tiles, of a padded image of that size."""
        stride = self.superpixel_stride
        return self.tokenizer.grid(height // stride, width // stride)

    def pixel_map(self, features):
        """The pixel features as a map, [B, H, W, E]."""
        return self._grid(features).ungroup(features["pixel_features"])

    def semantic_logits(self, features):
        """float32 [B, Y, X, num_classes] (Eq. 6)."""
        grid, classes = self._grid(features), self._classes(features)
        logits = cell_association.image_projection(
            self._association_logits(features, grid), classes, grid, self.association.view(grid)
        )
        return self._crop(logits, features)

    def association_logits(self, features):
        """Eq. 5 as a map, float32 [B, Y, X, 9]; the 9 neighbours in row-major order from (-1, -1) to (1, 1)."""
        grid = self._grid(features)
        logits = ops.swapaxes(self._association_logits(features, grid), 2, 3)
        view = SuperpixelGrid(grid.rows, grid.columns, *self.association.view(grid))
        return self._crop(view.ungroup(logits), features)

    def cell_semantic_logits(self, features):
        """The same logits by cell, [B, R*C, v*u, num_classes], for a loss that does not ask where pixels lie.

        Labels follow by `labels_by_cell`.
        """
        grid = self._grid(features)
        logits = self._association_logits(features, grid)
        return cell_association.cell_projection(logits, self._classes(features), grid)

    def association_by_cell(self, features):
        """Pixels' weights for their 9 superpixels, [B, R*C, 9, v*u], and these superpixels' classes, [B, R*C, 9, K].

        Both float32; their product over the 9 is `cell_semantic_logits`.
        """
        grid = self._grid(features)
        weights = ops.softmax(self._association_logits(features, grid), axis=2)
        return weights, cell_association.neighbor_classes(self._classes(features), grid)

    def labels_by_cell(self, labels):
        """[B, Y, X] -> [B, R*C, v*u], in the order of `cell_semantic_logits`; Y and X without padding."""
        stride = self.superpixel_stride
        height, width = ops.shape(labels)[1:3]
        cells = SuperpixelGrid(height // stride, width // stride, stride, stride)
        return ops.squeeze(cells.regroup(ops.expand_dims(labels, -1)), -1)

    def labels(self, features):
        """int32 [B, Y, X], the class with the largest logit; no logits of the image's size are held."""
        grid = self._grid(features)
        labels = cell_association.label_map(
            self._ring_products(features, grid),
            self._classes(features),
            grid,
            self.association.view(grid),
        )
        return self._crop(labels, features)

    def hard_superpixels(self, features):
        """int32 [B, Y, X], the superpixel of each pixel as r*C + c (Eq. 7); R x C belongs to the padded image."""
        grid = self._grid(features)
        ids = cell_association.superpixel_map(
            self._ring_products(features, grid), grid, self.association.view(grid)
        )
        return self._crop(ids, features)

    def prepare(self, images, training=False):
        """Normalised images padded to `size_multiple`, and the size (Y, X) that they had.

        Raises:
          ValueError: if `training` and a side of the images, where it is known, needs padding.
        """
        multiple = self.size_multiple
        height, width = ops.shape(images)[1:3]
        if training:
            for side, name in zip(images.shape[1:3], ("height", "width"), strict=True):
                if side is not None and side % multiple:
                    raise ValueError(
                        f"training images of {name} {side} are not a multiple of {multiple} "
                        f"(superpixel stride {self.superpixel_stride}, endpoint strides "
                        f"{list(self.hypercolumn.strides)}); {checks.nearest_multiples(side, multiple)}"
                    )
        images = normalization.normalize(images, self.input_normalization, self.compute_dtype)
        below, right = -height % multiple, -width % multiple
        if not is_static(below, right) or below or right:
            images = ops.pad(
                images,
                [[0, 0], [0, below], [0, right], [0, 0]],
                constant_values=normalization.padding_value(self.input_normalization),
            )
        return images, (height, width)

    def _tokens(self, images, training):
        """Endpoints, and the tokenizer's pixels [B, G, P, E] and superpixels [B, R, C, E], of prepared images."""
        grid = self.superpixel_grid(*ops.shape(images)[1:3])
        endpoints = self._endpoints(images, training)
        pixels = self.hypercolumn(endpoints, grid=grid)
        return endpoints, *self.tokenizer(pixels, grid=grid, training=training)

    def _endpoints(self, images, training):
        if self.backbone.trainable:
            return self.backbone(images, training=training)
        # Frozen: without drop path, and cut off, so that no gradient of it is computed or its activations kept.
        endpoints = self.backbone(images, training=False)
        return {stride: ops.stop_gradient(x) for stride, x in endpoints.items()}

    def _grid(self, features):
        return self.tokenizer.grid(*ops.shape(features["superpixel_features"])[1:3])

    def _classes(self, features):
        """Class logits of superpixels, [B, R*C, num_classes]."""
        batch, rows, columns, classes = ops.shape(features["superpixel_logits"])
        return ops.reshape(features["superpixel_logits"], [batch, rows * columns, classes])

    def _ring_products(self, features, grid):
        return self.association.ring_products(
            features["pixel_features"], features["superpixel_features"], grid
        )

    def _association_logits(self, features, grid):
        """Eq. 5 by cell, float32 [B, R*C, 9, v*u]."""
        return self.association.cell_logits(
            features["pixel_features"], features["superpixel_features"], grid
        )

    def _crop(self, x, features):
        height, width = features["image_size"]
        if is_static(height, width) and (height, width) == tuple(x.shape[1:3]):
            return x
        return x[:, :height, :width]
