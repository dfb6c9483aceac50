"""The small files of a run, on a local disk or wherever tf.io.gfile reaches ("gs://...")."""

import contextlib
import os

import tensorflow as tf

from sp_transformer.data import storage, transient

# All that reading and writing a file may raise.
STORAGE_ERRORS = (OSError, tf.errors.OpError)

_TEMPORARY = ".tmp"


class WriteError(OSError):
    """A model_dir cannot be written: it is full, read-only or gone."""


def write_text(path, text, temporary=None):
    """Writes a file in one piece, so that a kill leaves the old one or the new one.

    Args:
      path: the file; its folder exists.
      text: what it is to hold.
      temporary: name to write it under at first, for files that several processes may write at the
        same time; default: one that goes with `path`.

    Raises:
      WriteError: if it cannot be written.
    """
    path = os.fspath(path)
    temporary = temporary or path + _TEMPORARY
    with writing(path):
        if storage.is_remote(path):
            with tf.io.gfile.GFile(temporary, "w") as file:
                file.write(text)
            tf.io.gfile.rename(temporary, path, overwrite=True)
            return
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            # A machine that goes down could otherwise leave the new name with no content.
            os.fsync(file.fileno())
        os.replace(temporary, path)


def read_text(path):
    """What a file holds, or None if there is no such file.

    Raises:
      OSError: if it is there, or may be, and cannot be read.
    """
    path = os.fspath(path)
    try:
        return storage.read_file(path).decode("utf-8", errors="replace")
    except OSError as error:
        # Another process may remove or replace it at any time, and remote storage tells apart
        # a missing file and other faults by their texts only.
        if transient.is_transient(error) or storage.exists(path):
            raise
        return None


def make_folder(path):
    """Makes a folder and those above it.

    Raises:
      WriteError: if that is not allowed, or something else has the name.
    """
    with writing(path):
        tf.io.gfile.makedirs(os.fspath(path))


def remove(path):
    """Removes a file, which may be gone already."""
    with writing(path), contextlib.suppress(tf.errors.NotFoundError):
        tf.io.gfile.remove(os.fspath(path))


def copy(source, target):
    """Copies a file, whose target is there complete or not at all.

    Raises:
      tf.errors.NotFoundError: if there is no such file, any more.
      WriteError: if the copy cannot be written.
    """
    partial = target + _TEMPORARY
    try:
        with writing(target):
            tf.io.gfile.copy(source, partial, overwrite=True)
            tf.io.gfile.rename(partial, target, overwrite=True)
    except WriteError as error:
        if isinstance(error.__cause__, tf.errors.NotFoundError):
            raise error.__cause__ from None
        raise


@contextlib.contextmanager
def writing(path):
    """Turns what writing `path` may raise into a WriteError that says what to do; not what may pass by itself."""
    try:
        yield
    except WriteError:
        raise
    except STORAGE_ERRORS as error:
        if transient.is_transient(error):
            raise
        raise WriteError(f"{os.fspath(path)} cannot be written: {fault(error)}") from error


def fault(error):
    """The last part of an error's text, which says what is wrong with a file, and its mend."""
    text = str(getattr(error, "message", None) or getattr(error, "strerror", None) or error)
    text = text.rpartition(";")[2].partition(" [Op:")[0].strip()
    for sign, mend in _MENDS.items():
        if sign in text.lower():
            return f"{text}; {mend}"
    return text


_MENDS = {
    "no space left": "free space on that disk",
    "quota exceeded": "free space, or have the quota raised",
    "file too large": "the limit on the size of files (ulimit -f) or the file system is too small",
    "read-only file system": "mount it for writing, or give another model_dir",
    "permission denied": "give this user the right to write there, or give another model_dir",
    "not a directory": "a part of that path is a file; give another model_dir",
}


class AppendedLines:
    """A text file that lines are added to, each readable by others as soon as it is written.

    Args:
      path: the file; its folder exists.
      kept: lines that it starts with, in place of what it holds.
    """

    def __init__(self, path, kept=()):
        self._path = os.fspath(path)
        write_text(self._path, "".join(kept))
        with writing(self._path):
            self._file = tf.io.gfile.GFile(self._path, "a")

    def write(self, line):
        with writing(self._path):
            self._file.write(line + "\n")
            self._file.flush()

    def close(self):
        # Every line was flushed: what fails now has failed before.
        with contextlib.suppress(*STORAGE_ERRORS):
            self._file.close()
