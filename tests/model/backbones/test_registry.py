import pytest

from sp_transformer.config import registries
from sp_transformer.model import backbones
from sp_transformer.model.backbones import convnext, keras_cv_backbone, resnet


def test_agrees_with_the_names_that_configs_may_use():
    assert set(backbones.NAMES) == set(registries.BACKBONES)
    assert set(keras_cv_backbone.PRESETS) == set(registries.KERAS_CV_BACKBONES)
    assert registries.backbone_strides("resnet50") == resnet.STRIDES
    assert registries.backbone_strides("convnext_tiny") == convnext.STRIDES


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("resnet50", [2, 8, 32]),
        ("convnext_large", [4, 8, 32]),
        ("keras_cv/resnet18", [4, 8, 32]),
        ("keras_cv/mobilenet_v3_small", [2, 8, 32]),
    ],
)
def test_default_endpoint_strides(name, strides):
    assert backbones.default_endpoint_strides(name) == strides


def test_options_reach_the_layer():
    layer = backbones.create_backbone(
        "resnet50",
        endpoint_strides=[2, 4],
        drop_path_rate=0.15,
        batch_norm_epsilon=1.001e-5,
        batch_norm_momentum=0.9,
        stem_max_pool=True,
        stride_in_first_conv=True,
        conv_bias=True,
        zero_init_residual=False,
    )
    assert layer.name == "backbone"
    assert layer.options == resnet.ConvNormOptions(1.001e-5, 0.9, True, zero_init_residual=False)
    assert layer.stem_max_pool and layer.stride_in_first_conv
    assert layer.stage2[-1].drop_path_rate == pytest.approx(0.15 * 2 / 15)


def test_rejects():
    with pytest.raises(ValueError, match="resnet51"):
        backbones.create_backbone("resnet51", endpoint_strides=[8])
    with pytest.raises(ValueError, match="stem_max_pool"):
        backbones.create_backbone("convnext_tiny", stem_max_pool=True)
    with pytest.raises(ValueError, match="zero_init_residual"):
        backbones.create_backbone("convnext_tiny", zero_init_residual=False)
    with pytest.raises(ValueError, match="conv_bias"):
        backbones.create_backbone("keras_cv/resnet18", endpoint_strides=[8], conv_bias=True)
