"""The ordinary input pipeline has our outputs, and the comparison names what it measured."""

import importlib
import json
import pathlib
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from sp_transformer.config import derived, load_config
from sp_transformer.data import augmentation, preparation, resize

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def scripts():
    sys.path.insert(0, str(SCRIPTS))
    try:
        names = ("compare_input", "ordinary_input")
        yield types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.mark.parametrize("longer_side", [0, 80])
def test_examples_equal_ours(scripts, input_config_file, longer_side):
    config = load_config(input_config_file, [f"data {{ resize_longer_side: {longer_side} }}"])
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (48, 96, 3), dtype=np.uint8)
    label = generator.integers(0, 19, (48, 96)).astype(np.int32)
    size = resize.target_size(48, 96, config.data)
    own = resize.resize_image(image, size), resize.resize_label(label, size)
    for number in range(8):
        seed = tf.constant([0, number], tf.int64)
        theirs = scripts.ordinary_input.augment(
            tf.constant(image), tf.constant(label), seed, config
        )
        ours = augmentation.augment(*own, seed, config.data.augmentation, (32, 64), 255)
        assert np.abs(theirs[0] - ours[0]).max() < 0.02
        assert np.array_equal(theirs[1], ours[1])


def test_both_are_timed_and_written(scripts, input_config_file, tmp_path, capsys):
    config = load_config(input_config_file)
    preparation.prepare(config.data, str(tmp_path / "ours"), ["train"])
    preparation.prepare(config.data, str(tmp_path / "pngs"), ["train"], encoding="png")
    names = derived.data_label_map(config.data).names
    classes = " ".join(f'classes {{ name: "{name}" color: "#102030" }}' for name in names)
    values = flags.FlagValues()
    scripts.compare_input.define_flags(values)
    values(
        [
            "compare_input",
            f"--config_file={input_config_file}",
            f"--data_dir={tmp_path / 'ours'}",
            f"--png_dir={tmp_path / 'pngs'}",
            f'--override=data {{ dataset: "records" label_map {{ {classes} }} }}',
            "--images=4",
            "--rounds=2",
            f"--json={tmp_path / 'report.json'}",
        ]
    )
    assert scripts.compare_input.main(values) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    pipelines = list(dict.fromkeys(row["pipeline"] for row in report["rows"]))
    assert pipelines == ["ours", "ordinary, colours of ours", "ordinary, colours of tf.image"]
    for pipeline in pipelines[1:]:
        compared = [r for r in report["rows"] if r["pipeline"] == pipeline and "ratios" in r]
        assert [row["step"] for row in compared] == ["decode", "whole"]
    assert "times as long as ours" in capsys.readouterr().out
    values["steps"].value = ["read", "decode"]
    assert scripts.compare_input.main(values) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["step"] for row in report["rows"]} == {"read", "decode"}
    # The seconds of cores, which no other program takes away: at most as many as the wall's.
    values["steps"].value, values["clock"].value = ["whole"], "cpu"
    assert scripts.compare_input.main(values) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert any("Not by the wall clock" in rule for rule in report["rules"])
    values["steps"].value = ["decode"]
    with pytest.raises(ValueError, match="decode without read"):
        scripts.compare_input.main(values)
