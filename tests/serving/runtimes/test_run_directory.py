"""A training run as a model to predict with."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

import sp_transformer as spt
from sp_transformer.model import weights
from sp_transformer.model.inference import Inference
from sp_transformer.protos import experiment_pb2
from sp_transformer.serving import runtimes
from sp_transformer.serving.runtimes import run_directory


def test_a_run_and_its_checkpoint_run_as_the_model_does(tiny_run):
    images = np.random.default_rng(3).integers(0, 256, (1, 45, 70, 3), np.uint8)
    expected = tiny_run.inference.superpixels(images)
    checkpoint = tiny_run.model_dir / "ckpt-7"
    config_file = tiny_run.model_dir / "config.textproto"
    for path in (checkpoint, checkpoint.with_suffix(".index")):
        assert run_directory.find_run(path) == (config_file, checkpoint)
    assert run_directory.find_run(tiny_run.model_dir) == (config_file, tiny_run.model_dir)
    assert run_directory.find_run(tiny_run.model_dir / "ckpt-8") is None
    model = runtimes.open_model(checkpoint)
    assert model.format == "run" and model.about["step"] == 7
    found = model.run(images)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    np.testing.assert_array_equal(model.labels(images), found["labels"])
    np.testing.assert_array_equal(model.probabilities(images).argmax(-1), found["labels"])


def test_averaged_weights_are_used_where_the_run_is_scored_by_them(tiny_run, tmp_path):
    config = experiment_pb2.ExperimentOptions()
    config.CopyFrom(tiny_run.config)
    config.training.ema_decay = 0.9
    config.evaluation.averaged_weights = True
    average = spt.build_model(config)
    weights.restore_model(average, tiny_run.model_dir)
    average.classifier.trainable_variables[-1].assign_add(tf.range(19.0))
    of_model = weights.model_weights(tiny_run.inference.model)
    checkpoint = tf.train.Checkpoint(
        model=of_model,
        averages=weights.model_weights(average),
        step=tf.Variable(8, dtype=tf.int64),
    )
    checkpoint.write(str(tmp_path / "ckpt-8"))
    (tmp_path / "config.textproto").write_text(text_format.MessageToString(config))
    images = np.random.default_rng(3).integers(0, 256, (1, 45, 70, 3), np.uint8)
    model = runtimes.open_model(tmp_path)
    assert model.about["averaged_weights"]
    found = model.probabilities(images)
    np.testing.assert_array_equal(found, Inference(average, config.data).probabilities(images))
    assert np.abs(found - tiny_run.inference.probabilities(images)).max() > 0.1


def test_a_folder_with_a_config_alone_is_refused(tiny_run, tmp_path):
    shutil.copy(tiny_run.model_dir / "config.textproto", tmp_path)
    with pytest.raises(ValueError, match="checkpoint"):
        runtimes.open_model(tmp_path)
