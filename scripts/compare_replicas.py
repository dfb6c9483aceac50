"""Times a training step on two virtual devices against one device, and says where the difference comes from.

    python scripts/compare_replicas.py --config_file configs/cityscapes/resnet50.textproto --size 512x1024 --json OUT

The same global batch of 2 images, on one device and shared by two. A process has one strategy only, so every variant is
a process of its own. Pairs of them take turns, one step at a time; only a pair is in memory at once. The variants:

    one          one device, the step as it is trained
    two          two virtual devices of the same CPU
    one_twice    one device, the optimizer's update run twice: what two devices do that share no memory
    two_apart    two devices that sum nothing, neither gradients nor BatchNorm's statistics

Weights are random, images are noise: neither changes how long a step takes.
"""

import json
import multiprocessing
import os
import pathlib
import statistics
import sys
import time

from absl import flags

from sp_transformer import command_line

PAIRS = (("one", "two"), ("one", "one_twice"), ("two_apart", "two"))


def define_flags(values: flags.FlagValues) -> None:
    """Defines this script's flags in `values`."""
    command_line.define_config_flags(values)
    command_line.define_timing_flags(values, rounds=5, warmup=1)
    flags.DEFINE_string("size", "512x1024", "HEIGHTxWIDTH of the images.", flag_values=values)
    flags.adopt_module_key_flags(command_line, values)


def main(values: flags.FlagValues) -> int:
    """Times the variants; returns the exit code."""
    command_line.require(values, "config_file")
    overrides = [
        "data {{ crop_height: {} crop_width: {} }}".format(*values.size.split("x")),
        "training { batch_size: 2 jit_compile: false }",
    ]
    values.override = [*values.override, *overrides]
    command_line.load_config(values)
    pairs = []
    for pair in PAIRS:
        first, seconds = _time_pair(pair, values)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        pairs.append({"seconds": seconds, "median": medians, "first_step_seconds": first})
        print(", ".join(f"{name} {median:.3f} s" for name, median in medians.items()), flush=True)
    from sp_transformer import environment

    (total, update, reduction) = (
        pair["median"][second] - pair["median"][first]
        for pair, (first, second) in zip(pairs, PAIRS, strict=True)
    )
    one = pairs[0]["median"]["one"]
    report = {
        "config": os.path.relpath(values.config_file),
        "size": values.size,
        "global_batch": 2,
        "rule": "median seconds of a step; variants take turns, order reversed every round",
        "rounds": values.rounds,
        "pairs": pairs,
        "two_over_one": pairs[0]["median"]["two"] / one,
        "first_step_seconds": pairs[0]["first_step_seconds"],
        "share_of_one": {
            "optimizer update twice": update / one,
            "reduction": reduction / one,
            "contention and the rest": (total - update - reduction) / one,
        },
        "environment": environment.describe(),
    }
    print(
        json.dumps(
            {k: report[k] for k in ("two_over_one", "share_of_one", "first_step_seconds")}, indent=1
        )
    )
    if values.json:
        pathlib.Path(values.json).write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _time_pair(pair, values):
    """{variant: seconds of its first step} and {variant: seconds of each timed step} of two that take turns.

    The first steps, tracing included, are taken side by side: one core is enough for each.
    """
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name in pair:
        ours, theirs = context.Pipe()
        arguments = (theirs, name, values.config_file, list(values.override))
        context.Process(target=_serve, args=arguments, daemon=True).start()
        pipes[name] = ours
    first = {name: pipes[name].recv() for name in pair}
    seconds = {name: [] for name in pair}
    for number in range(values.warmup + values.rounds):
        for name in pair if number % 2 else pair[::-1]:
            pipes[name].send(True)
            taken = pipes[name].recv()
            if number >= values.warmup:
                seconds[name].append(taken)
    for pipe in pipes.values():
        pipe.send(False)
    return first, seconds


def _serve(pipe, name, config_file, overrides):
    """A variant in its process: takes a step whenever told to, and answers with its seconds."""
    import keras
    import numpy as np
    import tensorflow as tf

    import sp_transformer as spt
    from sp_transformer.model import replica_sums
    from sp_transformer.training import devices, distribution, optimizer, train_step

    config = spt.load_config(config_file, overrides=overrides)
    wanted = devices.Devices(num_virtual_devices=2 if name.startswith("two") else 0)
    strategy = distribution.create_strategy(wanted)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = spt.build_model(config)
        adamw = optimizer.create_optimizer(config.training, model)
        loop = train_step.TrainLoop(model, adamw, config.training, 255, strategy)
    if name == "one_twice":
        apply = adamw.apply

        def apply_twice(gradients, variables):
            apply(gradients, variables)
            apply(gradients, variables)

        adamw.apply = apply_twice
    if name == "two_apart":
        # Each replica goes on with its own gradients and statistics.
        replica_sums.over_replicas = list
    share = 2 // strategy.num_replicas_in_sync
    shape = (share, config.data.crop_height, config.data.crop_width)
    generator = np.random.default_rng(0)
    batch = {
        "image": tf.constant(generator.uniform(0, 255, (*shape, 3)), tf.float32),
        "label": tf.constant(generator.integers(0, 19, shape), tf.int32),
    }
    dataset = strategy.distribute_datasets_from_function(
        lambda _: tf.data.Dataset.from_tensors(batch).repeat()
    )
    iterator = iter(dataset)
    start = time.perf_counter()
    loop(iterator, 1)
    pipe.send(time.perf_counter() - start)
    while pipe.recv():
        start = time.perf_counter()
        loop(iterator, 1)
        pipe.send(time.perf_counter() - start)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    command_line.run(main, define_flags)
