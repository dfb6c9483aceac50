"""The operations against Pillow's and against slow NumPy, and the policy that draws them."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from sp_transformer.data import augmentation, autoaugment
from sp_transformer.protos import data_pb2

# Pillow's own operation for a magnitude.
ENHANCE = {
    "brightness": ImageEnhance.Brightness,
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}


def _seed(number):
    return tf.constant([11, number], tf.int64)


def _image(seed=0, size=(13, 17), low=20, high=220):
    """A picture with structure at several scales, of whole values."""
    generator = np.random.default_rng(seed)
    coarse = np.kron(generator.uniform(low, high, (11, 14, 3)), np.ones((4, 4, 1)))
    picture = coarse[: size[0], : size[1]] + generator.normal(0, 12, (*size, 3))
    return np.clip(np.rint(picture), low, high).astype(np.uint8)


def _applied(name, image, magnitude):
    result = autoaugment.OPERATIONS[name](tf.constant(image, tf.float32), tf.constant(magnitude))
    return tf.clip_by_value(result, 0, 255).numpy()


@pytest.mark.parametrize("magnitude", [-0.9, -0.3, 0.2, 0.9])
@pytest.mark.parametrize("name", sorted(ENHANCE))
def test_enhancements_equal_pillows(name, magnitude):
    image = _image()
    expected = np.asarray(ENHANCE[name](Image.fromarray(image)).enhance(1 + magnitude))
    # Pillow rounds the grey or smooth image that it blends with, and the result.
    assert np.abs(_applied(name, image, magnitude) - expected).max() <= 1.5


def test_equalize_and_autocontrast_equal_pillows():
    for seed in range(3):
        image = _image(seed, (41, 53) if seed else (13, 17), 40, 180)
        # Pillow's equalize in its integers exactly.
        expected = np.asarray(ImageOps.equalize(Image.fromarray(image)))
        assert np.array_equal(_applied("equalize", image, 1.0), expected)
        expected = np.asarray(ImageOps.autocontrast(Image.fromarray(image)))
        assert np.abs(_applied("autocontrast", image, 1.0) - expected).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_posterize_equals_pillows_but_for_the_middle(bits):
    image = _image()
    expected = np.asarray(ImageOps.posterize(Image.fromarray(image), 8 - bits))
    assert np.array_equal(_applied("posterize", image, bits / 4), expected + (2**bits - 1) / 2)


@pytest.mark.parametrize("threshold", [64, 128, 192])
def test_solarize_equals_pillows(threshold):
    image = _image()
    expected = np.asarray(ImageOps.solarize(Image.fromarray(image), threshold))
    assert np.array_equal(_applied("solarize", image, 1 - threshold / 256), expected)
    # Its magnitude has no direction.
    assert np.array_equal(_applied("solarize", image, threshold / 256 - 1), expected)


@pytest.mark.parametrize("name", sorted(autoaugment.OPERATIONS))
def test_magnitude_zero_is_the_identity(name):
    image = _image().astype(np.float32) + 0.375
    assert np.allclose(_applied(name, image, 0.0), image, atol=1e-4)


@pytest.mark.parametrize("name", sorted(autoaugment.OPERATIONS))
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 2), (3, 3)])
def test_tiny_and_flat_images(name, size):
    flat = np.full((*size, 3), 77.0, np.float32)
    result = _applied(name, flat, 0.5)
    assert result.shape == flat.shape and np.isfinite(result).all()
    if name in ("autocontrast", "equalize", "sharpness", "contrast", "color"):
        assert np.allclose(result, flat, atol=1)


def test_equalize_of_a_large_image_counts_some_of_its_pixels():
    image = np.kron(_image(2, (40, 50), 40, 180), np.ones((16, 16, 1), np.uint8))
    expected = np.asarray(ImageOps.equalize(Image.fromarray(image)))
    result = _applied("equalize", image, 1.0)
    assert np.abs(result - expected).max() < 12 and np.abs(result - expected).mean() < 1.5


def test_half_way_operations_are_half_way():
    image = _image().astype(np.float32)
    for name in ("autocontrast", "equalize"):
        full, half = _applied(name, image, 1.0), _applied(name, image, -0.5)
        assert np.allclose(half, (image + full) / 2, atol=1e-3)


def _slow(name, image, magnitude):
    """Loops and float64; the operations that Pillow shares are checked against it above."""
    image = image.astype(np.float64)
    grey = image @ np.array(autoaugment.LUMINANCE)
    strength = abs(magnitude)
    result = image.copy()
    if name == "brightness":
        result = image + magnitude * image
    elif name == "contrast":
        result = image + magnitude * (image - grey.mean())
    elif name == "color":
        result = image + magnitude * (image - grey[..., None])
    elif name == "sharpness":
        for y in range(1, image.shape[0] - 1):
            for x in range(1, image.shape[1] - 1):
                around = image[y - 1 : y + 2, x - 1 : x + 2].sum((0, 1))
                smooth = (around + 4 * image[y, x]) / 13
                result[y, x] = image[y, x] + magnitude * (image[y, x] - smooth)
    elif name == "posterize":
        bits = round(4 * strength)
        if bits:
            result = np.rint(image) // 2**bits * 2**bits + (2**bits - 1) / 2
    elif name == "solarize":
        result = np.where(image >= 256 * (1 - strength), 255 - image, image)
    elif name == "autocontrast":
        for c in range(3):
            low, high = image[..., c].min(), image[..., c].max()
            result[..., c] += strength * (
                (image[..., c] - low) * 255 / (high - low) - image[..., c]
            )
    else:
        levels = np.floor(image + 0.5).astype(np.uint8)
        equalized = np.asarray(ImageOps.equalize(Image.fromarray(levels))).astype(np.float64)
        result = image + strength * (equalized - levels)
    return np.clip(result, 0, 255)


def test_policy_equals_a_slow_reference():
    image = _image(3).astype(np.float32)
    names = list(autoaugment.OPERATIONS)
    draw = tf.function(lambda seed: autoaugment.autoaugment(tf.constant(image), seed, 0.6))
    for number in range(40):
        seeds = tf.random.experimental.stateless_split(_seed(number), 2)
        chosen = tf.random.stateless_uniform([2], seeds[0], 0, len(names), dtype=tf.int32).numpy()
        magnitudes = tf.random.stateless_uniform([2], seeds[1], -0.6, 0.6).numpy()
        expected = image
        for index, magnitude in zip(chosen, magnitudes, strict=True):
            expected = _slow(names[index], expected, float(magnitude))
        error = np.abs(draw(_seed(number)).numpy() - expected)
        # A value that float32 puts on the other side of a threshold or a rounding half is another.
        assert np.mean(error > 0.02) < 0.02, [names[index] for index in chosen]


def test_policy_draws_all_operations_evenly_and_changes_nothing_on_average():
    image = _image(1, low=70, high=150).astype(np.float32)
    draw = tf.function(lambda seed: autoaugment.autoaugment(tf.constant(image), seed, 0.2))
    drawn = np.stack([draw(_seed(n)).numpy() for n in range(600)])
    brightness = drawn.mean((1, 2, 3)) / image.mean()
    # Mean 1: DeepLab2's policy of magnitude 0.2 is a third darker.
    assert abs(brightness.mean() - 1) < 0.01
    chosen = collections.Counter()
    for number in range(400):
        seeds = tf.random.experimental.stateless_split(_seed(number), 2)
        chosen.update(tf.random.stateless_uniform([2], seeds[0], 0, 8, dtype=tf.int32).numpy())
    assert len(chosen) == 8 and min(chosen.values()) > 60 and max(chosen.values()) < 145


def test_strength_zero_is_the_identity():
    image = tf.constant(_image(), tf.float32)
    assert np.array_equal(autoaugment.autoaugment(image, _seed(0), 0.0), image)


def test_seed_decides_and_the_label_stays():
    image = _image(size=(16, 20))
    label = np.arange(16 * 20, dtype=np.int32).reshape(16, 20)
    options = data_pb2.AugmentationOptions(
        horizontal_flip=True, color_policy="autoaugment", color_strength=0.8
    )
    plain = data_pb2.AugmentationOptions(horizontal_flip=True)
    seen = set()
    for number in range(12):
        crop, ids = augmentation.augment(image, label, _seed(number), options, (20, 24), 255)
        again, _ = augmentation.augment(image, label, _seed(number), options, (20, 24), 255)
        assert np.array_equal(crop, again)
        # Label, flip and padding are those of the same seed without colours.
        plain_crop, plain_ids = augmentation.augment(
            image, label, _seed(number), plain, (20, 24), 255
        )
        assert np.array_equal(ids, plain_ids)
        padding = np.ones((20, 24), bool)
        padding[:16, :20] = False
        assert (crop.numpy()[padding] == 127.5).all()
        assert crop.numpy().min() >= 0 and crop.numpy().max() <= 255
        seen.add(np.abs(crop.numpy() - plain_crop.numpy()).sum())
    assert len(seen) > 6
