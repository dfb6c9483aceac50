"""Edges, distances and boundary IoU against their definitions, pixel by pixel."""

import numpy as np
import pytest
from scipy import ndimage

from sp_transformer.evaluation import boundaries

IGNORE = 255


def random_map(seed, size=(9, 13), ids=3, ignored=0.0):
    """Blobs of a few ids, with single pixels of others in them."""
    generator = np.random.default_rng(seed)
    blobs = np.kron(generator.integers(0, ids, (4, 4)), np.ones((3, 4), int))[: size[0], : size[1]]
    noise = generator.random(blobs.shape)
    blobs[noise < 0.05] = generator.integers(0, ids)
    blobs[noise > 1 - ignored] = IGNORE
    return blobs


def neighbors(position, shape, reach, include_diagonal=True):
    y, x = position
    for i in range(max(0, y - reach), min(shape[0], y + reach + 1)):
        for j in range(max(0, x - reach), min(shape[1], x + reach + 1)):
            if include_diagonal or i == y or j == x:
                yield i, j


@pytest.mark.parametrize("function", ["edges", "sides"])
@pytest.mark.parametrize("ignore_label", [None, IGNORE])
@pytest.mark.parametrize("size", [(9, 13), (1, 13), (9, 1), (1, 1)])
def test_edges_are_pixels_with_a_neighbor_of_another_id(function, ignore_label, size):
    ids = random_map(1, size, ignored=0.2)
    found = getattr(boundaries, function)(ids, ignore_label)
    for position in np.ndindex(*size):
        others = [ids[n] for n in neighbors(position, size, 1, function == "edges")]
        counted = [value for value in others if ignore_label is None or value != ignore_label]
        expected = any(value != ids[position] for value in counted)
        expected &= ignore_label is None or ids[position] != ignore_label
        assert found[position] == expected


def test_distance_counts_in_squares_and_is_far_without_a_mark():
    marked = np.zeros((5, 7), bool)
    assert (boundaries.distance_to(marked) == boundaries.FAR).all()
    marked[1, 2] = marked[4, 6] = True
    for y, x in np.ndindex(5, 7):
        expected = min(max(abs(y - i), abs(x - j)) for i, j in ((1, 2), (4, 6)))
        assert boundaries.distance_to(marked)[y, x] == expected


@pytest.mark.parametrize("seed", range(4))
def test_contour_distance_is_that_to_another_id_or_to_the_outside(seed):
    ids = random_map(seed, ignored=0.1)
    padded = np.pad(ids, 1, constant_values=-1)
    found = boundaries.contour_distance(ids)
    for y, x in np.ndindex(*ids.shape):
        others = np.argwhere(padded != ids[y, x]) - 1
        assert found[y, x] == np.abs(others - (y, x)).max(1).min()


def slow_boundary_iou(pairs, num_classes, ratio):
    """As the authors' code: d erosions of each class's mask by 3x3, the outside taken for 0."""
    hits, unions = np.zeros(num_classes, int), np.zeros(num_classes, int)
    for label, prediction in pairs:
        width = max(1, round(ratio * np.hypot(*label.shape)))
        for k in range(num_classes):
            margins = []
            for ids in (label, prediction):
                mask = ids == k
                inner = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width)
                margins.append(mask & ~inner & (label != IGNORE))
            hits[k] += (margins[0] & margins[1]).sum()
            unions[k] += (margins[0] | margins[1]).sum()
    return [h / u if u else None for h, u in zip(hits, unions, strict=True)]


@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.2])
def test_boundary_iou_equals_erosions_of_every_class(ratio):
    generator = np.random.default_rng(0)
    pairs = []
    for seed in range(6):
        label = random_map(seed, (11, 15), ids=4, ignored=0.1)
        prediction = np.where(generator.random(label.shape) < 0.7, label, 2)
        prediction[prediction == IGNORE] = 1
        pairs.append((label, prediction))
    scores = boundaries.BoundaryIou(5, IGNORE, ratio)
    for pair in pairs:
        scores.update(*pair)
    expected = slow_boundary_iou(pairs, 5, ratio)
    assert scores.per_class() == expected and expected[4] is None
    assert scores.mean() == np.mean(expected[:4])


def test_a_shifted_square_scores_worse_at_its_boundary_than_in_iou():
    label = np.zeros((100, 100), int)
    label[20:80, 20:80] = 1
    prediction = np.roll(label, 2, axis=1)
    scores = boundaries.BoundaryIou(2, IGNORE, 0.02)
    scores.update(label, prediction)
    iou = ((label == 1) & (prediction == 1)).sum() / ((label == 1) | (prediction == 1)).sum()
    assert iou > 0.9 > 0.8 > scores.per_class()[1]
    assert boundaries.boundary_width((1024, 2048), 0.02) == 46
    assert boundaries.boundary_width((4, 4), 0.02) == 1
