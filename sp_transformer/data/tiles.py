"""A lossless format for images and labels of which parts can be decoded on their own.

Shapes: Y, X are the size of an image in pixels; N tiles of h x w pixels, C channels.

An image is cut into tiles of equal size (those at the bottom and the right are continued with their outermost pixels).
Of each tile, green is subtracted from red and blue, every row but the first from the one below it, and in the first row
every pixel from its right neighbour, all modulo 256; the channels follow each other, and Zstandard compresses the
result, with a checksum. A label's tiles are compressed as they are.

That is little for a format, and chosen for its decoder: nothing in it but the entropy coding goes pixel by pixel, so
that NumPy undoes it at the speed of memory. Measured with photographs of 1024x2048 pixels on one core of an Intel Xeon
(docs/data.md has the table): 14 ms, against 63 ms for TensorFlow's PNG decoder and 20 to 97 ms for QOI, HTJ2K, WebP,
JPEG XL and JPEG-LS, at nine tenths of the size of PNG.

The bytes, little-endian: magic "SPT1"; uint32 Y, X, h, w, C (0 for a label); uint32 bytes per value; uint32 length of
each tile in row-major order; the tiles in that order.
"""

from __future__ import annotations

import functools
import math
import struct
import threading

import numpy as np

MAGIC = b"SPT1"
# Below 128 KiB, Zstandard's largest block, so that a tile has one set of tables.
TILE_SIZE = (128, 256)
# Higher levels save two percent and take seven times as long to encode; the time to decode is the same.
LEVEL = 1

_HEADER = struct.Struct("<4s6I")
_LABEL_TYPES = {1: np.uint8, 2: np.uint16, 4: np.int32}
# Guards what a damaged header may ask for.
_MAX_SIDE = 1 << 20
# Bytes that a thread keeps between calls: 10 megapixels.
_MAX_SCRATCH = 1 << 25

_local = threading.local()


class TileError(ValueError):
    """Bytes that are not a whole, undamaged image in this format."""


class Layout:
    """Where the tiles of one encoded image are: all that has to be known to decode a part.

    Attributes:
      size: (Y, X).
      tile: (h, w).
      channels: 3, or 0 for a label.
      dtype: of the values.
      offsets: int64 [N + 1], of each tile from the start of the bytes, and their end.
    """

    def __init__(self, size, tile, channels, itemsize, lengths, start):
        self.size = size
        self.tile = tile
        self.channels = channels
        self.dtype = np.dtype(np.uint8 if channels else _LABEL_TYPES[itemsize])
        self.offsets = start + np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.size[0] // self.tile[0]), -(-self.size[1] // self.tile[1])

    def span(self, top, height) -> tuple[int, int]:
        """First byte, and the byte after the last, of the rows of tiles that hold `height` pixels from `top` on."""
        first, last = top // self.tile[0], (top + height - 1) // self.tile[0]
        columns = self.grid[1]
        return int(self.offsets[first * columns]), int(self.offsets[(last + 1) * columns])


def encode(array: np.ndarray, tile=TILE_SIZE, level: int = LEVEL) -> bytes:
    """Encodes an image or label.

    Args:
      array: uint8 [Y, X, 3], or uint8, uint16 or int32 [Y, X].
      tile: (h, w) in pixels.
      level: Zstandard's; the size changes by some percent, the time to decode hardly.

    Raises:
      ValueError: for another shape or type, or an empty array.
    """
    is_image = array.ndim == 3 and array.shape[-1] == 3 and array.dtype == np.uint8
    is_label = array.ndim == 2 and array.dtype in _LABEL_TYPES.values()
    if not (is_image or is_label) or not array.size:
        raise ValueError(
            f"cannot encode {array.dtype} {list(array.shape)} in tiles: they take uint8 [Y, X, 3] or uint8, "
            "uint16 or int32 [Y, X] of at least one pixel"
        )
    size = array.shape[:2]
    # Small images in tiles of their own size.
    tile = tuple(min(side, extent) for side, extent in zip(tile, size, strict=True))
    tiles = _split(array, tile)
    if is_image:
        tiles = _predict(tiles)
    compress = _compressor(level)
    payloads = [compress(np.ascontiguousarray(values).data) for values in tiles]
    header = _HEADER.pack(MAGIC, *size, *tile, 3 if is_image else 0, array.dtype.itemsize)
    return b"".join([header, np.array([*map(len, payloads)], "<u4").tobytes(), *payloads])


def is_encoded(data: bytes) -> bool:
    """Returns whether bytes start as this format does."""
    return bytes(data[: len(MAGIC)]) == MAGIC


def header_size(data: bytes) -> int:
    """Returns how many bytes `read_layout` needs, given the first `MINIMUM_HEADER` of them.

    Raises:
      TileError: if the bytes are of another format.
    """
    size, tile, _, _ = _unpack(data)
    return _HEADER.size + 4 * _count(size, tile)


MINIMUM_HEADER = _HEADER.size


def read_layout(data: bytes) -> Layout:
    """Reads the header and the lengths of all tiles.

    Raises:
      TileError: if the bytes are of another format, or end too early.
    """
    size, tile, channels, itemsize = _unpack(data)
    count = _count(size, tile)
    start = _HEADER.size + 4 * count
    if len(data) < start:
        raise TileError(f"ends after {len(data)} bytes, within its table of {count} tiles")
    lengths = np.frombuffer(data, "<u4", count, _HEADER.size)
    return Layout(size, tile, channels, itemsize, lengths, start)


def decode(data: bytes) -> np.ndarray:
    """Decodes a whole image or label.

    Raises:
      TileError: if the bytes are damaged, cut off or of another format.
    """
    layout = read_layout(data)
    return decode_region(layout, data, 0, 0, 0, *layout.size)


def decode_region(layout: Layout, data, start, top, left, height, width) -> np.ndarray:
    """Decodes a part; only the tiles that hold some of it.

    Args:
      layout: of the image.
      data: bytes that hold at least `layout.span(top, height)`.
      start: which byte of the image `data` begins at.
      top, left, height, width: of the part in pixels; it lies inside the image and is not empty.

    Returns:
      [height, width, 3] or [height, width], perhaps a view of a larger array.

    Raises:
      TileError: if a tile is damaged or cut off.
    """
    (tile_height, tile_width), columns = layout.tile, layout.grid[1]
    first_row, last_row = top // tile_height, (top + height - 1) // tile_height
    first_column, last_column = left // tile_width, (left + width - 1) // tile_width
    rows, across = last_row - first_row + 1, last_column - first_column + 1
    shape = (layout.channels, *layout.tile) if layout.channels else layout.tile
    tiles = _scratch((rows * across, *shape), layout.dtype)
    view = memoryview(data)
    for i in range(rows):
        for j in range(across):
            number = (first_row + i) * columns + first_column + j
            low, high = layout.offsets[number] - start, layout.offsets[number + 1] - start
            if high > len(view):
                raise TileError(f"ends {high - len(view)} bytes before the end of tile {number}")
            _decompress(view[low:high], tiles[i * across + j], number)
    joined = _join(tiles, rows, across, bool(layout.channels))
    top, left = top - first_row * tile_height, left - first_column * tile_width
    return joined[top : top + height, left : left + width]


def _unpack(data):
    if len(data) < _HEADER.size or not is_encoded(data):
        raise TileError(f"does not start with a header of format {MAGIC.decode()}")
    _, height, width, tile_height, tile_width, channels, itemsize = _HEADER.unpack_from(data)
    sides = (height, width, tile_height, tile_width)
    is_known = (channels == 3 and itemsize == 1) or (channels == 0 and itemsize in _LABEL_TYPES)
    if not is_known or min(sides) < 1 or max(sides) > _MAX_SIDE:
        raise TileError(
            f"has a damaged header (size {height}x{width}, tiles {tile_height}x{tile_width}, "
            f"{channels} channels of {itemsize} bytes)"
        )
    return (height, width), (tile_height, tile_width), channels, itemsize


def _count(size, tile):
    return -(-size[0] // tile[0]) * -(-size[1] // tile[1])


def _split(array, tile):
    """[Y, X] or [Y, X, C] -> [N, h, w] or [N, C, h, w]."""
    rows, columns = (-(-n // side) for n, side in zip(array.shape[:2], tile, strict=True))
    beyond = [(0, rows * tile[0] - array.shape[0]), (0, columns * tile[1] - array.shape[1])]
    channels = array.shape[2:]
    array = np.pad(array, [*beyond, *[(0, 0)] * len(channels)], mode="edge")
    array = array.reshape(rows, tile[0], columns, tile[1], *channels)
    axes = (0, 2, 4, 1, 3) if channels else (0, 2, 1, 3)
    return array.transpose(axes).reshape(rows * columns, *channels, *tile)


def _predict(tiles):
    """uint8 [N, C, h, w] -> differences, uint8 [N, C, h, w]."""
    tiles = tiles.copy()
    tiles[:, 0] -= tiles[:, 1]
    tiles[:, 2] -= tiles[:, 1]
    differences = tiles.copy()
    differences[:, :, 1:] -= tiles[:, :, :-1]
    differences[:, :, 0, 1:] -= tiles[:, :, 0, :-1]
    return differences


def _join(tiles, rows, columns, is_image):
    """[N, h, w] -> [rows*h, columns*w], or differences [N, C, h, w] -> [rows*h, columns*w, C]."""
    height, width = tiles.shape[-2:]
    if not is_image:
        joined = np.empty((rows, height, columns, width), tiles.dtype)
        joined[...] = tiles.reshape(rows, columns, height, width).transpose(0, 2, 1, 3)
        return joined.reshape(rows * height, columns * width)
    np.add.accumulate(tiles[:, :, 0], axis=-1, dtype=np.uint8, out=tiles[:, :, 0])
    # Row by row of all tiles at once: accumulate itself would go column by column.
    for row in range(1, height):
        np.add(tiles[:, :, row], tiles[:, :, row - 1], out=tiles[:, :, row])
    joined = np.empty((rows, height, columns, width, 3), np.uint8)
    red, green, blue = (
        tiles[:, channel].reshape(rows, columns, height, width).transpose(0, 2, 1, 3)
        for channel in range(3)
    )
    np.add(red, green, out=joined[..., 0])
    joined[..., 1] = green
    np.add(blue, green, out=joined[..., 2])
    return joined.reshape(rows * height, columns * width, 3)


def _scratch(shape, dtype):
    """Memory of this thread, used again by the next call: fresh pages cost a fifth of the decoding."""
    size = math.prod(shape) * dtype.itemsize
    memory = getattr(_local, "memory", None)
    if size > _MAX_SCRATCH:
        memory = np.empty(size, np.uint8)
    elif memory is None or memory.size < size:
        memory = _local.memory = np.empty(size, np.uint8)
    return memory[:size].view(dtype).reshape(shape)


def _decompress(data, out, number):
    import zstandard

    # One object a thread: it must not be used by two at once, and making it takes longer than a small tile.
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    try:
        values = _local.decompressor.decompress(data, max_output_size=out.nbytes)
    except zstandard.ZstdError as error:
        raise TileError(f"tile {number} is damaged: {error}") from error
    if len(values) != out.nbytes:
        raise TileError(f"tile {number} holds {len(values)} bytes instead of {out.nbytes}")
    out[...] = np.frombuffer(values, out.dtype).reshape(out.shape)


@functools.cache
def _compressor_class():
    import zstandard

    return zstandard.ZstdCompressor


def _compressor(level):
    return _compressor_class()(level=level, write_checksum=True).compress
