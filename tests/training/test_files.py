"""The small files of a run where the storage fails: what says that another try is in vain, and what does not."""

import errno
import os

import pytest
import tensorflow as tf

from sp_transformer.data import storage, transient
from sp_transformer.training import files


def fail(number):
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "mend"),
    [(errno.ENOSPC, "free space"), (errno.EROFS, "mount it"), (errno.EACCES, "the right")],
)
def test_what_stays_is_a_write_error_with_its_mend(number, mend):
    with pytest.raises(files.WriteError, match=mend), files.writing("run/ckpt-4"):
        fail(number)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENETUNREACH])
def test_what_may_pass_is_none(number):
    with pytest.raises(OSError, match=os.strerror(number)) as error, files.writing("run/ckpt-4"):
        fail(number)
    assert not isinstance(error.value, files.WriteError)
    assert transient.is_transient(error.value)
    told = tf.errors.UnknownError(None, None, f"run/ckpt-4; {os.strerror(number)}")
    with pytest.raises(tf.errors.UnknownError), files.writing("run/ckpt-4"):
        raise told


def test_a_file_that_cannot_be_read_now_is_not_missing(tmp_path, monkeypatch):
    path = tmp_path / "best.json"
    path.write_text("{}")
    assert files.read_text(tmp_path / "absent") is None
    # As a stale handle lets both fail.
    monkeypatch.setattr(storage, "read_file", lambda path: fail(errno.ESTALE))
    monkeypatch.setattr(storage, "exists", lambda path: False)
    with pytest.raises(OSError, match=r"[Ss]tale"):
        files.read_text(path)
