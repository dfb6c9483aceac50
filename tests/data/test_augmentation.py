import collections

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.data import augmentation, autoaugment
from sp_transformer.protos import data_pb2

PUBLISHED = data_pb2.AugmentationOptions(min_scale=0.5, max_scale=2.0, scale_step=0.1)


def _options(**kwargs):
    return data_pb2.AugmentationOptions(**{"horizontal_flip": False, **kwargs})


def _seed(number):
    return tf.constant([7, number], tf.int64)


def _smooth_example(height=41, width=67):
    """Returns an image and labels that both tell the row and column of the source."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = np.stack([2 * y, 2 * x, np.full_like(x, 50)], axis=-1)
    return image, (y * width + x).astype(np.int32)


def test_published_scales_are_all_drawn_and_hold_one():
    values = augmentation.scale_values(PUBLISHED)
    assert len(values) == 16 and values[0] == 0.5 and values[-1] == 2.0 and 1.0 in values
    draw = tf.function(lambda seed: augmentation.draw_scale(seed, PUBLISHED))
    counts = collections.Counter(float(draw(_seed(n))) for n in range(1600))
    assert sorted(counts) == values
    # Each is drawn 100 times on average, with a standard deviation of 9.7.
    assert min(counts.values()) > 55 and max(counts.values()) < 145


@pytest.mark.parametrize(
    ("low", "high", "step", "expected"),
    [
        (1.0, 1.0, 0.1, [1.0]),
        (1.0, 1.0, 0.0, [1.0]),
        (0.5, 1.0, 0.25, [0.5, 0.75, 1.0]),
        (0.5, 1.0, 0.3, [0.5, 0.8]),
    ],
)
def test_scale_values(low, high, step, expected):
    options = _options(min_scale=low, max_scale=high, scale_step=step)
    assert augmentation.scale_values(options) == expected


@pytest.mark.parametrize("crop_size", [(16, 24), (41, 67), (41, 90), (96, 160)])
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.0, 1.3, 2.0])
def test_crop_equals_resizing_then_cutting(scale, crop_size):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (41, 67, 3), dtype=np.uint8)
    label = np.arange(41 * 67, dtype=np.int32).reshape(41, 67)
    h, w = crop_size
    window = augmentation.scale_and_crop(image, label, scale, _seed(3), crop_size)
    crop, ids = (value.numpy() for value in augmentation.pad(*window, crop_size, -1))
    # Slow and obvious: everything resized, the offset read off the ids.
    scaled = (round(41 * scale), round(67 * scale))
    all_ids = tf.image.resize(label[..., None], scaled, method="nearest").numpy()[..., 0]
    image = tf.image.resize(image, scaled).numpy()
    full_h, full_w = max(h, scaled[0]), max(w, scaled[1])
    padding = ((0, full_h - scaled[0]), (0, full_w - scaled[1]))
    all_ids = np.pad(all_ids, padding, constant_values=-1)
    image = np.pad(image, (*padding, (0, 0)), constant_values=127.5)
    matches = [
        (y, x)
        for y in range(full_h - h + 1)
        for x in range(full_w - w + 1)
        if np.array_equal(all_ids[y : y + h, x : x + w], ids)
    ]
    assert matches
    # With repeated pixels several cuts have the same ids, but only one of them the same image.
    errors = [np.abs(image[y : y + h, x : x + w] - crop).max() for y, x in matches]
    assert min(errors) < 2e-3
    height, width = min(h, scaled[0]), min(w, scaled[1])
    assert window[0].shape == (height, width, 3) and window[1].shape == (height, width)


def test_crop_position_is_uniform():
    image, label = _smooth_example(6, 8)
    cut = tf.function(lambda seed: augmentation.scale_and_crop(image, label, 1.0, seed, (4, 4))[1])
    corners = collections.Counter(int(cut(_seed(n))[0, 0]) for n in range(450))
    assert sorted(corners) == [y * 8 + x for y in range(3) for x in range(5)]
    assert min(corners.values()) > 10 and max(corners.values()) < 60  # 30 on average.


@pytest.mark.parametrize("number", range(12))
def test_image_and_label_stay_aligned(number):
    image, label = _smooth_example()
    options = _options(min_scale=0.5, max_scale=2.0, scale_step=0.1, horizontal_flip=True)
    crop, ids = augmentation.augment(image, label, _seed(number), options, (32, 48), -1)
    crop, ids = crop.numpy(), ids.numpy()
    counts = ids >= 0
    # The label's source pixel is at most half a source pixel from where the image was sampled.
    error = np.abs(np.stack([ids // 67, ids % 67], -1) - crop[..., :2] / 2)[counts]
    assert error.max() <= 0.5 + 1e-3
    # ... in no direction more than in the other.
    assert np.abs((np.stack([ids // 67, ids % 67], -1) - crop[..., :2] / 2)[counts].mean()) < 0.13
    assert np.array_equal(crop[~counts], np.full_like(crop[~counts], 127.5))


@pytest.mark.parametrize("number", range(4))
def test_scale_one_is_exact(number):
    image, label = _smooth_example()
    crop, ids = augmentation.augment(
        image, label, _seed(number), _options(horizontal_flip=True), (32, 48), 255
    )
    ids = ids.numpy()
    assert np.array_equal(crop.numpy(), image.reshape(-1, 3)[ids])


def test_flip_mirrors_half_of_the_examples():
    image, label = _smooth_example(4, 6)
    flip = tf.function(lambda seed: augmentation.random_flip(image, label, seed))
    flipped = 0
    for number in range(400):
        flipped_image, flipped_label = (value.numpy() for value in flip(_seed(number)))
        if flipped_label[0, 0] == 5:
            flipped += 1
            assert np.array_equal(flipped_label, label[:, ::-1])
            assert np.array_equal(flipped_image, image[:, ::-1])
        else:
            assert np.array_equal(flipped_label, label) and np.array_equal(flipped_image, image)
    assert 150 < flipped < 250


def _colors(seed=0):
    return np.random.default_rng(seed).uniform(70, 150, (9, 11, 3)).astype(np.float32)


def test_jitter_of_strength_zero_is_the_identity():
    image = tf.constant(_colors())
    assert np.array_equal(augmentation.jitter(image, _seed(0), 0.0), image)
    tiny = augmentation.jitter(image, _seed(0), 1e-6)
    assert np.allclose(tiny, image, atol=2e-3)


def test_jitter_is_centred_on_identity():
    image = _colors()
    draw = tf.function(lambda seed: augmentation.jitter(image, seed, 0.2))
    drawn = np.stack([draw(_seed(n)).numpy() for n in range(600)])
    luminance = drawn @ np.array([0.299, 0.587, 0.114], np.float32)
    reference = image @ np.array([0.299, 0.587, 0.114], np.float32)
    # Brightness: the standard error of the mean factor is 0.2 / sqrt(3 * 600) = 0.0047.
    factors = luminance.mean((1, 2)) / reference.mean()
    assert abs(factors.mean() - 1) < 0.015
    assert 0.79 < factors.min() < 0.83 and 1.17 < factors.max() < 1.21
    # Contrast, over the brightness that scales it too.
    contrasts = luminance.std((1, 2)) / reference.std() / factors
    assert abs(contrasts.mean() - 1) < 0.015
    # Colours: the average of many draws is the image.
    assert np.abs(drawn.mean(0) - image).max() < 4


def _luminance(image):
    return image @ np.array([0.299, 0.587, 0.114])


def test_jitter_matches_a_slow_reference():
    image = _colors(1)
    for number in range(5):
        draws = tf.random.stateless_uniform([4], _seed(number), -0.3, 0.3).numpy()
        expected = image.astype(np.float64) * (1 + draws[0])
        mean = _luminance(expected).mean()
        expected = mean + (1 + draws[1]) * (expected - mean)
        grey = _luminance(expected)[..., None]
        expected = grey + (1 + draws[2]) * (expected - grey)
        yiq = expected @ np.array(
            [[0.299, 0.596, 0.211], [0.587, -0.274, -0.523], [0.114, -0.322, 0.312]]
        )
        angle = 2 * np.pi * draws[3] / 10
        chroma = (yiq[..., 1] + 1j * yiq[..., 2]) * np.exp(1j * angle)
        yiq = np.stack([yiq[..., 0], chroma.real, chroma.imag], -1)
        expected = yiq @ np.linalg.inv(
            np.array([[0.299, 0.596, 0.211], [0.587, -0.274, -0.523], [0.114, -0.322, 0.312]])
        )
        result = augmentation.jitter(tf.constant(image), _seed(number), 0.3)
        assert np.allclose(result, np.clip(expected, 0, 255), atol=0.01)


def test_hue_turns_colours_but_not_greys():
    colors = tf.constant([[200.0, 60.0, 60.0], [90.0, 90.0, 90.0]])
    turned = (colors @ augmentation._hue_matrix(1 / 3)).numpy()
    assert np.allclose(_luminance(turned), _luminance(colors.numpy()), atol=0.1)
    assert np.allclose(turned[1], 90, atol=0.1)
    assert colors[0].numpy().argmax() == 0 != turned[0].argmax()
    assert np.allclose(colors @ augmentation._hue_matrix(0.0), colors, atol=1e-3)
    assert np.allclose(colors @ augmentation._hue_matrix(1.0), colors, atol=1e-2)


def test_mean_color_of_a_large_image_is_accurate():
    image = tf.fill([1024, 2048, 3], 100.3)
    assert np.allclose(autoaugment.mean_color(image), 100.3, rtol=1e-4)


def test_jitter_stays_in_range_and_leaves_padding_grey():
    image = np.random.default_rng(0).choice([0.0, 255.0], (9, 11, 3)).astype(np.float32)
    label = np.zeros((9, 11), np.int32)
    options = _options(color_policy="jitter", color_strength=0.9)
    for number in range(10):
        crop, ids = augmentation.augment(image, label, _seed(number), options, (12, 12), 255)
        assert tf.reduce_min(crop) >= 0 and tf.reduce_max(crop) <= 255
        assert np.array_equal(
            ids == 255, np.pad(np.zeros((9, 11), bool), ((0, 3), (0, 1)), constant_values=True)
        )
        assert (crop.numpy()[ids.numpy() == 255] == 127.5).all()


def test_padding_is_never_at_the_top_or_left():
    image, label = _smooth_example(9, 11)
    for number in range(6):
        options = _options(horizontal_flip=True)
        _, ids = augmentation.augment(image, label, _seed(number), options, (12, 16), -1)
        assert np.array_equal(ids.numpy() >= 0, np.pad(np.ones((9, 11), bool), ((0, 3), (0, 5))))


def test_seed_decides_everything():
    image, label = _smooth_example()
    options = _options(min_scale=0.5, max_scale=2.0, horizontal_flip=True, color_policy="jitter")
    first, same, other = (
        augmentation.augment(image, label, _seed(n), options, (32, 48), 255) for n in (1, 1, 2)
    )
    assert np.array_equal(first[0], same[0]) and np.array_equal(first[1], same[1])
    assert not np.array_equal(first[0], other[0])


def test_unknown_color_policy_is_refused():
    image, label = _smooth_example(4, 6)
    with pytest.raises(ValueError, match=r"'sepia' is not registered; choose one of autoaugment, "):
        augmentation.augment(image, label, _seed(0), _options(color_policy="sepia"), (4, 4), 255)
