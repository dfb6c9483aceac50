"""State dicts that PyTorch has saved, read without PyTorch and without running what a file holds.

A .pth file is a pickle, which may name any function of Python to be called with arguments of its choice. Only the few
that make up a dict of tensors are known here; every other name is an error, before anything is called. Two formats are
read: the zip archive of PyTorch 1.6 and later, and the sequence of pickles of earlier versions, which many published
files still have.
"""

import collections
import dataclasses
import io
import math
import pickle
import zipfile
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from sp_transformer.data import storage
from sp_transformer.training.initialization.errors import InitializationError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = pickle.dumps(_LEGACY_MAGIC, protocol=2)
_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Where training scripts put the state dict among other things.
_WRAPPERS = ("state_dict", "model", "model_state_dict")


class _FormatError(Exception):
    """What is wrong with a file, without its name."""


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage; nothing of it is read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, values):
        """The tensor's array, given its storage's values."""
        if not self.shape:
            return values[self.offset]
        item = values.dtype.itemsize
        strides = tuple(item * stride for stride in self.strides)
        return np.lib.stride_tricks.as_strided(
            values[self.offset :], self.shape, strides, writeable=False
        )


def read_state_dict(path) -> Mapping[str, np.ndarray]:
    """The tensors of a file by name.

    Args:
      path: a .pth or .pt file, local or "gs://...".

    Returns:
      A mapping that reads an array when it is asked for; names without DistributedDataParallel's "module.".

    Raises:
      InitializationError: if it is no state dict, is truncated or corrupt, or asks for anything but tensors.
    """
    try:
        content = storage.read_file(str(path))
        if zipfile.is_zipfile(io.BytesIO(content)):
            value, read_storage = _open_archive(content)
        elif content.startswith(_LEGACY_START):
            value, read_storage = _open_legacy(content)
        else:
            raise _FormatError(
                "it is neither a zip archive nor a pickle of PyTorch, or is truncated"
            )
        return _Arrays(path, _state_dict(value), read_storage)
    except _FormatError as error:
        raise _unreadable(path, error) from error


class _Arrays(Mapping):
    def __init__(self, path, tensors, read_storage):
        self._path, self._tensors, self._read_storage = path, tensors, read_storage

    def __getitem__(self, name):
        tensor = self._tensors[name]
        try:
            return tensor.view(self._read_storage(tensor.storage))
        except _FormatError as error:
            raise _unreadable(self._path, error) from error

    def __contains__(self, name):
        return name in self._tensors

    def __iter__(self):
        return iter(self._tensors)

    def __len__(self):
        return len(self._tensors)


def _unreadable(path, error):
    return InitializationError(
        f"{path} cannot be read as a state dict of PyTorch: {error}; give a file that torch.save(model.state_dict(), "
        "FILE) has written"
    )


class _Unpickler(pickle.Unpickler):
    """Knows tensors, their storages and OrderedDict, and nothing else; `storages` are those that it met, by key."""

    def __init__(self, file):
        super().__init__(file)
        self.storages = {}

    def find_class(self, module, name):
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            # Functions of their own for every name, as a pickle could set attributes of what it gets.
            ("torch._utils", "_rebuild_tensor_v2"): lambda *arguments: _rebuild_tensor(*arguments),
            ("torch._utils", "_rebuild_tensor"): lambda *arguments: _rebuild_tensor(*arguments),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        if (module, name) in known:
            return known[module, name]
        raise _FormatError(
            f"it asks for {module}.{name}, and nothing but tensors is read, as other objects could run any code"
        )

    def persistent_load(self, identifier):
        kind, *fields = identifier
        if kind != "storage" or len(fields) < 4 or not isinstance(fields[0], np.dtype):
            raise _FormatError(f"it holds a {kind!r} of an unknown form, not only tensors")
        dtype, key, _, count, *view = fields
        if view and view[0] is not None:
            raise _FormatError(
                "it holds a view of a storage, as only very old versions of PyTorch wrote it"
            )
        if not isinstance(count, int) or count < 0:
            raise _FormatError(f"a storage has {count} elements")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, count))


def _rebuild_tensor(storage_, offset, shape, strides, *_):
    numbers = (offset, *shape, *strides)
    if not isinstance(storage_, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise _FormatError("a tensor is of an unknown form")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= storage_.count:
        raise _FormatError("a tensor reaches beyond its storage")
    if math.prod(shape) > max(storage_.count, 1):
        raise _FormatError("a tensor has more elements than its storage")
    return _Tensor(storage_, offset, tuple(shape), tuple(strides))


def _load(file):
    """The next pickle of a file, and the storages that it refers to."""
    unpickler = _Unpickler(file)
    try:
        return unpickler.load(), unpickler.storages
    except _FormatError:
        raise
    except Exception as error:
        # A damaged pickle raises whatever its opcodes happen to do.
        raise _FormatError(
            f"it is truncated or corrupt ({type(error).__name__}: {error})"
        ) from error


def _open_archive(content):
    """The pickled object of a zip archive, and the function that reads a storage."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _FormatError("the zip archive holds no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names:
            raise _FormatError("it is a TorchScript program, not a state dict")
        order = b"little"
        if f"{folder}byteorder" in names:
            order = archive.read(f"{folder}byteorder")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise _FormatError("the zip archive is compressed, which PyTorch's are not")
        value, _ = _load(io.BytesIO(archive.read(pickles[0])))
    except zipfile.BadZipFile as error:
        raise _FormatError(f"the zip archive is damaged ({error})") from error

    def read_storage(wanted):
        try:
            data = archive.read(f"{folder}data/{wanted.key}")
        except (KeyError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise _FormatError(f"the zip archive is damaged ({error})") from error
        return _values(data, 0, wanted, order == b"big")

    return value, read_storage


def _open_legacy(content):
    """The pickled object of a file of PyTorch before 1.6, and the function that reads a storage."""
    file = io.BytesIO(content)
    _, _, (system, _) = (_load(file) for _ in range(3))
    big_endian = isinstance(system, dict) and system.get("little_endian") is False
    (value, storages), (keys, _) = _load(file), _load(file)
    if not isinstance(keys, list):
        raise _FormatError("it is truncated or corrupt (no list of storages)")
    # Each storage is its number of elements, 8 bytes, and then its values.
    offsets, position = {}, file.tell()
    for key in map(str, keys):
        if key not in storages:
            raise _FormatError(f"it is truncated or corrupt (storage {key} belongs to no tensor)")
        offsets[key] = position + 8
        position += 8 + storages[key].count * storages[key].dtype.itemsize

    def read_storage(wanted):
        if wanted.key not in offsets:
            raise _FormatError(f"it is truncated or corrupt (no storage {wanted.key})")
        offset = offsets[wanted.key]
        count = int.from_bytes(content[offset - 8 : offset], "big" if big_endian else "little")
        if count != wanted.count:
            raise _FormatError(f"it is truncated or corrupt (a storage of {count} elements)")
        return _values(content, offset, wanted, big_endian)

    return value, read_storage


def _values(data, offset, wanted, big_endian):
    if len(data) - offset < wanted.count * wanted.dtype.itemsize:
        raise _FormatError("it is truncated: a storage ends early")
    values = np.frombuffer(data, wanted.dtype, wanted.count, offset)
    return values.byteswap() if big_endian else values


def _state_dict(value):
    """{name: _Tensor} of what was pickled: a state dict, or a dict with one among other things."""
    if isinstance(value, dict):
        for name in _WRAPPERS:
            if isinstance(value.get(name), dict):
                value = value[name]
                break
    tensors = {}
    if isinstance(value, dict):
        tensors = {
            name.removeprefix("module."): tensor
            for name, tensor in value.items()
            if isinstance(name, str) and isinstance(tensor, _Tensor)
        }
    if not tensors:
        raise _FormatError("it holds no tensors by name")
    return tensors
