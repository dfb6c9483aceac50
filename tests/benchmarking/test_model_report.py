"""Whole variants, built as the report times them. No test asserts how long anything takes."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.benchmarking import memory, model_report, programs, variants
from sp_transformer.benchmarking.settings import Settings
from sp_transformer.model import summary

CONFIG = "configs/synthetic/quickstart.textproto"
TINY = """
model {
  channels: 8
  hypercolumn { max_hidden_channels: 8 }
  tokenizer { superpixel_stride: 16 }
  classifier { layers: 1 heads: 2 feed_forward_width: 8 }
}
"""


def tiny(**arguments):
    return Settings(config_files=(CONFIG,), overrides=(TINY,), sizes=((32, 48),), **arguments)


@pytest.fixture(scope="module")
def models():
    return programs.Models()


@pytest.fixture(scope="module")
def inference():
    return variants.plan(tiny(batch_sizes=(2,)))[0]


def tell_classes_apart(model, images):
    """Weights with which an untrained model gives these images' superpixels different classes."""
    keras.utils.set_random_seed(1)
    for variable in [*model.tokenizer.trainable_variables, *model.classifier.trainable_variables]:
        variable.assign(variable + tf.random.normal(variable.shape, stddev=2.0))
    logits = model.features(images)["superpixel_logits"]
    model.classifier.logits.bias.assign_sub(tf.reduce_mean(logits, axis=[0, 1, 2]))


def test_inference_gives_the_labels_of_the_model(inference, models):
    model = models.of(inference)
    images = programs.random_images(inference)
    tell_classes_apart(model, images)
    labels = programs.program(inference, models)()
    assert isinstance(labels, np.ndarray)
    assert labels.dtype == np.int32 and labels.shape == (2, 32, 48)
    assert images.dtype == tf.uint8 and images.shape == (2, 32, 48, 3)
    expected = model.labels(model.features(images)).numpy()
    assert len(np.unique(expected)) > 1
    # Folding BatchNorm rounds differently, which may turn a tie.
    assert np.mean(labels == expected) > 0.99


def test_variants_of_the_same_weights_share_a_model(inference, models):
    others = variants.plan(tiny(batch_sizes=(1,), inference_form=(False,), jit_compile=(True,)))
    assert models.of(others[0]) is models.of(inference)
    assert models.to_run(others[0]) is models.of(inference)
    assert models.to_run(inference) is not models.of(inference)
    assert not any("batch_norm" in v.path for v in models.to_run(inference).backbone.variables)


def test_memory_case_is_the_same_variant_in_another_process(inference, monkeypatch):
    monkeypatch.setattr(programs, "program", lambda variant, models: variant)
    function, arguments = programs.memory_case(inference)
    assert function == f"{programs.__name__}:{programs.from_memory_case.__name__}"
    assert programs.from_memory_case(**json.loads(json.dumps(arguments))) == inference


def test_training_has_weights_of_its_own(models, inference):
    training, other = variants.plan(tiny(modes=("training",), jit_compile=(False, True)))
    assert len({id(models.of(variant)) for variant in (training, other, inference)}) == 3
    assert models.to_run(training) is models.of(training)
    images, labels = programs.random_images(training), programs.random_labels(training)
    assert images.dtype == tf.float32 and labels.dtype == tf.int32
    assert labels.shape == images.shape[:3] == (1, 32, 48)
    assert 0 <= np.min(labels) < np.max(labels) <= 18


def test_a_variant_that_cannot_run_is_told_and_the_others_are_measured(monkeypatch):
    def program(variant, models):
        def run():
            if variant.batch_size > 1:
                raise MemoryError("too\nlarge")

        return run

    monkeypatch.setattr(programs, "program", program)
    monkeypatch.setattr(model_report, "_count", lambda model, size: {})
    monkeypatch.setattr(programs.Models, "of", lambda self, variant: self)
    report = model_report.run(tiny(batch_sizes=(2, 1), rounds=2))
    assert [row["variant"] for row in report.rows] == ["batch 1"]
    assert report.rows[0]["ratio"] == "1"
    assert report.notes == ['"batch 2" could not run and is left out: MemoryError: too large']
    with pytest.raises(ValueError, match=r"nothing could be measured.*MemoryError"):
        model_report.run(tiny(batch_sizes=(2,)))


def test_report_of_two_variants(monkeypatch, models, inference):
    asked = []

    def peak_memory(function, arguments):
        asked.append((function, arguments["implementation"]))
        if arguments["implementation"] == "gather":
            raise memory.MemoryMeasurementError("no memory left\nat all")
        return memory.PeakMemory("cpu", 2**20, 4 * 2**20)

    monkeypatch.setattr(memory, "peak_memory", peak_memory)
    told = []
    settings = tiny(
        implementations=("fold", "gather"),
        inference_form=(False,),
        rounds=2,
        warmup=0,
        peak_memory=True,
    )
    report = model_report.run(settings, told.append)
    fold, gather = report.rows
    assert (fold["variant"], gather["variant"]) == ("fold", "gather")
    assert fold["ratio"] == "1" and fold["ratios"] == [1.0, 1.0]
    assert gather["ratios"] == [
        a / b for a, b in zip(gather["seconds"], fold["seconds"], strict=True)
    ]
    assert fold["images/s"] == pytest.approx(1 / np.median(fold["seconds"]))
    assert fold["peak memory (MiB)"] == 3.0 and "peak memory (MiB)" not in gather
    assert asked == [(f"{programs.__name__}:from_memory_case", n) for n in ("fold", "gather")]
    assert any("no memory left at all" in note for note in report.notes)
    assert set(report.columns) <= set(fold) and report.settings["rounds"] == 2
    assert any("uint8" in rule for rule in report.rules) and "git" in report.environment
    assert "round 2 of 2" in told
    # Counted as the dry run of training counts, at the benchmark's size.
    model = models.of(inference)
    assert fold["parameters"] == sum(
        part["trainable"] for part in summary.count_parameters(model).values()
    )
    assert fold["as configured (G)"] == pytest.approx(
        summary.model_multiply_adds(model, (32, 48)).total / 1e9
    )
    assert fold["paper rule (G)"] == gather["paper rule (G)"] > 0
