"""Runs an ONNX file on the arrays of an .npz where neither TensorFlow nor this package can be imported: a script of the
tests.

Arguments: model.onnx, .npz of uint8 [1, Y, X, 3] arrays, .npz to write.
"""

import sys


class Without:
    """Finds what another finder finds, except for what is to look as if it were not installed."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ("tensorflow", "keras", "jax", "sp_transformer"):
            return self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402

model, images_file, results_file = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
images = np.load(images_file)
results = {}
for key in images.files:
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {"images": images[key]})
    results |= {f"{key}_{name}": value for name, value in zip(names, values, strict=True)}
np.savez(results_file, **results)
