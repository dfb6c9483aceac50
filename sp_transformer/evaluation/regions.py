"""Regions of a map: ids made consecutive, and the connected parts of equal ids.

Shapes: Y, X are the height and width of one map in pixels.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

# A table of more entries than this many times the pixels costs more than sorting them.
_TABLE_PER_PIXEL = 4


def consecutive(ids: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers the ids that occur from 0 on, in their order.

    Args:
      ids: integer array that holds no negative id.

    Returns:
      int64 array of the same shape, and how many ids there are.
    """
    ids = np.asarray(ids)
    if ids.size == 0:
        return ids.astype(np.int64), 0
    if int(ids.max()) < _TABLE_PER_PIXEL * ids.size + 1024:
        occurs = np.bincount(ids.ravel()) > 0
        return (np.cumsum(occurs) - 1)[ids], int(occurs.sum())
    values, numbers = np.unique(ids, return_inverse=True)
    return numbers.reshape(ids.shape), len(values)


def connected_components(ids: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers the connected parts of equal ids; pixels are connected where they share a side.

    Each row is cut into runs of one id; runs that touch in neighbouring rows are joined as the
    components of a graph, which has far fewer nodes than there are pixels.

    Args:
      ids: integer [Y, X].

    Returns:
      int32 [Y, X] of numbers from 0 on, and how many parts there are.
    """
    ids = np.asarray(ids)
    if ids.size == 0:
        return np.zeros(ids.shape, np.int32), 0
    starts = np.ones(ids.shape, bool)
    starts[:, 1:] = ids[:, 1:] != ids[:, :-1]
    runs = (np.cumsum(starts.ravel(), dtype=np.int32) - 1).reshape(ids.shape)
    joined = ids[1:] == ids[:-1]
    # Two runs touch along a stretch of pixels, of which the first is enough.
    first = joined.copy()
    first[:, 1:] &= ~joined[:, :-1] | starts[1:, 1:] | starts[:-1, 1:]
    above, below = runs[:-1][first], runs[1:][first]
    count = int(runs[-1, -1]) + 1
    graph = sparse.coo_array((np.ones(len(above), bool), (above, below)), shape=(count, count))
    number, component = sparse.csgraph.connected_components(graph, directed=False)
    return component.astype(np.int32, copy=False)[runs], int(number)
