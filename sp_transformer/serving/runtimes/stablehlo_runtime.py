"""StableHLO programs, run by JAX's PJRT client for its default device."""

import json
import pathlib

import numpy as np

from sp_transformer.serving.runtimes import runtime

# Program that gives what a method needs.
_LABELS = "forward"
_SUPERPIXELS = "superpixels"
_LOGITS = "logits"


class StableHLORuntime(runtime.Runtime):
    """Programs of serving/stablehlo.py; each is compiled when it is first called."""

    format = "stablehlo"
    packages = ("jax", "jaxlib")

    def __init__(self, folder):
        super().__init__(folder)
        self._jax = runtime.require("jax", "stablehlo")
        # Otherwise int64 weights would become int32.
        self._jax.config.update("jax_enable_x64", True)
        self._folder = pathlib.Path(folder)
        self._manifest = json.loads((self._folder / "manifest.json").read_text(encoding="utf-8"))
        self._weights = np.load(self._folder / "weights.npz")
        self._programs = {}

    def _run(self, images):
        return self._call(_SUPERPIXELS, images)

    def _labels(self, images):
        return self._call(_LABELS, images)["labels"]

    def _probabilities(self, images):
        logits = self._call(_LOGITS, images)["semantic_logits"]
        return np.asarray(self._jax.nn.softmax(logits, axis=-1))

    def _call(self, name, images):
        if name not in self._programs:
            self._programs[name] = self._load(name)
        executable, constants, outputs = self._programs[name]
        arguments = [self._jax.device_put(images), *constants]
        values = executable.execute(arguments)
        names = [output["name"] for output in outputs]
        return {key: np.asarray(value) for key, value in zip(names, values, strict=True)}

    def _load(self, name):
        """The compiled program, its arguments but the images on the device, and its outputs' descriptions."""
        from jax.extend import backend
        from jaxlib import xla_client

        if name not in self._manifest["programs"]:
            raise ValueError(
                f"{self._folder} has no program {name!r}, only {', '.join(self._manifest['programs'])}; export it "
                "with --programs"
            )
        entry = self._manifest["programs"][name]
        text = (self._folder / entry["file"]).read_text(encoding="utf-8")
        devices = xla_client.DeviceList(tuple(self._jax.devices()[:1]))
        executable = backend.get_backend().compile_and_load(
            text, devices, xla_client.CompileOptions()
        )
        constants = [
            self._jax.device_put(self._constant(argument))
            for argument in entry["arguments"]
            if argument["kind"] != "input"
        ]
        return executable, constants, entry["outputs"]

    def _constant(self, argument):
        shape, dtype = argument["shape"], np.dtype(argument["dtype"])
        if "fill" in argument:
            return np.full(shape, argument["fill"], dtype)
        if "value" in argument:
            return np.array(argument["value"], dtype).reshape(shape)
        value = self._weights[argument["name"]]
        if argument["stored"] == "bfloat16":
            import ml_dtypes

            value = value.view(ml_dtypes.bfloat16)
        return value.astype(dtype)


def open_export(folder):
    """The Runtime of a folder."""
    return StableHLORuntime(folder)
