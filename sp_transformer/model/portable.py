"""How a model is traced for converters to other runtimes, which do not know every operation of TensorFlow's."""

import contextlib
import contextvars

_enabled = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable():
    """What is traced inside has no loops over lists of tensors, which tf2onnx drops without an error."""
    token = _enabled.set(True)
    try:
        yield
    finally:
        _enabled.reset(token)


def enabled() -> bool:
    """Whether the caller is traced inside `portable`."""
    return _enabled.get()
