import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.config import resizing
from sp_transformer.data import resize
from sp_transformer.protos import data_pb2


def _options(height=0, width=0, longer=0):
    return data_pb2.DataOptions(resize_height=height, resize_width=width, resize_longer_side=longer)


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((37, 53), _options(), (37, 53)),
        ((37, 53), _options(64, 96), (64, 96)),
        ((37, 53), _options(64, 96, longer=10), (64, 96)),
        ((100, 200), _options(longer=50), (25, 50)),
        ((200, 101), _options(longer=100), (100, 51)),  # 50.5 rounds up.
        ((200, 99), _options(longer=100), (100, 50)),
        ((1, 900), _options(longer=90), (1, 90)),  # Never below one pixel.
        ((30, 40), _options(longer=80), (60, 80)),
    ],
)
def test_target_size_of_integers_and_tensors(size, options, expected):
    assert resize.target_size(*size, options) == expected
    tensors = resize.target_size(*tf.constant(size), options)
    assert tuple(int(value) for value in tensors) == expected


def test_resizes_tells_whether_anything_changes():
    assert not resizing.resizes(_options())
    assert resizing.resizes(_options(longer=5)) and resizing.resizes(_options(4, 5))


@pytest.mark.parametrize("size", [(13, 29), (50, 31), (37, 53)])
def test_image_is_resized_as_inference_does(size):
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    expected = tf.image.resize(image, size, antialias=False).numpy()
    resized = resize.resize_image(image, size)
    assert resized.dtype == np.uint8 and resized.shape == (*size, 3)
    assert np.abs(resized - expected).max() <= 0.5


@pytest.mark.parametrize("size", [(13, 29), (74, 106), (37, 53), (1, 200)])
def test_label_takes_the_pixel_whose_area_holds_the_centre(size):
    label = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
    expected = np.empty(size, np.uint8)
    for y in range(size[0]):
        for x in range(size[1]):
            expected[y, x] = label[int((y + 0.5) * 37 / size[0]), int((x + 0.5) * 53 / size[1])]
    resized = resize.resize_label(label, size)
    assert resized.dtype == np.uint8 and np.array_equal(resized, expected)
