"""Trains the model of a config, from the newest checkpoint in MODEL_DIR if there is one.

Example: python -m sp_transformer.train --config_file configs/synthetic/quickstart.textproto
--model_dir runs/streets
"""

import os
import pathlib
import sys

from absl import flags

from sp_transformer import command_line

_FAILED_RUN = 1
_INTERRUPTED = 130
_SPLITS_READ = {
    "train": ("train_split",),
    "eval": ("eval_split",),
    "train_and_eval": ("train_split", "eval_split"),
}


def define_flags(values: flags.FlagValues) -> None:
    """Defines this binary's flags in `values`."""
    command_line.define_config_flags(values)
    flags.DEFINE_string(
        "model_dir",
        None,
        "Folder of the run: checkpoints, logs and results. An interrupted run goes on from its "
        "newest readable checkpoint.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "mode",
        "train",
        list(_SPLITS_READ),
        "What to do: train; score the newest checkpoint, into model_dir/eval/metrics.json; or "
        "train and score every save.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Only prints what would be trained, its parts and their sizes. Needs neither the data nor "
        "a model_dir.",
        flag_values=values,
    )
    flags.adopt_module_key_flags(command_line, values)


def main(values: flags.FlagValues) -> int:
    """Trains or evaluates as the flags say; returns the exit code."""
    from sp_transformer.config import load_config

    if not values.dry_run:
        command_line.require(values, "model_dir")
    config_file = values.config_file
    if not config_file and values.model_dir:
        config_file = str(pathlib.Path(values.model_dir, "config.textproto"))
    if not config_file or not (values.config_file or os.path.exists(config_file)):
        raise command_line.UsageError(
            "--config_file must be given: there is no run in a model_dir to take the config of"
        )
    splits = () if values.dry_run else _SPLITS_READ[values.mode]
    config = load_config(config_file, values.override, values.data_dir, check_data=splits)

    # TensorFlow takes seconds to import: only once flags and config are known to be good.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if values.dry_run:
        from sp_transformer.model import summary

        print(summary.dry_run_report(config))
        return 0

    from sp_transformer.training import loop, modes

    try:
        modes.run(values.mode, config, values.model_dir)
    except loop.NonFiniteLossError as error:
        print(f"train: {error}", file=sys.stderr)
        return _FAILED_RUN
    except KeyboardInterrupt:
        print(
            "\ntrain: interrupted; the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    command_line.run(main, define_flags)
