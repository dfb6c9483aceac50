"""The input report: how many training examples a second come out of the input pipeline, step by step.

Shapes: as in `data.augmentation`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sp_transformer import environment
from sp_transformer.benchmarking import report, rules, timing
from sp_transformer.data import augmentation, pipeline, sources, window_reader

READ, DECODE, SCALE = "read", "decode", "scale and crop"
FINISH, COLOUR = "flip, pad and batch", "colour"
WHOLE = "whole"
COLUMNS = ["step", "up to here (images/s)", "this step (ms of a core)", "share of whole (%)"]


def run(config, settings, progress: Callable[[str], None] | None = None) -> report.Report:
    """Measures the training input of one config.

    Args:
      config: a validated ExperimentOptions whose data are there.
      settings: with report "input".
      progress: called with a line of text whenever something is done.

    Raises:
      ValueError: if the source is at fault.
    """
    tell = progress or (lambda text: None)
    functions = steps(config, settings.images)
    timings = timing.measure_interleaved(
        functions,
        settings.rounds,
        settings.warmup,
        progress=lambda done, total: tell(f"round {done} of {total}"),
    )
    return report.Report(
        title=f"{config.experiment_name or 'the config'}: training input of {config.data.dataset}",
        rules=rules.input_rules(settings),
        columns=list(COLUMNS),
        rows=rows(timings, settings.images),
        notes=[cores_note(config, settings, timings[list(functions)[-1]])],
        environment=environment.describe(),
        settings=settings.as_dict(),
    )


def steps(config, images: int) -> dict[str, Callable[[], int]]:
    """The pipelines that end after each step, in order.

    Args:
      config: a validated ExperimentOptions whose data are there.
      images: examples that one call prepares.

    Returns:
      {step: function that prepares the first `images` examples up to it and returns their number}. A step that the
      config or the source does not have is left out; the last one is the whole pipeline.
    """
    source = sources.create_source(config.data, config.data.train_split)
    limited = type(config)()
    limited.CopyFrom(config)
    limited.data.parallel_calls = config.data.parallel_calls or cores()
    # A whole number of batches, so that none is half used.
    limited.training.batch_size = next(
        size for size in range(min(config.training.batch_size, images), 0, -1) if images % size == 0
    )
    plain = type(config)()
    plain.CopyFrom(limited)
    plain.data.augmentation.color_policy = "none"

    datasets = {}
    if hasattr(source, "fetch"):
        datasets[READ] = _examples(limited, source, images, _fetched)
    elif source.image_file(0) is not None:
        datasets[READ] = _examples(limited, source, images, _file)
    datasets[DECODE] = _examples(limited, source, images, _decoded)
    datasets[SCALE] = _examples(limited, source, images, _scaled)
    batches = images // limited.training.batch_size
    datasets[FINISH] = pipeline.train_dataset(plain, source).take(batches)
    if config.data.augmentation.color_policy != "none":
        datasets[COLOUR] = pipeline.train_dataset(limited, source).take(batches)
    return {name: _exhaust(dataset) for name, dataset in datasets.items()}


def rows(timings: dict[str, timing.Timing], images: int) -> list[dict]:
    """The table: each step, and the whole.

    Args:
      timings: of the functions of `steps`, or of others that each do more than the one before.
      images: examples in one call.
    """
    made, before = [], None
    whole = timings[list(timings)[-1]]
    for name, own in timings.items():
        step = own if before is None else timing.Timing(_differences(own, before))
        made.append(
            {
                "step": name,
                "up to here (images/s)": images / own.median,
                "this step (ms of a core)": 1e3 * cores() * step.median / images,
                "share of whole (%)": 100 * timing.ratio(step, whole).median,
                "seconds": list(own.seconds),
            }
        )
        before = own
    made.append(
        {
            "step": WHOLE,
            "up to here (images/s)": images / whole.median,
            "this step (ms of a core)": 1e3 * cores() * whole.median / images,
            "share of whole (%)": 100.0,
        }
    )
    return made


def cores_note(config, settings, whole: timing.Timing) -> str:
    """How many cores like these training at an assumed speed needs."""
    seconds_of_a_core = cores() * whole.median / settings.images
    rate = config.training.batch_size * settings.steps_per_second
    return (
        f"Assumed {report.format_number(settings.steps_per_second)} steps/s of {config.training.batch_size} images: "
        f"{report.format_number(rate)} images/s at {report.format_number(1e3 * seconds_of_a_core)} ms of a core each "
        f"keep {report.format_number(rate * seconds_of_a_core)} cores like these busy, on all hosts together."
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def count_elements(dataset) -> int:
    """Runs a dataset to its end and returns the number of its elements."""
    return sum(1 for _ in dataset)


def _exhaust(dataset):
    return lambda: count_elements(dataset)


def _reads_whole(config):
    from sp_transformer.config import resizing

    return config.data.cache_in_memory or resizing.resizes(config.data)


def _examples(config, source, images, step):
    """The examples that the training stream begins with, up to a step; not in batches."""
    data = config.data

    def example(number):
        index = pipeline.shuffled_index(number, len(source), data.seed)
        return step(config, source, index, pipeline.example_seed(data.seed, number))

    dataset = tf.data.Dataset.range(images, output_type=tf.int64)
    return dataset.map(example, num_parallel_calls=data.parallel_calls, deterministic=True)


def _fetched(config, source, index, seed):
    reader = window_reader.WindowReader(source, config.data, _crop_size(config))
    whole = _reads_whole(config)

    def fetch(index, scale, position):
        _, choose = reader.chooser(scale, position)
        if whole:
            choose = _choose_all
        source.fetch(int(index), choose)
        return np.int64(index)

    return _numpy(fetch, config, index, seed, [tf.int64])


def _file(config, source, index, seed):
    def read(index, scale, position):
        return np.int64(len(source.image_file(int(index))))

    return _numpy(read, config, index, seed, [tf.int64])


def _decoded(config, source, index, seed):
    reader = window_reader.WindowReader(source, config.data, _crop_size(config))
    whole = _reads_whole(config)

    def decode(index, scale, position):
        if whole:
            image, _ = source.read(int(index))
        else:
            _, choose = reader.chooser(scale, position)
            image, _ = source.read_region(int(index), choose)
        return np.int64(image.shape[0])

    return _numpy(decode, config, index, seed, [tf.int64])


def _scaled(config, source, index, seed):
    reader = window_reader.WindowReader(source, config.data, _crop_size(config))
    types = [tf.uint8, tf.int32, tf.float64]
    region, label, sampling = _numpy(reader.read_window, config, index, seed, types)
    region = tf.ensure_shape(region, [None, None, 3])
    sampling = tf.ensure_shape(sampling, [4, 2])
    return augmentation.scale_window(region, sampling), tf.ensure_shape(label, [None, None])


def _choose_all(height, width):
    return 0, 0, height, width


def _numpy(function, config, index, seed, types):
    drawn = augmentation.draw_window(seed, config.data.augmentation)
    return tf.numpy_function(function, [index, *drawn], types, stateful=False)


def _crop_size(config):
    return config.data.crop_height, config.data.crop_width


def _differences(own, before):
    return tuple(a - b for a, b in zip(own.seconds, before.seconds, strict=True))
