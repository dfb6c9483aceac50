import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import test_util

from sp_transformer.model.backbones import resnet


def _trainable_count(layer):
    return sum(int(np.prod(v.shape)) for v in layer.trainable_variables)


# torchvision's published totals less the 1000-class head; BatchNorm adds no other trainables.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_689_512 - 513_000),
        ("resnet34", 21_797_672 - 513_000),
        ("resnet50", 23_508_032),
        ("resnet101", 44_549_160 - 2_049_000),
    ],
)
def test_trainable_parameters(name, count):
    layer = resnet.ResNet(name)
    layer.build((None, None, None, 3))
    # Without a max-pool the first basic block strides, so its shortcut needs a projection.
    extra = 64 * 64 + 2 * 64 if name in ("resnet18", "resnet34") else 0
    assert _trainable_count(layer) == count + extra


@pytest.mark.parametrize("stem_max_pool", [False, True])
def test_endpoint_shapes_at_odd_sizes(stem_max_pool):
    layer = resnet.ResNet(
        "resnet50", endpoint_strides=(2, 4, 8, 16, 32), stem_max_pool=stem_max_pool
    )
    endpoints = layer(np.zeros((2, 65, 33, 3), np.float32))
    assert {stride: tuple(x.shape) for stride, x in endpoints.items()} == {
        2: (2, 33, 17, 64),
        4: (2, 17, 9, 256),
        8: (2, 9, 5, 512),
        16: (2, 5, 3, 1024),
        32: (2, 3, 2, 2048),
    }


def test_stops_at_the_largest_endpoint():
    layer = resnet.ResNet("resnet18", endpoint_strides=[8, 2])
    endpoints = layer(np.zeros((1, 32, 32, 3), np.float32))
    assert sorted(endpoints) == [2, 8]
    assert not any("stage4" in v.path or "stage5" in v.path for v in layer.variables)
    assert sorted(resnet.ResNet("resnet18", [2])(np.zeros((1, 32, 32, 3)))) == [2]


def test_equals_keras_applications(randomise):
    """The v1 variant with copied weights gives keras.applications' features."""
    reference = keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(64, 64, 3)
    )
    randomise(reference)
    ours = resnet.ResNet(
        "resnet50",
        endpoint_strides=(2, 8, 32),
        stem_max_pool=True,
        stride_in_first_conv=True,
        options=resnet.ConvNormOptions(1.001e-5, 0.99, conv_bias=True),
    )
    ours.build((None, None, None, 3))

    def copy(pair, conv, norm):
        pair.conv.set_weights(reference.get_layer(conv).get_weights())
        pair.norm.set_weights(reference.get_layer(norm).get_weights())

    copy(ours.stem, "conv1_conv", "conv1_bn")
    for stage in range(2, 6):
        for position, block in enumerate(getattr(ours, f"stage{stage}"), start=1):
            prefix = f"conv{stage}_block{position}"
            for number, pair in enumerate(block.convs, start=1):
                copy(pair, f"{prefix}_{number}_conv", f"{prefix}_{number}_bn")
            if block.shortcut is not None:
                copy(block.shortcut, f"{prefix}_0_conv", f"{prefix}_0_bn")
    taps = keras.Model(
        reference.inputs,
        [reference.get_layer(name).output for name in ("conv1_bn", "conv3_block4_add")]
        + [reference.output],
    )
    images = np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype(np.float32)
    stem, stage3, final = taps(images, training=False)
    endpoints = ours(images, training=False)
    np.testing.assert_allclose(endpoints[2], stem, atol=1e-4)
    np.testing.assert_allclose(endpoints[8], stage3, atol=1e-4, rtol=1e-4)
    assert np.asarray(final).std() > 0.1
    np.testing.assert_allclose(tf.nn.relu(endpoints[32]), final, atol=1e-4, rtol=1e-4)


def test_strided_convolution_pads_symmetrically(randomise):
    """Even sizes: output i is centred on input 2i, as DeepLab2's checkpoints expect."""
    pair = resnet.ConvNorm(4, 3, strides=2)
    pair.build((None, None, None, 2))
    randomise(pair)
    images = np.random.default_rng(0).normal(size=(1, 8, 6, 2)).astype(np.float32)
    same = tf.nn.conv2d(images, pair.conv.kernel, 1, "SAME")[:, ::2, ::2]
    np.testing.assert_allclose(pair(images), pair.norm(same), atol=1e-5)


def test_residual_branches_start_at_zero_and_norms_are_synchronised():
    layer = resnet.ResNet("resnet18", [4])
    block = layer.stage2[1]
    inputs = np.random.default_rng(0).normal(size=(2, 8, 8, 64)).astype(np.float32)
    np.testing.assert_allclose(block(inputs), inputs)
    norms = [x for x in layer._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 6
    assert all(norm.synchronized for norm in norms)


@pytest.mark.parametrize(("architecture", "convolutions"), [("resnet18", 2), ("resnet50", 3)])
def test_residual_branches_may_start_at_one(architecture, convolutions):
    options = resnet.ConvNormOptions(zero_init_residual=False)
    layer = resnet.ResNet(architecture, [4], options=options)
    layer(np.zeros((1, 32, 32, 3), np.float32))
    for block in layer.stage2:
        assert len(block.convs) == convolutions
        for conv in block.convs:
            np.testing.assert_array_equal(conv.norm.gamma, np.ones(conv.filters))


def test_drop_path_grows_linearly_over_the_blocks_of_the_full_network():
    layer = resnet.ResNet("resnet18", drop_path_rate=0.7)
    rates = [b.drop_path_rate for stage in range(2, 6) for b in getattr(layer, f"stage{stage}")]
    np.testing.assert_allclose(rates, np.arange(8) / 10, atol=1e-12)
    shallow = resnet.ResNet("resnet18", [8], drop_path_rate=0.7)
    assert shallow.stage3[-1].drop_path_rate == pytest.approx(0.3)


def test_bfloat16_keeps_float32_weights():
    layer = resnet.ResNet("resnet18", [2, 4], dtype="mixed_bfloat16")
    endpoints = layer(np.zeros((1, 16, 16, 3), np.float32), training=True)
    assert {v.dtype for v in layer.trainable_variables} == {"float32"}
    assert all(x.dtype == tf.bfloat16 for x in endpoints.values())


def test_checkpoint_keys_and_round_trip(tmp_path, randomise):
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    first, second = (resnet.ResNet("resnet18", [2, 8]) for _ in range(2))
    for layer in (first, second):
        layer.build((None, None, None, 3))
    randomise(first)
    path = tf.train.Checkpoint(model=first).write(str(tmp_path / "ckpt"))
    keys = [key for key, _ in tf.train.list_variables(path)]
    assert any(key.startswith("model/stage3/1/convs/0/conv/") for key in keys)
    # Layers in Python lists would be left out without an error.
    assert sum(key.startswith("model/") for key in keys) == len(first.variables)
    tf.train.Checkpoint(model=second).read(path).assert_existing_objects_matched()
    np.testing.assert_array_equal(first(images)[8], second(images)[8])


def test_config_round_trip():
    layer = resnet.ResNet(
        "resnet50", [4, 2], 0.1, True, True, resnet.ConvNormOptions(1e-5, 0.9, True), name="trunk"
    )
    copy = resnet.ResNet.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    block = resnet.ResidualBlock.from_config(layer.stage2[0].get_config())
    assert block.get_config() == layer.stage2[0].get_config()


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"architecture": "resnet51"}, "resnet51"),
        ({"endpoint_strides": [2, 64]}, "64"),
        ({"endpoint_strides": []}, "endpoint strides"),
        ({"architecture": "resnet18", "stride_in_first_conv": True}, "stride_in_first_conv"),
    ],
)
def test_rejects(kwargs, text):
    with pytest.raises(ValueError, match=text):
        resnet.ResNet(**kwargs)


@pytest.mark.skipif(not test_util.IsMklEnabled(), reason="TensorFlow without oneDNN")
@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_optimizer_fuses_every_convolution_of_the_inference_form(architecture, optimized_ops):
    """Endpoints that are read before their ReLU as well must not keep it from the whole graph."""
    layer = resnet.ResNet(architecture, [2, 4, 8], options=resnet.ConvNormOptions(batch_norm=False))
    layer.build((None, None, None, 3))
    total = sum(isinstance(x, keras.layers.Conv2D) for x in layer._flatten_layers())
    function = tf.function(lambda x: layer(x, training=False))
    ops = optimized_ops(function, tf.zeros([1, 32, 64, 3]))
    fused = ops["_MklNativeFusedConv2D"] + ops["_MklNativePadWithFusedConv2D"]
    assert fused == total
    assert not {"Conv2D", "_MklNativeConv2D", "BiasAdd", "AddV2"} & {*ops}
    # What stays apart are the ReLUs behind endpoints: the stem's and stage 2's.
    assert ops["Relu"] == 2
