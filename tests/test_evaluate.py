"""The command line of the evaluation, with a checkpoint of the real model."""

import json
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from sp_transformer import evaluate, export, predict

# Runs a binary and says afterwards whether TensorFlow was imported on the way.
RUN = """
import sys
from sp_transformer import command_line, evaluate
sys.argv = ["evaluate", *sys.argv[1:]]
try:
    command_line.run(evaluate.main, evaluate.define_flags)
finally:
    print("tensorflow" in sys.modules)
"""


def parse(*arguments):
    values = flags.FlagValues()
    evaluate.define_flags(values)
    values(["evaluate", *map(str, arguments)])
    return values


def test_checkpoint_is_scored_and_the_overrides_count(tiny_run, tmp_path):
    from sp_transformer.data.sources import create_source

    out = tmp_path / "out"
    arguments = [
        f"--model_dir={tiny_run.model_dir}",
        f"--output_dir={out}",
        "--summaries",
        "--report",
    ]
    override = "evaluation { max_images: 2 pictures: 0 }"
    assert evaluate.main(parse(*arguments, f"--override={override}")) == 0
    results = json.loads((out / "metrics.json").read_text())
    assert results["step"] == 7 and results["num_images"] == 2
    assert results["checkpoint"] == str(tiny_run.model_dir / "ckpt-7")
    assert results["experiment_name"] == "tests/tiny"
    source = create_source(tiny_run.config.data, "val")
    counts = np.zeros((19, 19), int)
    for index in range(2):
        image, label = source.read(index)
        prediction = tiny_run.inference.labels_and_superpixels(image[None])[0].numpy()[0]
        kept = label != 255
        np.add.at(counts, (label[kept], prediction[kept]), 1)
    assert results["confusion_matrix"] == counts.tolist()
    assert len(list(out.glob("events.out.tfevents*"))) == 1
    assert str(tiny_run.model_dir / "ckpt-7") in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model_dir=absent", "--output_dir=o"], "config.textproto"),
        (["--config_file=bad.textproto", "--model_dir=m", "--output_dir=o"], "crop_heigth"),
        (["--config_file=absent", "--checkpoint=c", "--output_dir=o"], "absent"),
        (["--output_dir"], "output_dir"),
    ],
)
def test_faults_exit_with_2_before_tensorflow_is_imported(arguments, words, tmp_path):
    (tmp_path / "bad.textproto").write_text("data { crop_heigth: 3 }")
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert "evaluate: " in done.stderr and words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == "False"


def test_binaries_share_a_process_without_clashing():
    for binary in (evaluate, export, predict):
        values = flags.FlagValues()
        binary.define_flags(values)
        assert "output_dir" in values or "export_dir" in values
        assert not any(name in flags.FLAGS for name in ("model_dir", "export_dir", "model"))
        # --help shows whole sentences.
        for name in values:
            assert (
                values[name]
                .help.removesuffix(";\n    repeat this option to specify a list of values")
                .endswith(".")
            )
