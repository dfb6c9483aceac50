"""The latency example and the timing of predict, on a SavedModel made by hand."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer import version

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Labels a pixel by whether it is bright; one superpixel."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def both(images):
        labels = tf.cast(images[..., 0] > 127, tf.int32)
        return {"labels": labels, "superpixels": tf.zeros_like(labels)}

    module.both = both
    folder = tmp_path_factory.mktemp("model")
    tf.saved_model.save(
        module, str(folder), signatures={"superpixels": both, "serving_default": both}
    )
    assets = folder / "assets.extra"
    assets.mkdir()
    classes = [{"name": "dark", "color": "#000000"}, {"name": "bright", "color": "#ffff00"}]
    (assets / "label_map.json").write_text(json.dumps({"classes": classes, "ignore_label": 255}))
    (assets / "version.json").write_text(json.dumps({"sp_transformer": version.__version__}))
    return folder


def run(script, *arguments, **variables):
    return subprocess.run(
        [sys.executable, str(SCRIPTS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables},
    )


def test_percentiles_are_those_of_the_runs_without_this_package(model, tmp_path):
    path = tmp_path / "latency.json"
    # As if the package were not installed: the file alone is what people copy.
    (tmp_path / "sp_transformer.py").write_text("raise ImportError('not to be imported')")
    done = run(
        "latency.py",
        *("--model", model, model / "saved_model.pb", "--size", "20x30", "--threads", "1"),
        *("--runs", "12", "--warmup", "1", "--json", path),
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    contents = json.loads(path.read_text())
    assert contents["threads"] == 1
    assert [row["model"] for row in contents["rows"]] == [model.name, "saved_model.pb"]
    for row in contents["rows"]:
        assert len(row["seconds"]) == 12
        found = row["milliseconds"]
        for q in (50, 90, 99):
            assert found[f"p{q}"] == pytest.approx(
                np.percentile(row["seconds"], q) * 1000, abs=0.01
            )
        assert f"p99 {found['p99']:g} ms" in done.stdout and "20x30" in done.stdout


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--size", "20", "--size 20 is not HEIGHTxWIDTH"),
        ("--runs", "0", "--runs 0 must be"),
        ("--model", "absent", "--model absent is no export"),
    ],
)
def test_bad_values_are_named(model, flag, value, words):
    done = run("latency.py", "--model", model, "--size", "8x8", flag, value)
    assert done.returncode == 2 and words in done.stderr


def test_predict_is_timed_against_its_model(model, input_config_file, tmp_path):
    path = tmp_path / "speed.json"
    done = run(
        "predict_speed.py",
        *(f"--config_file={input_config_file}", f"--model={model}", f"--json={path}"),
        *("--images=3", "--size=32x40", "--rounds=2"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    alone, whole = report["rows"]
    assert alone["what"] == "model alone" and whole["what"] == "predict"
    assert whole["ratios"] == [
        pytest.approx(b / a)
        for a, b in zip(alone["all_seconds"], whole["all_seconds"], strict=True)
    ]
    assert report["settings"]["images"] == 3 and "3 images of 32x40" in report["title"]
