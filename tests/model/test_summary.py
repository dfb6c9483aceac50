import contextlib
import json

import numpy as np
import pytest

import sp_transformer as spt
from sp_transformer.model import summary
from sp_transformer.model.builder import build_model


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
    trainable = result["parameters"]["sum"]["trainable"]
    assert memory["weights_gradients_and_slots"] == 16 * trainable
    assert (
        memory["total"]
        == memory["weights_gradients_and_slots"] + 3 * memory["activations_per_image"]
    )
    # The first convolution's output, its normalisation and ReLU alone keep three maps.
    assert memory["activations_per_image"] > 3 * 4 * 32 * 64 * 64


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
