"""ONNX files, run by onnxruntime."""

import pathlib

from sp_transformer.serving.runtimes import runtime


class OnnxRuntime(runtime.Runtime):
    """A model.onnx of serving/onnx_model.py, on all cores of the CPU."""

    format = "onnx"
    packages = ("onnxruntime",)

    def __init__(self, folder):
        super().__init__(folder)
        ort = runtime.require("onnxruntime", "onnx")
        self._session = ort.InferenceSession(
            str(pathlib.Path(folder) / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        # Otherwise all outputs are computed, whichever are asked for.
        self._options = ort.RunOptions()
        self._options.only_execute_path_to_fetches = True

    def _run(self, images):
        return self._fetch((*runtime.MAPS, *runtime.TABLE), images)

    def _labels(self, images):
        return self._fetch(("labels",), images)["labels"]

    def _probabilities(self, images):
        return self._fetch(("probabilities",), images)["probabilities"]

    def _fetch(self, names, images):
        values = self._session.run(list(names), {"images": images}, self._options)
        return dict(zip(names, values, strict=True))


def open_export(folder):
    """The Runtime of a folder."""
    return OnnxRuntime(folder)
