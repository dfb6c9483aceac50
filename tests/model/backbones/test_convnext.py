import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.model.backbones import convnext


def test_large_has_the_published_parameters(monkeypatch):
    # Drawing 200 million random numbers takes longer than all other tests of this file.
    monkeypatch.setattr(convnext, "_truncated_normal", keras.initializers.Zeros)
    layer = convnext.ConvNeXt("convnext_large")
    layer.build((None, None, None, 3))
    assert sum(int(np.prod(v.shape)) for v in layer.trainable_variables) == 196_227_264


def test_equals_keras_applications(randomise):
    """Tiny with copied weights gives keras.applications' features in front of its head norm."""
    reference = keras.applications.ConvNeXtTiny(
        weights=None, include_top=False, include_preprocessing=False, input_shape=(64, 64, 3)
    )
    randomise(reference)
    ours = convnext.ConvNeXt("convnext_tiny", endpoint_strides=(4, 8, 16, 32))
    ours.build((None, None, None, 3))
    prefix = "convnext_tiny"

    def weights(name):
        return reference.get_layer(f"{prefix}_{name}").get_weights()

    stem = reference.get_layer(f"{prefix}_stem")
    conv, norm = stem.layers[-2:]
    ours.stem.set_weights(conv.get_weights())
    ours.stem_norm.set_weights(norm.get_weights())
    for stage in range(4):
        if stage:
            block = reference.get_layer(f"{prefix}_downsampling_block_{stage - 1}")
            norm, conv = block.layers[-2:]
            getattr(ours, f"stage{stage + 1}_downsample_norm").set_weights(norm.get_weights())
            getattr(ours, f"stage{stage + 1}_downsample").set_weights(conv.get_weights())
        for position, block in enumerate(getattr(ours, f"stage{stage + 1}")):
            name = f"stage_{stage}_block_{position}"
            block.depthwise.kernel.assign(np.moveaxis(weights(f"{name}_depthwise_conv")[0], -1, -2))
            block.depthwise.bias.assign(weights(f"{name}_depthwise_conv")[1])
            block.norm.set_weights(weights(f"{name}_layernorm"))
            block.expand.set_weights(weights(f"{name}_pointwise_conv_1"))
            block.reduce.set_weights(weights(f"{name}_pointwise_conv_2"))
            block.layer_scale.set_weights(weights(f"{name}_layer_scale"))
    head_norm = next(
        layer
        for layer in reversed(reference.layers)
        if isinstance(layer, keras.layers.LayerNormalization)
    )
    taps = keras.Model(reference.inputs, [stem.output, head_norm.input])
    images = np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype(np.float32)
    stem_features, final = taps(images)
    endpoints = ours(images)
    np.testing.assert_allclose(endpoints[4], stem_features, atol=1e-4)
    assert np.asarray(final).std() > 0.1
    np.testing.assert_allclose(endpoints[32], final, atol=1e-4, rtol=1e-4)


def test_endpoint_shapes_at_odd_sizes():
    layer = convnext.ConvNeXt("convnext_tiny", endpoint_strides=(4, 8, 32))
    endpoints = layer(np.zeros((1, 65, 36, 3), np.float32))
    assert {stride: tuple(x.shape) for stride, x in endpoints.items()} == {
        4: (1, 17, 9, 96),
        8: (1, 9, 5, 192),
        32: (1, 3, 2, 768),
    }


def test_zero_padding_is_in_front_of_stem_and_norms():
    """By the definition: zeros around the image, and zeros that a downsampling's norm makes its beta."""
    padded = convnext.ConvNeXt("convnext_tiny", [4, 8], zero_padding=True)
    plain = convnext.ConvNeXt("convnext_tiny", [4, 8])
    images = np.random.default_rng(0).normal(size=(1, 18, 13, 3)).astype(np.float32)
    for layer in (padded, plain):
        layer.build((None, None, None, 3))
    plain.set_weights(padded.get_weights())
    around = np.pad(images, [(0, 0), (1, 2), (1, 2), (0, 0)])[:, :20, :16]
    endpoints = padded(images)
    np.testing.assert_allclose(endpoints[4], plain(around)[4], atol=1e-5)
    assert endpoints[4].shape == (1, 5, 4, 96) and endpoints[8].shape == (1, 3, 2, 192)
    x = endpoints[4]
    for block in plain.stage1:
        x = block(x)
    x = plain.stage2_downsample_norm(np.pad(x, [(0, 0), (0, 1), (0, 0), (0, 0)]))
    x = plain.stage2_downsample(x)
    for block in plain.stage2:
        x = block(x)
    np.testing.assert_allclose(endpoints[8], x, atol=1e-5)


def test_the_stem_alone_computes_no_stage():
    layer = convnext.ConvNeXt("convnext_tiny", endpoint_strides=[4])
    assert sorted(layer(np.zeros((1, 8, 8, 3), np.float32))) == [4]
    assert len(layer.variables) == 4


def test_drop_path_grows_linearly_per_block():
    layer = convnext.ConvNeXt("convnext_large", drop_path_rate=0.2)
    rates = [b.drop_path_rate for stage in range(1, 5) for b in getattr(layer, f"stage{stage}")]
    np.testing.assert_allclose(rates, np.arange(36) * 0.2 / 35, atol=1e-12)


def test_initial_values_and_bfloat16():
    layer = convnext.ConvNeXt("convnext_tiny", [8], dtype="mixed_bfloat16")
    (features,) = layer(np.zeros((1, 16, 16, 3), np.float32), training=True).values()
    assert features.dtype == tf.bfloat16
    block = layer.stage1[0]
    np.testing.assert_array_equal(block.layer_scale.gamma, np.float32(1e-6))
    assert np.abs(block.expand.kernel).max() < 0.05
    assert np.abs(block.expand.bias).max() == 0


def test_config_round_trip():
    layer = convnext.ConvNeXt("convnext_small", [32, 4], 0.1, True, name="trunk")
    assert convnext.ConvNeXt.from_config(layer.get_config()).get_config() == layer.get_config()
    block = layer.stage3[2]
    assert convnext.ConvNeXtBlock.from_config(block.get_config()).get_config() == block.get_config()


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"architecture": "convnext_huge"}, "convnext_huge"),
        ({"endpoint_strides": [2, 8]}, "2"),
        ({"drop_path_rate": 1.0}, "drop path rate 1.0"),
    ],
)
def test_rejects(kwargs, text):
    with pytest.raises(ValueError, match=text):
        convnext.ConvNeXt(**kwargs)


def test_checkpoints_hold_every_variable(tmp_path):
    layer = convnext.ConvNeXt("convnext_tiny", [8], drop_path_rate=0.1)
    layer.build((None, None, None, 3))
    path = tf.train.Checkpoint(model=layer).write(str(tmp_path / "ckpt"))
    keys = [key for key, _ in tf.train.list_variables(path)]
    assert any(key.startswith("model/stage2/1/depthwise/") for key in keys)
    weights = [v for v in layer.variables if "seed_generator" not in v.path]
    assert sum(key.startswith("model/") for key in keys) == len(weights)
