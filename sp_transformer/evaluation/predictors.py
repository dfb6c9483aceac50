"""Where predictions come from: a model on one or more replicas.

Shapes: b images of one batch; Y, X their height and width.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sp_transformer.config import derived, resizing
from sp_transformer.evaluation import device_counts, inference_modes
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
      counts: whether `predict` counts what is predicted instead of giving it
        (`evaluation.count_on_device`).
    """

    def __init__(self, inference, config, strategy=None, superpixels=False):
        """Takes the functions of the modes.

        Args:
          inference: an Inference of a model that was built in the scope of `strategy`.
          config: an ExperimentOptions.
          strategy: a tf.distribute.Strategy; default: the current one, outside any scope one device.
            Under one of several processes this process predicts alone, on its first device.
          superpixels: whether superpixel ids are asked for.

        Raises:
          ValueError: on a TPU, for a config that resizes images of any size.
        """
        strategy = strategy or tf.distribute.get_strategy()
        self.batches_at_once = strategy.num_replicas_in_sync
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            self.batches_at_once = 1
        on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
        self.static_size = _static_size(config, on_tpu)
        self.counts = config.evaluation.count_on_device
        self._label_map = derived.label_map(config)
        shape = [None, None, None]
        if self.static_size:
            shape = [config.evaluation.batch_size, *self.static_size]
            inference = inference.of_shape(config.evaluation.batch_size, self.static_size)
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
            self._run = _on_replicas(self._outputs, strategy, shape, with_labels=self.counts)

    def predict(self, batches: list[dict]) -> list[tuple[dict, np.ndarray | None]]:
        """Predicts up to `batches_at_once` batches.

        Args:
          batches: each with "image", uint8 [b, Y, X, 3], and where it counts, "label", int32 [b, Y, X].

        Returns:
          For each batch {mode: labels int32 [b, Y, X]}, or where it counts {mode: int32 [b, K, K]} as
          device_counts.pair_counts gives them, and the superpixel ids of the whole image seen once,
          int32 [b, Y, X], or None where they were not asked for.
        """
        keys = ("image", "label") if self.counts else ("image",)
        inputs = [tuple(tf.convert_to_tensor(batch[key]) for key in keys) for batch in batches]
        if not self._in_graph:
            outputs = [self._run(*inputs[0])]
        else:
            # Replicas that have nothing left to do repeat the last batch for nobody.
            missing = self.batches_at_once - len(inputs)
            outputs = self._run(inputs + [inputs[-1]] * missing)[: len(inputs)]
        results = []
        for labels, ids in outputs:
            labels = {name: values.numpy() for name, values in labels.items()}
            results.append((labels, ids[0].numpy() if ids else None))
        return results

    def _outputs(self, images, truth=None):
        """{mode: labels or counts}, and the superpixel ids in a list that is empty without them."""
        labels, ids = {}, []
        if self._superpixels is not None:
            found, superpixels = self._superpixels(images)
            ids.append(superpixels)
            # The same computation as that of a plain mode, which need not run twice.
            labels = dict.fromkeys(self._plain, found)
        for name, function in self._functions.items():
            if name not in labels:
                labels[name] = function(images)
        if self.counts:
            classes = self._label_map.num_classes, self._label_map.ignore_label
            labels = {
                name: device_counts.pair_counts(truth, found, *classes)
                for name, found in labels.items()
            }
        return labels, ids


def _static_size(config, on_tpu):
    options, data = config.evaluation, config.data
    if options.static_height:
        return options.static_height, options.static_width
    if not on_tpu:
        return None
    if resizing.resizes(data):
        raise ValueError(
            "evaluation on a TPU takes images of one size, and data.resize_* is for images of many; train there with "
            "--mode=train, and evaluate the same model_dir with --mode=continuous_eval on a CPU or GPU"
        )
    return data.crop_height, data.crop_width


def _on_replicas(function, strategy, shape, with_labels):
    """`function` of one batch as one of a batch a replica, in one graph for all images of `shape` [b, Y, X]."""
    specs = (tf.TensorSpec([*shape, 3], tf.uint8),)
    if with_labels:
        specs += (tf.TensorSpec(shape, tf.int32),)

    @tf.function(input_signature=[[specs] * strategy.num_replicas_in_sync])
    def run(batches):
        values = [
            strategy.experimental_distribute_values_from_function(
                lambda context, place=place: batches[context.replica_id_in_sync_group][place]
            )
            for place in range(len(specs))
        ]
        labels, ids = strategy.run(function, args=tuple(values))
        labels = {
            name: strategy.experimental_local_results(value) for name, value in labels.items()
        }
        ids = [strategy.experimental_local_results(value) for value in ids]
        return [
            ({name: values[i] for name, values in labels.items()}, [values[i] for values in ids])
            for i in range(strategy.num_replicas_in_sync)
        ]

    return run
