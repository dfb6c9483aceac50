"""Reading, merging, base files, overrides, bundled configs and errors of the text itself."""

import pathlib
import pickle
import subprocess
import sys
import time

import pytest

from sp_transformer.config import ConfigError, load_config, loading
from sp_transformer.protos import experiment_pb2

QUICKSTART = "configs/synthetic/quickstart.textproto"


def faults_of(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        load_config(*args, **kwargs)
    return caught.value.faults


def test_merge_replaces_scalars_and_lists_and_recurses_into_messages():
    target = experiment_pb2.ExperimentOptions()
    target.model.channels = 64
    target.model.tokenizer.heads = 2
    target.model.hypercolumn.endpoint_strides.extend([2, 8, 32])
    source = experiment_pb2.ExperimentOptions()
    source.model.tokenizer.layers = 0
    source.model.hypercolumn.endpoint_strides.extend([4])
    source.training.SetInParent()
    loading.merge(source, target)
    assert target.model.channels == 64
    assert target.model.tokenizer.heads == 2
    # Zero that is set is a value, not an absence.
    assert target.model.tokenizer.HasField("layers") and target.model.tokenizer.layers == 0
    assert list(target.model.hypercolumn.endpoint_strides) == [4]
    assert target.HasField("training")


def test_merge_replaces_lists_of_messages():
    target, source = experiment_pb2.ExperimentOptions(), experiment_pb2.ExperimentOptions()
    for name in ("a", "b"):
        target.data.label_map.classes.add(name=name)
    source.data.label_map.classes.add(name="c")
    loading.merge(source, target)
    assert [entry.name for entry in target.data.label_map.classes] == ["c"]


def test_later_bases_win_over_earlier_and_the_file_over_all(write, folder_config):
    write("training { steps: 1 warmup_steps: 1 batch_size: 1 }", "bases/one.textproto")
    write("training { steps: 2 warmup_steps: 2 }", "bases/two.textproto")
    top = write(
        """base_config: "mine/folder.textproto"
        base_config: "bases/one.textproto"
        base_config: "bases/two.textproto"
        training { steps: 3 }"""
    )
    config = load_config(top)
    training = config.training
    assert (training.batch_size, training.warmup_steps, training.steps) == (1, 2, 3)
    assert config.data.dataset == "folder"
    assert not config.base_config


def test_base_is_relative_to_the_file_that_names_it(write, folder_config):
    write('base_config: "folder.textproto" training { steps: 7000 }', "mine/middle.textproto")
    config = load_config(write('base_config: "../mine/middle.textproto"', "other/top.textproto"))
    assert config.training.steps == 7000


def test_a_base_used_twice_is_no_cycle(write, folder_config):
    write('base_config: "folder.textproto"', "mine/a.textproto")
    write('base_config: "folder.textproto"', "mine/b.textproto")
    config = load_config(write('base_config: "mine/a.textproto" base_config: "mine/b.textproto"'))
    assert config.data.crop_height == 64


def test_base_may_be_bundled(write):
    config = load_config(write(f'base_config: "{QUICKSTART}" training {{ steps: 77 }}'))
    assert config.training.steps == 77
    assert config.data.dataset == "synthetic_streets"


def test_cycle_is_named(write):
    write('base_config: "b.textproto"', "a.textproto")
    b = write('base_config: "a.textproto"', "b.textproto")
    (fault,) = faults_of(b)
    assert "cycle" in fault and fault.count("b.textproto") == 2 and "remove" in fault


def test_missing_base_is_named_with_the_file_that_asks_for_it(write):
    top = write('base_config: "gone.textproto"')
    (fault,) = faults_of(top)
    assert str(top) in fault and "gone.textproto" in fault and "does not exist" in fault


def test_overrides_apply_in_order_and_last(folder_config):
    overrides = ["training { steps: 9000 batch_size: 4 }", "training { steps: 8000 }"]
    config = load_config(folder_config, overrides)
    assert (config.training.steps, config.training.batch_size) == (8000, 4)


def test_override_replaces_a_list(folder_config):
    override = "model { hypercolumn { endpoint_strides: 4 endpoint_strides: 16 } }"
    config = load_config(folder_config, [override, override.replace("16", "32")])
    assert list(config.model.hypercolumn.endpoint_strides) == [4, 32]


def test_a_single_override_may_be_a_string(folder_config):
    assert load_config(folder_config, "training { steps: 9000 }").training.steps == 9000


def test_override_cannot_name_a_base(folder_config):
    (fault,) = faults_of(folder_config, ['base_config: "x.textproto"'])
    assert "override 1" in fault and "x.textproto" in fault and "config file" in fault


def test_data_dir_wins_over_file_and_overrides(folder_config):
    config = load_config(folder_config, ['data { data_dir: "theirs" }'], data_dir="ours")
    assert config.data.data_dir == "ours"


def test_experiment_name_defaults_to_folder_and_file(folder_config, write):
    assert load_config(folder_config).experiment_name == "mine/folder"
    named = load_config(folder_config, ['experiment_name: "mine, retried"'])
    assert named.experiment_name == "mine, retried"


def test_bundled_configs_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(QUICKSTART).experiment_name == "synthetic/quickstart"
    assert QUICKSTART in loading.bundled_configs()


def test_bundled_configs_are_found_inside_a_wheel(tmp_path, monkeypatch):
    text = pathlib.Path(loading._BUNDLED_ROOTS[0], "synthetic/quickstart.textproto").read_text()
    wheel_root = tmp_path / "sp_transformer" / "configs"
    (wheel_root / "synthetic").mkdir(parents=True)
    (wheel_root / "synthetic" / "quickstart.textproto").write_text(text)
    monkeypatch.setattr(loading, "_BUNDLED_ROOTS", (tmp_path / "configs", wheel_root))
    monkeypatch.chdir(tmp_path)
    assert load_config(QUICKSTART).data.dataset == "synthetic_streets"
    assert loading.bundled_configs() == [QUICKSTART]


def test_a_file_on_disk_wins_over_a_bundled_one(tmp_path, monkeypatch, write, folder_config):
    write(folder_config.read_text(), QUICKSTART)
    monkeypatch.chdir(tmp_path)
    assert load_config(QUICKSTART).data.dataset == "folder"


def test_mistyped_bundled_path_names_the_nearest():
    (fault,) = faults_of("configs/sythetic/quickstart.textproto")
    assert "configs/sythetic/quickstart.textproto does not exist" in fault
    assert f"did you mean the bundled {QUICKSTART}" in fault


def test_a_folder_is_no_config(folder_config):
    (fault,) = faults_of(folder_config.parent)
    assert "is a folder" in fault and "folder.textproto" in fault


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "x.textproto"
    path.write_bytes(b"\xff\xfe\x00")
    (fault,) = faults_of(path)
    assert str(path) in fault and "UTF-8" in fault


def test_misspelt_field_gives_position_and_nearest_name(write):
    path = write("\nmodel {\n  tokenizer { head: 2 }\n}")
    (fault,) = faults_of(path)
    assert fault.startswith(f"{path}:3:15: ")
    assert 'model.tokenizer has no field "head"; did you mean "heads"?' in fault


def test_misplaced_field_says_where_it_belongs(write):
    (fault,) = faults_of(write("model { batch_size: 8 }"))
    assert 'model has no field "batch_size"' in fault
    assert "training.batch_size and evaluation.batch_size" in fault


def test_unlike_field_lists_the_fields(write):
    (fault,) = faults_of(write("evaluation { zzz: 8 }"))
    assert 'evaluation has no field "zzz"' in fault
    assert "batch_size, max_images, pictures" in fault


def test_misspelt_enum_value_gives_nearest_name(write):
    (fault,) = faults_of(write("model { tokenizer { queries: LERNED } }"))
    assert "model.tokenizer.queries LERNED is unknown; did you mean LEARNED?" in fault
    assert "LEARNED, CELL_MEAN" in fault


# "\x0b" and "\u2028" end a line for str.splitlines, though not for protobuf.
@pytest.mark.parametrize("comment", ["", " # \x0b \u2028"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_an_override_may_end_as_on_windows(folder_config, end, comment):
    lines = [
        "model {" + comment,
        "  chanels: 64",
        "  channels: 32",
        "}",
        "training {",
        "  stps: 5",
        "}",
    ]
    with pytest.raises(ConfigError) as caught:
        load_config(folder_config, [end.join(lines) + end])
    first, second = caught.value.faults
    assert first.startswith("override 1:2:3: ") and first.endswith("in 'chanels: 64'")
    assert second.startswith("override 1:6:3: ") and second.endswith("in 'stps: 5'")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('model { channels: "a" }', "Couldn't parse integer"),
        ("model { channels: 1 channels: 2 }", 'multiple "channels" fields'),
        ("model { channels: 99999999999 }", "Value out of range: 99999999999"),
        ("model {", 'Expected "}"'),
        ("training { jit_compile: maybe }", 'Expected "true" or "false"'),
    ],
)
def test_text_that_is_no_textproto_gives_position_and_line(write, text, expected):
    path = write(f"# comment\n{text}")
    (fault,) = faults_of(path)
    assert fault.startswith(f"{path}:2:")
    assert expected in fault and text in fault


def test_all_texts_are_parsed_before_giving_up(write):
    write("model { chanels: 2 }", "base.textproto")
    top = write('base_config: "base.textproto"\ntraining { step: 2 }')
    faults = faults_of(top, ["data { crop: 3 }", "evaluation { picture: 3 }"])
    assert len(faults) == 4
    for name in ("chanels", "step", "crop", "picture"):
        assert any(f'no field "{name}"' in fault for fault in faults)


def test_faults_of_all_kinds_are_listed_together(folder_config):
    with pytest.raises(ConfigError) as caught:
        load_config(
            folder_config,
            [
                "data { crop_height: 65 augmentation { color_policy: 'jiter' } }",
                "training { steps: 0 } model { num_classes: 3 tokenizer { heads: 3 } }",
            ],
        )
    text = str(caught.value)
    assert len(caught.value.faults) == 5
    assert "5 faults" in text
    for name in ("crop_height", "color_policy", "steps", "num_classes", "heads"):
        assert name in text
    assert pickle.loads(pickle.dumps(caught.value)).faults == caught.value.faults


def test_the_merged_config_can_be_written_and_loaded_again(folder_config, write):
    config = load_config(folder_config, ["training { steps: 9000 }"])
    again = load_config(write(str(config), "run/config.textproto"))
    assert again == config


def test_a_faulty_config_is_refused_without_tensorflow(folder_config):
    script = (
        "import sys, sp_transformer as spt\n"
        "try:\n"
        f"    spt.load_config({str(folder_config)!r}, ['training {{ steps: -1 }}'])\n"
        "except spt.ConfigError as error:\n"
        "    print(error)\n"
        "print('tensorflow' in sys.modules, 'keras' in sys.modules)\n"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    print(f"refused after {time.monotonic() - start:.2f} s")
    *_, fault, modules = done.stdout.splitlines()
    assert "training.steps -1" in fault
    assert modules == "False False"


def test_all_unknown_fields_and_all_values_are_faults_at_once(write):
    path = write(
        """base_config: "configs/synthetic/quickstart.textproto"
model { backbon { name: "x{" 'y' # a comment with }
 } channels: 101 }
training { momentum: [1, 2]  batch_siz: 3 steps: -5 }
modle <a: 1>
data { dataset: "foldr" }
"""
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    text = str(caught.value)
    for position, name in [("2:9", "backbon"), ("4:12", "momentum"), ("4:30", "batch_siz")]:
        assert f":{position}: " in text and f'has no field "{name}"' in text
    assert ':5:1: the top level has no field "modle"; did you mean "model"?' in text
    for value in ("model.tokenizer.heads", "training.steps -5", 'data.dataset "foldr"'):
        assert value in text
