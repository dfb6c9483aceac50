"""Runs a SavedModel on the arrays of an .npz as if neither Keras nor this package were installed: a
script of the tests.

Arguments: SavedModel folder, .npz of uint8 [B, Y, X, 3] arrays, .npz to write. The package must not
be on the path.
"""

import sys


class WithoutKeras:
    """Finds what another finder finds, except for what is to look as if it were not installed."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ("keras", "tf_keras", "sp_transformer"):
            return self.finder.find_spec(name, path, target)


sys.meta_path[:] = [WithoutKeras(finder) for finder in sys.meta_path]
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

folder, images_file, results_file = sys.argv[1:]
loaded = tf.saved_model.load(folder)
images = np.load(images_file)
results = {}
for key in images.files:
    batch = tf.constant(images[key])
    results[key + "_labels"] = loaded.signatures["serving_default"](images=batch)["labels"]
    both = loaded.signatures["superpixels"](images=batch)
    results[key + "_both"], results[key + "_ids"] = both["labels"], both["superpixels"]
    results[key + "_method"] = loaded.labels(batch)["labels"]
np.savez(results_file, **results)
blocked = {"keras", "tf_keras", "sp_transformer"}
assert not blocked & {name.split(".")[0] for name in sys.modules}
