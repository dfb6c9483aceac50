"""The confusion matrix against loops over pixels and against scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics

from sp_transformer.evaluation.metrics import ConfusionMatrix

IGNORE = 255


def random_case(seed, num_classes=5, shape=(2, 7, 11), absent=()):
    """Labels and predictions, a fifth of the labels ignored, without the classes in `absent`."""
    generator = np.random.default_rng(seed)
    present = [k for k in range(num_classes) if k not in absent]
    labels = generator.choice(present, shape).astype(np.int32)
    predictions = generator.choice(present, shape).astype(np.int32)
    labels[generator.random(shape) < 0.2] = IGNORE
    return labels, predictions


def slow_scores(labels, predictions, num_classes):
    """Per-class IoU, accuracies by loops over pixels, written from the definitions."""
    truth = [set() for _ in range(num_classes)]
    guess = [set() for _ in range(num_classes)]
    for position, label in enumerate(labels.ravel().tolist()):
        if label != IGNORE:
            truth[label].add(position)
            guess[int(predictions.ravel()[position])].add(position)
    iou = [len(t & g) / len(t | g) if t | g else None for t, g in zip(truth, guess, strict=True)]
    recall = [len(t & g) / len(t) for t, g in zip(truth, guess, strict=True) if t]
    hits = sum(len(t & g) for t, g in zip(truth, guess, strict=True))
    total = sum(len(t) for t in truth)
    present = [value for value in iou if value is not None]
    return iou, sum(present) / len(present), hits / total, sum(recall) / len(recall), total


@pytest.mark.parametrize(("seed", "absent"), [(0, ()), (1, (2,)), (2, (0, 4))])
def test_scores_equal_loops_over_pixels(seed, absent):
    labels, predictions = random_case(seed, absent=absent)
    matrix = ConfusionMatrix(5, IGNORE)
    matrix.update(labels, predictions)
    iou, mean_iou, pixel_accuracy, mean_accuracy, total = slow_scores(labels, predictions, 5)
    assert matrix.per_class_iou() == iou
    assert [value is None for value in iou] == [k in absent for k in range(5)]
    assert matrix.mean_iou() == pytest.approx(mean_iou, abs=1e-15)
    assert matrix.pixel_accuracy() == pixel_accuracy
    assert matrix.mean_accuracy() == pytest.approx(mean_accuracy, abs=1e-15)
    assert matrix.num_pixels == total


@pytest.mark.parametrize("seed", range(3))
def test_frequency_weighted_iou_equals_its_definition(seed):
    labels, predictions = random_case(seed, absent=(1,))
    matrix = ConfusionMatrix(5, IGNORE)
    matrix.update(labels, predictions)
    iou, *_, total = slow_scores(labels, predictions, 5)
    expected = sum((labels == k).sum() / total * v for k, v in enumerate(iou) if v is not None)
    assert matrix.frequency_weighted_iou() == pytest.approx(expected, abs=1e-15)
    assert ConfusionMatrix(2, IGNORE).frequency_weighted_iou() is None


def test_a_prediction_of_the_ignore_label_is_a_miss_and_no_false_positive():
    matrix = ConfusionMatrix(2, IGNORE)
    added = matrix.update(np.array([0, 0, 1, IGNORE]), np.array([0, IGNORE, 1, IGNORE]))
    assert matrix.per_class_iou() == [0.5, 1.0] == added.per_class_iou()
    assert matrix.per_class_accuracy() == [0.5, 1.0] and matrix.pixel_accuracy() == 2 / 3
    assert matrix.num_pixels == 3 and matrix.unclassified.tolist() == [1, 0]


def test_update_returns_what_it_added_and_nothing_of_before():
    matrix = ConfusionMatrix(2, IGNORE)
    matrix.update(np.array([0, 0]), np.array([0, 1]))
    added = matrix.update(np.array([1]), np.array([1]))
    assert added.counts.tolist() == [[0, 0], [0, 1]]
    matrix.update(np.array([1]), np.array([1]))
    assert added.num_pixels == 1 and matrix.num_pixels == 4


def test_grouped_counts_equal_those_of_grouped_maps():
    labels, predictions = random_case(5)
    groups = np.array([1, 0, 1, 2, 0])
    whole = ConfusionMatrix(5, IGNORE)
    whole.update(labels, predictions)
    of_groups = ConfusionMatrix(3, IGNORE)
    of_groups.update(np.where(labels == IGNORE, IGNORE, groups[labels % 5]), groups[predictions])
    np.testing.assert_array_equal(whole.grouped(groups.tolist(), 3).counts, of_groups.counts)


def test_counts_equal_scikit_learn_with_ignored_pixels_left_out():
    labels, predictions = random_case(3, absent=(1,))
    matrix = ConfusionMatrix(5, IGNORE)
    matrix.update(labels, predictions)
    kept = labels != IGNORE
    expected = sklearn.metrics.confusion_matrix(labels[kept], predictions[kept], labels=range(5))
    np.testing.assert_array_equal(matrix.counts, expected)
    assert matrix.counts.dtype == np.int64


def test_updates_add_up_whatever_the_batches():
    labels, predictions = random_case(4, shape=(5, 6, 9))
    whole, parts = ConfusionMatrix(5, IGNORE), ConfusionMatrix(5, IGNORE)
    whole.update(labels, predictions)
    for start, stop in ((0, 2), (2, 4), (4, 5)):
        parts.update(labels[start:stop], predictions[start:stop])
    np.testing.assert_array_equal(whole.counts, parts.counts)


def test_class_that_is_only_predicted_counts_with_iou_zero():
    matrix = ConfusionMatrix(3, IGNORE)
    matrix.update(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 2]))
    assert matrix.per_class_iou() == [0.75, None, 0.0]
    assert matrix.mean_iou() == 0.375
    assert matrix.mean_accuracy() == 0.75


def test_prediction_on_an_ignored_pixel_is_no_false_positive():
    matrix = ConfusionMatrix(2, IGNORE)
    matrix.update(np.array([0, IGNORE]), np.array([0, 1]))
    assert matrix.per_class_iou() == [1.0, None]


def test_narrow_unsigned_ids_do_not_wrap():
    matrix = ConfusionMatrix(200, IGNORE)
    matrix.update(np.array([199, 150], np.uint8), np.array([198, 3], np.uint8))
    assert matrix.counts[199, 198] == 1 and matrix.counts[150, 3] == 1 and matrix.num_pixels == 2


def test_ignore_label_may_be_negative():
    matrix = ConfusionMatrix(2, -1)
    matrix.update(np.array([-1, 1]), np.array([0, 1]))
    assert matrix.counts.tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("labels", "predictions", "words"),
    [
        ([0, 7], [0, 1], ("label 7", "0..2", "255")),
        ([0, -1], [0, 1], ("label -1",)),
        ([0, 1], [0, 3], ("prediction 3",)),
        ([0, IGNORE], [0, -2], ("prediction -2",)),
        ([0, 1], [0.0, 1.0], ("predictions", "float64")),
        ([0, 1], [0], ("[2]", "[1]")),
    ],
)
def test_faulty_values_are_named_and_nothing_is_counted(labels, predictions, words):
    matrix = ConfusionMatrix(3, IGNORE)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        matrix.update(np.array(labels), np.array(predictions))
    assert all(word in str(error.value) for word in words), str(error.value)
    assert matrix.num_pixels == 0


def test_without_pixels_there_is_no_score():
    matrix = ConfusionMatrix(2, IGNORE)
    matrix.update(np.full((3, 3), IGNORE), np.zeros((3, 3), np.int32))
    assert matrix.mean_iou() is None
    assert matrix.pixel_accuracy() is None
    assert matrix.mean_accuracy() is None


@pytest.mark.parametrize(("num_classes", "ignore_label"), [(0, 255), (19, 0), (19, 18)])
def test_faulty_construction(num_classes, ignore_label):
    with pytest.raises(ValueError, match="class"):
        ConfusionMatrix(num_classes, ignore_label)


def test_shares_sum_to_one():
    matrix = ConfusionMatrix(3, IGNORE)
    matrix.update(np.array([0, 0, 2, IGNORE]), np.array([0, 1, 1, 1]))
    assert matrix.class_shares() == pytest.approx([2 / 3, 0.0, 1 / 3])
