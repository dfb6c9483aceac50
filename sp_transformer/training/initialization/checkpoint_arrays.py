"""Variables of a TF2 checkpoint as arrays by name, read when they are asked for."""

import os
from collections.abc import Mapping

import tensorflow as tf

from sp_transformer.model import weights
from sp_transformer.training.initialization.errors import InitializationError

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class CheckpointArrays(Mapping):
    """{name without its /.ATTRIBUTES suffix: array}.

    Args:
      prefix: prefix of the checkpoint.

    Raises:
      InitializationError: if it cannot be read, here or later.
    """

    def __init__(self, prefix):
        self._prefix = prefix
        self._reader = self._guarded(lambda: weights.read(prefix))
        shapes = self._reader.get_variable_to_shape_map()
        self._names = {_plain(key): key for key in shapes if key.endswith(_VALUE)}
        if not self._names:
            raise InitializationError(
                f"{prefix} is no TF2 checkpoint, as none of its {len(shapes)} keys ends with {_VALUE}; checkpoints of "
                "TensorFlow 1 have to be converted first"
            )

    def __getitem__(self, name):
        return self._guarded(lambda: self._reader.get_tensor(self._names[name]))

    def __contains__(self, name):
        return name in self._names

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)

    def _guarded(self, read):
        try:
            return read()
        except weights.TORN_ERRORS as error:
            if not weights.is_torn(self._prefix, error):
                raise
            raise InitializationError(
                f"{self._prefix} cannot be read, it is truncated or corrupt: {str(error).splitlines()[0]}; take "
                "another checkpoint, or copy its files again"
            ) from error


def _plain(key):
    """A key without its suffix, and without TensorFlow's escapes of a name's slashes and dots."""
    return key.removesuffix(_VALUE).replace(".S", "/").replace("..", ".")


def find(path) -> str:
    """The prefix of the checkpoint that a path means: a prefix, one of its files, or a folder of checkpoints.

    Raises:
      InitializationError: if there is none.
    """
    path = os.fspath(path)
    if weights.is_checkpoint(path):
        return weights.prefix_of(path)
    if tf.io.gfile.isdir(path):
        saved = weights.list_checkpoints(path)
        if saved:
            return saved[-1][1]
        raise InitializationError(
            f"training.initialization.path {path} is a folder without checkpoints, files ckpt-STEP.index; give the "
            "prefix of a checkpoint"
        )
    raise InitializationError(
        f"training.initialization.path {path} is no checkpoint: there is no such folder, and no file "
        f"{weights.prefix_of(path)}.index; give a checkpoint as FOLDER/ckpt-STEP"
    )


def is_optimizer_slot(name) -> bool:
    """Whether a name is of an optimizer's slot, which lies below its variable's name."""
    return "/.OPTIMIZER_SLOT/" in name
