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

from sp_transformer.benchmarking import report as benchmark_report
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
    cells = [_cells(row) for row in rows]
    return "\n".join(benchmark_report.grid(list(cells[0]), cells))


def _cells(row):
    miou = "no truth"
    if row["miou_checkpoint"] is not None:
        miou = f"{row['miou_export']:.4f}, {row['miou_export'] - row['miou_checkpoint']:+.5f}"
    latency = row["latency"]
    return {
        "export": row["name"],
        "MB": f"{row['bytes'] / 1e6:.1f}",
        "equal labels": f"{row['equal_labels']:.4%}",
        "equal superpixels": f"{row['equal_superpixels']:.4%}",
        "largest difference of a probability": f"{row['max_probability_difference']:.1e}",
        "mIoU, difference": miou,
        "labels, ms": f"{latency['labels']['milliseconds']:.1f}",
        "superpixels, ms": f"{latency['superpixels']['milliseconds']:.1f}",
    }


def main(arguments=None):
    """Compares as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("exports", nargs="+", type=pathlib.Path, help="Folders of exports.")
    parser.add_argument("--size", default="128x256", help="Of the image for exports of any size.")
    parser.add_argument("--json", help="File that all numbers are written to.")
    values = parser.parse_args(arguments)
    try:
        height, width = map(int, values.size.split("x"))
    except ValueError:
        parser.error(f"--size {values.size} is not HEIGHTxWIDTH, 128x256 say")
    try:
        rows = [row_of(folder, (height, width)) for folder in values.exports]
    except (OSError, ValueError, verification.VerificationError) as error:
        print(f"compare_exports: {error}", file=sys.stderr)
        return 2
    from sp_transformer import environment

    if values.json:
        assets.write_json(values.json, {"environment": environment.describe(), "rows": rows})
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
