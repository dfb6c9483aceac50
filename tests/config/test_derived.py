"""Values that are derived from a config, against those worked out by hand."""

import pytest

from sp_transformer.config import derived, load_config, registries

CITYSCAPES = "configs/cityscapes/resnet50.textproto"


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet50", [2, 8, 32]),
        ("convnext_large", [4, 8, 32]),
        ("keras_cv/resnet18", [4, 8, 32]),
        ("keras_cv/mobilenet_v3_small", [2, 8, 32]),
    ],
)
def test_default_endpoints_start_at_the_stem(backbone, expected):
    config = load_config(CITYSCAPES, [f'model {{ backbone {{ name: "{backbone}" }} }}'])
    assert derived.endpoint_strides(config) == expected


def test_chosen_endpoints_are_kept():
    override = "model { hypercolumn { endpoint_strides: 16 endpoint_strides: 4 } }"
    assert derived.endpoint_strides(load_config(CITYSCAPES, [override])) == [16, 4]


@pytest.mark.parametrize(
    ("superpixel_stride", "endpoint_strides", "expected"),
    [(32, (2, 8, 32), 32), (64, (2, 8, 32), 64), (16, (2, 8, 32), 32), (8, (4, 16), 16)],
)
def test_size_multiple_serves_superpixels_and_endpoints(
    superpixel_stride, endpoint_strides, expected
):
    endpoints = " ".join(f"endpoint_strides: {stride}" for stride in endpoint_strides)
    config = load_config(
        CITYSCAPES,
        [
            f"model {{ tokenizer {{ superpixel_stride: {superpixel_stride} }} }}",
            f"model {{ hypercolumn {{ {endpoints} }} }}",
        ],
    )
    assert derived.size_multiple(config) == expected


def test_size_multiple_is_the_least_common_multiple():
    overrides = [
        "model { tokenizer { superpixel_stride: 24 } }",
        "data { crop_height: 96 crop_width: 192 }",
    ]
    assert derived.size_multiple(load_config(CITYSCAPES, overrides)) == 96


def test_input_size_is_the_crop_unless_stated():
    assert derived.input_size(load_config(CITYSCAPES)) == (1024, 2048)
    stated = load_config(CITYSCAPES, ["model { input_height: 512 input_width: 768 }"])
    assert derived.input_size(stated) == (512, 768)


def test_classes_come_from_the_label_map():
    config = load_config("configs/camvid/resnet18.textproto")
    assert derived.num_classes(config) == 11
    assert derived.label_map(config).names[:2] == ("Sky", "Building")
    stated = load_config("configs/camvid/resnet18.textproto", ["model { num_classes: 11 }"])
    assert derived.num_classes(stated) == 11


def test_unknown_backbone_is_named_with_the_known():
    with pytest.raises(ValueError, match=r"'resnet20'.*resnet18"):
        registries.backbone_strides("resnet20")
    with pytest.raises(ValueError, match="keras_cv/vgg16"):
        registries.backbone_strides("keras_cv/vgg16")
