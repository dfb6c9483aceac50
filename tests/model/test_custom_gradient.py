"""A gradient of one's own: the numbers, and that no graph is searched for it."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import op_selector

from sp_transformer.model import custom_gradient


@custom_gradient.custom_gradient
def product_and_sum(x, y):
    return [x * y, x + y], lambda dp, ds: (10.0 * dp * y + ds, 10.0 * dp * x + ds)


@pytest.mark.parametrize("compiled", [None, False, True])
def test_results_and_gradients(compiled):
    def gradients(x, y):
        with tf.GradientTape() as tape:
            tape.watch([x, y])
            product, total = product_and_sum(x, y)
            loss = 2.0 * product + total
        return product, total, *tape.gradient(loss, [x, y])

    run = gradients if compiled is None else tf.function(gradients, jit_compile=compiled)
    found = run(tf.constant(3.0), tf.constant(5.0))
    np.testing.assert_array_equal(found, [15.0, 8.0, 101.0, 61.0])


def test_what_a_result_depends_on_besides_is_not_searched(monkeypatch):
    walked = []
    walk = op_selector.get_backward_walk_ops

    def counted(*args, **kwargs):
        operations = walk(*args, **kwargs)
        walked.append(len(operations))
        return operations

    monkeypatch.setattr(op_selector, "get_backward_walk_ops", counted)

    def gradient(decorator, x):
        others = tf.constant(1.0)
        for _ in range(200):
            others = tf.sin(others)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = decorator(lambda x: (x + others, lambda dy: 3.0 * dy))(x)
        return tape.gradient(y, x)

    for decorator in (tf.custom_gradient, custom_gradient.custom_gradient):
        run = tf.function(lambda x, decorator=decorator: gradient(decorator, x))
        assert run(tf.constant(0.0)) == 3.0
    assert walked[0] > 200 > 10 > walked[1]
