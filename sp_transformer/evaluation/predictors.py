"""Where predictions come from: a model on one or more replicas.

Shapes: b images of one batch; Y, X their height and width.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sp_transformer.evaluation import inference_modes
from sp_transformer.protos import evaluation_pb2


class ModelPredictor:
    """Runs a model, in every mode of a config, on as many batches at once as there are replicas.

    Replicas only predict: each its own batch, whatever their sizes. Nothing is reduced over them, so
    that numbers cannot depend on how many there are.

    Attributes:
      modes: names of the modes.
      batches_at_once: how many batches `predict` takes.
      static_size: (height, width) that images have to be padded to, or None for their own sizes:
        `evaluation.static_*`, or on a TPU, which compiles anew for every size, the training crop.
    """

    def __init__(self, inference, config, strategy=None, superpixels=False):
        """Takes the functions of the modes.

        Args:
          inference: an Inference of a model that was built in the scope of `strategy`.
          config: an ExperimentOptions.
          strategy: a tf.distribute.Strategy; default: the current one, outside any scope one device.
            Under one of several processes this process predicts alone, on its first device.
          superpixels: whether superpixel ids are asked for.
        """
        strategy = strategy or tf.distribute.get_strategy()
        self.batches_at_once = strategy.num_replicas_in_sync
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            self.batches_at_once = 1
        on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
        self.static_size = _static_size(config, on_tpu)
        options = list(config.evaluation.modes) or [
            evaluation_pb2.InferenceMode(name=inference_modes.SINGLE_SCALE)
        ]
        self.modes = [mode.name for mode in options]
        self._plain = [mode.name for mode in options if inference_modes.is_plain(mode)]
        self._functions = {
            mode.name: inference_modes.labels_function(inference, config.data, mode)
            for mode in options
        }
        self._superpixels = inference.labels_and_superpixels if superpixels else None
        self._run = self._outputs
        self._in_graph = self.batches_at_once > 1 or on_tpu
        if self._in_graph:
            self._run = _on_replicas(self._outputs, strategy)

    def predict(self, batches: list[dict]) -> list[tuple[dict, np.ndarray | None]]:
        """Predicts up to `batches_at_once` batches.

        Args:
          batches: each with "image", uint8 [b, Y, X, 3].

        Returns:
          For each batch {mode: labels int32 [b, Y, X]}, and the superpixel ids of the whole image
          seen once, int32 [b, Y, X], or None where they were not asked for.
        """
        images = [batch["image"] for batch in batches]
        if not self._in_graph:
            outputs = [self._run(images[0])]
        else:
            # Replicas that have nothing left to do repeat the last batch for nobody.
            missing = self.batches_at_once - len(images)
            outputs = self._run(images + [images[-1]] * missing)[: len(images)]
        results = []
        for labels, ids in outputs:
            labels = {name: values.numpy() for name, values in labels.items()}
            results.append((labels, ids[0].numpy() if ids else None))
        return results

    def _outputs(self, images):
        """{mode: labels}, and the superpixel ids in a list that is empty without them."""
        labels, ids = {}, []
        if self._superpixels is not None:
            found, superpixels = self._superpixels(images)
            ids.append(superpixels)
            # The same computation as that of a plain mode, which need not run twice.
            labels = dict.fromkeys(self._plain, found)
        for name, function in self._functions.items():
            if name not in labels:
                labels[name] = function(images)
        return labels, ids


def _static_size(config, on_tpu):
    options, data = config.evaluation, config.data
    if options.static_height:
        return options.static_height, options.static_width
    return (data.crop_height, data.crop_width) if on_tpu else None


def _on_replicas(function, strategy):
    """`function` of one batch of images as a function of one batch a replica, in one graph for all sizes."""
    images = tf.TensorSpec([None, None, None, 3], tf.uint8)

    @tf.function(input_signature=[[images] * strategy.num_replicas_in_sync])
    def run(batches):
        values = strategy.experimental_distribute_values_from_function(
            lambda context: batches[context.replica_id_in_sync_group]
        )
        labels, ids = strategy.run(function, args=(values,))
        labels = {
            name: strategy.experimental_local_results(value) for name, value in labels.items()
        }
        ids = [strategy.experimental_local_results(value) for value in ids]
        return [
            ({name: values[i] for name, values in labels.items()}, [values[i] for values in ids])
            for i in range(strategy.num_replicas_in_sync)
        ]

    return run
