"""Puts verified exports of one checkpoint side by side: size, agreement with the checkpoint, and time.

Example: python scripts/compare_exports.py exports/saved_model exports/onnx exports/int8 --json exports.json

Agreement is what verification.json says. Times are taken anew, each export in a process of its own, one after the
other: warm calls from the NumPy image to the NumPy result, median, on an image of the size that the export takes.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

from sp_transformer.serving import assets, verification

_LEFT_OUT = ("environment", "runtime", "imported", "seconds_to_open", "latency")


def row_of(folder, size):
    """One dict of numbers for an export.

    Args:
      folder: the export.
      size: (Y, X) of the image for exports that take any.
    """
    report = json.loads((folder / assets.VERIFICATION).read_text(encoding="utf-8"))
    if not report["passed"]:
        raise ValueError(f"{folder} was not verified; export it with --verify_images=20")
    about = assets.read_about(folder)
    size = about["image_size"] or size
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    timed = json.loads(str(verification.run_worker(folder, [image])["about"]))
    forms = ("format", "quantization", "inference_form", "jit_compile", "image_size")
    return {
        "name": folder.name,
        **{name: about[name] for name in forms if name in about},
        **{name: value for name, value in report.items() if name not in _LEFT_OUT},
        **{name: timed[name] for name in ("runtime", "seconds_to_open", "latency")},
    }


def table(rows):
    """The rows as a Markdown table."""
    lines = [
        "| export | MB | equal labels | equal superpixels | largest difference of a probability "
        "| mIoU, difference | labels, ms | superpixels, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        difference = row["miou_export"] - row["miou_checkpoint"]
        cells = [
            row["name"],
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['equal_labels']:.4%}",
            f"{row['equal_superpixels']:.4%}",
            f"{row['max_probability_difference']:.1e}",
            f"{row['miou_export']:.4f}, {difference:+.5f}",
            *(f"{row['latency'][key]['milliseconds']:.1f}" for key in ("labels", "superpixels")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments=None):
    """Compares as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("exports", nargs="+", type=pathlib.Path, help="Folders of exports.")
    parser.add_argument("--size", default="128x256", help="Of the image for exports of any size.")
    parser.add_argument("--json", help="File that all numbers are written to.")
    values = parser.parse_args(arguments)
    size = [int(side) for side in values.size.split("x")]
    try:
        rows = [row_of(folder, size) for folder in values.exports]
    except (OSError, ValueError) as error:
        print(f"compare_exports: {error}", file=sys.stderr)
        return 2
    from sp_transformer import environment

    if values.json:
        assets.write_json(values.json, {"environment": environment.describe(), "rows": rows})
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
