"""What is lowered for TPUs is the step that trains. The lowering is tried for the CPU, which needs no other package."""

import importlib.util
import json
import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import sp_transformer as spt
from sp_transformer.config import derived
from sp_transformer.model import builder
from sp_transformer.training import optimizer as optimizers
from sp_transformer.training import train_step

ROOT = pathlib.Path(__file__).parents[2]
TINY = """
experiment_name: "tests/lowered"
model {
  channels: 16
  backbone { name: "resnet18" }
  hypercolumn { max_hidden_channels: 16 }
  tokenizer { superpixel_stride: 32 layers: 1 }
  classifier { layers: 1 feed_forward_width: 16 }
}
data { dataset: "synthetic_streets" crop_height: 32 crop_width: 64 }
training { batch_size: 2 learning_rate: 1e-2 warmup_steps: 0 gradient_clip_norm: 1 }
"""
REMATERIALIZED = "training { rematerialize_backbone: true rematerialize_tokenizer: true }"


@pytest.fixture(scope="module")
def lowering():
    before = dict(os.environ)
    path = ROOT / "scripts" / "lower_for_tpu.py"
    spec = importlib.util.spec_from_file_location("lower_for_tpu", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.textproto"
    path.write_text(TINY)
    return path


def test_nothing_is_left_to_ask_the_network_for(lowering):
    assert os.environ["TPU_LIBRARY_PATH"] == "/dev/null"
    assert os.environ["TPU_SKIP_MDS_QUERY"] == "1"
    assert os.environ["GCE_METADATA_IP"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param([], id="kept"),
        pytest.param([REMATERIALIZED], id="rematerialized", marks=pytest.mark.slow),
    ],
)
def test_stateless_step_equals_the_step(lowering, tiny, overrides):
    config = spt.load_config(tiny, overrides=overrides)
    size = derived.input_size(config)
    generator = np.random.default_rng(0)
    images = tf.constant(generator.integers(0, 256, (2, *size, 3)), tf.float32)
    labels = tf.constant(generator.integers(0, derived.num_classes(config), (2, *size)), tf.int32)
    results = []
    for stateless in (False, True):
        keras.utils.set_random_seed(3)
        model = builder.build_model(config)
        if stateless:
            step = lowering.StatelessTrainStep(config, model)
            values = [tf.convert_to_tensor(variable.value) for variable in step.variables]
            loss, norm, after = tf.function(step)(images, labels, values)
            # The variables themselves stay as they are.
            for variable, value in zip(step.variables, values, strict=True):
                np.testing.assert_array_equal(variable.numpy(), value)
        else:
            optimizer = optimizers.create_optimizer(config.training, model)
            ignore_label = derived.label_map(config).ignore_label
            loop = train_step.TrainLoop(
                model, optimizer, config.training, ignore_label, tf.distribute.get_strategy()
            )
            before = [variable.numpy() for variable in model.trainable_variables]
            loss, norm = tf.function(loop._replica_step)(images, labels)
            after = [variable.value for variable in [*model.variables, *optimizer.variables]]
            moved = sum(
                not np.array_equal(old, new.numpy())
                for old, new in zip(before, model.trainable_variables, strict=True)
            )
            assert moved > 0.8 * len(before)
        results.append((float(loss), float(norm), [np.asarray(value) for value in after]))
    (loss, norm, after), (stateless_loss, stateless_norm, stateless_after) = results
    assert stateless_loss == pytest.approx(loss, rel=1e-6)
    assert stateless_norm == pytest.approx(norm, rel=1e-4)
    assert len(after) == len(stateless_after)
    for mine, other in zip(after, stateless_after, strict=True):
        # Adam's first steps make signs of rounding; by less than a hundredth of the learning rate nearly everywhere.
        close = np.isclose(mine, other, rtol=1e-4, atol=1e-5)
        assert close.mean() > 0.95


def test_report_of_a_config(lowering, tiny, tmp_path):
    rows = lowering.lower_config(tiny, [], ["float32"], lowering.PROGRAMS, 1, "CPU")
    assert [row["program"] for row in rows] == list(lowering.PROGRAMS)
    for row in rows:
        assert row["error"] is None and row["dynamic_shapes"] == []
        assert row["ops"]["convolution"] >= 10
        assert row["images"] == [2, 32, 64, 3]
    by_name = {row["program"]: row["ops"] for row in rows}
    assert by_name["train_step"]["convolution"] > 2 * by_name["forward"]["convolution"]
    json.dumps(rows)


def test_says_what_does_not_lower(lowering):
    specs = [tf.TensorSpec((3, 4))]
    failed = lowering.lower(lambda x: tf.py_function(lambda v: v, [x], tf.float32), specs, "CPU")
    assert "PyFunc" in failed["error"] and failed["ops"] == {}
    dynamic = lowering.lower(lambda x: tf.boolean_mask(x, x > 0), specs, "CPU")
    assert dynamic["error"] is None and dynamic["dynamic_shapes"]
    row = {"config": "c", "precision": "float32", "program": "p", "images": [1, 2, 3, 3]}
    assert "FAILED" in lowering.format_row({**row, **failed})
    assert "DYNAMIC SHAPES" in lowering.format_row({**row, **dynamic})


def test_histogram_counts_instructions(lowering):
    text = """
ENTRY main {
  %p = f32[2,3]{1,0} parameter(0)
  %t = (f32[2]{0}, s32[]) tuple(f32[2]{0} %a, s32[] %b)
  ROOT %c.1 = f32[2,3]{1,0} custom-call(f32[2,3]{1,0} %p), custom_call_target="ResizeBilinear"
}
"""
    assert lowering.histogram(text) == {
        "custom-call": 1,
        "custom-call ResizeBilinear": 1,
        "parameter": 1,
        "tuple": 1,
    }


def test_published_configs_are_found(lowering):
    names = ["/".join(path.parts[-2:]) for path in lowering.published_configs()]
    assert "cityscapes/resnet50.textproto" in names
    assert not [name for name in names if name.startswith("label_maps")]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [(["--programs", "train"], "unknown train"), (["--cores", "0"], "--cores is 0")],
)
def test_bad_flags(lowering, arguments, fault, capsys):
    with pytest.raises(SystemExit) as ended:
        lowering.main(arguments)
    assert ended.value.code == 2
    assert fault in capsys.readouterr().err
