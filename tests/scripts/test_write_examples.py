"""Examples as files: what predict takes as input and as ground truth."""

import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image

import sp_transformer as spt
from sp_transformer.data import sources

ROOT = pathlib.Path(__file__).parents[2]
QUICKSTART = ROOT / "configs" / "synthetic" / "quickstart.textproto"


def write(config, *arguments):
    return subprocess.run(
        [
            sys.executable,
            ROOT / "scripts" / "write_examples.py",
            f"--config_file={config}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_images_and_labels_are_those_of_the_split(tmp_path):
    done = write(
        QUICKSTART,
        f"--output_dir={tmp_path / 'images'}",
        f"--labels_dir={tmp_path / 'labels'}",
        "--count=2",
    )
    assert done.returncode == 0, done.stderr
    config = spt.load_config(QUICKSTART)
    source = sources.create_source(config.data, config.data.eval_split)
    for index in range(2):
        for folder, expected in zip(("images", "labels"), source.read(index), strict=True):
            path = tmp_path / folder / f"{source.name(index)}.png"
            np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
    assert len(list((tmp_path / "labels").rglob("*.png"))) == 2


def test_labels_that_would_be_mapped_twice_are_refused(tmp_path):
    config = tmp_path / "mapped.textproto"
    config.write_text(
        f'base_config: "{QUICKSTART}"\n'
        f'base_config: "{ROOT / "configs" / "label_maps" / "cityscapes.textproto"}"\n'
    )
    done = write(config, f"--output_dir={tmp_path / 'a'}", f"--labels_dir={tmp_path / 'b'}")
    assert done.returncode == 1 and "--ground_truth" in done.stderr, done.stderr
    assert not (tmp_path / "b").exists()
