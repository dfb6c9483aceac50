"""What the README and the other pages show works as it stands there."""

import itertools
import pathlib
import re
import shlex
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


PAGES = sorted(["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])


@pytest.mark.parametrize("page", [*PAGES, "docs/results/README.md"])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#=]+)[)#]", (ROOT / page).read_text())
    assert links or page != "README.md"
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


def first_command(lines):
    """The words of the shell command that begins with the first of these lines."""
    command = ""
    for line in lines:
        command += line + " "
        try:
            return shlex.split(command, comments=True)
        except ValueError:
            continue
    raise ValueError(f"a quote of {lines[0]!r} is not closed")


def documented_configs():
    """(page, config file, its overrides) of every command that names a config of the repository."""
    found = {}
    for page in PAGES:
        text = (ROOT / page).read_text().replace("\\\n", " ")
        # Quotes may go over lines: a command ends where none is open.
        for start in re.finditer(r"^ {4}(?=.*--config_file)", text, re.MULTILINE):
            words = first_command(text[start.end() :].splitlines())
            value = {"--config_file": [], "--override": []}
            for flag, following in itertools.pairwise(words):
                value.get(flag, []).append(following)
            for config in value["--config_file"]:
                if (ROOT / config).is_file():
                    found[page, config, *value["--override"]] = None
    return list(found)


def test_commands_are_found():
    assert len(documented_configs()) > 12
    assert any(len(command) > 2 for command in documented_configs())


@pytest.mark.parametrize("command", documented_configs(), ids=lambda command: " ".join(command))
def test_configs_of_documented_commands_have_no_fault(command):
    _, config, *overrides = command
    spt.load_config(ROOT / config, overrides=overrides, data_dir="DATA")
