"""Runs an ONNX or LiteRT file on the arrays of an .npz where neither TensorFlow nor this package can be imported: a
script of the tests.

Arguments: model.onnx or model.tflite, .npz of uint8 [1, Y, X, 3] arrays, .npz to write.
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


def onnx_runner(model):
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))


def litert_runner(model):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=model)
    # More than five axes no kernel takes.
    assert max(len(tensor["shape"]) for tensor in interpreter.get_tensor_details()) <= 5

    def run(images):
        outputs = {}
        for signature in interpreter.get_signature_list():
            outputs |= interpreter.get_signature_runner(signature)(images=images)
        return outputs

    return run


model, images_file, results_file = sys.argv[1:]
run = (onnx_runner if model.endswith(".onnx") else litert_runner)(model)
images = np.load(images_file)
results = {}
for key in images.files:
    results |= {f"{key}_{name}": value for name, value in run(images[key]).items()}
np.savez(results_file, **results)
