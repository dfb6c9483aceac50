import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model import flops, rematerialization


def _count(function, *shapes, **kwargs):
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    return flops.count_multiply_adds(flops.trace(function, *specs), **kwargs)


def _total(function, *shapes):
    return _count(function, *shapes).total


def test_products_count_their_multiply_adds():
    assert _total(tf.matmul, [3, 5], [5, 7]) == 3 * 5 * 7
    assert _total(lambda a, b: tf.matmul(a, b, transpose_a=True), [5, 3], [5, 7]) == 3 * 5 * 7
    assert _total(lambda a, b: tf.matmul(a, b, adjoint_a=True), [2, 5, 3], [2, 5, 7]) == 210
    assert _total(tf.matmul, [2, 4, 3, 5], [2, 4, 5, 7]) == 8 * 3 * 5 * 7
    assert _total(lambda a, b: tf.einsum("bij,bjk->bik", a, b), [2, 3, 5], [2, 5, 7]) == 210
    assert _total(lambda a, b: tf.einsum("...ij,jk->...ik", a, b), [2, 3, 5], [5, 7]) == 210


def test_convolutions_and_grouped_ones_apart():
    def convolve(x, kernel):
        return tf.nn.conv2d(x, kernel, 2, "SAME")

    assert _total(convolve, [1, 9, 8, 6], [3, 3, 6, 4]) == 5 * 4 * 4 * 9 * 6
    grouped = _count(convolve, [1, 8, 8, 6], [3, 3, 3, 4])
    assert (grouped.total, grouped.grouped) == (0, 4 * 4 * 4 * 9 * 3)

    def depthwise(x, kernel):
        return tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")

    count = _count(depthwise, [1, 8, 8, 6], [7, 7, 6, 1])
    assert (count.total, count.grouped) == (0, 64 * 6 * 49)


def test_elementwise_and_reductions_as_the_profiler_counts_them():
    size = 4 * 6
    assert _total(tf.nn.softmax, [4, 6]) == 5 * size // 2
    assert _total(lambda a, b: a * b + a, [4, 6], [4, 6]) == size
    assert _total(tf.math.squared_difference, [4, 6], [4, 6]) == size
    assert _total(tf.math.rsqrt, [4, 6]) == size
    assert _total(lambda a: tf.reduce_mean(a, 1), [4, 6]) == size // 2
    assert _total(lambda a: tf.reduce_sum(a, 1), [4, 6]) == (size - 4) // 2
    assert _total(lambda a: tf.nn.max_pool2d(a, 3, 2, "SAME"), [1, 8, 8, 2]) == 9 * 16 * 2 // 2


def test_resize_gather_and_erf_count_nothing():
    assert _total(lambda a: tf.image.resize(a, [16, 16]), [1, 8, 8, 2]) == 0
    assert _total(lambda a: tf.gather(a, [0, 2, 2]), [4, 6]) == 0
    assert _total(tf.math.erf, [4, 6]) == 0


def test_agrees_with_the_profiler_of_tensorflow():
    def network(x, kernel, dense):
        x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")) + 1.0
        return tf.nn.softmax(tf.matmul(tf.reduce_mean(x, [1, 2]), dense) * 2.0)

    specs = [tf.TensorSpec(s, tf.float32) for s in ([2, 9, 9, 3], [3, 3, 3, 8], [8, 5])]
    concrete = flops.trace(network, *specs)
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    profile = tf.compat.v1.profiler.profile(concrete.graph, options=options)
    assert flops.count_multiply_adds(concrete).total == profile.total_float_ops // 2


def test_counts_inside_nested_functions_for_the_callers_part():
    inner = tf.function(tf.matmul)

    @tf.custom_gradient
    def product(a, b):
        return inner(a, b), lambda upstream: (upstream, upstream)

    def outer(a, b):
        with tf.name_scope("first"):
            a = product(a, b)
        with tf.name_scope("second_1"):
            return inner(a, b)

    count = _count(outer, [3, 3], [3, 3], parts=("first", "second"))
    assert count.by_part == {"first": 27, "second": 27}


def test_groups_by_part_and_gives_the_rest_to_the_trailing_part():
    def function(a, b):
        a = tf.matmul(a, b)
        with tf.name_scope("outer/encoder"):
            a = tf.matmul(a, b)
        with tf.name_scope("encoder_extra"):
            a = tf.matmul(a, b)
        return tf.matmul(a, b)

    shapes = [[2, 2], [2, 2]]
    count = _count(function, *shapes, parts=("encoder", "tail"), trailing_part="tail")
    assert count.by_part == {"encoder": 8, "tail": 16, flops.UNSCOPED: 8}
    count = _count(function, *shapes, parts=("encoder",))
    assert count.by_part == {"encoder": 8, flops.UNSCOPED: 24}
    assert count.total == 32


def test_batch_norm_folded_but_not_layer_norm():
    layers = [
        keras.layers.Conv2D(4, 1, use_bias=False),
        keras.layers.BatchNormalization(name="bn"),
        keras.layers.BatchNormalization(name="bn_1"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    concrete = flops.trace(model, tf.TensorSpec([1, 8, 8, 3]))
    names = flops.batch_norm_names(model)
    assert names == {"bn", "bn_1"}
    assert flops.count_multiply_adds(concrete, folded=names).total == 64 * 3 * 4
    assert flops.count_multiply_adds(concrete).total > 64 * 3 * 4
    norm = keras.layers.LayerNormalization(name="layer_norm")
    assert _count(norm, [1, 8, 8, 3], folded={"bn"}).total > 64 * 3


def test_needs_static_shapes():
    with pytest.raises(ValueError, match="static shapes"):
        _count(lambda a: a * 2.0, [None, 3])


def test_kept_activations_of_a_small_network():
    weights = tf.Variable(np.ones((3, 5), np.float32))
    second = tf.Variable(np.ones((5, 2), np.float32))

    def network(x):
        hidden = tf.nn.relu(tf.matmul(x, weights))
        hidden = tf.reshape(hidden * 0.5, [4, 5])
        return tf.nn.softmax(tf.matmul(hidden, second) + 1.0)

    concrete = flops.trace(network, tf.TensorSpec([4, 3]))
    # The matmuls' inputs (3 and 5 channels), ReLU's and softmax's outputs (5 and 2); neither the
    # product with a constant nor the sum reads anything.
    assert flops.kept_activation_bytes(concrete) == 4 * 4 * (3 + 5 + 5 + 2)


def test_kept_activations_follow_precision_and_skip_what_has_no_gradient():
    kernel = tf.Variable(np.ones((3, 3, 2, 2), np.float32))

    def network(x):
        frozen = tf.nn.relu(x * x)
        low = tf.cast(frozen, tf.bfloat16)
        return tf.nn.conv2d(low, tf.cast(kernel, tf.bfloat16), 1, "SAME")

    concrete = flops.trace(network, tf.TensorSpec([1, 8, 8, 2]))
    assert flops.kept_activation_bytes(concrete) == 8 * 8 * 2 * 2


def test_nothing_is_kept_for_what_is_not_trained():
    frozen = tf.Variable(np.ones((3, 5), np.float32), trainable=False)
    trained = tf.Variable(np.ones((5, 2), np.float32))

    def network(x):
        return tf.matmul(tf.nn.relu(tf.matmul(x, frozen)), trained)

    concrete = flops.trace(network, tf.TensorSpec([4, 3]))
    assert flops.kept_activation_bytes(concrete) == 4 * 4 * 5
    # As by a layer that was frozen after it was built, or not at all.
    assert flops.kept_activation_bytes(concrete, []) == 0
    assert flops.kept_activation_bytes(concrete, [frozen, trained]) == 4 * 4 * (3 + 5)


def test_a_stopped_gradient_shares_memory_and_needs_nothing_kept():
    weights = [tf.Variable(np.ones((5, 5), np.float32)) for _ in range(3)]

    def network(x):
        hidden = tf.matmul(x, weights[0])
        stopped = tf.stop_gradient(hidden)
        # The gradient of neither the exponential nor the square is asked for.
        constant = tf.exp(stopped) + tf.square(stopped)
        # Nor is the factor beside a constant read.
        product = tf.matmul(hidden, weights[1]) * stopped
        return product + tf.matmul(stopped, weights[2]) + constant

    concrete = flops.trace(network, tf.TensorSpec([4, 5]))
    assert flops.kept_activation_bytes(concrete) == 4 * 4 * (5 + 5)


def test_of_rematerialized_layers_inputs_are_kept_and_one_is_computed_again_at_a_time():
    layers = [keras.layers.Dense(width, activation="relu") for width in (6, 20, 6)]
    narrower = keras.layers.Dense(2)
    for layer, width in zip([*layers, narrower], (6, 6, 20, 6), strict=True):
        layer.build((4, width))

    def network(x):
        for layer in layers:
            x = rematerialization.call(layer, x)
        return narrower(x)

    concrete = flops.trace(network, tf.TensorSpec([4, 6]))
    # Each layer's input, the last one's too; of the widest layer its ReLU's output once more, when
    # the inputs of the layers behind it are no longer needed.
    kept, during_widest = 6 + 6 + 20 + 6, 6 + 6 + 20
    assert flops.kept_activation_bytes(concrete) == 4 * 4 * max(kept, during_widest)
    assert flops.kept_activation_bytes(concrete, behind=100) == 4 * 4 * kept + 100
    wide = flops.trace(
        lambda x: tf.reduce_sum(rematerialization.call(layers[1], x)), tf.TensorSpec([4, 6])
    )
    assert flops.kept_activation_bytes(wide, behind=100) == 4 * 4 * (6 + 20)
