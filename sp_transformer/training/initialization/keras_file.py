"""Weight files of Keras (.h5 of Keras 1 and 2, .weights.h5 of Keras 2.12 and later), read by Keras itself.

Neither layout says which network it belongs to: both are read in the order of the layers, and arrays that are left over
are not noticed. So the number of arrays is compared first.
"""

import contextlib
import os
import pathlib
import tempfile

import h5py
import keras

from sp_transformer.data import storage
from sp_transformer.training.initialization.errors import InitializationError


def read_into_one_of(path, networks):
    """Reads a file into the network that has as many arrays as it.

    Args:
      path: the file, local or "gs://...".
      networks: {description: function that builds a `keras.Model`}; the first that fits is taken.

    Returns:
      The network with the file's weights.

    Raises:
      InitializationError: if the file is no weight file of Keras, is damaged, or belongs to another network.
    """
    with _local(path) as local:
        is_legacy, count = _inspect(path, local)
        counts = {}
        for description, build in networks.items():
            network = build()
            counts[description] = len(network.weights)
            if counts[description] == count:
                _read(path, local, is_legacy, network, description)
                return network
    known = ", ".join(f"{number} ({description})" for description, number in counts.items())
    raise InitializationError(
        f"{path} holds {count} arrays, and the network that it is to be read into has {known}: it belongs to another "
        "network; set model.backbone.name to that, or give another file"
    )


@contextlib.contextmanager
def _local(path):
    """The path of a local file; a remote one is copied for the time being."""
    path = str(path)
    if not storage.is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        local = pathlib.Path(folder, "weights")
        local.write_bytes(storage.read_file(path))
        yield str(local)


def _inspect(path, local):
    """Whether a file is in the layout of Keras 1 and 2, and its number of arrays."""
    if not h5py.is_hdf5(local):
        raise InitializationError(
            f"{path} is no HDF5 file, as weight files of Keras are (.h5), or its beginning is damaged; correct "
            "training.initialization.kind or path"
        )
    try:
        with h5py.File(local, "r") as file:
            # Of a whole model that was saved as .h5, the weights lie in a group.
            root = file.get("model_weights", file)
            is_legacy = any(name.startswith("layer_names") for name in root.attrs)
            names = []
            root.visititems(
                lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
            )
    except OSError as error:
        raise _damaged(path, error) from error
    ours = _is_legacy_weight if is_legacy else _is_weight
    return is_legacy, sum(map(ours, names))


def _is_legacy_weight(name):
    return not name.startswith("top_level_model_weights")


def _is_weight(name):
    # layers/conv2d/vars/0; a Dropout keeps its random state like a weight.
    folders = name.split("/")[:-1]
    return "vars" in folders and not {"optimizer", "seed_generator"} & set(folders)


def _read(path, local, is_legacy, network, description):
    with tempfile.TemporaryDirectory() as folder:
        # Keras tells the layouts apart by a file's name, and files were published under names of either kind.
        link = os.path.join(folder, "weights.h5" if is_legacy else "model.weights.h5")
        os.symlink(os.path.abspath(local), link)
        try:
            keras.Model.load_weights(network, link)
        except OSError as error:
            raise _damaged(path, error) from error
        except (ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:400]
            raise InitializationError(
                f"{path} does not hold the weights of {description}: {reason}; set model.backbone.name to the network "
                "that it belongs to, or give another file"
            ) from error


def _damaged(path, error):
    return InitializationError(
        f"{path} cannot be read, it is truncated or corrupt ({error}); copy it again"
    )
