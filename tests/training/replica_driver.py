"""Training steps of a small SPTransformer on some replicas, and what came out of them; for test_replicas.py.

A process takes one strategy (STACK: a second one on virtual devices fails), so each number of replicas has one of its
own, which runs all cases.
"""

import json
import os
import pathlib

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "synthetic" / "quickstart.textproto"
STEPS = 5
OVERRIDES = """
    model {
      channels: 16
      classifier { layers: 1 feed_forward_width: 32 }
    }
    data {
      synthetic_streets { height: 64 width: 128 train_images: 16 }
      resize_height: 32 resize_width: 64 crop_height: 32 crop_width: 64
      start_check_images: 0
    }
    training {
      batch_size: 4 steps: 100 warmup_steps: 0 learning_rate: 1e-2 jit_compile: false
      gradient_clip_norm: 0.5
    }
"""
CASES = {
    "sgd": "",
    "adamw": "training { ema_decay: 0.9 }",
    "rematerialized": "training { rematerialize_backbone: true rematerialize_tokenizer: true }",
    "drop_path": "model { backbone { drop_path_rate: 0.5 } }",
}


def measure(target, replicas=1, task=None, ports=(), cases=tuple(CASES)):
    """Runs cases and saves what they lead to as an .npz of "CASE/what/name".

    Args:
      target: file to write.
      replicas: virtual devices of this process.
      task: number of this worker, where there are several.
      ports: of all workers, on loopback.
      cases: names out of CASES.
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
    for name in cases:
        for key, value in run_case(name, strategy).items():
            results[f"{name}/{key}"] = value
    np.savez(target, **results)


def run_case(name, strategy):
    """Takes STEPS steps of a case; returns {"losses", "norms", "weights/NAME", "averages/NAME", "spread", "masks"}."""
    import keras
    import numpy as np
    import tensorflow as tf

    import sp_transformer as spt
    from sp_transformer.config import derived
    from sp_transformer.data import pipeline, sources
    from sp_transformer.model import weights
    from sp_transformer.training import averages, optimizer, replica_seeds, train_step

    config = spt.load_config(CONFIG, overrides=[OVERRIDES, CASES[name]])
    options = config.training
    source = sources.create_source(config.data, "train")
    keras.utils.set_random_seed(3)
    with strategy.scope():
        model = spt.build_model(config)
        replica_seeds.differ_between_replicas(model)
        if name in ("sgd", "rematerialized"):
            chosen = keras.optimizers.SGD(0.1)
            chosen.build(model.trainable_variables)
        else:
            chosen = optimizer.create_optimizer(options, model)
        average = (
            averages.WeightAverages(model, options.ema_decay, strategy)
            if options.ema_decay
            else None
        )
        ignore_label = derived.label_map(config).ignore_label
        loop = train_step.TrainLoop(model, chosen, options, ignore_label, strategy, average)
    dataset = strategy.distribute_datasets_from_function(
        lambda context: pipeline.train_dataset(config, source, 0, context)
    )
    losses, norms = loop(iter(dataset), STEPS)
    results = {"losses": losses, "norms": norms}
    variables = [v.value for v in (*model.variables, *chosen.variables)]
    for key, variable in weights.named_variables(model).items():
        results[f"weights/{key}"] = variable.value.numpy()
    if average is not None:
        variables += list(average._averages.values())
        for key, variable in average._averages.items():
            results[f"averages/{key}"] = variable.numpy()
    spreads = []
    for variable in variables:
        parts = [
            np.asarray(part, np.float64) for part in strategy.experimental_local_results(variable)
        ]
        spreads.append(max(np.abs(part - parts[0]).max(initial=0.0) for part in parts))
    results["spread"] = max(spreads)
    generators = [g for layer in model._flatten_layers() for g in vars(layer).values()]
    generators = [g for g in generators if isinstance(g, keras.random.SeedGenerator)]
    if generators:
        draw = tf.function(lambda: keras.random.uniform((1000,), seed=generators[0]))
        results["masks"] = np.stack(strategy.experimental_local_results(strategy.run(draw)))
    return results
