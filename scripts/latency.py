"""Latency of exports on this machine: percentiles over single images, after a warm-up.

    python latency.py --model exports/streets --size 512x1024 [--signature superpixels] [--threads 2] [--json FILE]
    python latency.py --model exports/saved_model exports/onnx exports/litert --size 512x1024

Several models take turns, image by image, so that what else the machine does meets all of them alike.

An example to copy: it needs TensorFlow for a SavedModel, onnxruntime for model.onnx, ai_edge_litert for model.tflite or
jax for StableHLO, and nothing of sp_transformer.
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


def open_litert(path, signature, threads):
    """A function uint8 [1, Y, X, 3] -> dict of NumPy arrays."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads or os.cpu_count())
    runner = interpreter.get_signature_runner(signature)
    return lambda images: runner(images=images)


def open_stablehlo(path, signature, threads):
    """A function uint8 [1, Y, X, 3] -> dict of NumPy arrays."""
    import jax
    from jax.extend import backend
    from jaxlib import xla_client

    if threads:
        raise ValueError("XLA takes all cores; bound them from outside, as by taskset")
    # Otherwise int64 weights would become int32.
    jax.config.update("jax_enable_x64", True)
    folder = pathlib.Path(path).parent
    programs = {
        "serving_default": "forward",
        "superpixels": "superpixels",
        "probabilities": "logits",
    }
    entry = json.loads(path.read_text())["programs"][programs[signature]]
    devices = xla_client.DeviceList(tuple(jax.devices()[:1]))
    executable = backend.get_backend().compile_and_load(
        (folder / entry["file"]).read_text(), devices, xla_client.CompileOptions()
    )
    constants = []
    with np.load(folder / "weights.npz") as weights:
        for argument in entry["arguments"]:
            if argument["kind"] == "input":
                continue
            shape, dtype = argument["shape"], argument["dtype"]
            if "fill" in argument:
                value = np.full(shape, argument["fill"], dtype)
            elif "value" in argument:
                value = np.array(argument["value"], dtype).reshape(shape)
            else:
                value = weights[argument["name"]]
            constants.append(jax.device_put(value))

    def run(images):
        values = executable.execute([jax.device_put(images), *constants])
        names = [output["name"] for output in entry["outputs"]]
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    return run


OPENERS = {
    "saved_model.pb": open_saved_model,
    "model.onnx": open_onnx,
    "model.tflite": open_litert,
    "manifest.json": open_stablehlo,
}


def open_model(path, signature, threads):
    """A function uint8 [1, Y, X, 3] -> dict of NumPy arrays, of an export's folder or the model's file in it."""
    path = pathlib.Path(path)
    for name, opener in OPENERS.items():
        file = path / name if path.is_dir() else path
        if file.is_file() and (path.is_dir() or file.suffix == pathlib.Path(name).suffix):
            return opener(file.parent if opener is open_saved_model else file, signature, threads)
    raise ValueError(f"--model {path} is no export: no {', '.join(OPENERS)}")


def measure(functions, images, warmup, runs):
    """Seconds of each of `runs` calls of each function, after `warmup` calls that are not counted.

    Args:
      functions: of one image each; they take turns, and another one begins every time.
      images: list of uint8 [1, Y, X, 3].
      warmup: number of calls.
      runs: number of calls.

    Returns:
      A list of seconds for every function.
    """
    seconds = [[] for _ in functions]
    for turn in range(-warmup, runs):
        for place in range(len(functions)):
            index = (turn + place) % len(functions)
            start = time.perf_counter()
            functions[index](images[turn % len(images)])
            if turn >= 0:
                seconds[index].append(time.perf_counter() - start)
    return seconds


def summarize(seconds):
    """Milliseconds by name: the percentiles, mean, best and worst."""
    milliseconds = 1000 * np.array(seconds)
    found = {f"p{q}": float(np.percentile(milliseconds, q)) for q in PERCENTILES}
    found |= {"mean": milliseconds.mean(), "best": milliseconds.min(), "worst": milliseconds.max()}
    return {name: round(float(value), 2) for name, value in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", required=True, nargs="+", help="folders of exports, or the models' files"
    )
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
    try:
        functions = [
            open_model(path, arguments.signature, arguments.threads) for path in arguments.model
        ]
    except ValueError as error:
        parser.error(str(error))
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (1, height, width, 3), np.uint8) for _ in range(4)]
    seconds = measure(functions, images, arguments.warmup, arguments.runs)
    rows = []
    for path, taken in zip(arguments.model, seconds, strict=True):
        found = summarize(taken)
        # Not its whole path: the numbers are to be published.
        rows.append({"model": pathlib.Path(path).name, "milliseconds": found, "seconds": taken})
        print(
            f"{rows[-1]['model']} {arguments.signature} {height}x{width}, {arguments.runs} runs after "
            f"{arguments.warmup}: "
            + ", ".join(f"{name} {value:g} ms" for name, value in found.items())
        )
    if arguments.json:
        settings = {name: getattr(arguments, name) for name in ("size", "signature", "threads")}
        settings |= {"warmup": arguments.warmup, "runs": arguments.runs}
        contents = {**settings, "rows": rows}
        pathlib.Path(arguments.json).write_text(json.dumps(contents, indent=1) + "\n")


if __name__ == "__main__":
    main()
