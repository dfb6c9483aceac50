import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sp_transformer.data import image_io
from sp_transformer.data.faults import FileFault


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_rgb_png_is_read_as_it_is(tmp_path, save, rgb):
    assert np.array_equal(image_io.read_image(save(tmp_path / "a.png", rgb)), rgb)


def test_exif_orientation_is_applied(tmp_path, rgb):
    exif = Image.Exif()
    exif[0x0112] = 6  # To be shown turned clockwise by 90 degrees.
    image = Image.fromarray(np.kron(rgb, np.ones((8, 8, 1), np.uint8)))
    image.save(tmp_path / "a.jpg", exif=exif, quality=100)
    image.save(tmp_path / "plain.jpg", quality=100)
    plain = image_io.read_image(tmp_path / "plain.jpg")
    assert np.array_equal(image_io.read_image(tmp_path / "a.jpg"), np.rot90(plain, -1))


def test_grey_becomes_three_equal_channels(tmp_path, save, rgb):
    image = image_io.read_image(save(tmp_path / "a.png", rgb[..., 0]))
    assert image.dtype == np.uint8
    assert np.array_equal(image, np.repeat(rgb[..., :1], 3, axis=-1))


def test_16_bit_grey_keeps_its_upper_byte(tmp_path, save, rgb):
    grey = rgb[..., 0].astype(np.uint16) * 256 + 77
    assert np.array_equal(image_io.read_image(save(tmp_path / "a.png", grey))[..., 2], rgb[..., 0])


def test_alpha_is_dropped_and_colours_stay(tmp_path, save, rgb):
    rgba = np.concatenate([rgb, np.zeros((5, 7, 1), np.uint8)], axis=-1)
    assert np.array_equal(image_io.read_image(save(tmp_path / "a.png", rgba)), rgb)


def test_palette_image_is_read_in_its_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([1, 2, 3, 200, 100, 50])
    image.save(tmp_path / "a.png")
    assert image_io.read_image(tmp_path / "a.png").tolist() == [[[1, 2, 3], [200, 100, 50]]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_ids_are_exact(tmp_path, save, dtype):
    ids = np.array([[0, 1, 7], [33, 254, np.iinfo(dtype).max]], dtype)
    read = image_io.read_label_ids(save(tmp_path / "a.png", ids))
    assert read.dtype == np.int32
    assert np.array_equal(read, ids)


def test_palette_ids_are_indices(tmp_path):
    ids = np.array([[0, 1, 2], [2, 200, 0]], np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    image.save(tmp_path / "a.png")
    assert np.array_equal(image_io.read_label_ids(tmp_path / "a.png"), ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palette_ids_of_few_bits(tmp_path, bits):
    ids = np.arange(2**bits, dtype=np.uint8)[None]
    image = Image.fromarray(ids)
    image.putpalette(list(range(3 * 2**bits)))
    image.save(tmp_path / "a.png", bits=bits)
    assert np.array_equal(image_io.read_label_ids(tmp_path / "a.png"), ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_ids_of_few_bits(tmp_path, bits):
    path = tmp_path / "a.png"
    path.write_bytes(_grey_png(np.arange(2**bits)[None], bits))
    assert np.array_equal(image_io.read_label_ids(path), np.arange(2**bits)[None])


def test_colour_label_is_refused(tmp_path, save, rgb):
    path = save(tmp_path / "colours.png", rgb)
    with pytest.raises(ValueError, match=r"colours\.png holds colours .*one id per pixel"):
        image_io.read_label_ids(path)


def test_lossy_label_is_refused(tmp_path, save, rgb):
    with pytest.raises(ValueError, match=r"a\.jpg is a JPEG file"):
        image_io.read_label_ids(save(tmp_path / "a.jpg", rgb[..., 0]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_image_and_label_alike(tmp_path, save, rgb, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = image_io.read_image(save(tmp_path / "image.png", rgb, exif=exif))
    ids = np.arange(35, dtype=np.uint8).reshape(5, 7)
    assert np.array_equal(
        image_io.read_label_ids(save(tmp_path / "ids.png", ids, exif=exif)),
        image_io.read_image(save(tmp_path / "grey.png", ids, exif=exif))[..., 0],
    )
    palette = Image.fromarray(ids)
    palette.putpalette(list(range(256)) * 3)
    palette.save(tmp_path / "palette.png", exif=exif)
    turned = image_io.read_label_ids(tmp_path / "palette.png")
    assert np.array_equal(turned, image_io.read_label_ids(tmp_path / "ids.png"))
    # Each label is still that of its pixel.
    assert np.array_equal(rgb.reshape(-1, 3)[turned], image)
    assert image.shape[:2] == ((5, 7) if orientation < 5 else (7, 5))


def test_transparent_palette_entries_change_neither_colours_nor_ids(tmp_path):
    ids = np.array([[0, 1, 2]], np.uint8)
    image = Image.fromarray(ids)
    image.putpalette([1, 2, 3, 200, 100, 50, 7, 8, 9])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert image_io.read_label_ids(tmp_path / "a.png").tolist() == [[0, 1, 2]]
    colors = [[[1, 2, 3], [200, 100, 50], [7, 8, 9]]]
    assert image_io.read_image(tmp_path / "a.png").tolist() == colors


def test_16_bit_colours_keep_their_upper_byte_and_are_no_label(tmp_path, rgb):
    path = tmp_path / "deep.png"
    path.write_bytes(_png((rgb.astype(np.uint16) * 256 + 77).astype(">u2"), color_type=2))
    assert np.array_equal(image_io.read_image(path), rgb)
    with pytest.raises(FileFault, match=r"deep\.png holds colours"):
        image_io.read_label_ids(path)


@pytest.mark.parametrize(
    ("channels", "mode"), [([0, 3], "LA"), ([0, 0, 0], "RGB"), ([0, 0, 0, 3], "RGBA")]
)
def test_grey_in_several_channels(tmp_path, save, rgb, channels, mode):
    values = np.concatenate([rgb, np.full((5, 7, 1), 99, np.uint8)], axis=-1)[..., channels]
    path = save(tmp_path / "grey.png", values)
    assert np.array_equal(image_io.read_image(path), np.repeat(rgb[..., :1], 3, axis=-1))
    message = rf"holds grey values in {len(channels)} channels \(mode {mode}\).*first channel"
    with pytest.raises(FileFault, match=message) as error:
        image_io.read_label_ids(path)
    assert (error.value.kind, error.value.file) == ("color_label", str(path))


def test_label_with_alpha_is_refused(tmp_path, save, rgb):
    rgba = np.concatenate([rgb, np.zeros((5, 7, 1), np.uint8)], axis=-1)
    with pytest.raises(FileFault, match=r"a\.png holds colours \(mode RGBA\)"):
        image_io.read_label_ids(save(tmp_path / "a.png", rgba))


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (image_io.read_image, "unreadable_image"),
        (image_io.read_label_ids, "unreadable_label"),
    ],
)
def test_faults_say_their_kind_and_file(tmp_path, read, kind):
    path = tmp_path / "text.png"
    for content, cause in ((b"no image", "it is no image"), (b"", "it is empty")):
        path.write_bytes(content)
        for data in (None, content):
            with pytest.raises(FileFault, match=cause) as error:
                read(path, data)
            assert (error.value.kind, error.value.file) == (kind, str(path))
            # Processes hand it to each other.
            again = pickle.loads(pickle.dumps(error.value))
            assert (again.kind, again.file, str(again)) == (kind, str(path), str(error.value))


@pytest.mark.parametrize("read", [image_io.read_image, image_io.read_label_ids])
@pytest.mark.parametrize("kept", [0, 20, 60, 0.7])
def test_truncated_file_is_named(tmp_path, save, read, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    content = save(tmp_path / "whole.png", noise).read_bytes()
    path = tmp_path / "torn.png"
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(ValueError, match=r"cannot read .*torn\.png"):
        read(path)


def test_truncated_jpeg_and_missing_file_are_named(tmp_path, save, rgb):
    path = save(tmp_path / "torn.jpg", np.kron(rgb, np.ones((9, 9, 1), np.uint8)))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"torn\.jpg"):
        image_io.read_image(path)
    with pytest.raises(ValueError, match=r"none\.png"):
        image_io.read_image(tmp_path / "none.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_written_png_reads_back(tmp_path, rgb, dtype):
    ids = np.array([[0, 3], [9, np.iinfo(dtype).max]], dtype)
    image_io.write_png(tmp_path / "new" / "ids.png", ids)
    image_io.write_png(tmp_path / "rgb.png", rgb)
    assert np.array_equal(image_io.read_label_ids(tmp_path / "new" / "ids.png"), ids)
    assert np.array_equal(image_io.read_image(tmp_path / "rgb.png"), rgb)


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8)])
def test_write_png_refuses_other_arrays(tmp_path, array):
    with pytest.raises(ValueError, match="a PNG takes"):
        image_io.write_png(tmp_path / "a.png", array)


def _grey_png(ids, bits):
    """Builds a grey PNG of 1, 2 or 4 bits a pixel, which Pillow itself cannot write."""
    rows = []
    for row in ids:
        as_bits = "".join(format(int(value), f"0{bits}b") for value in row)
        as_bits += "0" * (-len(as_bits) % 8)
        rows.append(int(as_bits, 2).to_bytes(len(as_bits) // 8, "big"))
    return _png_of_rows(rows, ids.shape, bits, color_type=0)


def _png(values, color_type):
    """Builds a PNG of big-endian 16-bit values [Y, X, channels]."""
    return _png_of_rows([row.tobytes() for row in values], values.shape, 16, color_type)


def _png_of_rows(rows, shape, bits, color_type):
    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", shape[1], shape[0], bits, color_type, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 60},
        {"quality": 92, "subsampling": 0},
        {"quality": 85, "subsampling": 1, "progressive": True},
        {"quality": 75, "restart_marker_rows": 1},
    ],
)
def test_both_jpeg_decoders_give_the_same_pixels(options, grey):
    # Smooth with edges, of odd size: what subsampled colours and inexact transforms show in.
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    image = np.asarray(image.resize((131, 77), Image.Resampling.BICUBIC))
    data = image_io.encode(image[..., 0] if grey else image, "JPEG", **options)
    assert image_io.is_upright_jpeg(data)
    read = image_io.read_upright_jpeg("a", data)
    assert read.dtype == np.uint8
    assert np.array_equal(read, image_io.read_image("a", data))


def test_torn_jpeg_is_named_by_the_fast_decoder_too(rgb):
    data = image_io.encode(np.kron(rgb, np.ones((8, 8, 1), np.uint8)), "JPEG")
    for torn in (data[: len(data) // 2], data[:3]):
        with pytest.raises(FileFault, match="cannot read image torn one"):
            image_io.read_upright_jpeg("torn one", torn)


def test_the_size_is_that_of_the_image_as_it_is_read(tmp_path):
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.jpg"
        Image.new("RGB", (20, 8)).save(path, exif=exif)
        assert image_io.read_size(path) == image_io.read_image(path).shape[:2]


def test_the_size_of_a_huge_image_is_read_without_a_warning(tmp_path, recwarn):
    Image.new("L", (10000, 10000)).save(tmp_path / "huge.png")
    assert image_io.read_size(tmp_path / "huge.png") == (10000, 10000)
    assert not recwarn.list
    (tmp_path / "no.png").write_bytes(b"no image")
    with pytest.raises(FileFault, match=r"no\.png: it is no image"):
        image_io.read_size(tmp_path / "no.png")


def test_a_fast_png_holds_the_same_pixels(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    for array in (image, image[..., 0], image[..., 0].astype(np.uint16) * 257):
        image_io.write_png(tmp_path / "x.png", array, fast=True)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), array)


def test_a_file_is_there_complete_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    image_io.write_png(path, np.zeros((4, 5), np.uint8))

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_io.os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        image_io.write_png(path, np.ones((9, 9), np.uint8))
    assert np.asarray(Image.open(path)).shape == (4, 5)
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"]
