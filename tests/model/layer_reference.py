"""The layers around the attention as docs/model.md has them, slowly and in float64, and the measures of an error."""

import math

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


def double(x):
    return np.asarray(x, np.float64)


def randomize(layer, seed=0, scale=0.3):
    """Weights without the zeros and ones of a fresh layer, which would hide faults."""
    generator = np.random.default_rng(seed)
    for variable in layer.weights:
        variable.assign(generator.normal(size=variable.shape) * scale)


def gelu(x):
    return x / 2 * (1 + _erf(x / math.sqrt(2)))


def layer_norm(x, layer):
    deviation = x - x.mean(-1, keepdims=True)
    normalized = deviation / np.sqrt((deviation**2).mean(-1, keepdims=True) + 1e-6)
    return normalized * double(layer.gamma) + double(layer.beta)


def dense(x, layer):
    return x @ double(layer.kernel) + double(layer.bias)


def projection(x, layer):
    if layer.hidden is not None:
        x = gelu(dense(x, layer.hidden))
    return dense(x, layer.output_layer)


def feed_forward(x, layer):
    return x + projection(layer_norm(x, layer.norm), layer.network)


def self_attention(x, layer):
    """[B, M, E]."""
    y = layer_norm(x, layer.norm)
    q, k, v = (dense(y, part) for part in (layer.query, layer.key, layer.value))
    attended, size = np.zeros_like(x), x.shape[-1] // layer.heads
    for b, head, i in np.ndindex(x.shape[0], layer.heads, x.shape[1]):
        channels = slice(head * size, head * size + size)
        logits = k[b, :, channels] @ q[b, i, channels] / math.sqrt(size)
        weights = np.exp(logits - logits.max())
        attended[b, i, channels] = weights / weights.sum() @ v[b, :, channels]
    return x + dense(attended, layer.output_layer)


def cross_attention(layer, attention, pixels, superpixels, pixel_position, superpixel_position):
    """The dual-path layer of the paper (section III-B, Eqs. 3 and 4).

    Args:
      layer: a CrossAttention.
      attention: the module attention_reference.py.
      pixels, pixel_position: [B, H, W, E] and [1, H, W, E].
      superpixels, superpixel_position: [B, R, C, E] and [1, R, C, E].

    Returns:
      (pixels, superpixels), updated.
    """

    def heads(x):
        return x.reshape(*x.shape[:-1], layer.heads, -1)

    x = layer_norm(pixels, layer.pixel_norm) + pixel_position
    y = layer_norm(superpixels, layer.superpixel_norm) + superpixel_position
    from_pixels = attention.superpixel_attention(
        heads(projection(y, layer.superpixel_query)),
        heads(projection(x, layer.pixel_key)),
        heads(projection(x, layer.pixel_value)),
    )
    from_superpixels = attention.pixel_attention(
        heads(projection(x, layer.pixel_query)),
        heads(projection(y, layer.superpixel_key)),
        heads(projection(y, layer.superpixel_value)),
    )
    superpixels = superpixels + projection(
        from_pixels.reshape(superpixels.shape), layer.superpixel_output
    )
    pixels = pixels + projection(from_superpixels.reshape(pixels.shape), layer.pixel_output)
    if layer.feed_forward_width:
        superpixels = feed_forward(superpixels, layer.superpixel_feed_forward)
        pixels = feed_forward(pixels, layer.pixel_feed_forward)
    return pixels, superpixels


def resize_bilinear(x, size):
    """[B, H, W, E] -> [B, *size, E]: half-pixel centres, the border repeated, no antialiasing."""
    for axis, side in enumerate(size, start=1):
        matrix = np.zeros((side, x.shape[axis]))
        for position in range(side):
            source = (position + 0.5) * x.shape[axis] / side - 0.5
            lower = math.floor(source)
            for neighbor, weight in ((lower, lower + 1 - source), (lower + 1, source - lower)):
                matrix[position, min(max(neighbor, 0), x.shape[axis] - 1)] += weight
        x = np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)
    return x


def hypercolumn(layer, endpoints, size):
    """{stride: [B, Y/stride, X/stride, C]} -> [B, *size, E]."""
    total = 0
    for stride, norm, network in zip(layer.strides, layer.norms, layer.projections, strict=True):
        features = projection(layer_norm(double(endpoints[stride]), norm), network)
        total = total + resize_bilinear(features, size)
    return total


def assert_close(actual, expected, tolerance):
    """Every element within `tolerance` of the largest one of its tensor."""
    actual, expected = double(actual), double(expected)
    assert actual.shape == expected.shape
    error = np.abs(actual - expected).max()
    largest = np.abs(expected).max()
    assert error <= tolerance * largest, f"off by {error / max(largest, 1e-300):.1e} of the largest"


def error_norm(actual, expected):
    """Relative Frobenius norm of the error of a list of tensors, taken together."""
    error = sum(np.sum((double(a) - double(e)) ** 2) for a, e in zip(actual, expected, strict=True))
    return math.sqrt(error / sum(np.sum(double(e) ** 2) for e in expected))


def assert_gradients(function, groups, gradients, tolerance, seed=0, step=1e-6):
    """Compares gradients with differences of `function`, along themselves and along a random direction.

    Args:
      function: of no arguments, a float; it reads the groups' arrays.
      groups: lists of float64 arrays; those of one list are moved together, and put back.
      gradients: of `function` by each array, in the same lists.
      tolerance: of the derivative along a direction of length one, relative to the length of the group's gradient.
      seed: of the random directions.
      step: of the differences.
    """
    generator = np.random.default_rng(seed)
    for number, (values, gradient) in enumerate(zip(groups, gradients, strict=True)):
        gradient = [double(part) for part in gradient]
        start, length = [value.copy() for value in values], _length(gradient)
        for direction in (gradient, [generator.normal(size=value.shape) for value in values]):
            direction = [part / _length(direction) for part in direction]
            ends = []
            for sign in (-1, 1):
                for value, part, center in zip(values, direction, start, strict=True):
                    value[...] = center + sign * step * part
                ends.append(function())
            for value, center in zip(values, start, strict=True):
                value[...] = center
            expected = (ends[1] - ends[0]) / (2 * step)
            actual = sum(np.sum(g * part) for g, part in zip(gradient, direction, strict=True))
            assert abs(expected - actual) <= tolerance * length, (
                f"group {number}: {actual} along a direction, differences give {expected}"
            )


def _length(parts):
    return math.sqrt(sum(np.sum(part**2) for part in parts))
