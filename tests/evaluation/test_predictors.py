"""The same numbers on any number of replicas and in any batches."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from sp_transformer.evaluation import predictors

REPLICAS = pathlib.Path(__file__).parent / "replicas.py"


def run(config, folder, num_replicas, predictor="stub"):
    """metrics.json of an evaluation in a process with that many virtual devices, and its traces."""
    folder.mkdir()
    config_file = folder / "config.textproto"
    config_file.write_text(text_format.MessageToString(config))
    done = subprocess.run(
        [sys.executable, REPLICAS, config_file, folder, str(num_replicas), predictor],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout.strip().splitlines()[-1])
    return json.loads((folder / "metrics.json").read_text()), printed["traces"]


def counted(results):
    """What must not depend on how images were put into batches and onto replicas."""
    varying = ("seconds", "images_per_second")
    return {key: value for key, value in results.items() if key not in varying}


def test_three_replicas_count_what_one_counts_in_any_batches(config, arrays, num_classes, tmp_path):
    config.evaluation.failure_analysis.enabled = True
    config.evaluation.superpixels.enabled = True
    config.evaluation.superpixels.slic_factors.append(0)
    expected = np.zeros((num_classes, num_classes), int)
    for image, label in arrays:
        kept = label != 255
        np.add.at(expected, (label[kept], image[..., 0][kept] % 3), 1)
    found = []
    # 7 images, of four sizes: runs that end early, and a last round for one replica of three.
    for replicas, batch_size in ((1, 1), (3, 1), (3, 2)):
        config.evaluation.batch_size = batch_size
        folder = tmp_path / f"{replicas}_{batch_size}"
        results, traces = run(config, folder, replicas)
        assert results["confusion_matrix"] == expected.tolist()
        # One graph for all sizes: what is traced anew for each size takes a model's time each.
        assert replicas == 1 or traces == 3
        texts = [(folder / name).read_text() for name in ("per_image.json", "superpixels.json")]
        found.append((counted(results), texts))
    assert found[0] == found[1] == found[2]


def test_three_replicas_count_on_their_devices(config, arrays, num_classes, tmp_path):
    config.evaluation.boundary_iou_width = 0
    config.evaluation.static_height, config.evaluation.static_width = 9, 8
    config.evaluation.count_on_device = True
    expected = np.zeros((num_classes, num_classes), int)
    for image, label in arrays:
        kept = label != 255
        np.add.at(expected, (label[kept], image[..., 0][kept] % 3), 1)
    results, _ = run(config, tmp_path / "counted", 3)
    assert results["confusion_matrix"] == expected.tolist()


@pytest.mark.slow
def test_three_replicas_of_the_real_model_predict_what_one_predicts(tiny_run, tmp_path):
    config = type(tiny_run.config)()
    config.CopyFrom(tiny_run.config)
    counts = []
    for replicas in (1, 3):
        results, _ = run(config, tmp_path / str(replicas), replicas, str(tiny_run.model_dir))
        counts.append(np.array(results["confusion_matrix"]))
    assert counts[0].sum() == counts[1].sum()
    assert np.abs(counts[0] - counts[1]).sum() <= 2 * max(1, counts[0].sum() // 100_000)


def test_of_several_processes_the_one_that_calls_predicts_alone(config, inference, monkeypatch):
    class Several:
        num_replicas_in_sync = 2

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", Several)
    predictor = predictors.ModelPredictor(inference, config, Several())
    assert predictor.batches_at_once == 1 and predictor.static_size is None
    image = tf.zeros([1, 2, 3, 3], tf.uint8)
    ((labels, ids),) = predictor.predict([{"image": image}])
    assert labels["single_scale"].shape == (1, 2, 3) and ids is None


def test_a_tpu_sees_images_of_one_size(config, inference, monkeypatch):
    class Tpu:
        num_replicas_in_sync = 8

    monkeypatch.setattr(tf.distribute, "TPUStrategy", Tpu)
    predictor = predictors.ModelPredictor(inference, config, Tpu())
    assert predictor.batches_at_once == 8 and predictor.static_size == (32, 32)
    config.evaluation.static_height, config.evaluation.static_width = 64, 96
    assert predictors.ModelPredictor(inference, config).static_size == (64, 96)
    config.evaluation.ClearField("static_height")
    config.data.resize_longer_side = 64
    with pytest.raises(ValueError, match="--mode=continuous_eval on a CPU or GPU"):
        predictors.ModelPredictor(inference, config, Tpu())
