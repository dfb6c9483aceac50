"""Planted faults, through the command line: inspect_data finds each, training refuses or skips them."""

import json
import subprocess
import sys

import pytest
from PIL import Image

PROGRAM = (sys.executable, "-m", "sp_transformer.inspect_data")


def _run(*arguments):
    return subprocess.run(
        [str(argument) for argument in arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, faulty_data):
    path = tmp_path_factory.mktemp("config") / "faulty.textproto"
    path.write_text(faulty_data.CONFIG)
    return path


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, faulty_data):
    """A data set with all faults of faulty_data in train, a torn image in val, and two doubts."""
    root = faulty_data.write(tmp_path_factory.mktemp("faulty"))
    image = faulty_data.encoded(faulty_data.picture(200))
    faulty_data.put(root, "val", "torn", image[:300], faulty_data.encoded(faulty_data.ids(0)))
    # Stored otherwise, the same pixels.
    for split, format in (("train", "PNG"), ("val", "TIFF")):
        same = faulty_data.encoded(faulty_data.picture(201), format)
        label = faulty_data.encoded(faulty_data.ids(1))
        faulty_data.put(root, split, f"same_{split}", same, label, f".{format.lower()}")
    void = faulty_data.encoded(faulty_data.ids(2) * 0 + 255)
    faulty_data.put(root, "val", "void", faulty_data.encoded(faulty_data.picture(202)), void)
    return root


def test_inspection_finds_every_planted_fault(config_file, faulty, faulty_data, tmp_path):
    result = _run(
        *PROGRAM, "--config_file", config_file, "--data_dir", faulty, "--output_dir", tmp_path
    )
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["exit_code"] == 1
    found = {(fault["kind"], fault["file"]) for fault in report["faults"]}
    planted = {
        (kind, str(faulty / "train" / file)) for kind, _, _, file in faulty_data.FAULTS.values()
    }
    assert len(planted) >= 10
    assert found == planted | {("unreadable_image", str(faulty / "val" / "images" / "torn.png"))}
    for _, file in found:
        assert file in result.stdout
    doubts = {doubt["kind"]: doubt["files"] for doubt in report["doubts"]}
    assert doubts["duplicate_across_splits"] == [
        str(faulty / "train" / "images" / "same_train.png"),
        str(faulty / "val" / "images" / "same_val.tiff"),
    ]
    assert doubts["all_ignored"] == [str(faulty / "val" / "labels" / "void.png")]
    # 4 good pairs and the duplicate are what is left of train.
    assert [split["num_usable"] for split in report["splits"]] == [5, 6]
    assert (tmp_path / "report.txt").read_text() in result.stdout
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.width == 1480 and sheet.height > 400


def _train(config_file, data_dir, model_dir, *overrides):
    arguments = [sys.executable, "-m", "sp_transformer.train", "--config_file", config_file]
    arguments += ["--data_dir", data_dir, "--model_dir", model_dir]
    for override in overrides:
        arguments += ["--override", override]
    return _run(*arguments)


def test_training_refuses_by_name(config_file, faulty, tmp_path):
    result = _train(config_file, faulty, tmp_path / "run")
    assert result.returncode == 2
    assert "train/images/no_label.png" in result.stderr
    assert "train/labels/no_image.png" in result.stderr
    assert "Traceback" not in result.stderr


def test_training_skips_by_name(config_file, faulty, faulty_data, tmp_path):
    # 7 steps of 2: one epoch of the 14 pairs.
    steps = "training { steps: 7 save_interval_steps: 7 log_interval_steps: 7 }"
    result = _train(config_file, faulty, tmp_path / "run", "data { skip_corrupt: true }", steps)
    assert result.returncode == 0, result.stderr
    assert "trained to step 7" in result.stdout
    skipped = json.loads((tmp_path / "run" / "train" / "skipped_files.json").read_text())
    text = " ".join(skipped.values())
    for _, _, _, file in faulty_data.FAULTS.values():
        assert str(faulty / "train" / file) in text
    assert len(skipped) == len(faulty_data.FAULTS)
    assert f"data.skip_corrupt skipped {len(skipped)} files" in result.stderr


def test_sampling_and_a_clean_split(config_file, faulty_data, tmp_path):
    root = faulty_data.write(tmp_path / "data", faults=())
    result = _run(
        *(sys.executable, "-m", "sp_transformer.inspect_data", "--config_file", config_file),
        *("--data_dir", root, "--max_images", 2, "--splits", "val"),
    )
    assert result.returncode == 0, result.stderr
    assert "Split val: 4 images, 2 of them looked at" in result.stdout
    assert "No faults and no doubts." in result.stdout
    assert "Split train" not in result.stdout


def test_usage_errors_exit_with_2(config_file, faulty_data, tmp_path):
    for arguments, text in [
        ([], "--config_file must be given"),
        (["--config_file", config_file, "--data_dir", tmp_path / "none"], "is not a folder"),
        (["--config_file", config_file, "--max_images", "-1"], "max_images"),
        (
            [
                *("--config_file", config_file, "--splits", "test"),
                *("--data_dir", faulty_data.write(tmp_path / "data", faults=())),
            ],
            "split 'test' is unknown",
        ),
    ]:
        result = _run(*PROGRAM, *arguments)
        assert result.returncode == 2 and text in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
