"""Tells faults that pass, such as storage that is away for a moment, from those that stay. Imports no TensorFlow."""

from __future__ import annotations

import errno
import os
import re
import sys

_NAMES = (
    *("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EINTR", "EMFILE", "ENFILE", "ENOLCK"),
    *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ENOTCONN", "ESHUTDOWN", "EREMOTEIO"),
    *("ENETUNREACH", "ENETDOWN", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH"),
)
_ERRNOS = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))

# Of tf.errors: CANCELLED, DEADLINE_EXCEEDED, ABORTED, UNAVAILABLE. The others are told by their texts, as TensorFlow
# makes of EIO an UNKNOWN, as of an exception in Python code, and of EMFILE a RESOURCE_EXHAUSTED, as of a full disk.
_CODES = frozenset((1, 4, 10, 14))
_TEXTS = tuple(f"; {os.strerror(number)}" for number in _ERRNOS)


class LostStorageError(OSError):
    """A file could not be read or written for a reason that may be gone on another try."""


def is_transient(error: BaseException | None) -> bool:
    """Returns whether an error, or one that it was raised from, may be gone on another try."""
    while error is not None:
        if _is_transient(error):
            return True
        error = error.__cause__
    return False


def says_transient(text: str) -> bool:
    """Returns whether the text of an error says so, which is all that tf.data leaves of one."""
    if f"{LostStorageError.__name__}: " in text or any(sign in text for sign in _TEXTS):
        return True
    return any(int(number) in _ERRNOS for number in re.findall(r"\[Errno (\d+)\]", text))


def _is_transient(error):
    if isinstance(error, LostStorageError | ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError):
        return error.errno in _ERRNOS
    # Without TensorFlow imported there are no errors of its own.
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
        return False
    return error.error_code in _CODES or says_transient(_first_part(error.message or str(error)))


def _first_part(text):
    """The text without the traceback that tf.data puts behind it, in which everything may stand."""
    return text.partition("\nTraceback")[0]
