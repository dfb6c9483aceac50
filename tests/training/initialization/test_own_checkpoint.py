"""Checkpoints of this package: the backbone, the whole model, and a model with other classes."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

import sp_transformer as spt
from sp_transformer.model import weights
from sp_transformer.training import initialization
from sp_transformer.training.initialization import InitializationError


@pytest.fixture
def start(tiny_run):
    """Function that initialises a fresh model of tiny_run's config, changed by an override, from its checkpoint."""

    def run(options="", override="", path=tiny_run.model_dir):
        config = spt.load_config(
            tiny_run.model_dir / "tiny.textproto",
            overrides=[
                f'training {{ initialization {{ kind: CHECKPOINT path: "{path}" {options} }} }}',
                override,
            ],
        )
        model = spt.build_model(config)
        before = {k: np.asarray(v) for k, v in weights.named_variables(model).items()}
        run.unchanged = lambda: all(
            np.array_equal(v, before[k]) for k, v in weights.named_variables(model).items()
        )
        return model, initialization.initialize(config, model), before

    return run


CLASSES = (
    'data { dataset: "folder" label_map { classes { name: "a" color: "#000000" } classes { name: "b" '
    'color: "#ffffff" } } folder { splits { name: "train" images: "a/*" labels: "b/*" } splits { name: '
    '"val" images: "a/*" labels: "b/*" } } }'
)


def test_backbone_only(tiny_run, start):
    model, report, before = start()
    source = weights.named_variables(tiny_run.inference.model)
    for name, variable in weights.named_variables(model).items():
        expected = source[name] if name.startswith("backbone/") else before[name]
        np.testing.assert_array_equal(variable, expected, err_msg=name)
    assert report.fits and report.others == sum(not n.startswith("backbone/") for n in before)
    assert "model/classifier/logits/bias" in report.unused and "step" in report.unused


def test_whole_model(tiny_run, start):
    model, report, _ = start("part: WHOLE_MODEL")
    source = weights.named_variables(tiny_run.inference.model)
    for name, variable in weights.named_variables(model).items():
        np.testing.assert_array_equal(variable, source[name], err_msg=name)
    assert report.unused == ("step",) and report.others == 0


def test_other_classes_need_the_last_layer_skipped(tiny_run, start):
    with pytest.raises(InitializationError) as error:
        start("part: WHOLE_MODEL", CLASSES)
    message = str(error.value)
    assert "classifier/logits/bias: [2] here, [19] in the file" in message
    assert 'skip: "classifier/logits"' in message and start.unchanged()
    model, report, before = start('part: WHOLE_MODEL skip: "classifier/logits"', CLASSES)
    source = weights.named_variables(tiny_run.inference.model)
    for name, variable in weights.named_variables(model).items():
        expected = before[name] if name.startswith("classifier/logits") else source[name]
        np.testing.assert_array_equal(variable, expected, err_msg=name)
    assert set(report.skipped) == {"classifier/logits/kernel", "classifier/logits/bias"}
    # What fits without being asked.
    _, report, _ = start("part: WHOLE_MODEL strict: false", CLASSES)
    assert len(report.mismatched) == 2 and len(report.loaded) == len(before) - 2


def test_other_model_options_are_named_and_may_be_accepted(start):
    raw = "model { backbone { input_normalization: RAW } }"
    with pytest.raises(
        InitializationError,
        match=r"model\.backbone\.input_normalization: MINUS_ONE_TO_ONE there, RAW here",
    ):
        start(override=raw)
    _, report, _ = start('accepted_differences: "model.backbone.input_normalization"', raw)
    assert report.fits
    # Drop path changes no weight's meaning, and of the decoder only the whole model is asked.
    assert start(
        override="model { backbone { drop_path_rate: 0.1 zero_init_residual: false } channels: 32 }"
    )[1].fits
    with pytest.raises(InitializationError, match=r"model\.channels: 16 there, 32 here"):
        start("part: WHOLE_MODEL", "model { channels: 32 }")


def test_another_architecture_without_its_config(tiny_run, start, tmp_path, caplog):
    for file in tiny_run.model_dir.glob("ckpt-7.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InitializationError, match=r"missing in the file \(\d+\):\n    backbone/"):
        start(override='model { backbone { name: "resnet34" } }', path=tmp_path / "ckpt-7")
    assert start.unchanged() and "is not checked" in caplog.text


def test_what_is_no_run_is_refused(start, tmp_path):
    prefix = tf.train.Checkpoint(a=tf.Variable(1.0)).write(str(tmp_path / "ckpt-1"))
    with pytest.raises(InitializationError, match="no checkpoint of a training run"):
        start(path=prefix)
    with pytest.raises(InitializationError, match='skip "decoder" begins no variable'):
        start('part: WHOLE_MODEL skip: "decoder"')


def test_values_that_are_not_finite_are_refused(tiny_run, start, tmp_path):
    source = spt.build_model(tiny_run.config)
    source.backbone.stem.conv.kernel.assign(source.backbone.stem.conv.kernel * np.nan)
    tf.train.Checkpoint(model=weights.model_weights(source), step=tf.Variable(1)).write(
        str(tmp_path / "ckpt-1")
    )
    (tmp_path / "config.textproto").write_text(text_format.MessageToString(tiny_run.config))
    with pytest.raises(InitializationError, match=r"stem/conv/kernel that are NaN"):
        start(path=tmp_path)
    assert start.unchanged()
