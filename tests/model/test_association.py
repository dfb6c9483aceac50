import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import association

# (R, C, h, w, v, u): features and image pixels of a cell; odd factors, factor one, one row, one column, 1x1 and 8x8.
CASES = [
    (2, 3, 2, 2, 4, 4),
    (3, 2, 1, 1, 3, 2),
    (1, 4, 4, 2, 8, 6),
    (4, 1, 3, 3, 3, 3),
    (1, 1, 2, 4, 6, 4),
    (2, 2, 8, 8, 8, 16),
    (3, 3, 2, 1, 16, 8),
]


def features(case, channels=5, seed=0):
    rows, columns, h, w, v, u = case
    generator = np.random.default_rng(seed)
    pixels = generator.normal(size=(2, rows * h, columns * w, channels)) * 2
    superpixels = generator.normal(size=(2, rows, columns, channels)) * 2
    return pixels, superpixels, (rows * v, columns * u)


@pytest.mark.parametrize("alignment", association.ALIGNMENTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_logits_equal_loops(case, alignment, reference):
    pixels, superpixels, size = features(case)
    expected = reference.association_logits(pixels, superpixels, size, alignment, 0.3)
    actual = association.association_logits(
        pixels.astype(np.float32), superpixels.astype(np.float32), size, alignment, 0.3
    ).numpy()
    assert actual.shape == expected.shape
    inside = np.isfinite(expected)
    scale = np.abs(expected[inside]).max()
    np.testing.assert_allclose(actual[inside], expected[inside], rtol=1e-5, atol=1e-5 * scale)
    assert (actual[~inside] < -1e8).all()


@pytest.mark.parametrize("alignment", association.ALIGNMENTS)
@pytest.mark.parametrize("case", [(2, 2, 2, 1, 4, 2), (3, 1, 1, 2, 2, 4), (1, 1, 2, 2, 3, 3)])
def test_gradients_equal_differences_of_loops(case, alignment, reference):
    arguments = features(case, channels=3)
    size = arguments[2]
    rows, columns = case[:2]
    generator = np.random.default_rng(3)
    classes = generator.normal(size=(2, rows, columns, 4))
    upstream = generator.normal(size=(2, *size, 4))

    def slow(pixels, superpixels, superpixel_logits):
        logits = reference.association_logits(pixels, superpixels, size, alignment, 0.5)
        return np.sum(reference.project(logits, superpixel_logits) * upstream)

    values = [arguments[0], arguments[1], classes]
    variables = [tf.constant(x, tf.float32) for x in values]
    with tf.GradientTape() as tape:
        tape.watch(variables)
        logits = association.association_logits(*variables[:2], size, alignment, 0.5)
        loss = tf.reduce_sum(association.project(logits, variables[2]) * upstream)
    np.testing.assert_allclose(loss, slow(*values), rtol=1e-4)
    step = 1e-5
    for position, gradient in enumerate(tape.gradient(loss, variables)):
        largest = np.abs(gradient).max()
        count = gradient.shape.num_elements()
        for flat in generator.choice(count, min(count, 8), replace=False):
            index = np.unravel_index(flat, gradient.shape)
            ends = []
            for sign in (-1, 1):
                moved = [x.copy() for x in values]
                moved[position][index] += sign * step
                ends.append(slow(*moved))
            expected = (ends[1] - ends[0]) / (2 * step)
            np.testing.assert_allclose(
                gradient[index].numpy(), expected, rtol=1e-4, atol=1e-4 * max(largest, 1e-2)
            )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_projection_and_hard_superpixels_equal_loops(case, reference):
    pixels, superpixels, size = features(case)
    rows, columns = case[:2]
    classes = np.random.default_rng(4).normal(size=(2, rows, columns, 3))
    logits = reference.association_logits(pixels, superpixels, size, "aligned", 1.0, -1e9)
    actual = association.project(tf.constant(logits, tf.float32), tf.constant(classes, tf.float32))
    expected = reference.project(logits, classes)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    actual = association.hard_superpixels(tf.constant(logits, tf.float32), (rows, columns))
    np.testing.assert_array_equal(actual, reference.hard_superpixels(logits, (rows, columns)))


def test_aligned_equals_interpolated_features():
    """The product with one superpixel is linear: interpolating features first must give the same."""
    pixels, superpixels, size = features((3, 4, 4, 4, 32, 32))
    logits = association.association_logits(
        tf.constant(pixels, tf.float32), tf.constant(superpixels, tf.float32), size, scale=1.0
    )
    full = tf.image.resize(tf.constant(pixels, tf.float32), size, method="bilinear")
    center = tf.repeat(tf.repeat(tf.constant(superpixels, tf.float32), 32, axis=1), 32, axis=2)
    expected = tf.reduce_sum(full * center, axis=-1)
    np.testing.assert_allclose(logits[..., 4], expected, rtol=1e-4, atol=1e-4)


def test_relative_blends_at_cell_borders_and_aligned_does_not():
    pixels, superpixels, size = features((2, 2, 4, 4, 32, 32))
    pixels, superpixels = tf.constant(pixels, tf.float32), tf.constant(superpixels, tf.float32)
    forms = {
        name: association.association_logits(pixels, superpixels, size, name)[0, :, :, 4].numpy()
        for name in association.ALIGNMENTS
    }
    same = np.isclose(forms["aligned"], forms["relative"], atol=1e-4)
    # 8x upsampling: interpolation reaches over a border from 4 image pixels on either side.
    assert same[4:28, 4:28].all()
    assert same[:28, :28].all()
    assert not same[28:36, :].all(axis=1).any()


def test_default_scale_is_root_of_channels():
    pixels, superpixels, size = features((2, 2, 2, 2, 4, 4), channels=16)
    pixels, superpixels = tf.constant(pixels, tf.float32), tf.constant(superpixels, tf.float32)
    default = association.association_logits(pixels, superpixels, size)[0, 0, 0, 4]
    explicit = association.association_logits(pixels, superpixels, size, scale=0.25)[0, 0, 0, 4]
    np.testing.assert_allclose(default, explicit, rtol=1e-6)


def test_layer_gives_logits_for_anyones_features():
    layer = association.Association(output_stride=4)
    pixels, superpixels, _ = features((3, 5, 2, 2, 8, 8), channels=8)
    logits = layer(tf.constant(pixels, tf.float32), tf.constant(superpixels, tf.float32))
    assert logits.shape == (2, 24, 40, 9)
    assert layer.count_params() == 32
    copy = association.Association.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("pixels", "superpixels", "size", "message"),
    [
        ((1, 5, 4, 2), (1, 2, 2, 2), (8, 8), "5x4 does not divide into 2x2"),
        ((1, 4, 4, 2), (1, 2, 2, 2), (9, 8), "9x8 does not divide into 2x2"),
    ],
)
def test_bad_sizes_are_named(pixels, superpixels, size, message):
    with pytest.raises(ValueError, match=message):
        association.association_logits(tf.zeros(pixels), tf.zeros(superpixels), size)
    with pytest.raises(ValueError, match="aligned, relative; got 'exact'"):
        association.association_logits(
            tf.zeros([1, 4, 4, 2]), tf.zeros([1, 2, 2, 2]), (8, 8), alignment="exact"
        )
