"""The training losses: cross-entropy over the hardest pixels of each image (paper, section IV-A), and of superpixels.

Shapes: B batch; Y,X image height and width; K classes.
"""

import tensorflow as tf


def top_k_cross_entropy(logits, labels, ignore_label, fraction, class_weights=()):
    """Mean cross-entropy of the pixels of each image that have the largest one.

    Of an image's Y*X pixels the k = round(fraction * Y * X) with the largest cross-entropy count;
    ignored pixels are counted in Y*X and have a cross-entropy of 0. The sum is divided by the
    number of non-zero values among the k, and is 0 where there are none (DeepLab2's
    rule).

    With class weights, w[label] times the cross-entropy stands for it in all of this: it decides
    which pixels are the hardest, and the sum is divided by their number, not by that of the weights
    (DeepLab2's weight map). A class of weight 0 is learned no more than an ignored pixel.

    Args:
      logits: [B,Y,X,K] of any float type; taken as float32. Y and X must be static. The order of an
        image's pixels plays no part: logits by cell, [B,R*C,v*u,K], do as well.
      labels: [B,Y,X] integer train ids, 0..K-1 or `ignore_label`, in the order of `logits`.
      ignore_label: train id of the pixels that do not count.
      fraction: share of an image's pixels that count, in (0, 1].
      class_weights: K factors by train id; none: all 1.

    Returns:
      [B] float32, one loss for each image.

    Raises:
      ValueError: for a fraction outside (0, 1] or an unknown image size.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"top_k_fraction {fraction} is outside (0, 1]; use 1 to count all pixels")
    height, width = logits.shape[1:3]
    if class_weights and len(class_weights) != logits.shape[-1]:
        raise ValueError(
            f"class_weights lists {len(class_weights)} weights for {logits.shape[-1]} classes; list one "
            "for each class, in the order of the train ids"
        )
    if height is None or width is None:
        raise ValueError(
            "the loss needs a static image size to choose k pixels of, but the logits are "
            f"{logits.shape}; give the data pipeline a fixed crop size"
        )
    pixels = height * width
    k = max(1, round(fraction * pixels))

    labels = tf.cast(labels, tf.int32)
    valid = tf.not_equal(labels, ignore_label)
    # An ignored id is no class: as an index it is an error on CPUs and NaN on GPUs.
    classes = tf.where(valid, labels, 0)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=classes, logits=tf.cast(logits, tf.float32)
    )
    if class_weights:
        cross_entropy *= tf.gather(tf.constant(list(class_weights), tf.float32), classes)
    cross_entropy = tf.where(valid, cross_entropy, 0.0)
    cross_entropy = tf.reshape(cross_entropy, [-1, pixels])
    if k < pixels:
        cross_entropy = tf.math.top_k(cross_entropy, k, sorted=False).values
    counted = tf.math.count_nonzero(cross_entropy, axis=1, dtype=tf.int32)
    return tf.math.divide_no_nan(tf.reduce_sum(cross_entropy, axis=1), tf.cast(counted, tf.float32))


def superpixel_cross_entropy(weights, neighbor_logits, labels, ignore_label, class_weights=()):
    """Mean over pixels of the cross-entropy of their label with the classes of their 9 superpixels, by association.

    The same as each superpixel's cross-entropy with the labels of its pixels. No gradient passes into the
    association: only classes are learned.

    Letters: M cells, P pixels of a cell.

    Args:
      weights: float32 [B,M,9,P], with which each pixel belongs to its 9 superpixels (the softmax of Eq. 6).
      neighbor_logits: [B,M,9,K], class logits of the 9 superpixels around each cell; taken as float32.
      labels: [B,M,P] integer train ids, 0..K-1 or `ignore_label`.
      ignore_label: train id of the pixels that do not count.
      class_weights: K factors by train id; none: all 1. As in `top_k_cross_entropy`, the sum is divided by the number
        of pixels, not by that of the weights.

    Returns:
      [B] float32, one loss for each image; 0 where no pixel counts.
    """
    classes = neighbor_logits.shape[-1]
    # An ignored id has no one in its row, whatever it is.
    labels = tf.where(labels == ignore_label, -1, tf.cast(labels, tf.int32))
    truth = tf.one_hot(labels, classes)
    if class_weights:
        truth *= tf.constant(list(class_weights), tf.float32)
    counted = tf.math.count_nonzero(tf.reduce_sum(truth, -1), axis=[1, 2], dtype=tf.int32)
    # Labels that each superpixel has in the cell: [B,M,9,K], so that no tensor of pixels meets the logits.
    share = tf.stop_gradient(tf.matmul(weights, truth))
    log_likelihood = tf.nn.log_softmax(tf.cast(neighbor_logits, tf.float32))
    total = -tf.reduce_sum(share * log_likelihood, axis=[1, 2, 3])
    return tf.math.divide_no_nan(total, tf.cast(counted, tf.float32))
