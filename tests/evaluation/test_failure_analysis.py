"""IoU by distance and by size against loops over pixels."""

import numpy as np
import pytest
from skimage import measure

from sp_transformer.evaluation import failure_analysis
from sp_transformer.evaluation.metrics import ConfusionMatrix

IGNORE = 255
NAMES = ("a", "b", "c")


def random_pair(seed):
    generator = np.random.default_rng(seed)
    label = np.kron(generator.integers(0, 3, (4, 5)), np.ones((4, 4), int))
    label[generator.random(label.shape) < 0.1] = IGNORE
    prediction = np.where(generator.random(label.shape) < 0.6, label, 1)
    return label, np.where(prediction == IGNORE, 0, prediction)


def slow_distances(label):
    """To the nearest pixel with one of 8 neighbours of another class, where ignored pixels are none."""
    edges = []
    for y, x in np.ndindex(*label.shape):
        around = label[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        if label[y, x] != IGNORE and ((around != label[y, x]) & (around != IGNORE)).any():
            edges.append((y, x))
    distances = np.empty(label.shape, int)
    for y, x in np.ndindex(*label.shape):
        distances[y, x] = min(max(abs(y - i), abs(x - j)) for i, j in edges)
    return distances


def slow_sizes(label):
    parts = measure.label(label, connectivity=1, background=-1)
    return np.vectorize(lambda part: (parts == part).sum())(parts)


@pytest.mark.parametrize(
    ("key", "values_of", "bounds"),
    [
        ("by_distance", slow_distances, (0, 1, 3)),
        ("by_object_size", slow_sizes, (1, 15, 16)),
    ],
)
def test_bins_equal_loops_and_add_up_to_the_whole(key, values_of, bounds):
    pairs = [random_pair(seed) for seed in range(3)]
    analysis = failure_analysis.FailureAnalysis(3, IGNORE, (0, 1, 3), (1, 15, 16))
    whole = ConfusionMatrix(3, IGNORE)
    inside = [ConfusionMatrix(3, IGNORE) for _ in range(4)]
    for label, prediction in pairs:
        analysis.update(label, prediction)
        whole.update(label, prediction)
        values = values_of(label)
        for position in np.ndindex(*label.shape):
            index = sum(values[position] > bound for bound in bounds)
            inside[index].update(label[position][None], prediction[position][None])
    found = analysis.results(NAMES)[key]
    for entry, matrix in zip(found, inside, strict=True):
        assert entry["pixels"] == matrix.num_pixels
        assert entry["miou"] == matrix.mean_iou()
        assert list(entry["per_class_iou"].values()) == matrix.per_class_iou()
        assert list(entry["per_class_accuracy"].values()) == matrix.per_class_accuracy()
    assert sum(entry["pixels"] for entry in found) == whole.num_pixels
    assert [entry["to"] for entry in found] == [*bounds, None]
    smallest = 0 if key == "by_distance" else 1
    assert [entry["from"] for entry in found] == [smallest, *(bound + 1 for bound in bounds)]


def test_errors_at_boundaries_and_in_small_objects_show_where_they_are():
    label = np.zeros((64, 64), int)
    label[:, 32:] = 1
    label[5:9, 5:9] = 2
    prediction = label.copy()
    # The large boundary one pixel off, and the small object missed.
    prediction[:, 32] = 0
    prediction[5:9, 5:9] = 0
    analysis = failure_analysis.FailureAnalysis(3, IGNORE)
    analysis.update(label, prediction)
    results = analysis.results(NAMES)
    near, *_, far = (entry for entry in results["by_distance"] if entry["pixels"])
    assert near["pixel_accuracy"] < 0.8 < 1 == far["pixel_accuracy"]
    small, *_, large = (entry for entry in results["by_object_size"] if entry["pixels"])
    assert small["per_class_accuracy"]["c"] == 0 and small["pixels"] == 16
    assert large["pixel_accuracy"] > 0.95
    text = failure_analysis.format_results(results)
    assert "distance to a boundary" in text and "0 to 1 px" in text and "1 to 64 px" in text


def test_a_map_without_a_boundary_is_far_from_one():
    label = np.ones((4, 4), int)
    label[1, 1] = IGNORE
    # Bounds that no image reaches cost no memory either.
    for bounds in ((0, 5), (0, 2**31 - 1)):
        analysis = failure_analysis.FailureAnalysis(2, IGNORE, bounds, bounds[1:])
        analysis.update(label, label)
        results = analysis.results(("a", "b"))
        assert [entry["pixels"] for entry in results["by_distance"]] == [0, 0, 15]
    assert [entry["pixels"] for entry in results["by_object_size"]] == [15, 0]
