"""The table of modes that keep the weights: what is planned, and a run of the smallest real model."""

import importlib.util
import json
import pathlib

import pytest
from absl import flags

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "latency_modes.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("latency_modes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_smaller_inputs_are_whole_superpixels_of_what_the_model_sees(script, tiny_run):
    config = type(tiny_run.config).FromString(tiny_run.config.SerializeToString())
    modes = script.plan(config, (200, 400), [0.75], [], bfloat16=False)
    assert [mode.name for mode in modes] == ["as trained", "seen at 160x288"]
    config.data.resize_height, config.data.resize_width = 64, 96
    (_, smaller) = script.plan(config, (200, 400), [0.5], [], bfloat16=False)
    assert smaller.override == "data { resize_height: 32 resize_width: 64 }"


@pytest.mark.parametrize(
    ("scales", "layers", "words"),
    [([1.0], [], "--scales 1.0"), ([], [2], "--drop_layers 2 must be 1 to 1"), ([], [0], "0 must")],
)
def test_modes_out_of_range_are_refused(script, tiny_run, scales, layers, words):
    with pytest.raises(ValueError, match=words):
        script.plan(tiny_run.config, (40, 72), scales, layers)


def test_every_mode_is_scored_and_timed(script, tiny_run, tmp_path, capsys):
    path = tmp_path / "modes.json"
    values = flags.FlagValues()
    script.define_flags(values)
    command = [f"--model_dir={tiny_run.model_dir}", "--scales=0.5", "--drop_layers=1"]
    values(["latency_modes", *command, "--rounds=2", "--warmup=0", f"--json={path}"])
    assert script.main(values) == 0
    report = json.loads(path.read_text())
    assert report["settings"]["checkpoint"] == "ckpt-7"
    names = ["as trained", "bfloat16", "seen at 32x32", "0 of 1 self-attention layers"]
    assert [row["mode"] for row in report["rows"]] == names
    plain = report["rows"][0]
    assert plain["difference"] == "+0.0000" and plain["ratio"] == "1.00"
    for row in report["rows"]:
        assert len(row["seconds"]) == 2
        assert row["difference"] == f"{row['miou'] - plain['miou']:+.4f}"
    # Other numbers come of other modes.
    assert len({row["miou"] for row in report["rows"]}) >= 3
    assert "| bfloat16" in capsys.readouterr().out
