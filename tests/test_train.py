"""The training binary: faults of its command line, and one short run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf
from absl import flags

from sp_transformer import train
from sp_transformer.training import files, following, loop, modes

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


@pytest.mark.parametrize(
    ("arguments", "environment", "text"),
    [
        (["--num_gpus", "99"], {}, "--num_gpus 99 exceeds the"),
        (["--master", "local"], {}, "--master 'local': no TPU can be had"),
        (["--num_gpus", "1", "--num_virtual_devices", "2"], {}, "exclude each other"),
        (["--num_virtual_devices", "2"], {}, "batch_size 1 does not divide by the 2 replicas"),
        ([], {"TF_CONFIG": "{worker}"}, "TF_CONFIG is not JSON"),
        (
            ["--override", "evaluation { averaged_weights: true }"],
            {},
            "averaged_weights (--averaged_weights) is true and training.ema_decay 0",
        ),
    ],
)
def test_mistakes_of_a_distributed_run_are_one_line(
    config_file, tmp_path, monkeypatch, arguments, environment, text
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = run_train("--config_file", config_file, "--model_dir", tmp_path / "run", *arguments)
    assert result.returncode == 2, result.stderr
    assert text in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_rehearses_two_devices_and_evaluates_the_average(config_file, tiny_run, tmp_path):
    model_dir, scores = tmp_path / "run", tmp_path / "scores"
    started_from = f'initialization {{ kind: CHECKPOINT path: "{tiny_run.model_dir}" }}'
    result = run_train(
        *("--config_file", config_file, "--model_dir", model_dir, "--num_virtual_devices", 2),
        *(
            "--override",
            f"training {{ batch_size_per_replica: 1 ema_decay: 0.9 {started_from} }}",
        ),
        *("--mode", "train_and_eval", "--averaged_weights"),
    )
    assert result.returncode == 0, result.stderr
    assert "2 images a step on 2 replicas, 1 on each; learning rate 0.001" in result.stdout
    assert result.stdout.count("initialized from the backbone in") == 1
    assert json.loads((model_dir / "eval" / "metrics.json").read_text())["averaged_weights"]
    evaluated = subprocess.run(
        [
            *(sys.executable, "-m", "sp_transformer.evaluate", "--model_dir", str(model_dir)),
            *("--output_dir", str(scores), "--num_virtual_devices", "2"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert evaluated.returncode == 0, evaluated.stderr
    # The config of the run says that it is the average that counts.
    ours, its = (
        json.loads((folder / "metrics.json").read_text()) for folder in (scores, model_dir / "eval")
    )
    assert ours["averaged_weights"] and ours["confusion_matrix"] == its["confusion_matrix"]


def test_trains_evaluates_and_resumes(config_file, tmp_path):
    model_dir = tmp_path / "run"
    result = run_train(
        "--config_file", config_file, "--model_dir", model_dir, "--mode", "train_and_eval"
    )
    assert result.returncode == 0, result.stderr
    assert "trained to step 2" in result.stdout and "evaluated step 2" in result.stdout
    metrics = json.loads((model_dir / "eval" / "metrics.json").read_text())
    assert metrics["step"] == 2
    data = json.loads((model_dir / "training_data.json").read_text())
    assert (data["split"], data["num_images"]) == ("train", 2)
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


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (lambda: loop.NonFiniteLossError(3, float("nan"), 1.0, "run/ckpt-2"), 3, "step 3 has loss"),
        (lambda: files.WriteError("run/ckpt-4 cannot be written"), 4, "cannot be written"),
        (lambda: following.FollowTimeoutError("no checkpoint came"), 5, "no checkpoint came"),
        (
            lambda: tf.errors.UnavailableError(None, None, "stopped sending"),
            75,
            "start all workers",
        ),
        (
            lambda: tf.errors.UnknownError(None, None, "run/ckpt-4; Input/output error"),
            75,
            "Input/output error",
        ),
        (KeyboardInterrupt, 130, "the same command goes on"),
    ],
)
def test_each_end_has_its_exit_code(config_file, tmp_path, monkeypatch, capsys, error, code, words):
    def fail(*_, **__):
        raise error()

    monkeypatch.setattr(modes, "run", fail)
    values = flags.FlagValues()
    train.define_flags(values)
    values(["train", f"--config_file={config_file}", f"--model_dir={tmp_path / 'run'}"])
    assert train.main(values) == code
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_supervised_run_is_started_again(config_file, tmp_path):
    """Killed in the middle of its first start, by a signal to the process that trains."""
    arguments = ["--config_file", config_file, "--model_dir", tmp_path / "run", "--max_restarts=2"]
    command = [sys.executable, "-m", "sp_transformer.train", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    lock = tmp_path / "run" / "run.lock"
    while not lock.exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(json.loads(lock.read_text())["process"][0], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "train ended with code 137; starting it again in 5 s (restart 1 of 2" in errors
    assert json.loads((tmp_path / "run" / "finished.json").read_text()) == {"step": 2}
