"""The command line of the export, with a checkpoint of the real model."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from sp_transformer import export
from sp_transformer.serving import saved_model

PLAIN_TENSORFLOW = pathlib.Path(__file__).parent / "serving" / "plain_tensorflow.py"


def parse(*arguments):
    values = flags.FlagValues()
    export.define_flags(values)
    values(["export", *map(str, arguments)])
    return values


def test_export_of_a_checkpoint_runs_without_keras_and_labels_as_the_model_does(
    tiny_run, tmp_path, capsys
):
    target = tmp_path / "exported"
    assert export.main(parse(f"--model_dir={tiny_run.model_dir}", f"--export_dir={target}")) == 0
    assert "labels equal the checkpoint's at 100.0000% of the pixels" in capsys.readouterr().out
    about = json.loads((target / "assets.extra" / "version.json").read_text())
    assert about["step"] == 7 and about["checkpoint"] == str(tiny_run.model_dir / "ckpt-7")

    generator = np.random.default_rng(0)
    shapes = [(1, 64, 96, 3), (2, 37, 51, 3), (1, 5, 130, 3)]
    images = {f"i{n}": generator.integers(0, 256, s, np.uint8) for n, s in enumerate(shapes)}
    np.savez(tmp_path / "images.npz", **images)
    arguments = [PLAIN_TENSORFLOW, target, tmp_path / "images.npz", tmp_path / "results.npz"]
    done = subprocess.run(
        [sys.executable, "-I", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = np.load(tmp_path / "results.npz")
    classes = set()
    for key, image in images.items():
        labels, superpixels = tiny_run.inference.labels_and_superpixels(image)
        np.testing.assert_array_equal(results[f"{key}_labels"], labels)
        np.testing.assert_array_equal(results[f"{key}_both"], labels)
        np.testing.assert_array_equal(results[f"{key}_ids"], superpixels)
        classes |= set(np.unique(labels))
    # One class everywhere would be equal whatever the weights.
    assert len(classes) >= 3

    # Asked before the model is built, so this is cheap to find out.
    with pytest.raises(ValueError, match="--overwrite"):
        export.main(parse(f"--model_dir={tiny_run.model_dir}", f"--export_dir={target}"))


def test_a_verification_that_fails_says_that_nothing_was_exported(
    tiny_run, tmp_path, monkeypatch, capsys
):
    decode = saved_model._decode
    monkeypatch.setattr(saved_model, "_decode", lambda encoded: 255 - decode(encoded))
    target = tmp_path / "exported"
    assert export.main(parse(f"--model_dir={tiny_run.model_dir}", f"--export_dir={target}")) == 1
    words = r"export: nothing was exported: the export differs .*equal_labels .* is below 100"
    assert re.search(words, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_stablehlo_of_a_checkpoint_expects_the_labels_of_the_model(tiny_run, tmp_path):
    target = tmp_path / "exported"
    arguments = ["--format=stablehlo", "--programs=forward", "--size=64x64"]
    pytest.importorskip("jax")
    assert (
        export.main(
            parse(f"--model_dir={tiny_run.model_dir}", f"--export_dir={target}", *arguments)
        )
        == 0
    )
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["step"] == 7 and manifest["checkpoint"] == str(tiny_run.model_dir / "ckpt-7")
    assert manifest["batch_norm_folded"] and not any(
        "moving_variance" in entry["name"] for entry in manifest["programs"]["forward"]["arguments"]
    )
    images = np.random.default_rng(manifest["programs"]["forward"]["arguments"][0]["seed"])
    images = images.integers(0, 256, (1, 64, 64, 3), np.int32).astype(np.uint8)
    labels = np.load(target / "expected.npz")["forward/labels"]
    expected = tiny_run.inference.labels(images).numpy()
    # Folding rounds, and here and there two classes are equally likely.
    assert np.mean(labels == expected.reshape(-1)) > 0.99
    assert len(np.unique(labels)) >= 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--export_dir=e"], "exactly one of --checkpoint and --model_dir .* none was given"),
        (["--export_dir=e", "--checkpoint=c", "--model_dir=m"], "both were given"),
        (["--model_dir=m"], "--export_dir must be given"),
        (
            ["--export_dir=e", "--model_dir=m", "--batch_size=2"],
            "--batch_size goes with --format=stablehlo",
        ),
        (
            ["--export_dir=e", "--format=stablehlo", "--model_dir=m", "--random_weights=0"],
            "takes the place of --checkpoint and --model_dir",
        ),
        (
            ["--export_dir=e", "--format=stablehlo", "--random_weights=-1", "--config_file=c"],
            "-1 is no seed",
        ),
        (
            ["--export_dir=e", "--format=stablehlo", "--random_weights=0"],
            "--config_file must be given",
        ),
        (
            ["--export_dir=e", "--format=stablehlo", "--model_dir=m", "--size=64"],
            "'64' is not HEIGHTxWIDTH",
        ),
        (["--export_dir=e", "--model_dir=absent"], "config.textproto.*--config_file"),
        (["--export_dir=e", "--model_dir=m", "--quantization=int8"], "goes with --format=litert"),
        (
            ["--export_dir=e", "--model_dir=m", "--format=onnx", "--inference_form"],
            "--inference_form goes with --format=saved_model; onnx has no such choice",
        ),
    ],
)
def test_flags_that_do_not_fit_together_are_errors(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        export.main(parse(*arguments))
