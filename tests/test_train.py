"""The training binary: faults of its command line, and one short run."""

import json
import subprocess
import sys

import pytest

CONFIG = """
model {
  channels: 16
  backbone { name: "resnet18" }
  hypercolumn { stride: 8 }
  tokenizer { superpixel_stride: 32 layers: 1 }
  classifier { layers: 1 heads: 2 feed_forward_width: 16 }
}
data {
  dataset: "synthetic_streets"
  synthetic_streets { height: 64 width: 64 train_images: 2 val_images: 1 }
  crop_height: 64
  crop_width: 64
}
training {
  batch_size: 1 steps: 2 warmup_steps: 1
  save_interval_steps: 2 log_interval_steps: 1 picture_interval_steps: 0
}
"""


def run_train(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "sp_transformer.train", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "tiny.textproto"
    path.write_text(CONFIG)
    return path


def test_faults_are_plain_text_and_exit_with_2(config_file, tmp_path):
    for arguments, text in [
        (["--model_dir", tmp_path / "none"], "--config_file must be given"),
        (["--config_file", config_file], "--model_dir"),
        (
            [
                *("--config_file", config_file, "--model_dir", tmp_path / "run"),
                *("--override", "training { batch_size: 0 }"),
            ],
            "batch_size",
        ),
        (
            ["--config_file", config_file, "--dry_run", "--override", "training { momentum: 1 }"],
            "momentum",
        ),
    ]:
        result = run_train(*arguments)
        assert result.returncode == 2
        assert text in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_trains_evaluates_and_resumes(config_file, tmp_path):
    model_dir = tmp_path / "run"
    result = run_train(
        "--config_file", config_file, "--model_dir", model_dir, "--mode", "train_and_eval"
    )
    assert result.returncode == 0, result.stderr
    assert "trained to step 2" in result.stdout and "evaluated step 2" in result.stdout
    metrics = json.loads((model_dir / "eval" / "metrics.json").read_text())
    assert metrics["step"] == 2
    # Without a config the run's own is taken, and the same weights give the same score.
    result = run_train("--model_dir", model_dir, "--mode", "eval")
    assert result.returncode == 0, result.stderr
    again = json.loads((model_dir / "eval" / "metrics.json").read_text())
    assert again["confusion_matrix"] == metrics["confusion_matrix"]
    result = run_train(
        "--config_file",
        config_file,
        "--model_dir",
        model_dir,
        "--override",
        "training { learning_rate: 0.5 }",
    )
    assert result.returncode == 2
    assert "training.learning_rate: 0.001 before, 0.5 now" in result.stderr
