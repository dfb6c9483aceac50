"""The other process of a verification: opens an export by its own runtime, runs it on images and times it.

    python -m sp_transformer.serving.verification_worker EXPORT IMAGES.npz RESULTS.npz

IMAGES.npz holds uint8 [1, Y, X, 3] arrays "0", "1", ... RESULTS.npz comes to hold what came of each, as "0/labels", and
"about", a JSON text of versions and times. Only what the export's runtime imports is imported here.
"""

import importlib.metadata
import json
import statistics
import sys
import time

import numpy as np

from sp_transformer import exit_codes
from sp_transformer.serving import runtimes, sampling
from sp_transformer.serving.runtimes import runtime

_WARMUP = 2
_LEAST_RUNS, _MOST_RUNS = 3, 15
_SECONDS = 5.0
_WATCHED = ("tensorflow", "keras", "jax", "onnxruntime", "ai_edge_litert")


def main(arguments):
    """Runs as the arguments say; returns the exit code."""
    export_dir, images_file, results_file = arguments
    start = time.perf_counter()
    try:
        model = runtimes.open_model(export_dir)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return exit_codes.USAGE
    opened = time.perf_counter() - start
    images = np.load(images_file)
    results = {}
    for key in images.files:
        image = images[key]
        outputs = model.run(image)
        for name in (*runtime.MAPS, *runtime.TABLE):
            results[f"{key}/{name}"] = outputs[name]
        results[f"{key}/labels_alone"] = model.labels(image)
        of_files = model.file_labels(image)
        if of_files is not None:
            results[f"{key}/labels_of_files"] = of_files
        results[f"{key}/probabilities"] = sampling.sample(model.probabilities(image))
    first = images[images.files[0]]
    about = {
        "runtime": {name: importlib.metadata.version(name) for name in model.packages},
        "imported": [name for name in _WATCHED if name in sys.modules],
        "seconds_to_open": opened,
        "latency": {
            "image_size": list(first.shape[1:3]),
            "labels": time_calls(model.labels, first),
            "superpixels": time_calls(model.run, first),
        },
    }
    np.savez(results_file, about=json.dumps(about), **results)
    return exit_codes.DONE


def time_calls(function, image) -> dict:
    """Median and quartiles in milliseconds of warm calls, from the NumPy image to the NumPy result."""
    for _ in range(_WARMUP):
        function(image)
    times = []
    while len(times) < _LEAST_RUNS or (len(times) < _MOST_RUNS and sum(times) < _SECONDS):
        start = time.perf_counter()
        function(image)
        times.append(time.perf_counter() - start)
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return {
        "milliseconds": round(1e3 * middle, 2),
        "quartiles": [round(1e3 * low, 2), round(1e3 * high, 2)],
        "runs": len(times),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
