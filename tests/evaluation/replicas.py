"""Evaluates on some virtual devices, in a process of its own: one process takes one strategy only.

    python replicas.py CONFIG.textproto OUTPUT_DIR NUM_REPLICAS (stub|CHECKPOINT)

The stub predicts a pixel's red value modulo 3, multiplied by a variable of the strategy that holds 1.
"""

import json
import sys
import types

import tensorflow as tf
from google.protobuf import text_format

from sp_transformer.evaluation import evaluator
from sp_transformer.model import builder, weights
from sp_transformer.protos import experiment_pb2


def main(config_file, output_dir, num_replicas, predictor):
    num_replicas = int(num_replicas)
    devices = [tf.config.LogicalDeviceConfiguration()] * num_replicas
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    config = experiment_pb2.ExperimentOptions()
    with open(config_file) as file:
        text_format.Parse(file.read(), config)
    strategy = tf.distribute.get_strategy()
    if num_replicas > 1:
        names = [f"CPU:{number}" for number in range(num_replicas)]
        strategy = tf.distribute.MirroredStrategy(names)
    model = inference = None
    traces = []
    with strategy.scope():
        if predictor == "stub":
            one = tf.Variable(1, dtype=tf.int32)

            def labels(images):
                traces.append(1)
                return tf.cast(images[..., 0] % 3, tf.int32) * one

            inference = types.SimpleNamespace(
                labels=labels, labels_and_superpixels=lambda images: (labels(images),) * 2
            )
            inference.of_shape = lambda batch_size, image_size: inference
        else:
            model = builder.build_model(config)
            weights.restore_model(model, predictor)
    results = evaluator.evaluate(config, model, output_dir, inference=inference, strategy=strategy)
    print(json.dumps({"miou": results["miou"], "traces": len(traces)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
