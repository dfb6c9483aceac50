"""Which faults may be gone on another try, in all the forms in which they come."""

import errno
import os

import pytest
import tensorflow as tf

from sp_transformer.data import image_io, pipeline, skipping, storage, transient
from sp_transformer.data.faults import FileFault

PASSING = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EMFILE]
STAYING = [errno.ENOENT, errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EISDIR]


def os_error(number):
    return OSError(number, os.strerror(number), "/data/a.png")


@pytest.mark.parametrize("number", PASSING + STAYING)
def test_errors_of_the_system_are_told_by_their_numbers(number):
    passes = number in PASSING
    assert transient.is_transient(os_error(number)) == passes
    wrapped = ValueError("cannot open it")
    wrapped.__cause__ = os_error(number)
    assert transient.is_transient(wrapped) == passes
    # As TensorFlow words what its own files meet, in an error of whatever class.
    told = tf.errors.OpError(None, None, f"/data/a; {os.strerror(number)}", tf.errors.UNKNOWN)
    assert transient.is_transient(told) == passes


def test_tensorflows_errors_are_told_by_their_codes():
    for kind in ("Unavailable", "Aborted", "Cancelled", "DeadlineExceeded"):
        assert transient.is_transient(getattr(tf.errors, f"{kind}Error")(None, None, "503"))
    for kind in ("DataLoss", "NotFound", "Unknown", "ResourceExhausted", "InvalidArgument"):
        assert not transient.is_transient(getattr(tf.errors, f"{kind}Error")(None, None, "503"))


@pytest.fixture
def failing_disk(monkeypatch):
    """Function of an errno, with which Pillow then fails to open any file."""

    def fail(number):
        def read(*_):
            raise os_error(number)

        monkeypatch.setattr(image_io.Image, "open", read)

    return fail


@pytest.mark.parametrize("read", [image_io.read_image, image_io.read_label_ids, image_io.read_size])
def test_only_what_stays_is_a_fault_of_the_file(failing_disk, read):
    failing_disk(errno.EACCES)
    with pytest.raises(FileFault, match="Permission denied"):
        read("/data/a.png")
    failing_disk(errno.ESTALE)
    with pytest.raises(transient.LostStorageError, match=r"cannot read \w+ /data/a\.png.*Stale"):
        read("/data/a.png")


@pytest.mark.parametrize("code", [404, 503])
def test_a_remote_storage_that_is_away_is_told_from_a_missing_file(monkeypatch, code):
    kind = tf.errors.NotFoundError if code == 404 else tf.errors.UnavailableError

    def fail(*_, **__):
        raise kind(None, None, f"HTTP response code {code}")

    monkeypatch.setattr(tf.io.gfile, "GFile", fail)
    with pytest.raises(OSError, match=str(code)) as error:
        storage.read_file("gs://bucket/a")
    assert isinstance(error.value, transient.LostStorageError) == (code == 503)


class Unreliable:
    """A source whose third image cannot be read for the moment."""

    has_labels = True

    def __init__(self, source, error):
        self._source, self._error = source, error

    def __len__(self):
        return len(self._source)

    def name(self, index):
        return self._source.name(index)

    def read(self, index):
        if index == 2:
            raise self._error
        return self._source.read(index)

    def read_region(self, index, choose):
        if index == 2:
            raise self._error
        return self._source.read_region(index, choose)


def wrapped_error():
    """As a source wraps it that knows a damaged file only."""
    error = ValueError("cannot open shard 3: [Errno 5] Input/output error")
    error.__cause__ = os_error(errno.EIO)
    return error


@pytest.mark.parametrize(
    "error",
    [os_error(errno.EIO), transient.LostStorageError("cannot read 3: 503"), wrapped_error()],
    ids=["plain", "named", "wrapped"],
)
@pytest.mark.parametrize("purpose", ["training", "evaluation"])
def test_skip_corrupt_skips_no_file_of_a_lost_storage(array_source, make_config, error, purpose):
    source = Unreliable(array_source([(8, 12)] * 6), error)
    config, skipped = make_config(6, skip_corrupt=True), skipping.SkippedFiles()
    if purpose == "training":
        dataset = pipeline.train_dataset(config, source, skipped=skipped).take(2)
    else:
        dataset = pipeline.eval_dataset(config, source, 2, skipped=skipped)
    with pytest.raises(transient.LostStorageError, match=r"503|Errno 5") as raised:
        list(pipeline.with_plain_errors(dataset))
    assert "Traceback" not in str(raised.value) and "function_node" not in str(raised.value)
    assert skipped.reasons() == {}
