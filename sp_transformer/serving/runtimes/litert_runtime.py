"""LiteRT files, run by LiteRT's interpreter.

Its own package and not tf.lite.Interpreter, which TensorFlow announces the end of, and which brings 1.3 GB along.
"""

import os
import pathlib

from sp_transformer.serving.runtimes import runtime


class LiteRTRuntime(runtime.Runtime):
    """A model.tflite of serving/litert_model.py, on all cores of the CPU."""

    format = "litert"
    packages = ("ai-edge-litert",)

    def __init__(self, folder):
        super().__init__(folder)
        litert = runtime.require("ai_edge_litert.interpreter", "litert")
        self._interpreter = litert.Interpreter(
            model_path=str(pathlib.Path(folder) / "model.tflite"), num_threads=os.cpu_count()
        )
        # Each takes memory for its tensors when it is made.
        self._runners = {}

    def _run(self, images):
        return self._call("superpixels", images)

    def _labels(self, images):
        return self._call("serving_default", images)["labels"]

    def _probabilities(self, images):
        return self._call("probabilities", images)["probabilities"]

    def _call(self, signature, images):
        if signature not in self._runners:
            self._runners[signature] = self._interpreter.get_signature_runner(signature)
        return self._runners[signature](images=images)


def open_export(folder):
    """The Runtime of a folder."""
    return LiteRTRuntime(folder)
