"""Local cross-attention between pixels and the superpixels around them (paper, Eqs. 3 and 4).

Letters as in superpixel_grid.py; N heads, D channels per head; M = B*N, heads folded into the batch ("head-major"); J
heads that share the pixels' channels.

Two implementations of the same function:

"gather" is the paper's: each superpixel gets a copy of the keys and values of all 9*h*w pixels it may see.
"fold" copies nothing of the pixels' size: the pixels of a tile meet the window of superpixels around it in one matrix
product, and what a superpixel collects in the windows it appears in is summed up by `Neighborhood.fold`.
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
        _superpixels_to_heads(queries * queries.shape[-1] ** -0.5),
        _pixels_to_heads(keys, grid),
        _pixels_to_heads(values, grid),
        grid,
        implementation,
    )
    return _superpixels_from_heads(attended, ops.shape(queries))


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
        _pixels_to_heads(queries, grid),
        _superpixels_to_heads(keys * keys.shape[-1] ** -0.5),
        _superpixels_to_heads(values),
        grid,
    )
    return _pixels_from_heads(attended, grid, queries)


def attend_to_pixels(queries, keys, values, grid, implementation):
    """Eq. 3 in the layout that the model keeps: by tile, head-major. Products are not scaled.

    Args:
      queries: [M, R*C, J*D], J queries of each superpixel, to the same keys and values.
      keys: [M, G, P, D].
      values: [M, G, P, D'].
      grid: the SuperpixelGrid, with the tile size TILE[implementation].
      implementation: "fold" or "gather".

    Returns:
      [M, R*C, J*D'].

    Raises:
      ValueError: if the implementation is unknown.
    """
    check_implementation(implementation)
    core = _attend_to_pixels_fold if implementation == "fold" else _attend_to_pixels_gather
    return core(queries, keys, values, grid)


def attend_to_superpixels(queries, keys, values, grid, key_bias=None):
    """Eq. 4 in the layout that the model keeps: by tile, head-major. Products are not scaled.

    Both implementations share it; they differ by the grid's tile.

    Args:
      queries: [M, G, P, D].
      keys: [M, R*C, J*D], J keys of each superpixel, for the same queries.
      values: [M, R*C, J*D'].
      grid: the SuperpixelGrid.
      key_bias: [M, R*C, J], added to a superpixel's products; or None.

    Returns:
      [M, G, P, D'], summed over the J heads.
    """
    heads = keys.shape[-1] // queries.shape[-1]
    windows = grid.windows
    logits = _products(queries, windows.gather(keys, heads))
    bias = ops.convert_to_tensor(grid.slot_mask(heads))
    if key_bias is not None:
        slots = windows.gather(ops.cast(key_bias, "float32"), heads)
        bias = bias + ops.squeeze(slots, -1)
    logits += ops.expand_dims(bias, -2)
    if grid.tile > 1:
        logits += grid.neighbor_mask(heads)
    batch, pixels, slots = ops.shape(queries)[0], grid.pixels_per_tile, windows.slots
    if heads > 1:
        logits = ops.reshape(logits, [batch, grid.tiles, pixels * heads, slots])
    weights = ops.cast(ops.softmax(logits, axis=-1), values.dtype)
    if heads > 1:
        weights = ops.reshape(weights, [batch, grid.tiles, pixels, heads * slots])
    return ops.matmul(weights, windows.gather(values, heads))


def _attend_to_pixels_fold(queries, keys, values, grid):
    heads, windows = queries.shape[-1] // keys.shape[-1], grid.windows
    logits = _products(keys, windows.gather(queries, heads)) + grid.neighbor_mask(heads)
    padding = grid.padding_mask()
    if padding is not None:
        logits += ops.expand_dims(ops.convert_to_tensor(padding), -1)
    # The largest logit of a superpixel over all its windows keeps every exponential at or below 1.
    largest = windows.fold_max(ops.expand_dims(ops.max(logits, axis=2), -1), heads)
    largest = ops.swapaxes(windows.gather(largest, heads), 2, 3)
    weights = ops.exp(logits - ops.stop_gradient(largest))
    total = windows.fold(ops.expand_dims(ops.sum(weights, axis=2), -1), heads)
    # Divided in front of the product: in bfloat16 that rounds what `gather` rounds, and nothing else. Slots outside the
    # grid get a weight of zero.
    weights *= ops.swapaxes(windows.gather(1.0 / total, heads), 2, 3)
    weights = ops.cast(weights, values.dtype)
    return windows.fold(ops.matmul(ops.swapaxes(weights, 2, 3), values), heads)


def _attend_to_pixels_gather(queries, keys, values, grid):
    batch, heads = ops.shape(queries)[0], queries.shape[-1] // keys.shape[-1]
    size = grid.pixels_per_tile

    def duplicate(pixels):
        """[M, R*C, P, D] -> [M, R*C, 9*P, D]: every pixel once for each of its superpixels."""
        channels = pixels.shape[-1]
        cells = ops.reshape(pixels, [batch, grid.cells, size * channels])
        copies = grid.windows.gather(cells)
        return ops.reshape(copies, [batch, grid.cells, 9 * size, channels])

    queries = ops.reshape(queries, [batch, grid.cells, heads, keys.shape[-1]])
    logits = _products(queries, duplicate(keys))
    outside = ops.repeat(ops.convert_to_tensor(grid.slot_mask()), size, axis=1)
    logits += ops.expand_dims(outside, 1)
    weights = ops.cast(ops.softmax(logits, axis=-1), values.dtype)
    attended = ops.matmul(weights, duplicate(values))
    return ops.reshape(attended, [batch, grid.cells, heads * values.shape[-1]])


def _products(rows, columns):
    """[M, G, P, D] and [M, G, S, D] -> float32 [M, G, P, S]."""
    return ops.cast(ops.matmul(rows, ops.swapaxes(columns, 2, 3)), "float32")


def split_heads(x, heads):
    """[B, G, P, N*D] -> head-major [B*N, G, P, D]."""
    batch, tiles, pixels, channels = ops.shape(x)
    size = channels // heads
    x = ops.transpose(ops.reshape(x, [batch, tiles * pixels, heads, size]), (0, 2, 1, 3))
    return ops.reshape(x, [batch * heads, tiles, pixels, size])


def join_heads(x, heads):
    """Head-major [B*N, G, P, D] -> [B, G, P, N*D]."""
    batch, tiles, pixels, size = ops.shape(x)
    batch = batch // heads
    x = ops.transpose(ops.reshape(x, [batch, heads, tiles * pixels, size]), (0, 2, 1, 3))
    return ops.reshape(x, [batch, tiles, pixels, heads * size])


def _pixels_to_heads(x, grid):
    """[B, H, W, N, D] -> [B*N, G, P, D]."""
    batch, height, width, heads, size = ops.shape(x)
    x = grid.regroup(ops.reshape(x, [batch, height, width, heads * size]))
    return split_heads(x, heads)


def _pixels_from_heads(x, grid, like):
    return ops.reshape(grid.ungroup(join_heads(x, like.shape[3])), ops.shape(like))


def _superpixels_to_heads(x):
    """[B, R, C, N, D] -> [B*N, R*C, D]."""
    batch, rows, columns, heads, size = ops.shape(x)
    x = ops.transpose(ops.reshape(x, [batch, rows * columns, heads, size]), (0, 2, 1, 3))
    return ops.reshape(x, [batch * heads, rows * columns, size])


def _superpixels_from_heads(x, shape):
    batch, rows, columns, heads, size = shape
    x = ops.transpose(ops.reshape(x, [batch, heads, rows * columns, size]), (0, 2, 1, 3))
    return ops.reshape(x, shape)


def _grid(superpixels, pixels, implementation, superpixels_name, pixels_name):
    check_implementation(implementation)
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


def check_implementation(name):
    """Raises ValueError unless `name` is one of IMPLEMENTATIONS."""
    if name not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation must be one of {', '.join(IMPLEMENTATIONS)}; got {name!r}"
        )


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
    "check_implementation",
    "join_heads",
    "pixel_attention",
    "split_heads",
    "superpixel_attention",
]
