import numpy as np
import pytest
import tensorflow as tf

import sp_transformer as spt
from sp_transformer.model import inference_form
from sp_transformer.model.backbones import resnet


def randomize(layer):
    generator = np.random.default_rng(0)
    for variable in layer.variables:
        name = variable.path.rsplit("/", 1)[-1]
        if name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(generator.uniform(-0.5, 0.5, variable.shape))


@pytest.mark.parametrize(
    "options",
    [
        {"architecture": "resnet18"},
        {"architecture": "resnet50", "endpoint_strides": (2, 8)},
        {
            "architecture": "resnet50",
            "endpoint_strides": (2, 4),
            "stem_max_pool": True,
            "stride_in_first_conv": True,
            "options": {"conv_bias": True, "batch_norm_epsilon": 1.001e-5},
        },
    ],
)
def test_a_folded_resnet_infers_the_same(options):
    backbone = resnet.ResNet(**options)
    backbone.build((None, None, None, 3))
    randomize(backbone)
    folded = inference_form.fold_resnet(backbone)
    # A kernel and a bias for each convolution.
    assert len(folded.variables) == 2 * sum("kernel" in v.path for v in backbone.variables)
    x = tf.random.stateless_normal([1, 64, 96, 3], [0, 0])
    expected, actual = backbone(x, training=False), folded(x, training=False)
    assert sorted(expected) == sorted(actual)
    for stride, features in expected.items():
        scale = np.abs(features).max()
        np.testing.assert_allclose(actual[stride], features, atol=1e-5 * scale)


def test_the_inference_form_shares_everything_but_the_backbone():
    config = spt.load_config(
        "configs/synthetic/quickstart.textproto",
        ["model { input_height: 64 input_width: 64 }", "data { crop_height: 64 crop_width: 64 }"],
    )
    model = spt.build_model(config)
    randomize(model.backbone)
    folded = inference_form.convert(model)
    assert folded.tokenizer is model.tokenizer and folded.backbone is not model.backbone
    images = np.random.default_rng(0).integers(0, 256, (1, 50, 70, 3), dtype=np.uint8)
    expected = model(images, training=False)["semantic_logits"]
    actual = folded(images, training=False)["semantic_logits"]
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())
    assert inference_form.convert(folded) is folded
