"""The loop with the real model, data and augmentation: what stand-ins cannot show is that the parts fit."""

import json
import pathlib

import numpy as np
import pytest

import sp_transformer as spt
from sp_transformer.training import loop, modes, progress

CONFIG = """
model {
  channels: 16
  backbone { name: "resnet18" drop_path_rate: 0.2 }
  hypercolumn { stride: 8 endpoint_strides: 8 endpoint_strides: 16 }
  tokenizer { superpixel_stride: 16 layers: 1 }
  classifier { layers: 1 heads: 2 feed_forward_width: 16 }
}
data {
  dataset: "synthetic_streets"
  synthetic_streets { height: 40 width: 64 train_images: 5 val_images: 3 }
  crop_height: 32
  crop_width: 48
  augmentation { min_scale: 0.5 max_scale: 2 scale_step: 0.5 color_policy: "jitter" }
}
training {
  batch_size: 2
  steps: 5
  warmup_steps: 1
  save_interval_steps: 2
  log_interval_steps: 1
  picture_interval_steps: 0
}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "real.textproto"
    path.write_text(CONFIG)
    return spt.load_config(path)


def loss_curve(model_dir):
    lines = pathlib.Path(model_dir, "train", "log.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines)]


def test_interrupted_between_saves_goes_on_as_if_nothing_had_been(config, tmp_path, monkeypatch):
    loop.train(config, tmp_path / "whole")

    show = progress.ProgressLine.show

    def show_until_step_3(self, *args, **kwargs):
        show(self, *args, **kwargs)
        if self._step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress.ProgressLine, "show", show_until_step_3)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, tmp_path / "parts")
    assert [step for step, _ in loss_curve(tmp_path / "parts")] == [1, 2, 3]
    summary = loop.train(config, tmp_path / "parts")

    assert summary.steps == 5
    whole, parts = loss_curve(tmp_path / "whole"), loss_curve(tmp_path / "parts")
    assert [step for step, _ in parts] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
    # Other batches and other drop path masks have other losses: the curve is no constant.
    assert len({round(loss, 3) for _, loss in whole}) > 3


def test_an_evaluation_that_a_kill_prevented_is_made_up_for(config, tmp_path):
    config.training.steps = 2
    loop.train(config, tmp_path / "run")
    modes.run("train_and_eval", config, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "eval" / "metrics.json").read_text())
    assert metrics["step"] == 2 and metrics["num_images"] == 3


def test_a_faulty_label_is_named_without_a_traceback(config, tmp_path, monkeypatch):
    from sp_transformer.data import synthetic_streets

    def read(self, index):
        raise ValueError(f"label of {self.name(index)} holds id 77")

    monkeypatch.setattr(synthetic_streets.SyntheticStreets, "read", read)
    with pytest.raises(ValueError, match=r"^label of .* holds id 77$"):
        loop.train(config, tmp_path / "run")
