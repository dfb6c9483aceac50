"""The rule for the batch of an accelerator, and a real step of the smallest model."""

import importlib.util
import json
import pathlib

import pytest

from sp_transformer.benchmarking import memory

ROOT = pathlib.Path(__file__).parents[2]
GIB = 2**30


@pytest.fixture(scope="module")
def script():
    path = ROOT / "scripts" / "measure_training_memory.py"
    spec = importlib.util.spec_from_file_location("measure_training_memory", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_largest_batch(script):
    # 16 GiB less a tenth are 14.4; 50 M parameters take 16 bytes each.
    assert script.largest_batch(16 * GIB, 50_000_000, 2 * GIB) == 6
    assert script.largest_batch(16 * GIB, 0, 14.41 * GIB) == 0
    assert script.largest_batch(16 * GIB, 0, 14.39 * GIB) == 1
    assert script.largest_batch(16 * GIB, 2_000_000_000, GIB) == 0


def test_row_follows_from_the_peak(script, tmp_path, monkeypatch, capsys):
    peak = memory.PeakMemory("cpu", baseline_bytes=2 * GIB, peak_bytes=8 * GIB)
    monkeypatch.setattr(script.memory, "peak_memory", lambda *case, timeout: peak)
    trainable = {"parameters": {"sum": {"trainable": 2**28}}, "training_memory": {"total": 7 * GIB}}

    class Here:
        def __init__(self, *_):
            pass

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: None  # noqa: E731

        def submit(self, function, config):
            assert config.training.batch_size == 2
            self.result = lambda: trainable
            return self

    monkeypatch.setattr(script.futures, "ProcessPoolExecutor", Here)
    path = tmp_path / "memory.json"
    command = ["--config_file", str(ROOT / "configs" / "cityscapes" / "resnet50.textproto")]
    command += ["--batch_size", "2", "--json", str(path)]
    assert script.main([*command, "--limit_gib", "8"]) == 0
    assert script.main([*command, "--limit_gib", "7.9"]) == 1
    assert "8.00 GiB is above 7.9 GiB" in capsys.readouterr().out
    report = json.loads(path.read_text())
    assert len(report["rows"]) == 2 and report["rules"]
    row = report["rows"][0]
    # 6 GiB above what there was, of which 1 is gradients, for two images.
    assert row["per_image_bytes"] == 2.5 * GIB
    assert row["size"] == "1024x2048"
    # 14.4 less 4 for state and gradients; 28.8 less 4.
    assert row["batches"] == {"16": 4, "32": 9}


@pytest.mark.slow
def test_a_real_step(script, tmp_path):
    path = tmp_path / "memory.json"
    quickstart = ROOT / "configs" / "synthetic" / "quickstart.textproto"
    assert script.main(["--config_file", str(quickstart), "--json", str(path)]) == 0
    row = json.loads(path.read_text())["rows"][0]
    assert row["peak_bytes"] > row["baseline_bytes"] > 2**27
    assert row["trainable_parameters"] > 2_000_000


def test_bad_batch(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--config_file", "c", "--batch_size", "0"])
    assert "--batch_size is 0" in capsys.readouterr().err
