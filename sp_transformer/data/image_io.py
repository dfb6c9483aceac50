"""Image and label files to arrays and back.

Shapes: Y, X are the height and width of one image in pixels.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

_READ_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_LOSSY_FORMATS = ("JPEG", "MPO", "WEBP")
_ID_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")

# Pillow stretches grey PNGs of 2 and 4 bits to 0..255; as ids they must be divided back.
_STRETCHED_BY = {"L;2": 85, "L;4": 17}


def read_image(path: str | os.PathLike, data: bytes | None = None) -> np.ndarray:
    """Reads a JPEG, PNG or any other file that Pillow knows as an RGB image.

    The EXIF orientation is applied, grey becomes RGB, 16-bit grey keeps its upper 8 bits, and alpha
    is dropped, which leaves the stored colours (as `tf.io.decode_png(channels=3)` does).

    Args:
      path: of the file.
      data: what it holds, where that was read already; `path` then only names it in errors.

    Returns:
      uint8 [Y, X, 3].

    Raises:
      ValueError: if the file is missing, truncated or no image; it names the file.
    """
    try:
        with Image.open(path if data is None else io.BytesIO(data)) as image:
            # Each of the two copies the image even where there is nothing to do.
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=-1)
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except _READ_ERRORS as error:
        raise ValueError(_unreadable("image", path, error)) from error


def read_label_ids(path: str | os.PathLike, data: bytes | None = None) -> np.ndarray:
    """Reads the ids that a label file holds: 8-bit or 16-bit grey values or palette indices.

    Args:
      path: of the file.
      data: what it holds, where that was read already; `path` then only names it in errors.

    Returns:
      int32 [Y, X].

    Raises:
      ValueError: if the file cannot be read or holds colours instead of ids; it names the file.
    """
    try:
        with Image.open(path if data is None else io.BytesIO(data)) as image:
            mode, file_format = image.mode, image.format
            raw_mode = image.tile[0][3] if image.tile else None
            ids = np.array(image).astype(np.int32) if mode in _ID_MODES else None
    except _READ_ERRORS as error:
        raise ValueError(_unreadable("label", path, error)) from error
    if file_format in _LOSSY_FORMATS:
        raise ValueError(
            f"label {path} is a {file_format} file, whose compression changes ids; use PNG"
        )
    if ids is None:
        raise ValueError(
            f"label {path} holds colours (mode {mode}) where one id per pixel is expected; write "
            "an 8-bit, 16-bit or palette PNG of ids"
        )
    return ids // _STRETCHED_BY.get(raw_mode, 1) if isinstance(raw_mode, str) else ids


def encode(array: np.ndarray, file_format: str, **options) -> bytes:
    """Returns uint8 [Y, X, 3], uint8 [Y, X] or uint16 [Y, X] as the bytes of a file.

    Args:
      array: the image or label.
      file_format: one of Pillow's, such as "PNG", "WEBP" or "JPEG".
      **options: of Pillow's writer of that format.
    """
    file = io.BytesIO()
    Image.fromarray(array).save(file, format=file_format, **options)
    return file.getvalue()


def is_upright_jpeg(data: bytes) -> bool:
    """Returns whether bytes are a JPEG file whose pixels `read_image` returns as they are stored."""
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    try:
        with Image.open(io.BytesIO(data)) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            return image.format == "JPEG" and image.mode in ("RGB", "L") and orientation == 1
    except _READ_ERRORS:
        return False


def write_png(path: str | os.PathLike, array: np.ndarray) -> None:
    """Writes uint8 [Y, X, 3], uint8 [Y, X] or uint16 [Y, X] as PNG and creates missing folders.

    Raises:
      ValueError: if the array has another shape or type.
    """
    array = np.asarray(array)
    is_rgb = array.ndim == 3 and array.shape[-1] == 3 and array.dtype == np.uint8
    is_grey = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    if not (is_rgb or is_grey):
        raise ValueError(
            f"cannot write {array.dtype} {list(array.shape)} to {path}: a PNG takes uint8 "
            "[Y, X, 3], uint8 [Y, X] or uint16 [Y, X]"
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, format="PNG")


def _unreadable(kind, path, error):
    return f"cannot read {kind} {path}: {type(error).__name__}: {error}"
