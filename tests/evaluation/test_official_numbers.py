"""Our numbers beside those of cityscapesscripts' own evaluator, scikit-learn and a loop: all digits."""

import math

import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

from sp_transformer.config import derived
from sp_transformer.config import label_map as label_maps
from sp_transformer.data import train_ids
from sp_transformer.evaluation import categories, metrics, scores
from sp_transformer.protos import evaluation_pb2

NUM_MAPS = 30


@pytest.fixture(scope="module")
def official():
    """The official evaluator, without what does not run on NumPy 2.4."""
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as script

    script.args.evalInstLevelScore = False
    script.args.evalPixelAccuracy = False
    script.args.JSONOutput = False
    script.args.quiet = True
    return script


@pytest.fixture(scope="module")
def label_map():
    return derived.bundled_label_map("cityscapes")


def random_ids(generator, absent, size=(24, 40)):
    """Cityscapes' ids 0 to 33 in blobs, a third of them void, as a label file holds them."""
    present = np.setdiff1d(np.arange(34), absent)
    blobs = np.kron(generator.choice(present, (6, 10)), np.ones((4, 4), int))
    return np.where(generator.random(size) < 0.2, generator.choice(present, size), blobs)


def cases():
    """(truth, prediction) in label ids; classes that are missing here, there or in both."""
    for seed in range(NUM_MAPS):
        generator = np.random.default_rng(seed)
        truth = random_ids(generator, generator.choice(34, 6))
        prediction = np.where(
            generator.random(truth.shape) < 0.6,
            truth,
            random_ids(generator, generator.choice(34, 9)),
        )
        # Half of the predictions hold void, which the official script counts as missed.
        if seed % 2:
            prediction[
                np.isin(prediction, [0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30])
            ] = 7
        yield truth.astype(np.uint8), prediction.astype(np.uint8)


def loop_iou(pairs, num_classes, ignore_label):
    """IoU of each class, pixel by pixel; NaN for a class without pixels."""
    tp, fp, fn = (np.zeros(num_classes, int) for _ in range(3))
    for truth, prediction in pairs:
        for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
            if t == ignore_label:
                continue
            if t == p:
                tp[t] += 1
            else:
                fn[t] += 1
                if p != ignore_label:
                    fp[p] += 1
    return [
        int(a) / int(a + b + c) if a + b + c else math.nan
        for a, b, c in zip(tp, fp, fn, strict=True)
    ]


def write(folder, number, ids):
    path = folder / f"town_{number:06d}_000019_labelIds.png"
    Image.fromarray(ids).save(path)
    return str(path)


def none_for_nan(values):
    return [None if math.isnan(value) else value for value in values]


def test_random_maps_with_void_score_as_officially_by_scikit_learn_and_by_a_loop(
    official, label_map, tmp_path
):
    to_train_ids = train_ids.TrainIds(label_map)
    total = scores.SegmentationScores(label_map, evaluation_pb2.EvaluationOptions())
    for folder in ("truth", "prediction"):
        (tmp_path / folder).mkdir()
    for number, pair in enumerate(cases()):
        files = [
            [write(tmp_path / folder, number, ids)]
            for folder, ids in zip(("truth", "prediction"), pair, strict=True)
        ]
        theirs = official.evaluateImgLists(files[1], files[0], official.args)
        truth, prediction = (to_train_ids(ids.astype(np.int32), "map") for ids in pair)
        alone = metrics.ConfusionMatrix(19, 255)
        alone.update(truth, prediction)
        total.update(truth, prediction)
        check_equals_official(alone, theirs, label_map)
        assert none_for_nan(loop_iou([(truth, prediction)], 19, 255)) == alone.per_class_iou()
        kept = truth != 255
        matrix = sklearn.metrics.confusion_matrix(
            truth[kept], prediction[kept], labels=[*range(19), 255]
        )
        np.testing.assert_array_equal(matrix[:19, :19], alone.counts)
        np.testing.assert_array_equal(matrix[:19, 19], alone.unclassified)
        tp, fp, fn = np.diag(matrix)[:19], matrix[:, :19].sum(0), matrix[:19].sum(1)
        iou = [t / u if u else None for t, u in zip(tp, fp + fn - tp, strict=True)]
        assert iou == alone.per_class_iou()
    # And all maps as one data set.
    paths = [sorted(map(str, (tmp_path / f).iterdir())) for f in ("prediction", "truth")]
    theirs = official.evaluateImgLists(*paths, official.args)
    check_equals_official(total.confusion, theirs, label_map)
    results = total.results()
    assert results["miou"] == theirs["averageScoreClasses"]
    assert results["category_miou"] == theirs["averageScoreCategories"]


def check_equals_official(confusion, theirs, label_map):
    """Equal, not close: the official script divides the same integers."""
    by_name = dict(zip(label_map.names, confusion.per_class_iou(), strict=True))
    assert by_name == {
        name: None if math.isnan(theirs["classScores"][name]) else theirs["classScores"][name]
        for name in label_map.names
    }
    assert confusion.mean_iou() == theirs["averageScoreClasses"]
    names, of_categories = categories.category_matrix(label_map.names, confusion)
    expected = none_for_nan(theirs["categoryScores"][name] for name in names)
    assert of_categories.per_class_iou() == expected
    assert of_categories.mean_iou() == theirs["averageScoreCategories"]


def test_categories_are_those_of_the_official_script(official, label_map):
    from cityscapesscripts.helpers.labels import labels

    names, _ = categories.category_matrix(label_map.names, metrics.ConfusionMatrix(19, 255))
    expected = {label.category for label in labels if not label.ignoreInEval}
    assert set(names) == expected
    for label in labels:
        if label.ignoreInEval:
            continue
        matrix = metrics.ConfusionMatrix(19, 255)
        matrix.update(np.array([label.trainId]), np.array([label.trainId]))
        _, grouped = categories.category_matrix(label_map.names, matrix)
        assert grouped.counts[names.index(label.category), names.index(label.category)] == 1
    other = label_maps.LabelMap(("road", "car"), np.zeros((2, 3), np.uint8))
    assert categories.category_matrix(other.names, metrics.ConfusionMatrix(2, 255)) is None


def test_a_predicted_void_is_a_false_negative_and_no_false_positive(official, label_map, tmp_path):
    truth = np.array([[7, 7, 7, 26]], np.uint8)
    prediction = np.array([[7, 0, 26, 26]], np.uint8)
    files = [[write(tmp_path, number, ids)] for number, ids in enumerate((prediction, truth))]
    theirs = official.evaluateImgLists(*files, official.args)
    assert theirs["classScores"]["road"] == 1 / 3 and theirs["classScores"]["car"] == 1 / 2
    matrix = metrics.ConfusionMatrix(19, 255)
    matrix.update(np.array([[0, 0, 0, 13]]), np.array([[0, 255, 13, 13]]))
    check_equals_official(matrix, theirs, label_map)
