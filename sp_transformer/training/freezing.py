"""What of a model is not trained: variables without gradient, moments and weight decay."""

import keras


def freeze(model, options) -> None:
    """Takes what `options` freeze out of `model.trainable_variables`.

    A frozen BatchNorm uses its moving statistics in training too, and does not update them.

    Args:
      model: a built model with an attribute `backbone`.
      options: TrainingOptions.
    """
    if options.freeze_backbone:
        model.backbone.trainable = False
    if options.freeze_batch_norm:
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
