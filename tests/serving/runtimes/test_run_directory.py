"""A training run as a model to predict with."""

import shutil

import numpy as np
import pytest

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


def test_a_folder_with_a_config_alone_is_refused(tiny_run, tmp_path):
    shutil.copy(tiny_run.model_dir / "config.textproto", tmp_path)
    with pytest.raises(ValueError, match="checkpoint"):
        runtimes.open_model(tmp_path)
