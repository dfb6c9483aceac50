"""Latency of an export on this machine: percentiles over single images, after a warm-up.

    python latency.py --model exports/streets --size 512x1024 [--signature superpixels] [--threads 2] [--json FILE]

An example to copy: it needs TensorFlow for a SavedModel, or onnxruntime for model.onnx, and nothing of sp_transformer.
"""

import argparse
import json
import os
import pathlib
import time

import numpy as np

PERCENTILES = (50, 90, 99)


def open_saved_model(folder, signature, threads):
    """A function uint8 [1, Y, X, 3] -> dict of NumPy arrays."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(str(folder))
    function = loaded.signatures[signature]

    def run(images, keep_alive=loaded):
        # The copy to NumPy ends only when the device is done.
        outputs = function(images=tf.constant(images))
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def open_onnx(path, signature, threads):
    """A function uint8 [1, Y, X, 3] -> dict of NumPy arrays."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Otherwise all outputs are computed, whichever are asked for.
    only_asked = onnxruntime.RunOptions()
    only_asked.only_execute_path_to_fetches = True
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = ["labels"] if signature == "serving_default" else [signature]
    if signature == "superpixels":
        available = [output.name for output in session.get_outputs()]
        names = [name for name in available if name != "probabilities"]

    def run(images):
        return dict(zip(names, session.run(names, {"images": images}, only_asked), strict=True))

    return run


def measure(run, images, warmup, runs):
    """Seconds of each of `runs` calls, after `warmup` calls that are not counted."""
    for index in range(warmup):
        run(images[index % len(images)])
    seconds = []
    for index in range(runs):
        start = time.perf_counter()
        run(images[index % len(images)])
        seconds.append(time.perf_counter() - start)
    return seconds


def summarize(seconds):
    """Milliseconds by name: the percentiles, mean, best and worst."""
    milliseconds = 1000 * np.array(seconds)
    found = {f"p{q}": float(np.percentile(milliseconds, q)) for q in PERCENTILES}
    found |= {"mean": milliseconds.mean(), "best": milliseconds.min(), "worst": milliseconds.max()}
    return {name: round(float(value), 2) for name, value in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder of a SavedModel, or a .onnx file")
    parser.add_argument("--size", required=True, help="HEIGHTxWIDTH of the images in pixels")
    parser.add_argument(
        "--signature", default="serving_default", help="or superpixels, probabilities"
    )
    parser.add_argument("--warmup", type=int, default=5, help="calls before the clock runs")
    parser.add_argument("--runs", type=int, default=100, help="calls that are timed")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as cores")
    parser.add_argument("--json", help="file for all numbers")
    arguments = parser.parse_args()
    if arguments.runs < 1 or arguments.warmup < 0:
        parser.error(
            f"--runs {arguments.runs} must be at least 1, --warmup {arguments.warmup} at least 0"
        )
    try:
        height, width = (int(side) for side in arguments.size.split("x"))
    except ValueError:
        parser.error(f"--size {arguments.size} is not HEIGHTxWIDTH, as 512x1024")
    path = pathlib.Path(arguments.model)
    opener = open_onnx if path.suffix == ".onnx" else open_saved_model
    run = opener(path, arguments.signature, arguments.threads)
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (1, height, width, 3), np.uint8) for _ in range(4)]
    seconds = measure(run, images, arguments.warmup, arguments.runs)
    found = summarize(seconds)
    print(
        f"{path.name} {arguments.signature} {height}x{width}, {arguments.runs} runs after {arguments.warmup}: "
        + ", ".join(f"{name} {value:g} ms" for name, value in found.items())
    )
    if arguments.json:
        contents = {**vars(arguments), "milliseconds": found, "seconds": seconds}
        pathlib.Path(arguments.json).write_text(json.dumps(contents, indent=1) + "\n")


if __name__ == "__main__":
    main()
