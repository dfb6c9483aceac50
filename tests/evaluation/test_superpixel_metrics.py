"""Superpixel measures against their definitions, written as loops over sets of pixels."""

import math
import time

import numpy as np
import pytest
from skimage import measure

from sp_transformer.evaluation import superpixel_metrics
from sp_transformer.evaluation.superpixel_metrics import SuperpixelTruth

IGNORE, NUM_CLASSES = 255, 4


def random_case(seed, size=(13, 17), superpixels=9, ignored=0.15):
    """An image, a label with ignored pixels, and ids in blobs that fray at their borders."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (*size, 3), np.uint8)
    label = np.kron(generator.integers(0, NUM_CLASSES, (4, 4)), np.ones((5, 5), int))
    label = label[: size[0], : size[1]]
    label[generator.random(size) < ignored] = IGNORE
    y, x = np.mgrid[: size[0], : size[1]] + generator.integers(-1, 2, (2, *size))
    ids = 7 * (np.clip(y, 0, None) // 5 * 4 + np.clip(x, 0, None) // 5)
    return image, label, np.minimum(ids, 7 * superpixels)


def regions_of(ids):
    return {
        value: {tuple(p) for p in np.argwhere(ids == value)} for value in np.unique(ids).tolist()
    }


def boundary_pixels(ids, counted):
    """Pixels with a side to a counted pixel of another id."""
    found = set()
    for y, x in np.ndindex(*ids.shape):
        for i, j in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= i < ids.shape[0] and 0 <= j < ids.shape[1]
            if inside and counted[y, x] and counted[i, j] and ids[i, j] != ids[y, x]:
                found.add((y, x))
    return found


def share_near(these, those, reach):
    near = [
        p for p in these if any(max(abs(p[0] - q[0]), abs(p[1] - q[1])) <= reach for q in those)
    ]
    return len(near) / len(these) if these else None


def slow_measures(image, label, ids, tolerance):
    counted = label != IGNORE
    superpixels = regions_of(ids)
    truth = {k: pixels for k, pixels in regions_of(label).items() if k != IGNORE}
    kept = {p for pixels in truth.values() for p in pixels}
    best = leaks = 0
    for pixels in superpixels.values():
        inside = pixels & kept
        overlaps = [len(inside & region) for region in truth.values()]
        best += max(overlaps)
        leaks += sum(min(n, len(inside) - n) for n in overlaps if n)
    values = image.astype(float)
    mean = values.mean((0, 1))
    between = within = shape = 0.0
    for pixels in superpixels.values():
        members = np.array([values[p] for p in pixels])
        between += len(members) * ((members.mean(0) - mean) ** 2).sum()
        perimeter = 0
        for y, x in pixels:
            beside = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            perimeter += sum(p not in pixels for p in beside)
        shape += len(pixels) * 4 * math.pi * len(pixels) / perimeter**2
    within = ((values - mean) ** 2).sum()
    of_truth = boundary_pixels(label, counted)
    of_superpixels = boundary_pixels(ids, np.ones_like(counted))
    reach = round(tolerance * math.hypot(*label.shape))
    return {
        "superpixels": len(superpixels),
        "components": measure.label(ids, connectivity=1, background=-1).max(),
        "achievable_accuracy": best / len(kept),
        "undersegmentation_error": leaks / len(kept),
        "boundary_recall": share_near(of_truth, of_superpixels, reach),
        "boundary_precision": share_near(of_superpixels & kept, of_truth, reach),
        "explained_variation": between / within,
        "compactness": shape / label.size,
    }


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tolerance", [0.0025, 0.05, 0.1])
def test_measures_equal_their_definitions(seed, tolerance):
    image, label, ids = random_case(seed)
    truth = SuperpixelTruth(image, label, NUM_CLASSES, IGNORE, tolerance)
    expected = slow_measures(image, label, ids, tolerance)
    found, _ = truth.measure(ids)
    assert tuple(found) == superpixel_metrics.MEASURES
    for name, value in expected.items():
        # Counts and ratios of counts exactly; sums of reals up to their rounding.
        exact = name not in ("explained_variation", "compactness")
        assert found[name] == (value if exact else pytest.approx(value, rel=1e-12)), name


def test_components_are_measured_as_superpixels_of_their_own():
    image, label, ids = random_case(3)
    truth = SuperpixelTruth(image, label, NUM_CLASSES, IGNORE)
    whole, parts = truth.measure_with_components(ids)
    assert whole[0] == truth.measure(ids)[0]
    expected = truth.measure(measure.label(ids, connectivity=1, background=-1))
    assert parts[0] == expected[0] and parts[0]["superpixels"] == whole[0]["components"]
    np.testing.assert_array_equal(parts[1], expected[1])
    assert parts[0]["achievable_accuracy"] >= whole[0]["achievable_accuracy"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("many", [False, True])
def test_achievable_confusion_is_that_of_the_best_labelling(seed, many):
    image, label, ids = random_case(seed)
    if many:
        # More superpixels and classes than a full table is made for.
        ids = np.arange(label.size).reshape(label.shape) // 2
    truth = SuperpixelTruth(image, label, NUM_CLASSES, IGNORE)
    values, confusion = truth.measure(ids)
    expected = np.zeros((NUM_CLASSES, NUM_CLASSES), int)
    for value in np.unique(ids):
        inside = label[(ids == value) & (label != IGNORE)]
        if inside.size:
            counts = np.bincount(inside, minlength=NUM_CLASSES)
            expected[:, counts.argmax()] += counts
    np.testing.assert_array_equal(confusion, expected)
    assert values["achievable_accuracy"] == np.trace(expected) / expected.sum()


def test_a_grid_of_squares_and_superpixels_that_are_the_truth():
    label = np.kron(np.array([[0, 1], [2, 3]]), np.ones((8, 8), int))
    image = np.repeat((label * 60).astype(np.uint8)[..., None], 3, -1)
    values, _ = SuperpixelTruth(image, label, NUM_CLASSES, IGNORE).measure(label)
    assert values.pop("superpixels") == values.pop("components") == 4
    assert values.pop("undersegmentation_error") == 0
    assert values.pop("compactness") == pytest.approx(math.pi / 4)
    assert values == dict.fromkeys(values, 1)


def test_what_is_zero_by_zero_is_none_and_image_measures_do_not_ask_for_the_truth():
    ids = np.arange(16).reshape(4, 4) // 8
    image = np.full((4, 4, 3), 9, np.uint8)
    nothing = np.full((4, 4), IGNORE)
    values, confusion = SuperpixelTruth(image, nothing, 2, IGNORE).measure(ids)
    for name in ("achievable_accuracy", "undersegmentation_error", "boundary_recall"):
        assert values[name] is None
    assert values["boundary_precision"] is None and values["explained_variation"] is None
    assert values["superpixels"] == 2 and values["compactness"] > 0 and confusion.sum() == 0


@pytest.mark.slow
def test_all_measures_of_a_street_of_full_size_take_less_than_a_second():
    y, x = np.mgrid[:1024, :2048] + np.random.default_rng(0).integers(-9, 9, (2, 1024, 2048))
    ids = np.clip(y // 32, 0, 31) * 64 + np.clip(x // 32, 0, 63)
    label = np.kron(np.random.default_rng(1).integers(0, 4, (16, 32)), np.ones((64, 64), int))
    image = np.random.default_rng(2).integers(0, 256, (1024, 2048, 3), np.uint8)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        SuperpixelTruth(image, label, NUM_CLASSES, IGNORE).measure(ids)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (np.zeros((3, 4), int), "[3, 4]"),
        (np.zeros((4, 4)), "float64"),
        (np.full((4, 4), -2), "-2"),
    ],
)
def test_faulty_ids_are_named(ids, words):
    image, label = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), int)
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        SuperpixelTruth(image, label, 2, IGNORE).measure(ids)
    with pytest.raises(ValueError, match="differ in size"):
        SuperpixelTruth(image, np.zeros((4, 5), int), 2, IGNORE)
