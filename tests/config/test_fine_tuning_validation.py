"""Faults of initialisation, freezing and class weights, each found before TensorFlow starts."""

import pytest

from sp_transformer.config import load_config, weight_sources
from sp_transformer.config.errors import ConfigError

BASE = """
model { backbone { name: "resnet50" } }
data { dataset: "synthetic_streets" crop_height: 64 crop_width: 64 }
"""
TORCHVISION = 'training { initialization { kind: TORCHVISION path: "a.pth" } }'
CONVNEXT = 'model { backbone { name: "convnext_tiny" } }'

BROKEN = {
    (TORCHVISION,): [
        "training.initialization.kind TORCHVISION loads weights that resnet50 would use otherwise",
        "set model { backbone { stem_max_pool: true batch_norm_epsilon: 1e-05 input_normalization: "
        "IMAGENET } }",
        'list the field in training.initialization.accepted_differences as "model.backbone.stem_',
    ],
    (
        TORCHVISION,
        "model { backbone { stem_max_pool: true batch_norm_epsilon: 1e-5 } }",
    ): [
        "with model.backbone input_normalization: MINUS_ONE_TO_ONE; set model { backbone { input_nor"
    ],
    ("training { initialization { kind: KERAS_APPLICATIONS } }",): [
        "conv_bias: true batch_norm_epsilon: 1.001e-05 input_normalization: CAFFE"
    ],
    ("training { initialization { kind: DEEPLAB2 } }", CONVNEXT): ["zero_padding: true"],
    ("training { initialization { kind: KERAS_CV } }",): [
        "KERAS_CV has no weights for model.backbone.name resnet50",
        'keras_cv\'s own form of it is "keras_cv/resnet50"',
    ],
    (TORCHVISION, 'model { backbone { name: "convnext_xlarge" } }'): [
        "has no weights for",
        "xlarge",
    ],
    ('training { initialization { path: "a" } }',): ["is set but not training.initialization.kind"],
    ("training { initialization { kind: DEEPLAB2 part: WHOLE_MODEL } }",): [
        "part WHOLE_MODEL is for kind CHECKPOINT, as DEEPLAB2 holds a backbone only"
    ],
    ('training { initialization { kind: CHECKPOINT skip: "" } }',): ["skip every variable"],
    ('training { initialization { kind: CHECKPOINT accepted_differences: "stride" } }',): [
        'accepted_differences "stride" is no field of the model'
    ],
    ("training { freeze_backbone: true }",): [
        "training.freeze_backbone true would keep random values"
    ],
    ("training { freeze_batch_norm: true initialization { kind: CHECKPOINT } }", CONVNEXT): [
        "training.freeze_batch_norm true has no effect on convnext_tiny"
    ],
    ("training { class_weights: [1, 2] }",): [
        "training.class_weights lists 2 weights for 19 classes; list one for each class"
    ],
    (f"training {{ class_weights: [{', '.join(['1'] * 18)}, -1] }}",): [
        "training.class_weights[18] -1 is below 0"
    ],
    (f"training {{ class_weights: [{', '.join(['0'] * 19)}] }}",): ["no weight above 0"],
    ("model { backbone { zero_padding: true } }",): ["zero_padding true has no effect on resnet50"],
}


def load(tmp_path, *overrides):
    path = tmp_path / "config.textproto"
    path.write_text(BASE)
    return load_config(path, overrides)


@pytest.mark.parametrize(("overrides", "parts"), BROKEN.items(), ids=map(str, BROKEN))
def test_broken_config_gives_its_one_clear_error(tmp_path, overrides, parts):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, *overrides)
    message = str(error.value)
    assert message.startswith("the config has a fault: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize("kind", [kind for kind in weight_sources.Kind.values() if kind > 1])
def test_the_options_that_are_asked_for_are_accepted(tmp_path, kind):
    for name in weight_sources.backbones(kind):
        options = weight_sources.required_options(kind, name)
        text = " ".join(weight_sources.textproto(*item) for item in options.items())
        load(
            tmp_path,
            f'model {{ backbone {{ name: "{name}" {text} }} }}',
            f"training {{ initialization {{ kind: {weight_sources.Kind.Name(kind)} }} }}",
        )


def test_a_difference_that_is_meant_is_accepted(tmp_path):
    load(
        tmp_path,
        CONVNEXT,
        "training { initialization { kind: DEEPLAB2 accepted_differences: "
        '"model.backbone.zero_padding" } }',
    )
