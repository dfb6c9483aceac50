"""Training steps on some replicas, and what came out of them; for test_replicas.py.

A process takes one strategy (a second one on virtual devices fails in TensorFlow), so each number of replicas has one
of its own, which runs several cases.
"""

import contextlib
import json
import os
import tempfile

STEPS = 5
# A real model, as small as it may be: two stages of a ResNet-18 with BatchNorm, one layer of each attention.
SP_TRANSFORMER = """
    model {
      channels: 16
      backbone { name: "resnet18" }
      hypercolumn { stride: 4 endpoint_strides: 4 endpoint_strides: 8 }
      tokenizer { superpixel_stride: 8 layers: 1 }
      classifier { layers: 1 feed_forward_width: 32 }
    }
    data {
      dataset: "synthetic_streets"
      synthetic_streets { height: 32 width: 64 train_images: 16 val_images: 3 }
      crop_height: 32 crop_width: 64
    }
    training { batch_size: 4 top_k_fraction: 0.5 gradient_clip_norm: 0.5 }
"""


def measure(target, cases, replicas=1, task=None, ports=(), arguments=None):
    """Runs cases and saves what they lead to as an .npz of "CASE/what".

    Args:
      target: file to write.
      cases: names of functions of this module.
      replicas: virtual devices of this process.
      task: number of this worker, where there are several.
      ports: of all workers, on loopback.
      arguments: dict of further ones of the cases.
    """
    if task is not None:
        workers = [f"127.0.0.1:{port}" for port in ports]
        os.environ["TF_CONFIG"] = json.dumps(
            {"cluster": {"worker": workers}, "task": {"type": "worker", "index": task}}
        )
    import numpy as np

    from sp_transformer.training import devices, distribution

    wanted = devices.Devices(
        num_virtual_devices=replicas if replicas > 1 else 0,
        num_workers=devices.count_workers(os.environ.get("TF_CONFIG", "")),
    )
    strategy = distribution.create_strategy(wanted)
    results = {}
    for case in cases:
        for key, value in globals()[case](strategy, **(arguments or {})).items():
            results[f"{case}/{key}"] = value
    np.savez(target, **results)


def sgd(strategy):
    """The stand-in model under plain SGD with clipping, in which rounding stays rounding."""
    import conftest

    config = _tiny_config()
    config.training.gradient_clip_norm = 0.5
    return _tiny(config, strategy, lambda model: _built(conftest.SGD(0.1), model))


def adamw(strategy):
    """The same under the training program's optimizer, with averaged weights."""
    from sp_transformer.training import optimizer

    config = _tiny_config()
    config.training.ema_decay = 0.9
    return _tiny(config, strategy, lambda model: optimizer.create_optimizer(config.training, model))


def sp_transformer(strategy, changes=""):
    """The real model on the real input pipeline, under SGD, and its scores under the same strategy."""
    import conftest
    from google.protobuf import text_format

    import sp_transformer as spt
    from sp_transformer.data import pipeline, sources
    from sp_transformer.protos import experiment_pb2

    config = text_format.Parse(SP_TRANSFORMER, experiment_pb2.ExperimentOptions())
    text_format.Merge(changes, config)
    source = sources.create_source(config.data, "train")
    return _steps(
        config,
        strategy,
        lambda: spt.build_model(config),
        lambda model: _built(conftest.SGD(0.1), model),
        lambda context: pipeline.train_dataset(config, source, 0, context),
        lambda model: _scores(config, model, strategy),
    )


def rematerialized(strategy):
    """The same with everything computed again that can be."""
    return sp_transformer(
        strategy, "training { rematerialize_backbone: true rematerialize_tokenizer: true }"
    )


def initialized(strategy, source, model_dir):
    """The variables of a new run that starts from the checkpoint in `source`, one row a replica; untrained."""
    import conftest
    import keras
    import numpy as np

    from sp_transformer.model import weights

    config = _tiny_config()
    config.training.ema_decay = 0.9
    options = config.training.initialization
    options.kind, options.part, options.path = options.CHECKPOINT, options.WHOLE_MODEL, source
    # What is not loaded differs.
    keras.utils.set_random_seed(strategy.num_replicas_in_sync)
    run = conftest.make_run_of(config)(model_dir, strategy=strategy)
    run.close()
    found = {f"weights/{key}": v.value for key, v in weights.named_variables(run.model).items()}
    found |= {f"averages/{key}": v for key, v in run._averages.by_name.items()}
    local = strategy.experimental_local_results
    return {key: np.stack([part.numpy() for part in local(v)]) for key, v in found.items()}


def masks(strategy):
    """Two draws of dropout and of drop path on every replica, ones in and factors out."""
    import keras
    import numpy as np
    import tensorflow as tf

    from sp_transformer.model.backbones.drop_path import DropPath
    from sp_transformer.training import replica_seeds

    with strategy.scope():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([DropPath(0.5), keras.layers.Dropout(0.5)])
        model.build((200, 50))
        replica_seeds.differ_between_replicas(model)
    draw = tf.function(lambda: model(tf.ones([200, 50]), training=True))
    drawn = [strategy.experimental_local_results(strategy.run(draw)) for _ in range(2)]
    states = [
        np.stack([part.numpy() for part in strategy.experimental_local_results(v.value)])
        for v in model.variables
    ]
    return {"draws": np.array(drawn), "states": np.stack(states)}


def _tiny_config():
    import conftest

    return conftest.make_config()


def _tiny(config, strategy, make_optimizer):
    import conftest

    return _steps(
        config,
        strategy,
        lambda: conftest.build_tiny_model(config, dropout=0.0),
        make_optimizer,
        lambda context: conftest.shared_tiny_dataset(config, 0, context),
    )


def _built(optimizer, model):
    optimizer.build(model.trainable_variables)
    return optimizer


def _scores(config, model, strategy):
    from sp_transformer.evaluation import evaluator

    with tempfile.TemporaryDirectory() as folder:
        results = evaluator.evaluate(config, model, folder, strategy=strategy)
    return {"confusion_matrix": results["confusion_matrix"], "miou": results["miou"]}


def _steps(config, strategy, build_model, make_optimizer, make_dataset, score=lambda _: {}):
    """STEPS steps: losses, norms, weights/NAME, averages/NAME, largest spread over replicas, ops walked, scores."""
    import keras
    import numpy as np

    from sp_transformer.model import weights
    from sp_transformer.training import averages, replica_seeds, train_step

    keras.utils.set_random_seed(3)
    options, average = config.training, None
    with strategy.scope():
        model = build_model()
        replica_seeds.differ_between_replicas(model)
        optimizer = make_optimizer(model)
        if options.ema_decay:
            average = averages.WeightAverages(model, options.ema_decay, strategy)
        loop = train_step.TrainLoop(model, optimizer, options, 255, strategy, average)
    dataset = strategy.distribute_datasets_from_function(make_dataset)
    with _walked_operations() as walked:
        losses, norms = loop(iter(dataset), STEPS)
    found = {f"weights/{key}": v.value for key, v in weights.named_variables(model).items()}
    if average is not None:
        found |= {f"averages/{key}": v for key, v in average.by_name.items()}
    spreads = []
    for variable in [*found.values(), *(v.value for v in optimizer.variables)]:
        parts = strategy.experimental_local_results(variable)
        parts = [np.asarray(part, np.float64) for part in parts]
        spreads.append(max(np.abs(part - parts[0]).max(initial=0.0) for part in parts))
    values = {key: variable.numpy() for key, variable in found.items()}
    results = {"losses": losses, "norms": norms, "spread": max(spreads), "walked": sum(walked)}
    return {**results, **values, **score(model)}


@contextlib.contextmanager
def _walked_operations():
    """A list that fills with the number of operations of each search of TensorFlow's through a graph."""
    from tensorflow.python.ops import op_selector

    walk, walked = op_selector.get_backward_walk_ops, []

    def counted(*args, **kwargs):
        operations = walk(*args, **kwargs)
        walked.append(len(operations))
        return operations

    op_selector.get_backward_walk_ops = counted
    try:
        yield walked
    finally:
        op_selector.get_backward_walk_ops = walk
