"""A run that starts from other weights: new, resumed, refused, and as the program shows it."""

import numpy as np
import pytest
from absl import flags

import sp_transformer as spt
from sp_transformer import train
from sp_transformer.model import weights
from sp_transformer.training import initialization, loop, run_directory


def config_of(tiny_run, path, more=""):
    return spt.load_config(
        tiny_run.model_dir / "tiny.textproto",
        overrides=[
            "training { batch_size: 1 steps: 1 picture_interval_steps: 0 freeze_backbone: true "
            f'initialization {{ kind: CHECKPOINT path: "{path}" {more} }} }} data {{ start_check_images: 0 }}'
        ],
    )


def test_a_new_run_starts_from_them_and_a_resumed_one_does_not(config, make_run, tmp_path, capsys):
    source, model_dir = tmp_path / "source", tmp_path / "run"
    config.training.steps = 2
    first = make_run(source)
    first.train()
    trained = {k: np.array(v) for k, v in weights.named_variables(first.model).items()}
    options = config.training.initialization
    options.kind, options.path = options.CHECKPOINT, str(source)
    config.training.freeze_backbone = True
    capsys.readouterr()
    run = make_run(model_dir)
    assert "initialized from the backbone in" in capsys.readouterr().out
    report = (model_dir / initialization.REPORT_FILE).read_text()
    # All names, not the first few.
    assert "    backbone/norm/moving_variance\n" in report and "... and" not in report
    run.train()
    for name, variable in weights.named_variables(run.model).items():
        same = np.array_equal(variable, trained[name])
        assert same == name.startswith("backbone/"), name
    for file in source.rglob("ckpt-*"):
        file.unlink()
    options.path = "/nowhere"
    config.training.steps = 4
    assert make_run(model_dir).train().steps == 4
    assert "initialized" not in capsys.readouterr().out


def test_every_replica_starts_from_them(make_run, run_driver, tmp_path):
    source = tmp_path / "source"
    trained = make_run(source)
    trained.train()
    expected = {name: np.array(v) for name, v in weights.named_variables(trained.model).items()}
    ports = run_driver.Driver.free_ports(2)
    driver, pids = run_driver.Driver(), {}
    processes = {
        "two": {"replicas": 2},
        "worker 0": {"task": 0, "ports": ports},
        "worker 1": {"task": 1, "ports": ports},
    }
    try:
        for name, arguments in processes.items():
            folder = tmp_path / name.split()[0]
            pids[name] = driver.start(
                "measure_replicas",
                tmp_path / f"{name}.txt",
                target=str(tmp_path / f"{name}.npz"),
                cases=["initialized"],
                arguments={"source": str(source), "model_dir": str(folder)},
                **arguments,
            )
        for name, pid in pids.items():
            assert driver.wait(pid) == 0, driver.text(pid)
            # Said once: by the process of two replicas, and by the first of two workers.
            said = driver.text(pid).count("initialized from ")
            assert said == (name != "worker 1"), driver.text(pid)
    finally:
        driver.close()
    for name, rows in (("two", 2), ("worker 0", 1), ("worker 1", 1)):
        found = dict(np.load(tmp_path / f"{name}.npz"))
        assert {f"initialized/weights/{variable}" for variable in expected} <= set(found)
        for variable, value in expected.items():
            # The random states are no averages.
            for kind in ("weights", "averages") if value.dtype.kind == "f" else ("weights",):
                replicas = found[f"initialized/{kind}/{variable}"]
                np.testing.assert_array_equal(replicas, [value] * rows, variable)
    assert (tmp_path / "two" / initialization.REPORT_FILE).exists()


def test_weights_that_do_not_fit_leave_no_run_behind(tiny_run, tmp_path):
    config = config_of(tiny_run, tiny_run.model_dir, "part: WHOLE_MODEL")
    config.model.channels = 32
    with pytest.raises(initialization.InitializationError, match=r"model\.channels"):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run" / run_directory.CONFIG_FILE).exists()
    with pytest.raises(initialization.InitializationError, match="is no checkpoint"):
        loop.train(config_of(tiny_run, "/nowhere"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_dry_run_reports_what_would_be_loaded_and_trained(tiny_run, capsys):
    def dry_run(path):
        values = flags.FlagValues()
        train.define_flags(values)
        values(
            [
                "train",
                "--dry_run",
                f"--config_file={tiny_run.model_dir / 'tiny.textproto'}",
                "--override=training { freeze_backbone: true initialization { kind: CHECKPOINT "
                f'path: "{path}" }} }}',
            ]
        )
        return train.main(values)

    assert dry_run(tiny_run.model_dir) == 0
    text = capsys.readouterr().out
    assert "  loaded             105\n" in text and "others are frozen" in text
    with pytest.raises(initialization.InitializationError, match="is no checkpoint"):
        dry_run("/nowhere/ckpt-1")
