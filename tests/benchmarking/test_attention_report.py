"""The attention report on a handful of superpixels: that its forms compute the same, and what it hands out."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from sp_transformer.benchmarking import attention_report, memory, report, settings
from sp_transformer.protos import experiment_pb2

CASE = {
    "direction": "forward+backward",
    "batch_size": 2,
    "rows": 3,
    "columns": 4,
    "cell_size": 2,
    "heads": 2,
    "channels": 4,
    "precision": "float32",
    "jit_compile": False,
}


@pytest.fixture
def config():
    """8x12 features of 8 channels, 4x6 superpixels."""
    config = experiment_pb2.ExperimentOptions(experiment_name="tests/attention")
    config.model.channels = 8
    config.model.backbone.name = "resnet18"
    config.model.hypercolumn.stride = 4
    config.model.hypercolumn.endpoint_strides.extend([4, 8])
    config.model.tokenizer.superpixel_stride = 8
    config.model.tokenizer.heads = 2
    config.data.dataset = "synthetic_streets"
    config.data.crop_height, config.data.crop_width = 32, 48
    return config


def make_settings(**changes):
    values = {"report": "attention", "rounds": 2, "warmup": 1, **changes}
    return settings.Settings(config_files=("tests",), **values)


def own_layout(x, tile):
    """What the report must feed the model's cores with, written out with loops: [B, H, W, N, D] by tile, head-major."""
    batch, height, width, heads, size = x.shape
    side = tile * CASE["cell_size"]
    tile_rows, tile_columns = -(-height // side), -(-width // side)
    result = np.zeros((batch * heads, tile_rows * tile_columns, side * side, size), np.float32)
    for b, y, z, n in np.ndindex(batch, height, width, heads):
        group = y // side * tile_columns + z // side
        result[b * heads + n, group, y % side * side + z % side] = x[b, y, z, n]
    return result


@pytest.mark.parametrize("form", ["gather", "fold"])
def test_forms_in_both_layouts_compute_outputs_and_gradients_of_the_same_sizes(form):
    plain = attention_report.prepare(form=f"{form}, plain layout", **CASE)()
    slices = attention_report.prepare(form="slices", **CASE)()
    own = attention_report.prepare(form=form, **CASE)()
    assert len(plain) == len(slices) == len(own) == 8
    for ours, theirs in zip(plain, slices, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    # The model's own layout holds the same numbers in another order.
    _, rows, columns, _, size = slices[0].shape
    superpixels = np.transpose(slices[0], (0, 3, 1, 2, 4)).reshape(-1, rows * columns, size)
    np.testing.assert_allclose(own[0], superpixels, rtol=1e-4, atol=1e-5)
    tile = 2 if form == "fold" else 1
    expected, actual = own_layout(slices[1].numpy(), tile), own[1].numpy()
    # Pixels that fill up a tile may hold anything.
    real = own_layout(np.ones(slices[1].shape), tile) > 0
    np.testing.assert_allclose(actual[real], expected[real], rtol=1e-4, atol=1e-5)
    assert not any(np.all(gradient == 0) for gradient in own[2:])


@pytest.mark.parametrize("form", attention_report.FORMS)
def test_every_form_runs_compiled_and_in_bfloat16(form):
    case = {**CASE, "direction": "forward", "precision": "bfloat16", "jit_compile": True}
    outputs = attention_report.prepare(form=form, **case)()
    assert len(outputs) == 2
    assert all(output.dtype == tf.bfloat16 for output in outputs)
    assert all(np.all(np.isfinite(tf.cast(output, tf.float32))) for output in outputs)


def test_unknown_forms_are_errors():
    with pytest.raises(ValueError, match=r"'strides'.*forms are slices, gather"):
        attention_report.prepare(form="strides", **CASE)


def test_shapes_follow_from_config_and_axes(config):
    own = attention_report.groups(config, make_settings())
    assert [group["direction"] for group in own] == ["forward", "forward+backward"]
    assert own[0] == {
        "direction": "forward",
        "batch_size": 1,
        "rows": 4,
        "columns": 6,
        "cell_size": 2,
        "heads": 2,
        "channels": 4,
        "precision": "float32",
        "jit_compile": False,
    }
    # 60 is padded to 64, as in inference.
    axes = {
        "sizes": ((60, 96), (32, 48)),
        "precisions": ("bfloat16",),
        "jit_compile": (True, False),
    }
    wider = attention_report.groups(config, make_settings(batch_sizes=(3,), **axes))
    assert len(wider) == 2 * 2 * 2
    assert (wider[0]["rows"], wider[0]["columns"], wider[0]["batch_size"]) == (8, 12, 3)
    assert {group["precision"] for group in wider} == {"bfloat16"}


def test_report_has_a_row_for_every_form_and_pass_and_the_memory_of_each(
    config, monkeypatch, tmp_path
):
    measured = []

    def peak_memory(function, arguments):
        module, name = function.split(":")
        assert module == attention_report.__name__ and callable(getattr(attention_report, name))
        # What the child gets has come through JSON.
        measured.append(attention_report.Case(**json.loads(json.dumps(arguments))))
        if measured[-1].form == "slices":
            raise memory.MemoryMeasurementError("out of memory")
        return memory.PeakMemory("cpu", 2**20, 4 * 2**20)

    monkeypatch.setattr(memory, "peak_memory", peak_memory)
    result = attention_report.run(config, make_settings(peak_memory=True))
    assert [(row["form"], row["pass"]) for row in result.rows] == [
        (form, direction)
        for direction in attention_report.PASSES
        for form in attention_report.FORMS
    ]
    assert [(case.form, case.direction) for case in measured] == [
        (row["form"], row["pass"]) for row in result.rows
    ]
    for row in result.rows:
        assert row["peak (MiB)"] == (None if row["form"] == "slices" else 3)
        assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0
        assert row["form"] != "fold" or row["ratio_median"] == 1
        assert row["pixels"] == "1x8x12x2x4" and row["superpixels"] == "4x6"
    report.write_json(result, tmp_path / "report.json")
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["settings"]["rounds"] == 2 and len(stored["rows"]) == 12
    assert "peak (MiB)" in report.table(result)
    assert any("2 rounds after 1 of warm-up" in rule for rule in result.rules)


@pytest.mark.parametrize("fails", ["slices", "fold"])
def test_a_form_that_does_not_fit_is_named_and_the_others_are_measured(config, monkeypatch, fails):
    prepare = attention_report.prepare

    def without_memory(**case):
        if case["form"] == fails and case["direction"] == "forward+backward":
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        return prepare(**case)

    monkeypatch.setattr(attention_report, "prepare", without_memory)
    result = attention_report.run(config, make_settings())
    assert len(result.rows) == 2 * len(attention_report.FORMS) - 1
    (note,) = [note for note in result.notes if "could not run" in note]
    assert f'"{fails}, forward+backward' in note and "OOM when allocating" in note
    without_ratio = [row for row in result.rows if "ratio_median" not in row]
    assert len(without_ratio) == (len(attention_report.FORMS) - 1 if fails == "fold" else 0)
    assert fails in report.table(result)


def test_where_no_form_can_run_the_reasons_are_the_error(config, monkeypatch):
    def fail(**_):
        raise RuntimeError("no device")

    monkeypatch.setattr(attention_report, "prepare", fail)
    with pytest.raises(ValueError, match=r"nothing could be measured: .*no device"):
        attention_report.run(config, make_settings())


def test_a_case_is_what_json_can_hold():
    case = attention_report.Case(form="fold", **CASE)
    assert json.loads(json.dumps(dataclasses.asdict(case))) == {"form": "fold", **CASE}
