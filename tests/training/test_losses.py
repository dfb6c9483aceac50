"""The top-k loss against loops in float64."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.training import losses


def slow_loss(logits, labels, ignore_label, fraction, class_weights=None):
    """Per-image losses by the definition, pixel by pixel."""
    result = []
    for image, label in zip(np.float64(logits), labels, strict=True):
        values = []
        for y in range(label.shape[0]):
            for x in range(label.shape[1]):
                if label[y, x] == ignore_label:
                    values.append(0.0)
                else:
                    z = image[y, x] - image[y, x].max()
                    weight = 1.0 if class_weights is None else class_weights[label[y, x]]
                    values.append(weight * (np.log(np.exp(z).sum()) - z[label[y, x]]))
        k = round(fraction * label.size)
        top = sorted(values, reverse=True)[:k]
        nonzero = sum(value != 0 for value in top)
        result.append(sum(top) / nonzero if nonzero else 0.0)
    return np.array(result)


def example(ignored=0.3, seed=0, shape=(3, 7, 9), classes=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (*shape, classes)).astype(np.float32)
    labels = rng.integers(0, classes, shape).astype(np.int32)
    labels[rng.random(shape) < ignored] = 255
    return logits, labels


@pytest.mark.parametrize("fraction", [0.02, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("ignored", [0.0, 0.3, 0.95])
def test_equals_the_definition(fraction, ignored):
    logits, labels = example(ignored)
    actual = losses.top_k_cross_entropy(logits, labels, 255, fraction)
    assert actual.dtype == tf.float32
    np.testing.assert_allclose(actual, slow_loss(logits, labels, 255, fraction), rtol=1e-5)


def test_ignored_pixels_count_in_k_but_not_in_the_mean():
    # 10 valid pixels of 100 and k = 20: the mean over the 10.
    logits, labels = example(0.0, shape=(1, 10, 10))
    labels[0, 1:] = 255
    all_ten = slow_loss(logits[:, :1], labels[:, :1], 255, 1.0)
    np.testing.assert_allclose(
        losses.top_k_cross_entropy(logits, labels, 255, 0.2), all_ten, rtol=1e-5
    )


def test_an_ignored_image_has_no_loss_and_no_gradient():
    logits, labels = example()
    labels[1] = 255
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.top_k_cross_entropy(logits, labels, 255, 0.2)
    gradient = tape.gradient(loss, logits).numpy()
    assert loss[1] == 0.0 and loss[0] > 0.0
    assert not gradient[1].any() and gradient[0].any()
    assert np.isfinite(gradient).all()


def test_gradient_equals_finite_differences_and_is_zero_at_ignored_pixels():
    logits, labels = example(shape=(2, 3, 5), classes=3)
    tensor = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        loss = tf.reduce_sum(losses.top_k_cross_entropy(tensor, labels, 255, 0.4))
    gradient = tape.gradient(loss, tensor).numpy()
    assert not gradient[labels == 255].any()
    expected = np.zeros_like(logits)
    for index in np.ndindex(*logits.shape):
        shifted = np.float64(logits)
        shifted[index] += 1e-5
        above = slow_loss(shifted, labels, 255, 0.4).sum()
        shifted[index] -= 2e-5
        expected[index] = (above - slow_loss(shifted, labels, 255, 0.4).sum()) / 2e-5
    np.testing.assert_allclose(gradient, expected, atol=1e-4)


def test_other_ignore_labels_and_bfloat16_logits():
    logits, labels = example()
    expected = losses.top_k_cross_entropy(logits, labels, 255, 0.2)
    labels[labels == 255] = -1
    np.testing.assert_array_equal(losses.top_k_cross_entropy(logits, labels, -1, 0.2), expected)
    low = losses.top_k_cross_entropy(tf.cast(logits, tf.bfloat16), labels, -1, 0.2)
    assert low.dtype == tf.float32
    np.testing.assert_allclose(low, expected, rtol=2e-2)


def test_compiles_with_xla():
    logits, labels = example()
    compiled = tf.function(losses.top_k_cross_entropy, jit_compile=True)
    np.testing.assert_allclose(
        compiled(logits, labels, 255, 0.2), slow_loss(logits, labels, 255, 0.2), rtol=1e-5
    )


@pytest.mark.parametrize("fraction", [0.2, 1.0])
def test_class_weights_act_before_the_hardest_pixels_are_chosen(fraction):
    logits, labels = example()
    class_weights = [0.0, 0.5, 1.0, 2.0, 5.0]
    actual = losses.top_k_cross_entropy(logits, labels, 255, fraction, class_weights)
    expected = slow_loss(logits, labels, 255, fraction, class_weights)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert not np.allclose(actual, slow_loss(logits, labels, 255, fraction), rtol=1e-2)
    # A class without weight is as if it were ignored.
    ignored = np.where(labels == 0, 255, labels)
    np.testing.assert_array_equal(
        actual, losses.top_k_cross_entropy(logits, ignored, 255, fraction, class_weights)
    )


def test_refuses_weights_of_other_classes():
    with pytest.raises(ValueError, match="lists 2 weights for 5 classes"):
        losses.top_k_cross_entropy(*example(), 255, 0.2, [1.0, 2.0])


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_refuses_a_fraction_of_no_pixels(fraction):
    with pytest.raises(ValueError, match=r"top_k_fraction.*outside"):
        losses.top_k_cross_entropy(*example(), 255, fraction)


def test_refuses_an_unknown_image_size():
    @tf.function(input_signature=[tf.TensorSpec([None, None, 9, 5])])
    def call(logits):
        return losses.top_k_cross_entropy(logits, tf.zeros([1, 7, 9], tf.int32), 255, 0.2)

    with pytest.raises(ValueError, match="static image size"):
        call.get_concrete_function()


def superpixel_example(seed=0):
    """Weights [B,M,9,P], logits [B,M,9,K] and labels [B,M,P] of 2 images, 3 cells, 8 pixels a cell, 5 classes."""
    rng = np.random.default_rng(seed)
    weights = rng.random((2, 3, 9, 8)).astype(np.float32)
    weights /= weights.sum(axis=2, keepdims=True)
    logits = rng.normal(0, 3, (2, 3, 9, 5)).astype(np.float32)
    labels = rng.integers(0, 5, (2, 3, 8)).astype(np.int32)
    labels[0, 1, :5] = 255
    return weights, logits, labels


def slow_superpixel_loss(weights, logits, labels, class_weights):
    result = []
    for image in range(len(labels)):
        total, counted = 0.0, 0
        for cell, pixel in np.ndindex(labels.shape[1:]):
            label = labels[image, cell, pixel]
            if label == 255 or class_weights[label] == 0:
                continue
            counted += 1
            for neighbor in range(9):
                z = np.float64(logits[image, cell, neighbor])
                cross_entropy = np.log(np.exp(z).sum()) - z[label]
                weight = weights[image, cell, neighbor, pixel]
                total += class_weights[label] * weight * cross_entropy
        result.append(total / counted if counted else 0.0)
    return result


@pytest.mark.parametrize("class_weights", [[], [0.0, 0.5, 1.0, 2.0, 5.0]])
def test_superpixel_loss_equals_the_definition(class_weights):
    weights, logits, labels = superpixel_example()
    actual = losses.superpixel_cross_entropy(weights, logits, labels, 255, class_weights)
    expected = slow_superpixel_loss(weights, logits, labels, class_weights or [1.0] * 5)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_superpixel_loss_teaches_classes_and_not_the_association():
    weights, logits, labels = superpixel_example()
    weights, logits = tf.constant(weights), tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch([weights, logits])
        loss = losses.superpixel_cross_entropy(weights, logits, labels, 255)
    of_weights, of_logits = tape.gradient(loss, [weights, logits])
    assert of_weights is None
    # Softmax cross-entropy: what is predicted less what is there, by association.
    truth = np.einsum("bmnp,bmpk->bmnk", weights, np.eye(256)[labels][..., :5])
    predicted = truth.sum(-1, keepdims=True) * np.float64(tf.nn.softmax(logits))
    counted = (labels != 255).sum(axis=(1, 2))
    np.testing.assert_allclose(
        of_logits, (predicted - truth) / counted[:, None, None, None], atol=1e-6
    )


@pytest.mark.parametrize("ignore_label", [255, -1, 4])
def test_superpixel_loss_leaves_ignored_pixels_out(ignore_label):
    weights, logits, labels = superpixel_example()
    labels[labels == 255] = 0
    labels[labels == 4] = ignore_label
    labels[1] = ignore_label
    loss = losses.superpixel_cross_entropy(weights, logits, labels, ignore_label)
    labels[labels == ignore_label] = 255
    np.testing.assert_allclose(
        loss, slow_superpixel_loss(weights, logits, labels, [1.0] * 5), rtol=1e-5
    )
    assert loss[1] == 0
