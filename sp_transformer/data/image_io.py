"""Image and label files to arrays and back.

Shapes: Y, X are the height and width of one image in pixels.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sp_transformer.data import transient
from sp_transformer.data.faults import FileFault

_READ_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# zlib's Z_RLE: matches of distance one only, which is what the noise of a photograph leaves to be found.
_RUN_LENGTHS = 3
JPEG_START = b"\xff\xd8\xff"

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
      FileFault: if the file is missing, truncated or no image; it names the file.
      LostStorageError: if it may be read on another try.
    """
    try:
        with Image.open(path if data is None else io.BytesIO(data)) as image:
            # Each of the two copies the image even where there is nothing to do.
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=-1)
            if image.mode == "P" and "transparency" in image.info:
                # Straight to RGB gives the same colours and a warning.
                image = image.convert("RGBA")
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except _READ_ERRORS as error:
        raise _unreadable("image", path, error, data) from error


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """Reads height and width of the image that `read_image` would return, without decoding it.

    Raises:
      FileFault: if the file is missing or no image; it names the file.
      LostStorageError: if it may be read on another try.
    """
    try:
        with warnings.catch_warnings():
            # Whoever asks for the size decides by it what is too large.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
                return image.size if turned else image.size[::-1]
    except _READ_ERRORS as error:
        raise _unreadable("image", path, error, None) from error


def read_label_ids(path: str | os.PathLike, data: bytes | None = None) -> np.ndarray:
    """Reads the ids that a label file holds: 8-bit or 16-bit grey values or palette indices.

    The EXIF orientation is applied, as it is to images.

    Args:
      path: of the file.
      data: what it holds, where that was read already; `path` then only names it in errors.

    Returns:
      int32 [Y, X].

    Raises:
      FileFault: if the file cannot be read or holds colours instead of ids; it names the file.
      LostStorageError: if it may be read on another try.
    """
    try:
        with Image.open(path if data is None else io.BytesIO(data)) as image:
            mode, file_format = image.mode, image.format
            raw_mode = image.tile[0][3] if image.tile else None
            pixels = np.array(ImageOps.exif_transpose(image))
    except _READ_ERRORS as error:
        raise _unreadable("label", path, error, data) from error
    if file_format in _LOSSY_FORMATS:
        raise FileFault(
            "lossy_label",
            path,
            f"label {path} is a {file_format} file, whose compression changes ids; use PNG",
        )
    if mode not in _ID_MODES:
        raise FileFault("color_label", path, f"label {path} holds {_colors(mode, pixels)}")
    ids = pixels.astype(np.int32)
    return ids // _STRETCHED_BY.get(raw_mode, 1) if isinstance(raw_mode, str) else ids


def _colors(mode, pixels):
    """Says what a label with other than one channel holds, and what to do about it."""
    write = "write an 8-bit, 16-bit or palette PNG of ids"
    grey = (
        pixels.ndim == 3 and pixels.shape[-1] >= 3 and (pixels[..., :1] == pixels[..., 1:3]).all()
    )
    if mode == "LA" or grey:
        return (
            f"grey values in {pixels.shape[-1]} channels (mode {mode}) where one id per pixel is "
            f"expected; if they are ids, keep the first channel alone: {write}"
        )
    return f"colours (mode {mode}) where one id per pixel is expected; {write}"


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
    if not data.startswith(JPEG_START):
        return False
    try:
        with Image.open(io.BytesIO(data)) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            return image.format == "JPEG" and image.mode in ("RGB", "L") and orientation == 1
    except _READ_ERRORS:
        return False


def read_upright_jpeg(name: str, data: bytes) -> np.ndarray:
    """`read_image` for bytes of which `is_upright_jpeg` is true: equal pixels in half the time.

    Raises:
      FileFault: if the bytes are damaged or cut off; it gives the name.
    """
    import tensorflow as tf

    try:
        # Runs inside the input pipeline: an accelerator must not be handed single images.
        with tf.device("CPU:0"):
            # The transform that libjpeg takes by default, and so does Pillow; TensorFlow's own default is another.
            return tf.raw_ops.DecodeJpeg(
                contents=data, channels=3, dct_method="INTEGER_ACCURATE"
            ).numpy()
    except tf.errors.OpError as error:
        raise _unreadable("image", name, ValueError(error.message), data) from error


def write_png(path: str | os.PathLike, array: np.ndarray, fast: bool = False) -> None:
    """Writes uint8 [Y, X, 3], uint8 [Y, X] or uint16 [Y, X] as PNG and creates missing folders.

    Whoever sees the file sees all of it.

    Args:
      path: of the file.
      array: the pixels.
      fast: whether time counts more than bytes: photographs take a quarter of the time and are no larger.

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
    options = {"compress_level": 1, "compress_type": _RUN_LENGTHS} if fast else {}
    replace_file(path, encode(array, "PNG", **options))


def replace_file(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file under a temporary name and renames it, so that it is there complete or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _unreadable(kind, path, error, data):
    cause = f"{type(error).__name__}: {error}"
    if transient.is_transient(error):
        return transient.LostStorageError(f"cannot read {kind} {path}: {cause}")
    if isinstance(error, UnidentifiedImageError):
        # Pillow's own text names an object in memory.
        is_empty = not data if data is not None else os.path.getsize(path) == 0
        cause = "it is empty" if is_empty else "it is no image, or its beginning is damaged"
    return FileFault(f"unreadable_{kind}", path, f"cannot read {kind} {path}: {cause}")
