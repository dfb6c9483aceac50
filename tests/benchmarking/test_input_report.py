"""The input report: its steps, its table and what it says of cores."""

import types

import pytest

from sp_transformer.benchmarking import input_report, settings, timing
from sp_transformer.config import load_config
from sp_transformer.data import preparation


@pytest.fixture(scope="module")
def config(tmp_path_factory, input_config_file):
    root = tmp_path_factory.mktemp("input")
    config = load_config(input_config_file)
    preparation.prepare(config.data, str(root / "records"), ["train"])
    override = f"""data {{ dataset: "records" data_dir: "{root / "records"}" label_map {{ {
        " ".join(f'classes {{ name: "{name}" color: "#102030" }}' for name in _names(config))
    } }} }}"""
    return load_config(input_config_file, [override])


def _names(config):
    from sp_transformer.config import derived

    return derived.label_map(config).names


def test_every_step_of_the_pipeline_is_measured(config):
    options = settings.Settings(("input",), report="input", rounds=2, warmup=1, images=6)
    report = input_report.run(config, options)
    steps = [row["step"] for row in report.rows]
    assert steps == ["read", "decode", "scale and crop", "flip, pad and batch", "colour", "whole"]
    assert all(len(row["seconds"]) == 2 for row in report.rows[:-1])
    whole = report.rows[-1]
    assert whole["up to here (images/s)"] == report.rows[-2]["up to here (images/s)"]
    parts = sum(row["this step (ms of a core)"] for row in report.rows[:-1])
    # Medians of differences do not add up exactly.
    assert parts == pytest.approx(whole["this step (ms of a core)"], rel=0.5)
    assert "cores like these busy" in report.notes[0]


def test_batches_divide_the_examples(config):
    functions = input_report.steps(config, 6)
    # Six examples one by one, and in two batches of three.
    assert [run() for run in functions.values()] == [6, 6, 6, 2, 2]


def test_rows_are_differences_round_by_round(monkeypatch):
    monkeypatch.setattr(input_report, "cores", lambda: 2)
    timings = {
        "read": timing.Timing((1.0, 2.0, 1.0)),
        "decode": timing.Timing((3.0, 4.0, 3.5)),
    }
    read, decode, whole = input_report.rows(timings, images=10)
    assert read["this step (ms of a core)"] == 200 and read["up to here (images/s)"] == 10
    assert decode["this step (ms of a core)"] == 400
    assert whole["this step (ms of a core)"] == 700


def test_cores_for_an_assumed_speed(monkeypatch, config):
    monkeypatch.setattr(input_report, "cores", lambda: 2)
    options = types.SimpleNamespace(images=10, steps_per_second=5)
    note = input_report.cores_note(config, options, timing.Timing((1.0,)))
    # Batches of 4 at 5 steps/s are 20 images/s, of a fifth of a second of a core each.
    assert "20.0 images/s at 200 ms of a core each keep 4.00 cores" in note


def test_whole_files_are_read_where_there_are_no_records(tmp_path, config):
    import numpy as np
    from PIL import Image

    for name in ("a", "b"):
        Image.fromarray(np.zeros((40, 70, 3), np.uint8)).save(tmp_path / f"{name}.png")
        (tmp_path / "ids").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((40, 70), np.uint8)).save(tmp_path / "ids" / f"{name}.png")
    own = type(config)()
    own.CopyFrom(config)
    own.data.dataset, own.data.data_dir = "folder", str(tmp_path)
    own.data.folder.splits.add(name="train", images=["*.png"], labels=["ids/*.png"])
    own.data.augmentation.color_policy = "none"
    own.data.resize_longer_side = 64
    functions = input_report.steps(own, 4)
    assert list(functions) == ["read", "decode", "scale and crop", "flip, pad and batch"]
    assert functions["read"]() == 4
