"""What TensorBoard and log.jsonl are told."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator

from sp_transformer.data import sources
from sp_transformer.training import reporting


@pytest.fixture
def make_reporter(tmp_path, tiny, config):
    model = tiny.build_model()
    random = np.random.default_rng(0)
    examples = [
        {
            "image": random.integers(0, 256, (12, 20, 3), np.uint8),
            "label": np.zeros((12, 20), np.int32),
        }
    ]

    def make(first_step, calls=None):
        def make_examples():
            if calls is not None:
                calls.append(first_step)
            return examples

        return reporting.Reporter(str(tmp_path), model, config, first_step, make_examples)

    return make


def tensors(tmp_path, tag):
    events = plugin_event_accumulator.EventAccumulator(
        str(tmp_path / "train"), tensor_size_guidance={}
    )
    events.Reload()
    return [(event.step, tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]


def test_speed_is_that_since_the_last_report(make_reporter, tmp_path, config):
    reporter = make_reporter(0)
    reporter.count(1, 100.0)  # Compiles.
    reporter.count(3, 6.0)
    reporter.report(4, {"loss": 1.0})
    reporter.count(4, 4.0)
    reporter.report(8, {"loss": 0.5})
    reporter.close()
    lines = (tmp_path / "train" / "log.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["step_seconds"], second["step_seconds"]) == (2.0, 1.0)
    batch = config.training.batch_size
    assert (first["images_per_second"], second["images_per_second"]) == (batch / 2, batch)
    assert tensors(tmp_path, "step_seconds") == [(4, 2.0), (8, 1.0)]
    # The only call there is counts, though it compiles.
    reporter = make_reporter(8)
    reporter.count(4, 8.0)
    reporter.report(12, {"loss": 0.4})
    reporter.close()
    assert tensors(tmp_path, "step_seconds")[-1] == (12, 2.0)


def test_a_resumed_run_shows_each_point_once(make_reporter, tmp_path):
    reporter = make_reporter(0)
    reporter.count(4, 1.0)
    for step in (4, 8, 12):
        reporter.report(step, {"loss": float(step)})
    reporter.close()
    reporter = make_reporter(4)
    reporter.count(4, 1.0)
    for step in (8, 12, 16):
        reporter.report(step, {"loss": step + 0.5})
    reporter.close()
    assert tensors(tmp_path, "loss") == [(4, 4.0), (8, 8.5), (12, 12.5), (16, 16.5)]


def test_pictures_are_of_the_same_examples_at_every_drawing(make_reporter, tmp_path):
    calls = []
    reporter = make_reporter(0, calls)
    reporter.draw(4)
    reporter.draw(8)
    reporter.close()
    assert calls == [0]
    for tag in ("segmentation/0", "details/0"):
        drawn = tensors(tmp_path, tag)
        assert [step for step, _ in drawn] == [4, 8]
        pictures = [tf.io.decode_png(value[2]).numpy() for _, value in drawn]
        # The 12x20 pixels are magnified by 25; two or three panels have gaps between them.
        assert pictures[0].shape[0] > 12 * 25 and pictures[0].shape[1] >= 3 * 20 * 25 + 8
        np.testing.assert_array_equal(*pictures)
    assert [step for step, _ in tensors(tmp_path, "legend/classes")] == [4]


def test_peak_memory_is_that_of_the_process():
    with open("/proc/self/status") as file:
        (peak,) = (int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    memory = reporting.peak_memory()
    assert memory == {"memory/host_peak_gib": pytest.approx(peak / 2**20, rel=0.05)}


def test_examples_come_from_all_over_the_split(config):
    config.data.synthetic_streets.val_images = 10
    config.data.synthetic_streets.height = config.data.synthetic_streets.width = 64
    source = sources.create_source(config.data, "val")
    examples = reporting.examples_of_source(source, 3)
    for index, example in zip((0, 3, 6), examples, strict=True):
        image, label = source.read(index)
        np.testing.assert_array_equal(example["image"], image)
        np.testing.assert_array_equal(example["label"], label)
    batch = {"image": tf.constant([[[[1.6, 300.0, -4.0]]]] * 3), "label": tf.zeros([3, 1, 1])}
    first, second = reporting.examples_of_batch(batch, 2)
    assert first["image"].tolist() == second["image"].tolist() == [[[2, 255, 0]]]
