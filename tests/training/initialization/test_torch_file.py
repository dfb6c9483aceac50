"""State dicts of PyTorch, read without it; what else a pickle may hold is refused, and nothing of it is run."""

import collections
import os
import pickle
import re
import zipfile

import numpy as np
import pytest

from sp_transformer.training.initialization import InitializationError, torch_file


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(4, 3, 2, 2)).astype(np.float32),
        "bn.weight": rng.normal(size=4).astype(np.float16),
        "bn.num_batches_tracked": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
    }


@pytest.mark.parametrize("form", ["write", "write_legacy"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_reads_what_was_written(tmp_path, torch_files, arrays, form, wrapped):
    value = torch_files.tensors(arrays)
    value = {"epoch": 3, "model": value} if wrapped else value
    getattr(torch_files, form)(tmp_path / "a.pth", value)
    read = torch_file.read_state_dict(tmp_path / "a.pth")
    assert set(read) == set(arrays) and len(read) == len(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_reads_views_of_a_shared_storage(tmp_path, torch_files):
    values = np.arange(12, dtype=np.float32)
    transposed = torch_files.Tensor("0", values, (3, 2), (1, 3), 4)
    other = torch_files.Tensor("0", values, (2,), (5,), 1)
    torch_files.write(tmp_path / "a.pth", {"module.a": transposed, "b": other})
    read = torch_file.read_state_dict(tmp_path / "a.pth")
    # DistributedDataParallel's prefix is taken away.
    np.testing.assert_array_equal(read["a"], [[4, 7], [5, 8], [6, 9]])
    np.testing.assert_array_equal(read["b"], [1, 6])


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["write", "write_legacy"])
def test_a_malicious_pickle_is_refused_before_it_runs(tmp_path, torch_files, arrays, form):
    value = torch_files.tensors(arrays)
    value["evil"] = Malicious(str(tmp_path / "pwned"))
    getattr(torch_files, form)(tmp_path / "a.pth", value)
    with pytest.raises(InitializationError, match=r"a\.pth cannot be read.* asks for posix\.mkdir"):
        torch_file.read_state_dict(tmp_path / "a.pth")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("torch._utils", "__builtins__"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("collections", "OrderedDict.__init__"),
        ("collections", "namedtuple"),
        ("torch", "load"),
        ("numpy._core.multiarray", "_reconstruct"),
    ],
)
def test_no_other_name_is_looked_up(tmp_path, module, name):
    # Protocol 4, whose names may have dots.
    encoded = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x04" + encoded + b"\x93.")
    with pytest.raises(InitializationError, match=re.escape(f"asks for {module}.{name}")):
        torch_file.read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "text"),
    [
        ((5,), (1,), 0, "reaches beyond its storage"),
        ((2,), (3,), 1, "reaches beyond its storage"),
        ((2,), (-1,), 1, "unknown form"),
        ((1000, 1000), (0, 0), 0, "more elements than its storage"),
        ((2, 2), (1,), 0, "corrupt"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    tmp_path, torch_files, shape, strides, offset, text
):
    tensor = torch_files.Tensor("0", np.zeros(4, np.float32), shape, strides, offset)
    torch_files.write(tmp_path / "a.pth", {"a": tensor})
    with pytest.raises(InitializationError, match=text):
        torch_file.read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("form", ["write", "write_legacy"])
def test_a_torn_file_is_an_error_wherever_it_ends(tmp_path, torch_files, arrays, form):
    whole, torn = tmp_path / "whole.pth", tmp_path / "torn.pth"
    getattr(torch_files, form)(whole, torch_files.tensors(arrays))
    content = whole.read_bytes()
    for size in [*range(0, len(content), 37), len(content) - 1]:
        torn.write_bytes(content[:size])
        with pytest.raises(InitializationError, match=r"torn\.pth cannot be read"):
            dict(torch_file.read_state_dict(torn))


def test_a_changed_byte_in_an_archive_is_found(tmp_path, torch_files, arrays):
    path = tmp_path / "a.pth"
    torch_files.write(path, torch_files.tensors(arrays))
    content = bytearray(path.read_bytes())
    content[content.index(arrays["conv.weight"].tobytes()) + 9] ^= 1
    path.write_bytes(content)
    with pytest.raises(InitializationError, match="damaged"):
        dict(torch_file.read_state_dict(path))


def test_what_is_no_state_dict_is_refused(tmp_path, torch_files, arrays):
    path = tmp_path / "a.pth"
    torch_files.write(path, [1, 2])
    with pytest.raises(InitializationError, match="holds no tensors by name"):
        torch_file.read_state_dict(path)
    path.write_bytes(pickle.dumps(collections.OrderedDict()))
    with pytest.raises(InitializationError, match="neither a zip archive nor a pickle of PyTorch"):
        torch_file.read_state_dict(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/other", b"")
    with pytest.raises(InitializationError, match=r"holds no data\.pkl"):
        torch_file.read_state_dict(path)
    torch_files.write(path, torch_files.tensors(arrays), zipfile.ZIP_DEFLATED)
    with pytest.raises(InitializationError, match="is compressed"):
        torch_file.read_state_dict(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("a/constants.pkl", b"")
    with pytest.raises(InitializationError, match="TorchScript"):
        torch_file.read_state_dict(path)
