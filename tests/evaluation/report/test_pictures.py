import base64
import io

import numpy as np
import pytest
from PIL import Image

from sp_transformer.config import label_map as label_maps
from sp_transformer.evaluation import metrics
from sp_transformer.evaluation.report import pictures
from sp_transformer.protos import evaluation_pb2

COLORS = np.random.default_rng(0).integers(0, 256, (150, 3), np.uint8)
LABEL_MAP = label_maps.LabelMap(tuple(f"class {i}" for i in range(150)), COLORS)


def bytes_of(uri):
    return len(base64.b64decode(uri.partition(",")[2]))


def picture_of(uri):
    kind, _, text = uri.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert kind == f"data:image/{image.format.lower()}"
    return np.asarray(image.convert("RGB"))


def scored(label, prediction):
    return metrics.ConfusionMatrix(150, 255).update(label, prediction)


def kept(rights, examples=2, thumbnails=3, size=(8, 8)):
    """A ReportPictures of images of which so many pixels are right."""
    options = evaluation_pb2.ReportOptions(examples=examples, thumbnails=thumbnails)
    keeper = pictures.ReportPictures(LABEL_MAP, len(rights), options)
    image = np.zeros((*size, 3), np.uint8)
    for number, right in enumerate(rights):
        label = np.full(size, 255 if right is None else 0)
        prediction = np.ones(size, int)
        prediction.flat[: right or 0] = 0
        confusion = scored(label, prediction)
        keeper.add(str(number), image, label, prediction, {}, confusion)
    return keeper


def names(shown):
    return [image.name for image in shown]


def test_worst_and_best_are_told_apart_in_order():
    keeper = kept([30, 5, 40, None, 20, 60, 5, 50])
    assert names(keeper.worst()) == ["1", "6"] and names(keeper.best()) == ["5", "7"]
    assert [shown.pixel_accuracy for shown in keeper.best()] == [60 / 64, 50 / 64]
    assert names(keeper.small()) == ["0", "2", "5"]


@pytest.mark.parametrize(
    ("rights", "worst", "best"),
    [
        ([], [], []),
        ([None], [], []),
        ([7], ["0"], []),
        ([7, 3, 9], ["1", "0"], ["2"]),
        ([7, 7, 7, 7], ["0", "1"], ["2", "3"]),
    ],
)
def test_no_image_is_shown_as_both(rights, worst, best):
    keeper = kept(rights)
    assert names(keeper.worst()) == worst
    assert sorted(names(keeper.best())) == best


def test_views_show_prediction_and_truth_exactly_and_say_which_classes_are_lowest():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (300, 400, 3), np.uint8)
    label, prediction = (
        np.kron(generator.integers(0, 5, (3, 4)), np.ones((100, 100), int)) for _ in "ab"
    )
    label[:20] = 255
    keeper = pictures.ReportPictures(LABEL_MAP, 1, evaluation_pb2.ReportOptions())
    confusion = scored(label, prediction)
    rows, columns = np.indices(label.shape)
    outlined = {pictures.SUPERPIXELS: rows // 50, "none": None, pictures.SLIC: columns // 50}
    image[:] = 128
    keeper.add("a", image, label, prediction, outlined, confusion)
    (shown,) = keeper.worst()
    assert list(shown.views) == [
        "Prediction",
        *("Superpixels", "SLIC, as many"),
        *("Errors", "Image", "Ground truth"),
    ]
    # Lines along the rows of one, along the columns of the other.
    for title, axis in ((pictures.SUPERPIXELS, 0), (pictures.SLIC, 1)):
        differs = np.abs(picture_of(shown.views[title]).astype(int) - 128).max(-1) > 60
        lines = np.flatnonzero(np.diff(differs.mean(1 - axis) > 0.9, prepend=0) == 1)
        np.testing.assert_allclose(lines, np.arange(50, label.shape[axis], 50), atol=3)
    np.testing.assert_array_equal(picture_of(shown.views["Prediction"]), COLORS[prediction])
    expected = np.where((label == 255)[..., None], 0, COLORS[label % 150])
    np.testing.assert_array_equal(picture_of(shown.views["Ground truth"]), expected)
    ious = [iou for iou in confusion.per_class_iou() if iou is not None]
    assert [iou for _, iou in shown.lowest] == sorted(ious)[:3]
    assert shown.miou == confusion.mean_iou() and shown.size == (300, 400)


def test_every_picture_stays_within_its_bytes_and_all_within_20_mb():
    """The worst case for any encoder: noise of 150 classes at Cityscapes' size."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (1024, 2048, 3), np.uint8)
    label, prediction = generator.integers(0, 150, (2, 1024, 2048))
    options = evaluation_pb2.ReportOptions(examples=1)
    keeper = pictures.ReportPictures(LABEL_MAP, 1, options)
    ids = generator.integers(0, 2000, (1024, 2048))
    outlined = {pictures.SUPERPIXELS: ids, pictures.SLIC: ids}
    keeper.add("noise", image, label, prediction, outlined, scored(label, prediction))
    (shown,), (small,) = keeper.worst(), keeper.small()
    assert max(shown.size) == pictures.MAX_SIDE
    for uri in shown.views.values():
        assert bytes_of(uri) <= pictures.LARGE_BYTES
        assert max(picture_of(uri).shape) >= 90
    assert bytes_of(small.picture) <= pictures.SMALL_BYTES
    base64_growth = 4 / 3
    for examples, thumbnails in ((options.examples, 200), (10, 200)):
        largest = 2 * examples * len(shown.views) * pictures.LARGE_BYTES
        largest += thumbnails * pictures.SMALL_BYTES
        assert base64_growth * largest < 19.5e6


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (37, 53)])
def test_odd_sizes(size):
    keeper = kept([0], size=size)
    (shown,), (small,) = keeper.worst(), keeper.small()
    assert picture_of(shown.views["Errors"]).shape[:2] == shown.size
    assert picture_of(small.picture).size
