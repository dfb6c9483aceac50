"""Local cross-attention between pixels and the superpixels around them (paper, Eqs. 3 and 4).

Letters as in superpixel_grid.py, and N heads, D channels per head. Two implementations of the same function:

"gather" is the paper's: each superpixel gets a copy of the keys and values of all 9*h*w pixels it may see.
"fold" copies nothing of the pixels' size: the pixels of a tile meet the window of superpixels around it in one matrix
product, and what a superpixel collects in the windows it appears in is summed up by `SuperpixelGrid.fold`.
"""

from keras import ops

from sp_transformer.model.superpixel_grid import MASKED, SuperpixelGrid

IMPLEMENTATIONS = ("fold", "gather")
# Side in cells of the tiles that each implementation works on.
TILE = {"fold": 2, "gather": 1}


def superpixel_attention(queries, keys, values, implementation="fold"):
    """Each superpixel attends to the pixels of the 3x3 cells around it (Eq. 3).

    Args:
      queries: [B, R, C, N, D], of the superpixels.
      keys: [B, H, W, N, D], of the pixels; H and W are multiples of R and C.
      values: [B, H, W, N, D], of the pixels.
      implementation: "fold" or "gather".

    Returns:
      [B, R, C, N, D]. Products are scaled by D**-0.5; cells outside the image have weight zero.

    Raises:
      ValueError: if shapes do not fit each other or the implementation is unknown.
    """
    grid = _grid(queries, keys, implementation, "queries", "keys")
    _check_same("keys", keys, "values", values)
    attended = attend_to_pixels(
        _flatten_superpixels(queries),
        grid.regroup(_merge_heads(keys)),
        grid.regroup(_merge_heads(values)),
        grid,
        queries.shape[3],
        implementation,
    )
    return ops.reshape(attended, ops.shape(queries))


def pixel_attention(queries, keys, values, implementation="fold"):
    """Each pixel attends to the 9 superpixels around its cell (Eq. 4).

    Args:
      queries: [B, H, W, N, D], of the pixels; H and W are multiples of R and C.
      keys: [B, R, C, N, D], of the superpixels.
      values: [B, R, C, N, D], of the superpixels.
      implementation: "fold" or "gather".

    Returns:
      [B, H, W, N, D]. Products are scaled by D**-0.5; superpixels outside the image have weight zero.

    Raises:
      ValueError: if shapes do not fit each other or the implementation is unknown.
    """
    grid = _grid(keys, queries, implementation, "keys", "queries")
    _check_same("keys", keys, "values", values)
    attended = attend_to_superpixels(
        grid.regroup(_merge_heads(queries)),
        _flatten_superpixels(keys),
        _flatten_superpixels(values),
        grid,
        queries.shape[3],
    )
    return ops.reshape(grid.ungroup(attended), ops.shape(queries))


def attend_to_pixels(queries, keys, values, grid, heads, implementation):
    """Eq. 3 in the grid's own layout.

    Args:
      queries: [B, R*C, N*D].
      keys: [B, G, P, N*D].
      values: [B, G, P, N*D].
      grid: the SuperpixelGrid, with the tile size TILE[implementation].
      heads: N.
      implementation: "fold" or "gather".

    Returns:
      [B, R*C, N*D].
    """
    core = _attend_to_pixels_fold if implementation == "fold" else _attend_to_pixels_gather
    return core(_scale(queries, heads), keys, values, grid, heads)


def attend_to_superpixels(queries, keys, values, grid, heads):
    """Eq. 4 in the grid's own layout; both implementations differ by the grid's tile only.

    Args:
      queries: [B, G, P, N*D].
      keys: [B, R*C, N*D].
      values: [B, R*C, N*D].
      grid: the SuperpixelGrid.
      heads: N.

    Returns:
      [B, G, P, N*D].
    """
    windows = _split_heads(grid.gather(ops.concatenate([keys, values], axis=-1)), 2 * heads)
    keys, values = windows[:, :, :heads], windows[:, :, heads:]
    logits = _products(_split_heads(_scale(queries, heads), heads), keys)
    if grid.tile > 1:
        logits += grid.neighbor_mask()
    logits += ops.expand_dims(ops.convert_to_tensor(grid.slot_mask()), (1, 2))
    weights = ops.cast(ops.softmax(logits, axis=-1), values.dtype)
    return _join_heads(ops.matmul(weights, values))


def _attend_to_pixels_fold(queries, keys, values, grid, heads):
    windows = _split_heads(grid.gather(queries), heads)
    logits = _products(_split_heads(keys, heads), windows) + grid.neighbor_mask()
    padding = grid.padding_mask()
    if padding is not None:
        logits += ops.convert_to_tensor(padding)[:, None, :, None]
    # The largest logit of a superpixel over all its windows keeps every exponential at or below 1.
    largest = grid.fold_max(ops.transpose(ops.max(logits, axis=3), (0, 1, 3, 2)))
    largest = ops.transpose(grid.gather(largest), (0, 1, 3, 2))
    weights = ops.exp(logits - ops.expand_dims(ops.stop_gradient(largest), 3))
    # Rounded once, so that numerator and denominator see the same weights in bfloat16.
    weights = ops.cast(weights, values.dtype)
    total = grid.fold(ops.transpose(ops.sum(ops.cast(weights, "float32"), axis=3), (0, 1, 3, 2)))
    weighted = ops.matmul(ops.swapaxes(weights, 3, 4), _split_heads(values, heads))
    attended = ops.cast(grid.fold(_join_heads(weighted)), "float32")
    batch, channels = ops.shape(attended)[0], attended.shape[-1]
    attended = ops.reshape(attended, [batch, grid.cells, heads, channels // heads])
    attended = attended / ops.expand_dims(total, -1)
    return ops.cast(ops.reshape(attended, [batch, grid.cells, channels]), values.dtype)


def _attend_to_pixels_gather(queries, keys, values, grid, heads):
    batch, channels = ops.shape(queries)[0], queries.shape[-1]
    size = grid.pixels_per_tile

    def duplicate(pixels):
        """[B, G, P, N*D] -> [B, G, N, 9*P, D]: every pixel once for each of its superpixels."""
        cells = ops.reshape(pixels, [batch, grid.cells, size * channels])
        copies = ops.reshape(grid.gather(cells), [batch, grid.cells, 9 * size, channels])
        return _split_heads(copies, heads)

    queries = _split_heads(ops.expand_dims(queries, 2), heads)
    logits = _products(queries, duplicate(keys))
    outside = ops.repeat(ops.convert_to_tensor(grid.slot_mask()), size, axis=1)
    logits += ops.expand_dims(outside, (1, 2))
    weights = ops.cast(ops.softmax(logits, axis=-1), values.dtype)
    attended = ops.matmul(weights, duplicate(values))
    return ops.reshape(attended, [batch, grid.cells, channels])


def _products(queries, keys):
    """[B, G, N, P, D] and [B, G, N, S, D] -> float32 [B, G, N, P, S]."""
    return ops.cast(ops.matmul(queries, ops.swapaxes(keys, 3, 4)), "float32")


def _scale(queries, heads):
    return queries * (queries.shape[-1] // heads) ** -0.5


def _split_heads(x, heads):
    """[B, G, P, N*D] -> [B, G, N, P, D]."""
    shape = ops.shape(x)
    x = ops.reshape(x, [*shape[:3], heads, x.shape[-1] // heads])
    return ops.transpose(x, (0, 1, 3, 2, 4))


def _join_heads(x):
    """[B, G, N, P, D] -> [B, G, P, N*D]."""
    x = ops.transpose(x, (0, 1, 3, 2, 4))
    return ops.reshape(x, [*ops.shape(x)[:3], x.shape[3] * x.shape[4]])


def _merge_heads(x):
    shape = ops.shape(x)
    return ops.reshape(x, [*shape[:3], x.shape[3] * x.shape[4]])


def _flatten_superpixels(x):
    shape = ops.shape(x)
    return ops.reshape(x, [shape[0], shape[1] * shape[2], x.shape[3] * x.shape[4]])


def _grid(superpixels, pixels, implementation, superpixels_name, pixels_name):
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation must be one of {', '.join(IMPLEMENTATIONS)}; got {implementation!r}"
        )
    if len(superpixels.shape) != 5 or len(pixels.shape) != 5:
        raise ValueError(
            f"{superpixels_name} must be [B, R, C, N, D] and {pixels_name} [B, H, W, N, D]; "
            f"got shapes {tuple(superpixels.shape)} and {tuple(pixels.shape)}"
        )
    if superpixels.shape[3:] != pixels.shape[3:]:
        raise ValueError(
            f"{superpixels_name} and {pixels_name} must agree in heads and channels; "
            f"got shapes {tuple(superpixels.shape)} and {tuple(pixels.shape)}"
        )
    cell_height, cell_width = cell_size(pixels.shape[1:3], superpixels.shape[1:3])
    rows, columns = ops.shape(superpixels)[1:3]
    return SuperpixelGrid(rows, columns, cell_height, cell_width, TILE[implementation])


def cell_size(pixel_grid, superpixel_grid):
    """Pixels of one cell along each axis, from two static sizes (H, W) and (R, C).

    Raises:
      ValueError: if a size is unknown or the pixels do not fill whole cells.
    """
    if None in (*pixel_grid, *superpixel_grid):
        raise ValueError(
            f"the cell size follows from static shapes; got pixels {tuple(pixel_grid)} and "
            f"superpixels {tuple(superpixel_grid)}"
        )
    if any(p % s for p, s in zip(pixel_grid, superpixel_grid, strict=True)):
        raise ValueError(
            f"a pixel grid of {'x'.join(map(str, pixel_grid))} does not divide into "
            f"{'x'.join(map(str, superpixel_grid))} superpixels of equal size; "
            "pad or resize the features to a multiple"
        )
    return tuple(p // s for p, s in zip(pixel_grid, superpixel_grid, strict=True))


def _check_same(name, x, other_name, other):
    if tuple(x.shape) != tuple(other.shape):
        raise ValueError(
            f"{name} and {other_name} must have the same shape; "
            f"got {tuple(x.shape)} and {tuple(other.shape)}"
        )


__all__ = [
    "IMPLEMENTATIONS",
    "MASKED",
    "attend_to_pixels",
    "attend_to_superpixels",
    "cell_size",
    "pixel_attention",
    "superpixel_attention",
]
