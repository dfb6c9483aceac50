"""What the README shows works as it stands there."""

import pathlib
import re
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import sp_transformer as spt
from sp_transformer.data import sources

ROOT = pathlib.Path(__file__).resolve().parents[1]
# The README is the project's: without a source tree there is none to test.
README = (ROOT / "README.md").read_text()


def indented_block(containing):
    """The indented block of the README that holds a text."""
    blocks = [block for block in README.split("\n\n") if block.startswith("    ")]
    # A blank line inside a block splits it; join what follows as long as it is indented.
    joined, previous_end = [], None
    position = 0
    for block in blocks:
        start = README.index(block, position)
        if previous_end is not None and README[previous_end:start].strip() == "":
            joined[-1] += "\n\n" + block
        else:
            joined.append(block)
        position = previous_end = start + len(block)
    (found,) = [block for block in joined if containing in block]
    return textwrap.dedent(found)


def test_layers_on_anyones_feature_map():
    names = {"images": tf.zeros([1, 256, 256, 3])}
    exec(indented_block("import keras\n"), names)
    assert names["logits"].shape == (1, 256, 256, 9)
    assert names["classes"].shape == (1, 4, 4, 5)
    assert names["semantic"].shape == (1, 256, 256, 5)
    assert names["superpixel_ids"].shape == (1, 256, 256)


def test_own_data_without_python(tmp_path):
    text = indented_block("label_map {").split("\n\n")[0]
    config_file = tmp_path / "streets.textproto"
    config_file.write_text(text.replace('"../camvid/', '"configs/camvid/'))
    for split in ("train", "val"):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(folder / "a_rgb.jpg")
        ids = np.array([[7, 26, 255, 3, 1, 2]] * 4, np.uint8)
        Image.fromarray(ids).save(folder / "a_ids.png")
    config = spt.load_config(config_file, data_dir=tmp_path / "data", check_data=True)
    _, labels = sources.create_source(config.data, "train").read(0)
    # 7 and 26 are mapped; what the map does not list is ignored.
    assert labels[0].tolist() == [0, 1, 255, 255, 255, 255]


@pytest.mark.parametrize("page", ["README.md", "docs/model.md", "docs/install.md", "docs/speed.md"])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text())
    assert links or page != "README.md"
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []
