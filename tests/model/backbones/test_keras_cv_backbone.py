import keras
import numpy as np
import pytest

pytest.importorskip("keras_cv")

from sp_transformer.model import weights
from sp_transformer.model.backbones import create_backbone, keras_cv_backbone


# keras_cv states the first three; the last is keras.applications' MobileNetV3Small without its top.
@pytest.mark.parametrize(
    ("preset", "count"),
    [
        ("resnet18", 11_186_112),
        ("csp_darknet_tiny", 2_380_416),
        ("efficientnetv2_b0", 5_919_312),
        ("mobilenet_v3_small", 939_120),
    ],
)
def test_parameters_are_the_presets(preset, count):
    assert keras_cv_backbone.build_network(preset).count_params() == count


@pytest.mark.parametrize(
    ("name", "strides"), [("resnet18", [4, 8, 32]), ("mobilenet_v3_small", [2, 8, 32])]
)
def test_endpoints(name, strides):
    layer = create_backbone(f"keras_cv/{name}")
    images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32)
    endpoints = layer(images, training=True)
    assert list(endpoints) == strides
    for stride, features in endpoints.items():
        assert features.shape[:3] == (2, 64 // stride, 96 // stride)
    norms = [x for x in layer._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    assert norms
    assert all(norm.synchronized for norm in norms)
    assert len(layer.trainable_variables) > 10


def test_a_single_endpoint_cuts_the_rest_off():
    whole = create_backbone("keras_cv/resnet18")
    cut = create_backbone("keras_cv/resnet18", endpoint_strides=[8])
    assert len(cut.trainable_variables) < len(whole.trainable_variables)
    assert list(cut(np.zeros((1, 32, 32, 3), np.float32))) == [8]


def test_no_rescaling_inside():
    layer = create_backbone("keras_cv/resnet18", endpoint_strides=[4])
    assert not any(isinstance(x, keras.layers.Rescaling) for x in layer._flatten_layers())


def _rates(layer):
    return [x.rate for x in layer.trunk._flatten_layers() if isinstance(x, keras.layers.Dropout)]


# b4 has almost twice the blocks that keras_cv's own rates count on.
@pytest.mark.parametrize("preset", ["efficientnetv2_b0", "efficientnetlite_b4"])
def test_drop_path_is_as_asked_for(preset):
    without = create_backbone(f"keras_cv/{preset}", endpoint_strides=[4, 32])
    assert set(_rates(without)) == {0.0}
    layer = create_backbone(f"keras_cv/{preset}", endpoint_strides=[4, 32], drop_path_rate=0.9)
    rates = _rates(layer)
    assert rates == sorted(rates) and 0 < rates[0] < 0.15
    # That of the last residual block.
    assert rates[-1] == pytest.approx(0.9)
    # One's checkpoints fit the other.
    assert list(weights.named_variables(layer)) == list(weights.named_variables(without))


def test_without_drop_path_training_is_not_random():
    layer = create_backbone("keras_cv/efficientnetlite_b0", endpoint_strides=[16])
    images = np.random.default_rng(0).normal(size=(16, 32, 32, 3)).astype(np.float32)
    once, again = (layer(images, training=True)[16] for _ in range(2))
    np.testing.assert_allclose(once, again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("preset", "options"), [("resnet18", {}), ("efficientnetlite_b0", {"drop_path_rate": 0.3})]
)
def test_config_round_trip(preset, options):
    layer = create_backbone(f"keras_cv/{preset}", endpoint_strides=[4, 8], **options)
    copy = keras_cv_backbone.KerasCVBackbone.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert _rates(copy) == _rates(layer)


def test_rejects():
    with pytest.raises(ValueError, match="resnet19"):
        keras_cv_backbone.KerasCVBackbone("resnet19", [8])
    with pytest.raises(ValueError, match=r"\[2\]"):
        create_backbone("keras_cv/resnet18", endpoint_strides=[2, 8])
    with pytest.raises(ValueError, match="drop_path_rate"):
        create_backbone("keras_cv/resnet18", drop_path_rate=0.1)
