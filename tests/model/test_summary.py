import contextlib
import copy
import json

import numpy as np
import pytest

import sp_transformer as spt
from sp_transformer.model import summary
from sp_transformer.model.builder import build_model
from sp_transformer.protos import training_pb2


@pytest.fixture(scope="module")
def config():
    return spt.load_config(
        "configs/cityscapes/resnet50.textproto",
        overrides=[
            'model { input_height: 64 input_width: 128 backbone { name: "resnet18" } '
            "classifier { layers: 1 } tokenizer { layers: 1 } }",
            "training { batch_size: 3 }",
        ],
    )


@pytest.fixture(scope="module")
def model(config):
    return build_model(config)


@pytest.fixture(scope="module")
def result(config, model):
    return summary.summarize(config, model)


def test_shapes(result):
    assert result["input_size"] == [64, 128]
    assert result["endpoints"] == {
        2: {"channels": 64, "size": [32, 64]},
        8: {"channels": 128, "size": [8, 16]},
        32: {"channels": 512, "size": [2, 4]},
    }
    assert (result["pixel_grid"], result["superpixel_grid"], result["cell"]) == (
        [8, 16],
        [2, 4],
        [4, 4],
    )
    assert result["tables"] == {
        "query_table": [2, 4, 256],
        "pixel_position_table": [2, 4, 256],
        "superpixel_position_table": [1, 1, 256],
    }
    json.dumps(result)


def test_parameters_are_the_models(model, result):
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert result["parameters"]["sum"]["trainable"] == trainable
    assert result["parameters"]["backbone"]["total"] > result["parameters"]["backbone"]["trainable"]


def test_memory_grows_with_the_batch(result):
    memory = result["training_memory"]
    counts = result["parameters"]["sum"]
    # BatchNorm's statistics have neither gradient nor slots.
    untrained = counts["total"] - counts["trainable"]
    assert memory["weights_gradients_and_slots"] == 16 * counts["trainable"] + 4 * untrained
    assert (
        memory["total"]
        == memory["weights_gradients_and_slots"] + 3 * memory["activations_per_image"]
    )
    # The first convolution's output, its normalisation and ReLU alone keep three maps.
    assert memory["activations_per_image"] > 3 * 4 * 32 * 64 * 64


def test_memory_follows_what_training_saves_and_adds(config, result):
    changed = copy.deepcopy(config)
    changed.training.MergeFrom(
        training_pb2.TrainingOptions(
            batch_size_per_replica=6,
            gradient_accumulation_steps=3,
            ema_decay=0.9,
            rematerialize_backbone=True,
            rematerialize_tokenizer=True,
        )
    )
    described = summary.summarize(changed)
    memory, plain = described["training_memory"], result["training_memory"]
    assert memory["average"] == 4 * described["parameters"]["sum"]["total"]
    assert memory["activations_per_image"] < 0.8 * plain["activations_per_image"]
    assert memory["total"] == (
        memory["weights_gradients_and_slots"]
        + memory["average"]
        + 2 * memory["activations_per_image"]
    )
    text = summary.format_summary(described)
    assert "batch 6 on each device, in 3 parts" in text
    assert "average" in text and "rematerialized" in text
    plain_text = summary.format_summary(result)
    assert "batch 3 over all devices)" in plain_text
    assert "average" not in plain_text and "rematerialized" not in plain_text


def test_a_frozen_backbone_keeps_nothing_for_gradients(config, result):
    model = build_model(config)
    model.backbone.trainable = False
    described = summary.summarize(config, model)
    memory, plain = described["training_memory"], result["training_memory"]
    counts = described["parameters"]
    assert counts["backbone"]["trainable"] == 0
    assert memory["weights_gradients_and_slots"] == (
        4 * counts["sum"]["total"] + 12 * counts["sum"]["trainable"]
    )
    # Of what the backbone keeps, the hypercolumn still reads the endpoints.
    saved = plain["activations_per_image"] - memory["activations_per_image"]
    assert saved > 0.3 * plain["activations_per_image"]


def test_paper_form_is_undone_and_costs_differ(model, result):
    with contextlib.suppress(RuntimeError), summary.paper_form(model):
        seen = model.tokenizer.implementation, model.association.alignment
        raise RuntimeError
    assert seen == ("gather", "relative")
    layers = [model.tokenizer, *model.tokenizer.cross_attentions]
    assert {layer.implementation for layer in layers} == {"fold"}
    assert model.association.alignment == "aligned"
    counts = result["multiply_adds"]
    assert counts["paper_rule"]["parts"]["backbone"] == counts["as_configured"]["parts"]["backbone"]
    assert (
        counts["paper_rule"]["parts"]["association"]
        < (counts["as_configured"]["parts"]["association"])
    )


def test_text_names_the_rule_and_the_numbers(result):
    text = summary.format_summary(result, "bfloat16")
    trainable = result["parameters"]["sum"]["trainable"]
    for expected in ("64x128", "2x4", f"{trainable:,}", "bfloat16", "gather", "estimated"):
        assert expected in text
    assert max(map(len, text.splitlines())) <= 100
