"""Files on local disks and behind any scheme that TensorFlow reads ("gs://..."), at random and from many threads."""

from __future__ import annotations

import os
import posixpath
import threading

from sp_transformer.data import transient


def is_remote(path: str) -> bool:
    """Returns whether a path names its own scheme; such paths are read and written by tf.io.gfile."""
    return "://" in path


def join(folder: str, *names: str) -> str:
    """Joins parts of a path by the separator that the folder's file system uses."""
    return posixpath.join(folder, *names) if is_remote(folder) else os.path.join(folder, *names)


class RandomAccessFile:
    """A file of which any number of threads read any part at once.

    Local files are read with `pread`, which moves no position; remote ones through one handle for each thread.
    """

    def __init__(self, path: str):
        """Opens the file.

        Raises:
          OSError: if it cannot be opened.
        """
        self.path = path
        self._descriptor = None
        self._local = threading.local()
        if is_remote(path):
            with _os_errors():
                self.size = _gfile().stat(path).length
        else:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Reads `count` bytes from `offset` on; fewer where the file ends before.

        Raises:
          OSError: if it cannot be read.
        """
        if self._descriptor is not None:
            parts = []
            # One call returns 2 GiB at most, and may return less than that.
            while count > 0:
                part = os.pread(self._descriptor, count, offset)
                if not part:
                    break
                parts.append(part)
                offset, count = offset + len(part), count - len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        with _os_errors():
            if not hasattr(self._local, "handle"):
                self._local.handle = _gfile().GFile(self.path, "rb")
            self._local.handle.seek(offset)
            return self._local.handle.read(count)

    def close(self) -> None:
        """Closes a local file; may be called twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self):
        self.close()


class SeekableFile:
    """What Python's zipfile needs of a file, on top of a RandomAccessFile."""

    def __init__(self, file: RandomAccessFile):
        self._file = file
        self._position = 0

    def seekable(self):
        return True

    def seek(self, offset, whence=os.SEEK_SET):
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self):
        return self._position

    def read(self, count=-1):
        count = self._file.size - self._position if count is None or count < 0 else count
        data = self._file.read(self._position, count)
        self._position += len(data)
        return data


def read_file(path: str) -> bytes:
    """Reads a whole file.

    Raises:
      OSError: if it cannot be read.
    """
    if is_remote(path):
        with _os_errors(), _gfile().GFile(path, "rb") as file:
            return file.read()
    with open(path, "rb") as file:
        return file.read()


def write_file(path: str, data: bytes) -> None:
    """Writes a whole file: under a temporary name first, so that it is there complete or not at all."""
    partial = partial_name(path)
    with _os_errors(), _gfile().GFile(partial, "wb") as file:
        file.write(data)
    rename(partial, path)


def partial_name(path: str) -> str:
    """Returns the name that a file has while it is written."""
    return f"{path}.partial"


def rename(old: str, new: str) -> None:
    """Gives a file its final name, replacing what has it."""
    with _os_errors():
        _gfile().rename(old, new, overwrite=True)


def remove(path: str) -> None:
    """Removes a file that may not be there."""
    if exists(path):
        with _os_errors():
            _gfile().remove(path)


def exists(path: str) -> bool:
    """Returns whether there is such a file or folder."""
    return _gfile().exists(path) if is_remote(path) else os.path.exists(path)


def is_folder(path: str) -> bool:
    """Returns whether there is such a folder."""
    return _gfile().isdir(path) if is_remote(path) else os.path.isdir(path)


def list_folder(path: str) -> list[str]:
    """Returns the names in a folder, sorted; none if there is no such folder."""
    if not is_folder(path):
        return []
    names = _gfile().listdir(path) if is_remote(path) else os.listdir(path)
    return sorted(name.rstrip("/") for name in names)


def make_folder(path: str) -> None:
    """Makes a folder and those above it."""
    with _os_errors():
        _gfile().makedirs(path)


def check_writable(folder: str) -> None:
    """Makes a folder and tries to write there, so that hours of work do not end in one that cannot be written.

    Raises:
      OSError: naming the folder.
    """
    probe = join(folder, f".probe.{os.getpid()}")
    try:
        make_folder(folder)
        write_file(probe, b"")
        remove(probe)
    except OSError as error:
        raise OSError(f"{folder} cannot be written: {error}; name another folder") from error


def file_size(path: str) -> int | None:
    """Returns the size of a file in bytes, or None if there is none."""
    if not is_remote(path):
        try:
            return os.stat(path).st_size
        except FileNotFoundError:
            return None
    return _gfile().stat(path).length if _gfile().exists(path) else None


class _os_errors:
    """TensorFlow's own errors as OSError, which is what the binaries turn into one line of text."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        import tensorflow as tf

        if isinstance(error, tf.errors.OpError):
            kind = transient.LostStorageError if transient.is_transient(error) else OSError
            raise kind(error.message) from error
        return False


def _gfile():
    # Local reading goes without TensorFlow, which takes seconds to import.
    import tensorflow as tf

    return tf.io.gfile
