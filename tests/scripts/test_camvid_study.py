"""The CamVid study: its experiments, what a run leaves, what is skipped and taken up, and its tables."""

import importlib
import json
import pathlib
import re
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from PIL import Image

from sp_transformer.protos import model_pb2

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
# Tracing is what takes time: a trunk without its last stages.
TINY = """
model {
  channels: 16
  hypercolumn { stride: 4 endpoint_strides: [4, 8] max_hidden_channels: 16 }
  tokenizer { layers: 1 }
  classifier { layers: 1 feed_forward_width: 16 }
}
data { crop_height: 32 crop_width: 64 resize_height: 32 resize_width: 64 }
training { steps: 6 warmup_steps: 2 save_interval_steps: 2 log_interval_steps: 2 batch_size: 2 }
"""


@pytest.fixture(scope="module")
def scripts():
    """The scripts' modules, importable by name as when they are run."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        names = ("camvid_experiments", "camvid_study", "camvid_tables", "peer_segmenter", "peers")
        yield types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Six training and two validation frames in CamVid's folders."""
    root = tmp_path_factory.mktemp("camvid")
    rng = np.random.default_rng(0)
    names = {
        "train": ["0001TP_1", "0006R0_f00", "0006R0_f03", "0016E5_00", "0016E5_07", "0016E5_08"]
    }
    names["val"] = ["0016E5_9", "0016E5_91"]
    for split, frames in names.items():
        for frame in frames:
            label = np.repeat(rng.integers(0, 12, (6, 1)), 12, axis=1).astype(np.uint8)
            label = label.repeat(8, axis=0).repeat(8, axis=1)
            image = np.stack([label * 20] * 3, axis=-1)
            for folder, picture, suffix in (("", image, "jpg"), ("annot", label, "png")):
                path = root / f"{split}{folder}" / f"{frame}.{suffix}"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(picture).save(path)
    return root


def command(*arguments):
    return [sys.executable, str(SCRIPTS / "camvid_study.py"), *map(str, arguments)]


def study(*arguments):
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=300, check=False
    )


def run_flags(data_dir, folder):
    folders = ("--data_dir", data_dir, "--runs_dir", folder / "runs")
    results = ("--results_dir", folder / "results")
    return (*folders, *results, "--experiments", "ours", "--seeds", "3", "--override", TINY)


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """The folder and the output of a whole run."""
    folder = tmp_path_factory.mktemp("finished")
    done = study(*run_flags(data_dir, folder))
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, done.stdout


def contents(folder):
    return json.loads((folder / "results" / "ours-seed3.json").read_text())


def test_every_experiment_has_a_valid_config_and_a_name_of_its_own(scripts, data_dir):
    experiments = scripts.camvid_experiments.EXPERIMENTS
    assert len({experiment.name for experiment in experiments}) == len(experiments)
    for experiment in experiments:
        config = scripts.camvid_study.load_config(experiment.overrides(5), data_dir)
        assert config.training.seed == config.data.seed == 5
        assert config.evaluation.averaged_weights
        # What is chosen by its score never sees the validation split.
        tuning = experiment.group in ("tuning", "remedy")
        splits = (config.data.train_split, config.data.eval_split)
        assert splits == (("fit", "dev") if tuning else ("train", "val")), experiment.name


def test_an_experiment_changes_what_it_says(scripts, data_dir):
    by_name = {e.name: e for e in scripts.camvid_experiments.EXPERIMENTS}

    def config(name):
        return scripts.camvid_study.load_config(by_name[name].overrides(0), data_dir)

    assert config("ablation_1_cross_attention").model.tokenizer.layers == 1
    assert config("ablation_double_grid").model.tokenizer.superpixel_stride == 8
    assert list(config("tuning_ours_equal_weights").training.class_weights) == [1] * 11
    assert config("remedy_zero_branches").model.zero_initialized_branches
    assert config("tuning_segformer_b0_rate_2e-3").training.learning_rate == 2e-3
    # What tuning started from is the paper's model on DeepLab2's backbone, whatever the recipe has become.
    baseline = config("ours_baseline").model
    assert baseline.tokenizer.queries == model_pb2.TokenizerOptions.LEARNED
    assert baseline.backbone.zero_init_residual and not baseline.backbone.stem_max_pool
    assert config("tuning_ours_rate_1e-3").model == baseline
    # Ablations have the headline's model, on smaller images.
    none, ours = config("ablation_none"), config("ours")
    assert (none.data.crop_height, ours.data.crop_height) == (192, 288)
    assert none.model == ours.model


def test_a_run_leaves_its_result(finished):
    folder, output = finished
    result = contents(folder)
    assert (result["experiment"], result["model"], result["seed"]) == ("ours", "ours", 3)
    assert result["steps"] == 6 and result["parameters"] > 1e5
    assert [step for step, _ in result["curve"]] == [2, 4, 6]
    assert [point["step"] for point in result["evaluations"]] == [2, 4, 6]
    assert result["result"]["num_images"] == 2 and result["result"]["split"] == "val"
    assert result["result"]["miou"] == result["evaluations"][-1]["miou"]
    assert len(result["result"]["per_class_iou"]) == 11
    assert result["train_seconds"] > 0 and "versions" in result["environment"]
    assert f"ours-seed3.json: mIoU {result['result']['miou']:.4f}" in output


def test_what_has_a_result_is_not_run_again(finished, data_dir):
    folder, _ = finished
    before = contents(folder)
    again = study(*run_flags(data_dir, folder))
    assert again.returncode == 0 and "ours-seed3.json is there already" in again.stdout
    assert contents(folder) == before
    listed = study("--list", "--results_dir", folder / "results").stdout
    assert "ours: ours-seed3\n" in listed and "deeplab_v3_plus: no result" in listed


@pytest.mark.slow
def test_an_interrupted_run_ends_as_one_that_was_not(finished, data_dir, tmp_path):
    process = subprocess.Popen(
        command(*run_flags(data_dir, tmp_path)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    saved = tmp_path / "runs" / "ours-seed3" / "evaluations.json"
    deadline = time.monotonic() + 240
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert saved.exists() and not (tmp_path / "results").exists()
    done = study(*run_flags(data_dir, tmp_path))
    assert done.returncode == 0 and "resumed at step" in done.stdout, done.stderr[-2000:]
    whole, resumed = contents(finished[0]), contents(tmp_path)
    for key in ("curve", "evaluations", "result"):
        assert resumed[key] == whole[key], key


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "--data_dir and --runs_dir and --experiments must be given"),
        (("--experiments", "theirs"), "no experiment is called 'theirs'; --list"),
        (("--experiments", "ours", "--seeds", "one"), "--seeds one are no integers"),
    ],
)
def test_refuses_faulty_flags_at_once(arguments, expected, tmp_path):
    folders = ("--data_dir", tmp_path, "--runs_dir", tmp_path) if arguments else ()
    refused = study(*folders, *arguments)
    assert refused.returncode == 2 and expected in refused.stderr
    assert "Traceback" not in refused.stderr


def write_result(folder, name, seed, miou, **changes):
    result = {
        "experiment": name,
        "seed": seed,
        "steps": 100,
        "parameters": 12_340_000,
        # Of which the last ten count: 0.5.
        "curve": [[step, 9.0 if step <= 80 else 0.5] for step in range(8, 168, 8)],
        "evaluations": [{"step": 50, "miou": miou / 2}, {"step": 100, "miou": miou}],
        "result": {
            "miou": miou,
            "pixel_accuracy": 0.8,
            "per_class_iou": {"Sky": 0.9, "Pole": miou},
        },
    }
    path = folder / f"{name}-seed{seed}.json"
    path.write_text(json.dumps({**result, **changes}))


def tables(folder):
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "camvid_tables.py"), "--results_dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )


def printed_tables(folder):
    done = tables(folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return re.sub(" +", " ", done.stdout)


def test_tables(scripts, tmp_path):
    for seed, miou in enumerate((0.5, 0.52, 0.54)):
        write_result(tmp_path, "ours", seed, miou)
    write_result(tmp_path, "deeplab_v3_plus", 0, 0.45)
    write_result(tmp_path, "ablation_none", 0, 0.4)
    write_result(tmp_path, "ablation_relative", 0, 0.38)
    printed = printed_tables(tmp_path)
    assert (
        "| ours | 12.34 | 100 | 0, 1, 2 | 0.50 ± 0.00 | 0.520 ± 0.020 | 0.800 ± 0.000 |" in printed
    )
    assert "| deeplab_v3_plus | 12.34 | 100 | 0 | 0.50 | 0.450 | 0.800 |" in printed
    assert "| Pole | 0.520 ± 0.020 | 0.450 |" in printed
    assert "| 50 | 0.260 ± 0.010 | 0.225 |" in printed
    assert "| relative | 12.34 | 100 | 0 | 0.50 | 0.380 | -0.020 | 0.800 |" in printed
    assert "Tuning" not in printed and "Remedies" not in printed


def test_remedies_are_compared_with_a_tuning_run(scripts, tmp_path):
    write_result(tmp_path, "tuning_ours_rate_1e-3", 0, 0.36)
    write_result(tmp_path, "remedy_cell_mean", 0, 0.37)
    printed = printed_tables(tmp_path)
    assert "| tuning_ours_rate_1e-3 | 12.34 | 100 | 0 | 0.50 | 0.360 | | 0.800 |" in printed
    assert "| cell_mean | 12.34 | 100 | 0 | 0.50 | 0.370 | +0.010 | 0.800 |" in printed
    assert "Headline" not in printed


def test_tables_need_a_result(tmp_path):
    refused = tables(tmp_path)
    assert refused.returncode == 2 and "holds no result of camvid_study.py" in refused.stderr
