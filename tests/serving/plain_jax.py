"""Runs exported StableHLO on the arrays of an .npz where neither TensorFlow nor this package can be imported: a script
of the tests.

Arguments: folder of the export, .npz of uint8 [1, Y, X, 3] arrays, .npz to write.
"""

import sys


class Without:
    """Finds what another finder finds, except for what is to look as if it were not installed."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ("tensorflow", "keras", "sp_transformer"):
            return self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import json  # noqa: E402
import pathlib  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.extend import backend  # noqa: E402
from jaxlib import xla_client  # noqa: E402

folder, images_file, results_file = map(pathlib.Path, sys.argv[1:])
manifest = json.loads((folder / "manifest.json").read_text())
weights = np.load(folder / "weights.npz")
images = np.load(images_file)
results = {}
for program in ("forward", "logits", "superpixels"):
    entry = manifest["programs"][program]
    devices = xla_client.DeviceList(tuple(jax.devices()[:1]))
    executable = backend.get_backend().compile_and_load(
        (folder / entry["file"]).read_text(), devices, xla_client.CompileOptions()
    )
    for key in images.files:
        arguments = []
        for argument in entry["arguments"]:
            if argument["kind"] == "input":
                value = images[key]
            elif "fill" in argument:
                value = np.full(argument["shape"], argument["fill"], argument["dtype"])
            elif "value" in argument:
                value = np.array(argument["value"], argument["dtype"]).reshape(argument["shape"])
            else:
                value = weights[argument["name"]]
            arguments.append(jax.device_put(value))
        values = executable.execute(arguments)
        for output, value in zip(entry["outputs"], values, strict=True):
            results[f"{key}_{output['name']}"] = np.asarray(value)
np.savez(results_file, **results)
