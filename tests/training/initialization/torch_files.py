"""Writes .pth files as PyTorch does, without PyTorch: the zip archive, and the pickles of versions before 1.6."""

import collections
import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np

_STORAGES = {
    np.dtype("float32"): "FloatStorage",
    np.dtype("float16"): "HalfStorage",
    np.dtype("float64"): "DoubleStorage",
    np.dtype("int64"): "LongStorage",
}


class Storage:
    def __init__(self, key, values):
        self.key, self.values = key, values


class Tensor:
    """An array as a tensor of a storage; `strides` and `offset` count elements, by default C order from the start."""

    def __init__(self, key, values, shape=None, strides=None, offset=0):
        self.storage = Storage(key, np.ascontiguousarray(values).reshape(-1))
        self.shape = tuple(values.shape if shape is None else shape)
        ordered = tuple(int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape)))
        self.strides = ordered if strides is None else strides
        self.offset = offset

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        hooks = collections.OrderedDict()
        return rebuild, (self.storage, self.offset, self.shape, self.strides, False, hooks)


class _Pickler(pickle.Pickler):
    def __init__(self, file, old):
        super().__init__(file, protocol=2)
        self.old, self.storages = old, {}

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        self.storages[value.key] = value.values
        kind = getattr(sys.modules["torch"], _STORAGES[value.values.dtype])
        identifier = ("storage", kind, value.key, "cpu", value.values.size)
        return (*identifier, None) if self.old else identifier


@contextlib.contextmanager
def _torch():
    """Modules with the names that the pickles refer to."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in _STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        pass

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        utils.__name__,
        "_rebuild_tensor_v2",
    )
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    modules = {"torch": torch, "torch._utils": utils}
    assert not modules.keys() & sys.modules.keys()
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def tensors(arrays):
    """An OrderedDict of tensors, as a state dict is one."""
    pairs = ((name, Tensor(str(i), array)) for i, (name, array) in enumerate(arrays.items()))
    return collections.OrderedDict(pairs)


def write(path, value, compression=zipfile.ZIP_STORED):
    """Writes a zip archive of a value that holds Tensors."""
    with _torch():
        file = io.BytesIO()
        pickler = _Pickler(file, old=False)
        pickler.dump(value)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("name/data.pkl", file.getvalue())
        archive.writestr("name/byteorder", "little")
        for key, values in pickler.storages.items():
            archive.writestr(f"name/data/{key}", values.tobytes())
        archive.writestr("name/version", "3\n")


def write_legacy(path, value):
    """Writes the sequence of pickles of a value that holds Tensors."""
    with _torch(), open(path, "wb") as file:
        pickle.dump(0x1950A86A20F9469CFC6C, file, protocol=2)
        pickle.dump(1001, file, protocol=2)
        pickle.dump({"protocol_version": 1001, "little_endian": True}, file, protocol=2)
        pickler = _Pickler(file, old=True)
        pickler.dump(value)
        pickle.dump(sorted(pickler.storages), file, protocol=2)
        for key in sorted(pickler.storages):
            file.write(struct.pack("<q", pickler.storages[key].size))
            file.write(pickler.storages[key].tobytes())
