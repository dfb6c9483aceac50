"""A small valid experiment to break, and files to load it from."""

import pytest

# Everything that later tests change stands on its own, so that overrides can replace it.
FOLDER_CONFIG = """
model {
  backbone { name: "resnet50" }
}
data {
  dataset: "folder"
  crop_height: 64
  crop_width: 96
  label_map {
    classes { name: "road" color: "#804080" }
    classes { name: "sky" color: "#4682b4" }
  }
  folder {
    splits { name: "train" images: "train/*.jpg" labels: "train/*.png" }
    splits { name: "val" images: "val/*.jpg" labels: "val/*.png" }
    splits { name: "test" images: "test/*.jpg" }
  }
}
"""


@pytest.fixture
def write(tmp_path):
    """write(text, name="experiment.textproto") -> path of a file in a fresh folder."""

    def write_file(text, name="experiment.textproto"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def folder_config(write):
    """Path of a valid experiment on folders that do not exist."""
    return write(FOLDER_CONFIG, "mine/folder.textproto")
