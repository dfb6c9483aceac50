"""What all binaries share: flags of one name and meaning, and errors as plain text with exit code 2.

Importing this imports no TensorFlow: a faulty flag or config is refused in a fraction of a second.
"""

import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable

from absl import app, flags, logging

from sp_transformer import exit_codes
from sp_transformer.data import storage, transient

USAGE_ERROR = exit_codes.USAGE


class UsageError(ValueError):
    """Flags that do not fit together."""


def run(main: Callable[[flags.FlagValues], int], define_flags: Callable) -> None:
    """Runs a binary and exits with what `main` returns.

    Args:
      main: called with the parsed flags; returns the exit code. A ValueError (ConfigError,
        CheckpointError and UsageError are some) or OSError that it raises is printed without a
        traceback and exits with code 2, or 75 if storage was away, so that another try may go well;
        --verbosity=1 adds the traceback.
      define_flags: called with the FlagValues to define the flags in. Flags are defined here and
        not at import, so that one process may import several binaries.
    """
    define_flags(flags.FLAGS)

    def parse(arguments):
        try:
            rest = flags.FLAGS(arguments)
            if len(rest) > 1:
                raise UsageError(
                    f"unexpected argument {rest[1]!r}; values are given as --flag=value"
                )
        except (flags.Error, UsageError) as error:
            print(f"{_program()}: {error}\nSee --help.", file=sys.stderr)
            sys.exit(USAGE_ERROR)
        return rest

    def guarded(_):
        logging.get_absl_handler().addFilter(_is_wanted)
        try:
            return main(flags.FLAGS)
        except (ValueError, OSError) as error:
            logging.debug("Traceback:", exc_info=True)
            if transient.is_transient(error):
                print(
                    f"{_program()}: {error}\nStorage was lost, at least for a moment; the same command may go "
                    "well on another try",
                    file=sys.stderr,
                )
                return exit_codes.LOST_PEER
            print(f"{_program()}: {error}", file=sys.stderr)
            return USAGE_ERROR

    app.run(guarded, flags_parser=parse)


def _is_wanted(record) -> bool:
    """False for what TensorFlow notes on its way, pages of it while it exports; --verbosity=1 shows that too."""
    of_tensorflow = f"{os.sep}tensorflow{os.sep}python{os.sep}" in record.pathname
    return record.levelname != "INFO" or not of_tensorflow or logging.level_debug()


def define_timing_flags(values: flags.FlagValues, rounds: int, warmup: int) -> None:
    """--rounds, --warmup and --json of programs that measure, with these defaults."""
    flags.DEFINE_integer("rounds", rounds, "Rounds that are timed.", flag_values=values)
    flags.DEFINE_integer("warmup", warmup, "Untimed rounds before these.", flag_values=values)
    flags.DEFINE_string(
        "json", None, "File that the whole report is written to as JSON.", flag_values=values
    )


def define_input_timing_flags(values: flags.FlagValues) -> None:
    """--images and --steps_per_second of programs that measure the training input."""
    flags.DEFINE_integer(
        "images",
        32,
        "Training examples that are timed in a round of the training input.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "steps_per_second",
        4.0,
        "Speed of training that the cores which the input needs are worked out for.",
        lower_bound=0,
        flag_values=values,
    )


def define_config_flags(values: flags.FlagValues) -> None:
    """--config_file, --override and --data_dir."""
    flags.DEFINE_string(
        "config_file",
        None,
        "Textproto of the experiment, an ExperimentOptions message. If it is omitted, the "
        "config.textproto that training wrote into the model_dir, or beside the checkpoint, is "
        "taken.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "override",
        [],
        "Textproto merged over the config, such as 'training { batch_size: 8 }'. May be repeated; "
        "later ones win.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "Root of the data, in place of the config's data.data_dir.",
        flag_values=values,
    )


def define_checkpoint_flags(values: flags.FlagValues) -> None:
    """--checkpoint and --model_dir, of which one has to be given."""
    flags.DEFINE_string(
        "checkpoint",
        None,
        "Checkpoint whose weights are taken, as MODEL_DIR/ckpt-STEP. Give this or model_dir.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "model_dir",
        None,
        "Folder of a training run; the weights of its newest readable checkpoint are taken.",
        flag_values=values,
    )
    define_averaged_weights_flag(values)


def define_averaged_weights_flag(values: flags.FlagValues) -> None:
    """--averaged_weights."""
    flags.DEFINE_bool(
        "averaged_weights",
        None,
        "Takes the moving average of the weights, which training keeps if training.ema_decay is set. "
        "Default: the config's evaluation.averaged_weights.",
        flag_values=values,
    )


def require(values: flags.FlagValues, *names: str) -> None:
    """Raises UsageError for flags that were not given; all of them at once."""
    missing = [f"--{name}" for name in names if not values[name].value]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be given; see --help")


def weights_path(values: flags.FlagValues) -> str:
    """--checkpoint or --model_dir, whichever was given.

    Raises:
      UsageError: if both were, or none.
    """
    if bool(values.checkpoint) == bool(values.model_dir):
        state = "both were given" if values.checkpoint else "none was given"
        raise UsageError(f"exactly one of --checkpoint and --model_dir must be given; {state}")
    return values.checkpoint or values.model_dir


def load_config(values: flags.FlagValues, check_data=()):
    """The config of --config_file, or else the one beside the weights, with --override and --data_dir.

    Args:
      values: the parsed flags.
      check_data: fields that name the splits whose data must be there, as in sp_transformer.config.load_config.

    Raises:
      UsageError: if there is none.
      ConfigError: if it is faulty.
    """
    path = values.config_file
    if not path:
        folder = values.model_dir or os.path.dirname(values.checkpoint.rstrip("/"))
        path = config_of_run(folder)
        if not storage.exists(path):
            raise UsageError(
                f"there is no {path}, so --config_file must name the config that the weights were "
                "trained with"
            )
    return load_config_file(path, values, check_data)


def config_of_run(model_dir) -> str:
    """The file in a model_dir that training wrote its config to."""
    return storage.join(os.fspath(model_dir), "config.textproto")


def load_config_file(path, values: flags.FlagValues, check_data=()):
    """The config of a file, which may lie behind "gs://...", with --override and --data_dir."""
    from sp_transformer.config import load_config as load

    path = os.fspath(path)
    with contextlib.ExitStack() as stack:
        if storage.is_remote(path):
            # Configs are read without TensorFlow, which alone reads such files.
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            local = pathlib.Path(folder, path.rpartition("/")[2])
            local.write_bytes(storage.read_file(path))
            path = local
        overrides = list(values.override)
        averaged = values["averaged_weights"].value if "averaged_weights" in values else None
        if averaged is not None:
            overrides.append(f"evaluation {{ averaged_weights: {str(averaged).lower()} }}")
        return load(path, overrides, values.data_dir, check_data)


def restore(model, path: str, averaged: bool) -> tuple[int, str]:
    """Reads weights and finds out which checkpoint they came from.

    Args:
      model: a built model.
      path: a checkpoint, or a model_dir.
      averaged: whether their moving average is read, as config.evaluation.averaged_weights says.

    Returns:
      The training step, and the checkpoint's prefix.
    """
    from sp_transformer.model import weights

    step = weights.restore_model(model, path, averaged)
    if not weights.is_checkpoint(path):
        return step, weights.checkpoint_prefix(path, step)
    return step, weights.prefix_of(path)


def _program() -> str:
    return pathlib.Path(sys.argv[0]).stem
