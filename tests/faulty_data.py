"""A small data set with planted faults, for the tests of what finds them.

Shapes are 48x64 pixels, classes 0 to 2, and 255 is ignored.
"""

import io
import pathlib

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
GOOD = 4  # Pairs without a fault in each split.

DATA = """
data {
  dataset: "folder"
  label_map {
    classes { name: "road" color: "#804080" }
    classes { name: "car" color: "#00008e" }
    classes { name: "sky" color: "#4682b4" }
    ignore_label: 255
  }
  folder {
    splits {
      name: "train"
      images: "train/images/*.png"
      images: "train/images/*.jpg"
      images: "train/images/*.tiff"
      labels: "train/labels/*.png"
    }
    splits {
      name: "val"
      images: "val/images/*.png"
      images: "val/images/*.jpg"
      images: "val/images/*.tiff"
      labels: "val/labels/*.png"
    }
  }
  crop_height: 64
  crop_width: 64
  augmentation { min_scale: 0.5 max_scale: 2 color_policy: "autoaugment" }
}
"""

CONFIG = (
    DATA
    + """
experiment_name: "tests/faulty"
model {
  channels: 16
  backbone { name: "resnet18" }
  hypercolumn { stride: 8 max_hidden_channels: 16 }
  tokenizer { superpixel_stride: 32 layers: 1 }
  classifier { layers: 1 heads: 2 feed_forward_width: 16 }
}
training {
  batch_size: 2 steps: 6 warmup_steps: 1
  save_interval_steps: 6 log_interval_steps: 6 picture_interval_steps: 0
}
evaluation { batch_size: 2 }
"""
)


def picture(seed):
    """A noisy uint8 [48, 64, 3] that is unlike those of other seeds."""
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def ids(seed):
    """uint8 [48, 64] of three classes and a little that is ignored."""
    label = np.random.default_rng(seed).integers(0, 3, (6, 8), dtype=np.uint8)
    label = np.kron(label, np.ones((8, 8), np.uint8))
    label[0, :2] = 255
    return label


def encoded(array, format="PNG", **options):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **options)
    return buffer.getvalue()


def _exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _torn(content):
    return content[: len(content) // 2]


# Name of a planted fault -> (kind, image's bytes or None, label's bytes or None, faulty file below train/).
FAULTS = {
    "no_label": ("image_without_label", encoded(picture(101)), None, "images/no_label.png"),
    "no_image": ("label_without_image", None, encoded(ids(102)), "labels/no_image.png"),
    "sizes": (
        "size_mismatch",
        encoded(picture(103)),
        encoded(ids(103)[:, :-8]),
        "labels/sizes.png",
    ),
    "unknown": (
        "unknown_ids",
        encoded(picture(104)),
        encoded(np.where(ids(104) == 1, 17, ids(104)).astype(np.uint8)),
        "labels/unknown.png",
    ),
    "colors": ("color_label", encoded(picture(105)), encoded(picture(5)), "labels/colors.png"),
    "torn_image": (
        "unreadable_image",
        _torn(encoded(picture(106), "JPEG")),
        encoded(ids(106)),
        "images/torn_image.jpg",
    ),
    "torn_label": (
        "unreadable_label",
        encoded(picture(107)),
        # Noise, so that half of the file is half of the pixels.
        _torn(encoded((picture(7)[..., 0] % 3).astype(np.uint8))),
        "labels/torn_label.png",
    ),
    "lossy": (
        "lossy_label",
        encoded(picture(108)),
        encoded(ids(108), "JPEG"),
        "labels/lossy.png",
    ),
    "rotated": (
        # To be shown upright, and its label was drawn on the pixels as stored.
        "size_mismatch",
        encoded(picture(109), "JPEG", exif=_exif(6)),
        encoded(ids(109)),
        "labels/rotated.png",
    ),
    "empty": ("unreadable_image", b"", encoded(ids(110)), "images/empty.png"),
    "wide_ids": (
        "unknown_ids",
        encoded(picture(111)),
        encoded(ids(111).astype(np.uint16) * 256),
        "labels/wide_ids.png",
    ),
}


def write(root, faults=FAULTS, good=GOOD):
    """Writes good pairs into both splits and the faults into "train"; returns the root."""
    root = pathlib.Path(root)
    for split, offset in (("train", 0), ("val", 50)):
        for number in range(good):
            put(
                root,
                split,
                f"good{number}",
                encoded(picture(number + offset)),
                encoded(ids(number)),
            )
    for name in faults:
        kind, image, label, file = FAULTS[name]
        del kind
        extension = pathlib.Path(file).suffix if file.startswith("images/") else ".png"
        put(root, "train", name, image, label, extension)
    return root


def put(root, split, name, image, label, extension=".png"):
    """Writes the bytes of an image and of its label; None writes none."""
    for folder, content, suffix in (("images", image, extension), ("labels", label, ".png")):
        path = pathlib.Path(root, split, folder, name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)
