"""The paper's local attention as it is commonly written, to compare with: pad, nine shifted slices, stack.

Shares no code with model/local_attention.py, so that it also serves as a second opinion in tests. Automatic
differentiation is left alone.

Shapes: B batch; H, W pixel grid; R, C superpixel grid; h, w pixels of a cell, (H, W) = (R*h, C*w); N heads; D channels
of a head. All sizes are static, but for B.
"""

import numpy as np
import tensorflow as tf

_MASKED = -1e9


def slices_superpixel_attention(queries, keys, values):
    """Each superpixel attends to the pixels of the 3x3 cells around it (Eq. 3).

    Every pixel's key and value is copied nine times.

    Args:
      queries: [B, R, C, N, D], of the superpixels.
      keys: [B, H, W, N, D], of the pixels.
      values: [B, H, W, N, D], of the pixels.

    Returns:
      [B, R, C, N, D]. Products are scaled by D**-0.5; cells outside the image have weight zero.
    """
    rows, columns, heads, size = queries.shape[1:]
    pixels = keys.shape[1] * keys.shape[2] // (rows * columns)
    shape = [-1, rows * columns, 9 * pixels, heads, size]
    keys, values = (
        tf.reshape(_nine_slices(_by_cell(x, rows, columns), rows, columns), shape)
        for x in (keys, values)
    )
    queries = tf.reshape(queries, [-1, rows * columns, heads, size]) * size**-0.5
    logits = tf.cast(tf.einsum("blnd,blsnd->blns", queries, keys), tf.float32)
    logits += np.repeat(_outside(rows, columns), pixels, axis=1)[:, None, :]
    weights = tf.cast(tf.nn.softmax(logits), values.dtype)
    attended = tf.einsum("blns,blsnd->blnd", weights, values)
    return tf.reshape(attended, [-1, rows, columns, heads, size])


def slices_pixel_attention(queries, keys, values):
    """Each pixel attends to the 9 superpixels around its cell (Eq. 4).

    Every superpixel's key and value is copied nine times.

    Args:
      queries: [B, H, W, N, D], of the pixels.
      keys: [B, R, C, N, D], of the superpixels.
      values: [B, R, C, N, D], of the superpixels.

    Returns:
      [B, H, W, N, D]. Products are scaled by D**-0.5; superpixels outside the image have weight zero.
    """
    rows, columns, heads, size = keys.shape[1:]
    height, width = queries.shape[1:3]
    flat = [-1, rows, columns, heads * size]
    shape = [-1, rows * columns, 9, heads, size]
    keys, values = (
        tf.reshape(_nine_slices(tf.reshape(x, flat), rows, columns), shape) for x in (keys, values)
    )
    pixels = height * width // (rows * columns)
    queries = tf.reshape(
        _by_cell(queries * size**-0.5, rows, columns), [-1, rows * columns, pixels, heads, size]
    )
    logits = tf.cast(tf.einsum("blpnd,blknd->blnpk", queries, keys), tf.float32)
    logits += _outside(rows, columns)[:, None, None, :]
    weights = tf.cast(tf.nn.softmax(logits), values.dtype)
    attended = tf.einsum("blnpk,blknd->blpnd", weights, values)
    cell_height, cell_width = height // rows, width // columns
    attended = tf.reshape(attended, [-1, columns, cell_height, cell_width * heads * size])
    attended = tf.transpose(attended, (0, 2, 1, 3))
    return tf.reshape(attended, [-1, height, width, heads, size])


def _by_cell(pixels, rows, columns):
    """[B, H, W, N, D] -> [B, R, C, h*w*N*D]."""
    height, width, heads, size = pixels.shape[1:]
    cell_height, cell_width = height // rows, width // columns
    # Rank 4, as rank 7 would be transposed slowly.
    pixels = tf.reshape(pixels, [-1, cell_height, columns, cell_width * heads * size])
    pixels = tf.transpose(pixels, (0, 2, 1, 3))
    return tf.reshape(pixels, [-1, rows, columns, cell_height * cell_width * heads * size])


def _nine_slices(cells, rows, columns):
    """[B, R, C, E] -> [B, R, C, 9, E]: each cell's neighbours in row-major order, zero outside the image."""
    padded = tf.pad(cells, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return tf.stack(
        [padded[:, y : y + rows, x : x + columns] for y in range(3) for x in range(3)], axis=3
    )


def _outside(rows, columns):
    """float32 [R*C, 9]: an additive mask of the neighbours outside the image."""
    padded = np.pad(np.zeros([rows, columns], np.float32), 1, constant_values=_MASKED)
    masks = [padded[y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
    return np.stack(masks, axis=-1).reshape(rows * columns, 9)
