"""The tile format: lossless, in parts, and honest about damage."""

import concurrent.futures

import numpy as np
import pytest

from sp_transformer.data import tiles


def _image(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (257, 1), (128, 256), (130, 517), (255, 511)])
def test_images_come_back_exactly(size):
    image = _image(size)
    assert np.array_equal(tiles.decode(tiles.encode(image)), image)
    smooth = (np.indices(size).sum(0)[..., None] + np.arange(3)).astype(np.uint8)
    assert np.array_equal(tiles.decode(tiles.encode(smooth, level=9)), smooth)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_labels_come_back_exactly(dtype):
    highest = np.iinfo(dtype).max
    label = np.random.default_rng(0).choice(
        np.array([0, 1, highest - 1, highest], dtype), (150, 270)
    )
    decoded = tiles.decode(tiles.encode(label))
    assert decoded.dtype == dtype and np.array_equal(decoded, label)


def test_any_part_equals_the_cut_of_the_whole():
    image = _image((50, 70))
    data = tiles.encode(image, tile=(16, 24))
    layout = tiles.read_layout(data)
    assert layout.grid == (4, 3)
    generator = np.random.default_rng(1)
    for _ in range(60):
        top, left = generator.integers(0, 50), generator.integers(0, 70)
        height, width = generator.integers(1, 51 - top), generator.integers(1, 71 - left)
        first, last = layout.span(top, height)
        part = tiles.decode_region(layout, data[first:last], first, top, left, height, width)
        assert np.array_equal(part, image[top : top + height, left : left + width])


def test_tiles_outside_the_part_are_not_needed():
    image = _image((48, 72))
    data = tiles.encode(image, tile=(16, 24))
    layout = tiles.read_layout(data)
    # Tile 4 alone, in the middle of nine.
    wiped = bytearray(len(data))
    low, high = layout.offsets[4], layout.offsets[5]
    wiped[low:high] = data[low:high]
    part = tiles.decode_region(layout, bytes(wiped), 0, 16, 24, 16, 24)
    assert np.array_equal(part, image[16:32, 24:48])


def test_compresses_what_pngs_compress():
    y, x = np.mgrid[:256, :512]
    noise = np.random.default_rng(0).integers(0, 4, (256, 512, 1))
    image = (np.stack([y, x // 2, y // 2 + x // 4], -1) + noise).astype(np.uint8)
    assert len(tiles.encode(image)) < image.size / 3
    assert len(tiles.encode(np.zeros((1024, 2048), np.uint8))) < 3000


def test_header_says_how_much_of_it_there_is():
    data = tiles.encode(_image((50, 70)), tile=(16, 24))
    needed = tiles.header_size(data[: tiles.MINIMUM_HEADER])
    assert tiles.read_layout(data[:needed]).offsets[0] == needed
    assert tiles.read_layout(data[:needed]).offsets[-1] == len(data)
    with pytest.raises(tiles.TileError, match="table of 12 tiles"):
        tiles.read_layout(data[: needed - 1])


def test_damage_is_an_error_and_never_another_image():
    image = _image((40, 40))
    data = tiles.encode(image, tile=(16, 24))
    for position in range(0, len(data), 37):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        try:
            decoded = tiles.decode(bytes(damaged))
        except tiles.TileError:
            continue
        assert np.array_equal(decoded, image)
    for end in (0, 3, 20, 60, len(data) - 1):
        with pytest.raises(tiles.TileError):
            tiles.decode(data[:end])


def test_only_what_can_be_stored_is_taken():
    for array in (
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.int64),
        np.zeros((0, 4), np.uint8),
    ):
        with pytest.raises(ValueError, match="cannot encode"):
            tiles.encode(array)


def test_threads_decode_at_once():
    images = [_image((60, 90), seed) for seed in range(8)]
    data = [tiles.encode(image, tile=(16, 24)) for image in images]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(tiles.decode, data * 8))
    assert all(np.array_equal(a, b) for a, b in zip(decoded, images * 8, strict=True))
