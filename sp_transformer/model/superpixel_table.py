"""What is known of each superpixel of an image: class, confidence, centroid and number of pixels.

Letters as in superpixel_grid.py; Y, X the image; K classes; N = R*C superpixels.
"""

import tensorflow as tf


def superpixel_table(superpixels, superpixel_logits, cell_size) -> dict[str, tf.Tensor]:
    """Describes the superpixels of hard superpixel maps.

    Args:
      superpixels: int32 [B, Y, X], ids r*C + c of pixels.
      superpixel_logits: float32 [B, R, C, K].
      cell_size: (height, width) in image pixels of a superpixel's cell; float tensors or numbers.

    Returns:
      "superpixel_classes" int32 [B, N], the most probable class; "superpixel_confidence" float32 [B, N], its
      probability; "superpixel_centroids" float32 [B, N, 2], mean (y, x) in pixels of the pixels that belong to it, and
      the middle of its cell where none does; "superpixel_pixels" int32 [B, N], their number; "superpixel_grid" int32
      [2], (R, C).
    """
    shape = tf.shape(superpixel_logits)
    batch, rows, columns = shape[0], shape[1], shape[2]
    probabilities = tf.nn.softmax(superpixel_logits)
    pixels, centroids = _pixels_and_centroids(superpixels, batch, rows, columns, cell_size)
    return {
        "superpixel_classes": _by_superpixel(tf.argmax(superpixel_logits, -1, tf.int32), shape),
        "superpixel_confidence": _by_superpixel(tf.reduce_max(probabilities, -1), shape),
        "superpixel_centroids": centroids,
        "superpixel_pixels": pixels,
        "superpixel_grid": tf.stack([rows, columns]),
    }


def _by_superpixel(x, shape):
    return tf.reshape(x, [shape[0], shape[1] * shape[2]])


def _pixels_and_centroids(superpixels, batch, rows, columns, cell_size):
    """Number of pixels [B, N] and mean position [B, N, 2] of each superpixel."""
    count = rows * columns
    height, width = tf.shape(superpixels)[1], tf.shape(superpixels)[2]
    size = tf.stack([tf.cast(side, tf.float32) for side in cell_size])

    def middles(ids):
        """(y, x) of the middle of each superpixel's cell, in pixels: the first pixel's is 0."""
        position = tf.stack([ids // columns, ids % columns], axis=-1)
        return (tf.cast(position, tf.float32) + 0.5) * size - 0.5

    y = tf.broadcast_to(tf.range(height)[:, None], [height, width])
    x = tf.broadcast_to(tf.range(width)[None], [height, width])
    position = tf.cast(tf.stack([y, x], axis=-1), tf.float32)
    # Sums of distances from the cell's middle stay small, where float32 would lose the digits of sums of positions.
    offsets = position - middles(superpixels)
    ones = tf.ones_like(offsets[..., :1])
    updates = tf.reshape(tf.concat([ones, offsets], axis=-1), [-1, 3])
    segments = tf.reshape(superpixels + tf.range(batch)[:, None, None] * count, [-1, 1])
    # Of the operations that add up by index this is the one that every converter translates.
    sums = tf.tensor_scatter_nd_add(tf.zeros([batch * count, 3]), segments, updates)
    sums = tf.reshape(sums, [batch, count, 3])
    mean = sums[..., 1:] / tf.maximum(sums[..., :1], 1)
    return tf.cast(sums[..., 0], tf.int32), mean + middles(tf.range(count))
