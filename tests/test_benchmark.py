"""The command line of the benchmarks."""

import json
import subprocess
import sys
import types

import pytest
from absl import flags

from sp_transformer import benchmark
from sp_transformer.benchmarking.report import Report
from sp_transformer.command_line import UsageError

CONFIG = "configs/synthetic/quickstart.textproto"

# Runs the binary and says afterwards whether TensorFlow was imported on the way.
RUN = """
import sys
from sp_transformer import command_line, benchmark
sys.argv = ["benchmark", *sys.argv[1:]]
try:
    command_line.run(benchmark.main, benchmark.define_flags)
finally:
    print("tensorflow" in sys.modules)
"""


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=False
    )


def parse(*arguments):
    values = flags.FlagValues()
    benchmark.define_flags(values)
    values(["benchmark", *map(str, arguments)])
    return values


def test_flags_become_settings():
    settings = benchmark.settings_of(
        parse(
            f"--config_file={CONFIG}",
            "--config_file=other.textproto",
            "--override=model { }",
            "--mode=inference,training",
            "--size=512x1024,64x128",
            "--batch_size=1, 4",
            "--precision=float32,bfloat16",
            "--jit_compile=false,true",
            "--implementation=fold,gather",
            "--inference_form=false",
            "--rounds=3",
            "--warmup=0",
            "--peak_memory",
        )
    )
    assert settings.config_files == (CONFIG, "other.textproto")
    assert settings.overrides == ("model { }",) and settings.report == "model"
    assert settings.modes == ("inference", "training")
    assert settings.sizes == ((512, 1024), (64, 128))
    assert settings.batch_sizes == (1, 4)
    assert settings.precisions == ("float32", "bfloat16")
    assert settings.jit_compile == (False, True)
    assert settings.implementations == ("fold", "gather")
    assert settings.inference_form == (False,)
    assert (settings.rounds, settings.warmup, settings.peak_memory) == (3, 0, True)


def test_dry_run_prints_variants_and_rules_and_loads_no_tensorflow():
    done = run(f"--config_file={CONFIG}", "--mode=inference,training", "--dry_run", "--rounds=7")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("False")
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row.split()[1] for row in rows] == ["variant", "---------", "inference", "training"]
    assert "7 rounds" in done.stdout and "random" in done.stdout and "uint8" in done.stdout


def test_dry_run_of_attention_shows_no_axis_that_it_has_not(capsys):
    assert benchmark.main(parse(f"--config_file={CONFIG}", "--report=attention", "--dry_run")) == 0
    shown = capsys.readouterr().out
    assert "every form" in shown and "precision" in shown
    assert "implementation" not in shown and "inference_form" not in shown


def test_faults_exit_with_2_before_tensorflow_is_imported():
    done = run(f"--config_file={CONFIG}", "--precision=float16")
    assert done.returncode == 2 and done.stdout.strip() == "False"
    assert "precision 'float16' is unknown" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--config_file must be given"),
        (["--size=1024"], "'1024' is no size"),
        (["--size=64x"], "'64x' is no size"),
        (["--batch_size=two"], "'two' is not a whole number"),
        (["--jit_compile=maybe"], "'maybe' is neither true nor false"),
        (["--inference_form=1"], "'1' is neither"),
        (["--mode="], "--mode is an empty list"),
        (["--implementation=fold,"], "--implementation is an empty list or has an empty value"),
        (["--report=attention", "--implementation=fold"], "--implementation has no effect"),
        (["--report=attention", "--mode=training"], "--mode has no effect"),
        (["--report=input", "--peak_memory"], "--peak_memory has no effect on --report=input"),
        (["--batch_size=1,1"], "asked for twice"),
        (["--mode=training", "--inference_form=true"], "does not go with mode training"),
        (["--override=model { chanels: 1 }"], "chanels"),
    ],
)
def test_faulty_flags_are_refused(arguments, words):
    config = [f"--config_file={CONFIG}"] if arguments else []
    with pytest.raises(ValueError, match=words):
        benchmark.main(parse(*config, *arguments, "--dry_run"))


def test_a_folder_is_no_json_file_and_is_found_out_first(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        benchmark.main(parse(f"--config_file={CONFIG}", f"--json={tmp_path}"))


@pytest.mark.parametrize("name", ["model", "stages", "attention"])
def test_reports_are_written_before_they_are_printed(name, tmp_path, monkeypatch, capsys):
    asked = []

    def measure(*arguments):
        asked.extend(arguments)
        return Report("The title", [], ["x"], [{"x": 1.5}], [], {}, {})

    module = f"{name.removesuffix('s') if name == 'stages' else name}_report"
    stand_in = types.ModuleType(module)
    stand_in.run = measure
    monkeypatch.setitem(sys.modules, f"sp_transformer.benchmarking.{module}", stand_in)
    monkeypatch.setattr(f"sp_transformer.benchmarking.{module}", stand_in, raising=False)
    path = tmp_path / "new" / "out.json"
    arguments = [f"--config_file={CONFIG}", f"--report={name}", f"--json={path}", "--rounds=4"]
    assert benchmark.main(parse(*arguments, "--override=model { channels: 32 }")) == 0
    assert json.loads(path.read_text())["rows"] == [{"x": 1.5}]
    assert "The title" in capsys.readouterr().out
    (settings,) = [one for one in asked if hasattr(one, "rounds")]
    assert settings.rounds == 4 and settings.report == name
    if name == "attention":
        assert asked[0].model.channels == 32


def test_help_is_whole_sentences():
    values = parse()
    for name in values:
        text = values[name].help.split(";\n    repeat this option")[0].split("\n    (a comma")[0]
        assert text.endswith("."), name
