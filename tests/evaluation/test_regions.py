"""Consecutive ids and connected parts against scikit-image and a flood fill."""

import numpy as np
import pytest
from skimage import measure

from sp_transformer.evaluation import regions


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("ids", [2, 5])
def test_connected_components_equal_scikit_image(seed, ids):
    generator = np.random.default_rng(seed)
    size = generator.integers(1, 20, 2)
    image = generator.integers(0, ids, size).astype(generator.choice([np.uint8, np.int32]))
    parts, count = regions.connected_components(image)
    expected = measure.label(image, connectivity=1, background=-1)
    assert count == expected.max()
    # One number here for one there.
    assert len(set(zip(parts.ravel().tolist(), expected.ravel().tolist(), strict=True))) == count
    assert sorted(set(parts.ravel().tolist())) == list(range(count))


def test_a_spiral_is_one_part_and_diagonals_do_not_connect():
    spiral = np.array([[1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]])
    assert regions.connected_components(spiral)[1] == 2
    assert regions.connected_components(np.eye(5, dtype=int))[1] == 7
    assert regions.connected_components(np.zeros((0, 4), int))[1] == 0


@pytest.mark.parametrize("ids", [[[5, 5], [2, 9]], [[10**9, 0], [3, 10**9]], [[0]]])
def test_consecutive_keeps_the_order(ids):
    numbers, count = regions.consecutive(np.array(ids))
    values = np.unique(ids)
    assert count == len(values)
    np.testing.assert_array_equal(values[numbers], ids)
