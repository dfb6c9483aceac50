"""The comparison with keras_cv's models: what is timed, what is refused, what is written."""

import importlib
import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
from absl import flags

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
CONFIG = ROOT / "configs" / "synthetic" / "quickstart.textproto"
SIZE = (64, 128)
# Tracing is what takes time: a trunk without its last stages.
TINY = """
model {
  channels: 16
  backbone { name: "resnet18" }
  hypercolumn { stride: 4 endpoint_strides: 4 endpoint_strides: 8 max_hidden_channels: 16 }
  tokenizer { superpixel_stride: 8 layers: 1 }
  classifier { layers: 1 feed_forward_width: 16 }
}
data { dataset: "synthetic_streets" crop_height: 64 crop_width: 128 }
"""
# Runs the script and says afterwards whether TensorFlow was imported on the way.
RUN = """
import sys
import compare_models
from sp_transformer import command_line
sys.argv = ["compare_models", *sys.argv[1:]]
try:
    command_line.run(compare_models.main, compare_models.define_flags)
finally:
    print("tensorflow" in sys.modules)
"""


@pytest.fixture(scope="module")
def scripts():
    """The script and its modules, importable by name as when it is run."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        names = ("compare_models", "contestants", "peers")
        yield types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.textproto"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def config(config_file):
    import sp_transformer as spt

    return spt.load_config(config_file)


def parse(scripts, *arguments):
    values = flags.FlagValues()
    scripts.compare_models.define_flags(values)
    values(["compare_models", *map(str, arguments)])
    return values


def contestant_of(scripts, run):
    count = types.SimpleNamespace(total=3_000_000_000, grouped=0)
    return scripts.contestants.Contestant(run, 2_000_000, count, ("told once",))


# ---- flags and settings


def test_sizes(scripts):
    assert scripts.compare_models.parse_size("1024x2048") == (1024, 2048)
    for text in ("1024", "1024x", "1024X2048", "0x64", "64x000", "-64x64", "64x64x3"):
        with pytest.raises(ValueError, match="HEIGHTxWIDTH"):
            scripts.compare_models.parse_size(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ()}, "no model"),
        ({"models": ("ours", "theirs")}, "unknown models theirs"),
        ({"models": ("ours", "ours")}, "twice"),
        ({"mode": "dreaming"}, "dreaming"),
        ({"models": ("ours", "ours_unfolded"), "mode": "training"}, "ours_unfolded"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"rounds": 0}, "rounds 0"),
        ({"warmup": -1}, "warmup -1"),
    ],
)
def test_faulty_settings_are_refused(scripts, changes, words):
    arguments = {"models": ("ours",), "mode": "inference", "size": SIZE, **changes}
    with pytest.raises(ValueError, match=words):
        scripts.compare_models.Settings(**arguments)


def test_flags_reach_config_and_settings(scripts):
    from sp_transformer.protos import training_pb2

    module = scripts.compare_models
    config, settings = module.read_flags(
        parse(scripts, f"--config_file={CONFIG}", "--size=96x160", "--precision=bfloat16")
    )
    assert settings.size == (96, 160) and settings.models == module.MODELS
    assert (config.model.input_height, config.model.input_width) == (96, 160)
    assert config.training.precision == training_pb2.TrainingOptions.BFLOAT16
    _, settings = module.read_flags(
        parse(scripts, f"--config_file={CONFIG}", "--mode=training", "--jit_compile", "--rounds=3")
    )
    assert settings.size == SIZE and settings.jit_compile and settings.rounds == 3
    assert "ours" in settings.models and not set(settings.models) & set(module.INFERENCE_ONLY)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "config_file"),
        (["--config_file=absent"], "absent"),
        ([f"--config_file={CONFIG}", "--models=ours,theirs"], "theirs"),
        ([f"--config_file={CONFIG}", "--precision=float16"], "float16"),
        ([f"--config_file={CONFIG}", "--size=72x128"], "72 is not a multiple"),
    ],
)
def test_faults_exit_with_2_before_tensorflow_is_imported(arguments, words):
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=SCRIPTS,
    )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert done.stdout.strip() == "False"


def test_models_are_those_that_can_be_built(scripts):
    ours = {name for name in scripts.compare_models.MODELS if name.startswith("ours")}
    theirs = {name.removesuffix("_folded") for name in scripts.compare_models.MODELS} - {
        name.removesuffix("_folded") for name in ours
    }
    assert theirs == set(scripts.peers.NAMES)


# ---- the table


def test_a_model_that_fails_is_reported_and_the_others_compared(scripts, config):
    module, calls = scripts.compare_models, []

    def build(name, config, settings):
        if name == "segformer_b5":
            raise MemoryError
        if name == "ours":
            return contestant_of(scripts, lambda: [][0])
        return contestant_of(scripts, lambda: calls.append(name))

    models = ("ours", "segformer_b2", "segformer_b5", "deeplab_v3_plus")
    settings = module.Settings(models, "inference", SIZE, batch_size=4, rounds=3, warmup=1)
    report = module.compare(config, settings, build)
    assert [row["model"] for row in report.rows] == list(models)
    failed, first, larger, second = report.rows
    assert failed["error"] == "IndexError: list index out of range"
    assert larger["error"] == "MemoryError" and "seconds" not in larger
    assert any("ours cannot run: IndexError" in note for note in report.notes)
    assert report.notes.count("told once") == 1
    # The trial, a round of warm-up and three timed ones.
    assert calls.count("segformer_b2") == calls.count("deeplab_v3_plus") == 5
    assert "time / segformer_b2" in report.columns
    assert first["ratios"] == [1.0] * 3
    assert second["ratios"] == pytest.approx(
        [a / b for a, b in zip(second["seconds"], first["seconds"], strict=True)]
    )
    assert second["images/s"] == pytest.approx(4 / np.median(second["seconds"]))
    assert second["parameters M"] == 2 and second["multiply-adds G"] == 3


def test_nothing_runs(scripts, config, monkeypatch, capsys):
    def build(name, config, settings):
        raise RuntimeError("no\n\x1b[1mroom\x1b[0m")

    monkeypatch.setattr(scripts.contestants, "build_contestant", build)
    values = parse(scripts, f"--config_file={CONFIG}", "--models=ours,segformer_b0")
    assert scripts.compare_models.main(values) == 1
    assert "segformer_b0 cannot run: RuntimeError: no room" in capsys.readouterr().out


def test_long_errors_keep_both_ends(scripts):
    line = scripts.compare_models.one_line(ValueError("first" + 5000 * "\n." + "last"))
    assert line.startswith("ValueError: first") and line.endswith("last")
    assert "\n" not in line and len(line) < 500


# ---- the models themselves


def test_ours_and_deeplab_are_timed_and_written(scripts, config_file, tmp_path, capsys):
    pytest.importorskip("keras_cv")
    path = tmp_path / "new" / "comparison.json"
    values = parse(
        scripts,
        f"--config_file={config_file}",
        "--size=64x64",
        "--models=ours,deeplab_v3_plus_folded",
        "--rounds=2",
        "--warmup=0",
        f"--json={path}",
    )
    assert scripts.compare_models.main(values) == 0
    written = json.loads(path.read_text())
    ours, deeplab = written["rows"]
    for row in (ours, deeplab):
        assert "error" not in row and len(row["seconds"]) == 2 and min(row["seconds"]) > 0
    assert 0 < ours["parameters"] < deeplab["parameters"]
    assert 0 < ours["multiply_adds"] < deeplab["multiply_adds"]
    assert written["settings"]["config_file"] == str(config_file)
    assert written["environment"]["versions"]["tensorflow"]
    printed = capsys.readouterr().out
    assert "| ours " in printed and "28 BatchNorm layers" in printed


@pytest.mark.parametrize(
    ("name", "folded", "implementation"),
    [
        ("ours", True, "fold"),
        ("ours_unfolded", False, "fold"),
        ("ours_gather", True, "gather"),
    ],
)
def test_forms_of_ours(scripts, config, monkeypatch, name, folded, implementation):
    import keras

    seen = []
    monkeypatch.setattr(scripts.contestants, "_runner", lambda model, *_: seen.append(model))
    monkeypatch.setattr(scripts.contestants.summary, "model_multiply_adds", lambda *_: None)
    settings = scripts.compare_models.Settings((name,), "inference", SIZE)
    contestant = scripts.contestants.build_contestant(name, config, settings)
    (model,) = seen
    layers = model.backbone._flatten_layers()
    assert folded != any(isinstance(x, keras.layers.BatchNormalization) for x in layers)
    assert model.tokenizer.implementation == implementation
    # Folded or not, the count is that of the model that is trained.
    folded_count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert (contestant.parameters > folded_count) == folded
    assert config.model.tokenizer.implementation == 0


@pytest.mark.parametrize("name", ["ours", "deeplab_v3_plus"])
def test_training_is_the_whole_step(scripts, config, monkeypatch, name):
    config.training.learning_rate, config.training.warmup_steps = 1e-3, 0
    config.training.ema_decay = 0.9
    made = []
    loop = scripts.contestants.train_step.TrainLoop

    def watched(model, optimizer, *arguments):
        made.append((model, optimizer, arguments[-1]))
        return loop(model, optimizer, *arguments)

    monkeypatch.setattr(scripts.contestants.train_step, "TrainLoop", watched)
    settings = scripts.compare_models.Settings((name,), "training", SIZE)
    contestant = scripts.contestants.build_contestant(name, config, settings)
    ((model, optimizer, averages),) = made
    before = [variable.numpy() for variable in model.trainable_variables]
    loss, norm = contestant.run()
    # Nothing is learned yet, and the hardest pixels count: no better than guessing.
    assert np.log(19) * 0.9 < float(loss) < 30 and 0 < float(norm) < np.inf
    assert sum(old.size for old in before) == contestant.parameters
    assert all(np.isfinite(variable.numpy()).all() for variable in model.trainable_variables)
    assert int(optimizer.iterations) == 1 and averages is not None
    changed = [
        np.any(old != variable.numpy())
        for old, variable in zip(before, model.trainable_variables, strict=True)
    ]
    assert sum(changed) > 0.9 * len(changed)
