"""What is known of each superpixel of an image: class, confidence, centroid and number of pixels.

Letters as in superpixel_grid.py; Y, X the image; K classes; N = R*C superpixels.
"""

import itertools

import tensorflow as tf


def superpixel_table(superpixels, superpixel_logits, seen_size, stride) -> dict[str, tf.Tensor]:
    """Describes the superpixels of hard superpixel maps.

    Args:
      superpixels: int32 [B, Y, X], ids r*C + c of pixels: of the cell that the pixel lies in, or of one of the eight
        around it.
      superpixel_logits: float32 [B, R, C, K].
      seen_size: (height, width) to which the model resizes the images, ints or int32 scalars; None if it does not.
      stride: side of a superpixel's cell in pixels of that size.

    Returns:
      "superpixel_classes" int32 [B, N], the most probable class; "superpixel_confidence" float32 [B, N], its
      probability; "superpixel_centroids" float32 [B, N, 2], mean (y, x) in pixels of the pixels that belong to it, and
      the middle of its cell where none does; "superpixel_pixels" int32 [B, N], their number; "superpixel_grid" int32
      [2], (R, C).
    """
    shape = tf.shape(superpixel_logits)
    rows, columns = shape[1], shape[2]
    probabilities = tf.nn.softmax(superpixel_logits)
    pixels, centroids = _pixels_and_centroids(superpixels, (rows, columns), seen_size, stride)
    return {
        "superpixel_classes": _by_superpixel(tf.argmax(superpixel_logits, -1, tf.int32), shape),
        "superpixel_confidence": _by_superpixel(tf.reduce_max(probabilities, -1), shape),
        "superpixel_centroids": tf.reshape(centroids, [shape[0], rows * columns, 2]),
        "superpixel_pixels": _by_superpixel(pixels, shape),
        "superpixel_grid": tf.stack([rows, columns]),
    }


def _by_superpixel(x, shape):
    return tf.reshape(x, [shape[0], shape[1] * shape[2]])


def _pixels_and_centroids(superpixels, grid, seen_size, stride):
    """Number of pixels int32 [B, R, C] and mean position float32 [B, R, C, 2] of each superpixel.

    Sums by products with matrices that say which row, or column, lies in which cell. Not by adding to what an index
    names: onnxruntime's ScatterND does that in several threads at once and loses some, and LiteRT's is wrong in int8.
    """
    # 0, which converters do not know: they would take the matrices for weights, and quantise them.
    zero = tf.minimum(tf.reduce_min(superpixels), 0)
    size = tf.shape(superpixels)
    vertical, horizontal = (
        _Places(tf.range(size[axis + 1]) + zero, seen_size and seen_size[axis], stride, grid[axis])
        for axis in range(2)
    )
    # How far from the cell that the pixel lies in, along both axes.
    down = superpixels // grid[1] - vertical.cells[:, None]
    right = superpixels % grid[1] - horizontal.cells[None]
    count, offset_y, offset_x = 0, 0, 0
    for dy, dx in itertools.product((-1, 0, 1), repeat=2):
        members = tf.cast((down == dy) & (right == dx), tf.float32)
        # Sums of distances from the cell's middle stay small, where float32 would lose the digits of sums of positions.
        inside_y, distance_y = vertical.matrices(dy)
        inside_x, distance_x = horizontal.matrices(dx)
        of_rows = tf.matmul(members, inside_x, transpose_b=True)
        count += tf.matmul(inside_y, of_rows)
        offset_y += tf.matmul(distance_y, of_rows)
        offset_x += tf.matmul(inside_y, tf.matmul(members, distance_x, transpose_b=True))
    offsets = tf.stack([offset_y, offset_x], axis=-1) / tf.maximum(count, 1)[..., None]
    y, x = tf.meshgrid(vertical.middles, horizontal.middles, indexing="ij")
    return tf.cast(tf.round(count), tf.int32), offsets + tf.stack([y, x], axis=-1)


class _Places:
    """Where the pixels of one axis of the image lie among the cells.

    Args:
      pixels: int32 [Y], 0, 1, ...
      seen: number of pixels that the model sees in their place; None for the same.
      stride: side of a cell in pixels that the model sees.
      count: number of cells.

    Attributes:
      cells: int32 [Y], the cell of each pixel.
      middles: float32 [count], of the cells, in pixels of the image: the first pixel's is 0.
    """

    def __init__(self, pixels, seen, stride, count):
        self._pixels = pixels
        self._numbers = tf.range(count)
        side = tf.cast(stride, tf.float32)
        self.cells = pixels // stride
        if seen is not None:
            size = tf.shape(pixels)[0]
            # By the pixel that the middle of this one lies in, as maps are brought to the image's size.
            self.cells = (2 * pixels + 1) * seen // (2 * size) // stride
            side *= tf.cast(size, tf.float32) / tf.cast(seen, tf.float32)
        self.middles = (tf.cast(self._numbers, tf.float32) + 0.5) * side - 0.5

    def matrices(self, step):
        """For pixels that belong to the cell `step` further on than their own, float32 [count, size] each.

        1 where a pixel lies so, else 0; and there the distance from the middle of the cell that it belongs to.
        """
        inside = tf.cast(self.cells[None] + step == self._numbers[:, None], tf.float32)
        distance = tf.cast(self._pixels, tf.float32)[None] - self.middles[:, None]
        return inside, inside * distance
