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


def test_a_new_run_starts_from_them_and_a_resumed_one_does_not(tiny_run, tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    for file in tiny_run.model_dir.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    config = config_of(tiny_run, source)
    loop.train(config, tmp_path / "run")
    assert "initialized from the backbone in" in capsys.readouterr().out
    report = (tmp_path / "run" / initialization.REPORT_FILE).read_text()
    # All names, not the first few.
    assert "    backbone/stem/conv/kernel\n" in report and "... and" not in report
    trained = spt.build_model(config)
    weights.restore_model(trained, tmp_path / "run")
    before = weights.named_variables(tiny_run.inference.model)
    for name, variable in weights.named_variables(trained).items():
        if name.startswith("backbone/"):
            np.testing.assert_array_equal(variable, before[name], err_msg=name)
    for file in source.iterdir():
        file.unlink()
    config = config_of(tiny_run, tmp_path / "elsewhere")
    config.training.steps = 2
    assert loop.train(config, tmp_path / "run").steps == 2
    assert "initialized" not in capsys.readouterr().out


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
