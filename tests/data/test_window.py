"""Windows read from regions are those of whole images."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.data import augmentation, pipeline, window
from sp_transformer.protos import data_pb2

VARIED = data_pb2.AugmentationOptions(min_scale=0.5, max_scale=2.0, color_policy="jitter")
SIZES = [(33, 47), (20, 20), (7, 50), (40, 9), (16, 24), (1, 30), (3, 1)]


def _window_before(image, label, scale, position, crop_size):
    """The window as it was made before regions were read: one op on the whole image."""
    size = np.array(label.shape)
    scaled = np.maximum(np.round(size * scale).astype(int), 1)
    shape = np.minimum(scaled, crop_size)
    offset = np.minimum((position * (scaled - shape + 1)).astype(int), scaled - shape)
    crop = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=shape,
        scale=tf.cast(scaled / size, tf.float32),
        translation=-tf.cast(offset, tf.float32),
        kernel_type="triangle",
        antialias=False,
    )[0]
    rows, columns = (
        np.clip((2 * (o + np.arange(n)) + 1) * whole // (2 * s), 0, whole - 1)
        for o, n, whole, s in zip(offset, shape, size, scaled, strict=True)
    )
    return crop.numpy(), label[np.ix_(rows, columns)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop_size", [(16, 24), (8, 64), (64, 8), (90, 110)])
def test_windows_are_those_of_the_whole_image(size, crop_size):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    label = np.arange(np.prod(size), dtype=np.int32).reshape(size)
    for scale, corner in itertools.product(
        [*augmentation.scale_values(VARIED), 0.01, 3.7], [0.0, 0.4, 0.999999]
    ):
        position = np.array([corner, 1 - corner - 1e-9])
        place = window.place_window(size, scale, position, crop_size)
        region = place.pad_region(place.cut(image))
        crop = augmentation.scale_window(region, place.sampling()).numpy()
        ids = place.sample_label(place.cut(label))
        expected, expected_ids = _window_before(image, label, scale, position, crop_size)
        assert np.array_equal(ids, expected_ids)
        assert crop.shape == expected.shape and np.abs(crop - expected).max() < 4e-3


def test_large_images_are_sampled_where_they_should_be():
    """A ramp in float32, as long as images come: positions must not drift."""
    width = 4000
    ramp = np.zeros((4, width, 3), np.float32) + np.arange(width, dtype=np.float32)[:, None]
    for scale in (0.7, 1.3, 2.0):
        place = window.place_window((4, width), scale, (0, 0.9), (4, 1000))
        crop = augmentation.scale_window(place.pad_region(place.cut(ramp)), place.sampling())
        columns = place.offset[1] + np.arange(1000) + 0.5
        expected = columns * width / place.scaled[1] - 0.5
        assert np.abs(crop.numpy()[1, :, 0] - expected).max() < 2e-3


def test_regions_are_no_larger_than_needed():
    place = window.place_window((1024, 2048), 2.0, (0.5, 0.5), (1024, 2048))
    assert place.method == window.RESAMPLE and place.region_shape == (512 + 4, 1024 + 4)
    assert place.padding_before == place.padding_after == (0, 0)
    place = window.place_window((1024, 2048), 1.0, (0.5, 0.5), (512, 512))
    assert place.method == window.COPY and place.region_shape == (512, 512)
    place = window.place_window((1024, 2048), 0.5, (0.5, 0.5), (1024, 2048))
    assert place.method == window.RESIZE and place.region_shape == (1024, 2048)
    # A little larger than the window: faster resized whole and cut.
    place = window.place_window((1024, 2048), 1.4, (0.5, 0.5), (1024, 2048))
    assert place.method == window.RESIZE and place.region_shape == (1024, 2048)


def test_training_reads_regions_and_shows_the_same(make_config, array_source):
    """A source that cuts while it reads gives, bit for bit, what whole images give."""

    class RegionSource(array_source):
        def __init__(self, sizes):
            super().__init__(sizes)
            self.pixels = 0

        def read(self, index):
            raise AssertionError("a whole image was read")

        def read_region(self, index, choose):
            image, label = self.examples[index]
            top, left, height, width = choose(*label.shape)
            assert top >= 0 and left >= 0 and height > 0 and width > 0
            assert top + height <= label.shape[0] and left + width <= label.shape[1]
            self.pixels += height * width
            rows, columns = slice(top, top + height), slice(left, left + width)
            return image[rows, columns].copy(), label[rows, columns].copy()

    config = make_config(augmentation=VARIED, seed=3)
    cutting, whole = RegionSource(SIZES), array_source(SIZES)
    batches = zip(
        pipeline.train_dataset(config, cutting).take(6),
        pipeline.train_dataset(config, whole).take(6),
        strict=True,
    )
    for a, b in batches:
        assert all(np.array_equal(a[key], b[key]) for key in ("image", "label"))
    mean_pixels = np.mean([height * width for height, width in SIZES])
    assert cutting.pixels < 0.9 * len(whole.reads) * mean_pixels


def test_augment_is_the_window_of_the_whole_image(array_source):
    """`augment`, which is given whole examples, and the pipeline share every draw."""
    image, label = array_source([(33, 47)]).examples[0]
    label = label.astype(np.int32)
    for number in range(5):
        seed = tf.constant([1, number], tf.int64)
        scale, position = augmentation.draw_window(seed, VARIED)
        place = window.place_window(label.shape, scale, position.numpy(), (16, 24))
        expected = augmentation.augment_window(
            place.pad_region(place.cut(image)),
            place.sample_label(place.cut(label)),
            place.sampling(),
            seed,
            VARIED,
            (16, 24),
            255,
        )
        drawn = augmentation.augment(image, label, seed, VARIED, (16, 24), 255)
        assert all(np.array_equal(a, b) for a, b in zip(drawn, expected, strict=True))
