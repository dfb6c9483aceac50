"""The stages of Table IV, one by one. No test asserts how long anything takes."""

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.benchmarking import programs, rules, stage_report, stages, timing, variants
from sp_transformer.benchmarking.settings import Settings

CONFIG = "configs/synthetic/quickstart.textproto"
TINY = """
model {
  channels: 8
  hypercolumn { max_hidden_channels: 8 }
  tokenizer { superpixel_stride: 16 }
  classifier { layers: 1 heads: 2 feed_forward_width: 8 }
}
"""


def tiny(*overrides, **arguments):
    return Settings(
        config_files=(CONFIG,),
        overrides=(TINY, *overrides),
        report="stages",
        sizes=((32, 32),),
        **arguments,
    )


@pytest.fixture(scope="module")
def models():
    return programs.Models()


def test_stages_of_inference_end_where_the_whole_does(models):
    (variant,) = variants.plan(tiny())
    made = stages.stage_programs(variant, models)
    assert list(made) == [*rules.PAPER_STAGES_MS, stages.WHOLE]
    labels = made["association"]()
    assert labels.dtype == tf.int32 and labels.shape == (1, 32, 32)
    assert np.mean(labels.numpy() == made[stages.WHOLE]()) > 0.99
    endpoints = made[stages.BACKBONE]()
    assert sorted(endpoints) == [4, 8, 16]


def test_stages_of_training_give_outputs_and_all_gradients(models):
    (variant,) = variants.plan(tiny(modes=("training",)))
    made = stages.stage_programs(variant, models)
    model = models.of(variant)
    parts = {
        "backbone": (model.backbone, 0),
        "hypercolumn": (model.hypercolumn, 3),
        "superpixel tokenization": (model.tokenizer, 1),
        "self-attention": (model.classifier, 1),
        "association": (model.association, 3),
    }
    for name, (layer, inputs) in parts.items():
        outputs, gradients = made[name]()
        # A bias on keys cancels in the softmax: a form of the attention may give it no gradient.
        assert 0 <= inputs + len(layer.trainable_variables) - len(gradients) <= 2, name
        for gradient in gradients:
            assert np.isfinite(gradient).all(), name
        assert any(np.any(gradient) for gradient in gradients), name
        if name == "association":
            assert outputs.shape == () and outputs.dtype == tf.float32
    # The loss of the last stage is that of the whole step before the first update.
    loss, _ = made["association"]()
    assert made[stages.WHOLE]() == pytest.approx(float(loss), rel=1e-4)


def test_backbones_alone_are_those_that_no_stage_times(models):
    (folded,) = variants.plan(tiny())
    assert stages.backbone_programs(folded, models) == {}
    (as_it_is,) = variants.plan(tiny(inference_form=(False,)))
    made = stages.backbone_programs(as_it_is, models)
    assert list(made) == [stages.OURS_FOLDED]
    model, images = models.of(as_it_is), programs.random_images(as_it_is)
    expected = model.backbone(tf.cast(images, tf.float32) / 127.5 - 1)
    endpoints = made[stages.OURS_FOLDED]()
    for stride, endpoint in endpoints.items():
        np.testing.assert_allclose(endpoint, expected[stride], rtol=1e-3, atol=1e-3)


def test_keras_resnet50_stands_beside_ours():
    override = 'model { backbone { name: "resnet50" } }'
    (variant,) = variants.plan(tiny(override))
    made = stages.backbone_programs(variant, programs.Models())
    assert list(made) == [stages.KERAS_RESNET50]
    assert made[stages.KERAS_RESNET50]().shape == (1, 1, 1, 2048)


def _timings(**seconds):
    parts = dict.fromkeys(rules.PAPER_STAGES_MS, (1.0, 1.0, 1.0))
    return {name: timing.Timing(values) for name, values in {**parts, **seconds}.items()}


def _rows(timings, **arguments):
    (variant,) = variants.plan(tiny(**arguments))
    return {row["stage"]: row for row in stage_report.stage_rows(variant, timings)}


def test_shares_and_rest_are_of_the_same_round():
    timings = _timings(backbone=(2.0, 4.0, 6.0), whole=(8.0, 16.0, 12.0))
    rows = _rows(timings)
    assert rows["backbone"]["median_share"] == 0.25
    assert rows["rest"]["seconds"] == [2.0, 8.0, 2.0]
    assert rows["whole"]["median_share"] == 1.0
    assert rows["backbone"]["paper (%)"] == 42.7
    assert rows["backbone alone: ours, BatchNorm folded"]["whole over it"] == "4.00 [3.00, 4.00]"
    assert sum(row.get("paper (%)", 0) for row in rows.values()) == pytest.approx(100, abs=0.2)


@pytest.mark.parametrize(
    ("arguments", "alone", "faster", "quotient"),
    [
        ({"inference_form": (False,)}, {}, "ours, BatchNorm folded", 4.0),
        ({"inference_form": (False,)}, {stages.KERAS_RESNET50: 1.0}, "keras.applications", 8.0),
        ({"modes": ("training",)}, {}, "ours", 2.0),
    ],
)
def test_the_faster_backbone_is_the_denominator(arguments, alone, faster, quotient):
    seconds = {name: (value,) * 3 for name, value in alone.items()}
    if "modes" not in arguments:
        seconds[stages.OURS_FOLDED] = (2.0,) * 3
    rows = _rows(_timings(backbone=(4.0,) * 3, whole=(8.0,) * 3, **seconds), **arguments)
    assert rows[f"whole over the faster backbone ({faster})"]["median_ratio"] == quotient


def _toy_programs(variant, models):
    def run():
        if variant.batch_size > 1:
            raise MemoryError("too large")

    return dict.fromkeys([*rules.PAPER_STAGES_MS, stages.WHOLE], run)


def test_report_of_all_stages(monkeypatch):
    """The functions themselves are tested above."""
    monkeypatch.setattr(stages, "stage_programs", _toy_programs)
    report = stage_report.run(tiny(rounds=1, batch_sizes=(1, 2)))
    assert [row["stage"] for row in report.rows] == [
        *rules.PAPER_STAGES_MS,
        "rest",
        "whole",
        "backbone alone: ours, BatchNorm folded",
        "whole over the faster backbone (ours, BatchNorm folded)",
    ]
    assert all(row["variant"] == "batch 1" for row in report.rows)
    assert report.notes == ['"batch 2" could not run and is left out: MemoryError: too large']
    assert any("Table IV" in rule for rule in report.rules)
    with pytest.raises(ValueError, match="nothing could be measured"):
        stage_report.run(tiny(batch_sizes=(2,)))
