"""ResNet and ConvNeXt as plain functions of their arrays, for comparison with our layers.

Arrays are those of TensorFlow's layouts: convolution kernels [height, width, in, out], depthwise ones
[height, width, channels, 1], dense ones [in, out].
"""

import numpy as np
import tensorflow as tf

RESNET_DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
CONVNEXT_DEPTHS = {"convnext_tiny": (3, 3, 9, 3)}
CONVNEXT_WIDTHS = {"convnext_tiny": (96, 192, 384, 768)}


def resnet_shapes(name, pooled):
    """{(stage, block, conv): kernel shape}; stage 0 is the stem, conv 0 the shortcut."""
    bottleneck = name == "resnet50"
    shapes, channels = {(0, 0, 0): (7, 7, 3, 64)}, 64
    for index, depth in enumerate(RESNET_DEPTHS[name]):
        width = 64 * 2**index
        out = 4 * width if bottleneck else width
        for block in range(depth):
            stage = index + 2
            if block == 0 and (channels != out or not (pooled and index == 0)):
                shapes[stage, block, 0] = (1, 1, channels, out)
            sides = [(1, channels, width), (3, width, width), (1, width, out)]
            if not bottleneck:
                sides = [(3, channels, width), (3, width, width)]
            for conv, (side, before, after) in enumerate(sides, 1):
                shapes[stage, block, conv] = (side, side, before, after)
            channels = out
    return shapes


def random_resnet(name, pooled, seed=1):
    """{(stage, block, conv): {variable: array}} with features of moderate size."""
    rng = np.random.default_rng(seed)
    network = {}
    for place, shape in resnet_shapes(name, pooled).items():
        deviation = np.sqrt(2 / np.prod(shape[:3]))
        network[place] = {
            "kernel": rng.normal(0, deviation, shape).astype(np.float32),
            "gamma": rng.uniform(0.3, 0.8, shape[-1]).astype(np.float32),
            "beta": rng.normal(0, 0.2, shape[-1]).astype(np.float32),
            "moving_mean": rng.normal(0, 0.2, shape[-1]).astype(np.float32),
            "moving_variance": rng.uniform(0.5, 2, shape[-1]).astype(np.float32),
        }
    return network


def _doubled(network):
    return {
        place: {name: np.float64(array) for name, array in variables.items()}
        for place, variables in network.items()
    }


def resnet(network, inputs, depths, pooled, epsilon):
    """{stride: features in front of the last ReLU}; strides lie in the 3x3 convolutions, or a basic block's first."""
    network = _doubled(network)

    def conv(x, place, stride=1):
        weights = network[place]
        pad = (weights["kernel"].shape[0] - 1) // 2
        x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
        x = tf.nn.conv2d(x, weights["kernel"], stride, "VALID").numpy()
        scale = weights["gamma"] / np.sqrt(weights["moving_variance"] + epsilon)
        return (x - weights["moving_mean"]) * scale + weights["beta"]

    x = conv(inputs, (0, 0, 0), 2)
    endpoints = {2: x}
    x = np.maximum(x, 0)
    if pooled:
        x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        x = tf.nn.max_pool2d(x, 3, 2, "VALID").numpy()
    for index, depth in enumerate(depths):
        for block in range(depth):
            place = (index + 2, block)
            stride = 2 if block == 0 and not (pooled and index == 0) else 1
            convs = max(key[2] for key in network if key[:2] == place)
            strided = 2 if convs == 3 else 1
            y = x
            for number in range(1, convs + 1):
                y = conv(y, (*place, number), stride if number == strided else 1)
                y = np.maximum(y, 0) if number < convs else y
            if (*place, 0) in network:
                x = conv(x, (*place, 0), stride)
            x = x + y
            endpoints[2 ** (index + 2)] = x
            x = np.maximum(x, 0)
    return endpoints


def random_convnext(name, seed=1):
    """{(stage, block or None, layer): {variable: array}}; stage 1 without a block is the stem."""
    rng = np.random.default_rng(seed)

    def norm(channels):
        return {
            "gamma": rng.uniform(0.5, 1.5, channels).astype(np.float32),
            "beta": rng.normal(0, 0.2, channels).astype(np.float32),
        }

    def linear(*shape, fan_in):
        return {
            "kernel": rng.normal(0, np.sqrt(1 / fan_in), shape).astype(np.float32),
            "bias": rng.normal(0, 0.2, shape[-1] if shape[-1] > 1 else shape[-2]).astype(
                np.float32
            ),
        }

    network, before = {}, 3
    widths = zip(CONVNEXT_DEPTHS[name], CONVNEXT_WIDTHS[name], strict=True)
    for stage, (depth, width) in enumerate(widths, 1):
        side = 4 if stage == 1 else 2
        network[stage, None, "conv"] = linear(side, side, before, width, fan_in=side**2 * before)
        network[stage, None, "norm"] = norm(width if stage == 1 else before)
        for block in range(depth):
            network[stage, block, "depthwise"] = linear(7, 7, width, 1, fan_in=49)
            network[stage, block, "norm"] = norm(width)
            network[stage, block, "expand"] = linear(width, 4 * width, fan_in=width)
            network[stage, block, "reduce"] = linear(4 * width, width, fan_in=4 * width)
            network[stage, block, "layer_scale"] = {
                "gamma": rng.uniform(0.2, 0.6, width).astype(np.float32)
            }
        before = width
    return network


def convnext(network, inputs, zero_padding=False):
    """{stride: features}; at even sizes kMaX-DeepLab's padding acts in the stem only."""
    network = _doubled(network)

    def norm(x, place):
        weights = network[place]
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        return x * weights["gamma"] + weights["beta"]

    def patchify(x, place):
        weights = network[place]
        side = weights["kernel"].shape[0]
        return tf.nn.conv2d(x, weights["kernel"], side, "VALID").numpy() + weights["bias"]

    x = inputs
    if zero_padding:
        x = np.pad(x, [(0, 0), (1, 2), (1, 2), (0, 0)])
    x = norm(patchify(x, (1, None, "conv")), (1, None, "norm"))
    endpoints = {4: x}
    for stage in range(1, 5):
        if stage > 1:
            x = patchify(norm(x, (stage, None, "norm")), (stage, None, "conv"))
        blocks = [key[1] for key in network if key[0] == stage and key[2] == "depthwise"]
        for block in blocks:
            get = {key[2]: network[key] for key in network if key[:2] == (stage, block)}
            y = np.pad(x, [(0, 0), (3, 3), (3, 3), (0, 0)])
            y = tf.nn.depthwise_conv2d(y, get["depthwise"]["kernel"], [1, 1, 1, 1], "VALID").numpy()
            y = norm(y + get["depthwise"]["bias"], (stage, block, "norm"))
            y = y @ get["expand"]["kernel"] + get["expand"]["bias"]
            y = tf.nn.gelu(y, approximate=False).numpy()
            y = y @ get["reduce"]["kernel"] + get["reduce"]["bias"]
            x = x + y * get["layer_scale"]["gamma"]
        if stage > 1:
            endpoints[2 ** (stage + 1)] = x
    return endpoints
