"""Trains the model of a config, from the newest checkpoint in MODEL_DIR if there is one.

Example: python -m sp_transformer.train --config_file configs/synthetic/quickstart.textproto
--model_dir runs/streets
"""

import os
import sys

from absl import flags

from sp_transformer import command_line, exit_codes
from sp_transformer.data import storage, transient
from sp_transformer.training import batch, devices, supervisor

_SPLITS_READ = {
    "train": ("train_split",),
    "eval": ("eval_split",),
    "train_and_eval": ("train_split", "eval_split"),
    "continuous_eval": ("eval_split",),
}
_TRAINS = ("train", "train_and_eval")


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
        "What to do: train; score the newest checkpoint, into model_dir/eval/metrics.json (eval); "
        "train and score every save (train_and_eval); or score what another process saves until it "
        "is through (continuous_eval). The last two keep the best checkpoint in model_dir/best.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "eval_timeout_seconds",
        0.0,
        "How long continuous_eval waits for the next checkpoint before it ends with code 5; 0 waits "
        "for ever. Give it more than the time between two saves.",
        flag_values=values,
        lower_bound=0.0,
    )
    flags.DEFINE_integer(
        "max_restarts",
        0,
        "How often in a row the program is started again after it died without having saved since: "
        "killed, out of memory, or because another worker was lost. 0 starts it once.",
        flag_values=values,
        lower_bound=0,
    )
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Only prints what would be trained, its parts and their sizes, and what it would start from. "
        "Needs neither the data nor a model_dir.",
        flag_values=values,
    )
    command_line.define_averaged_weights_flag(values)
    devices.define_flags(values)
    flags.adopt_module_key_flags(command_line, values)
    flags.adopt_module_key_flags(devices, values)


def main(values: flags.FlagValues) -> int:
    """Trains or evaluates as the flags say; returns the exit code."""
    if not values.dry_run:
        command_line.require(values, "model_dir")
    wanted_devices = devices.from_flags(values, trains=values.mode in _TRAINS)
    if values.max_restarts and not values.dry_run and not supervisor.is_supervised():
        command = [sys.executable, "-m", "sp_transformer.train", *sys.argv[1:]]
        return supervisor.supervise(command, values.max_restarts)
    config_file = values.config_file
    if not config_file and values.model_dir:
        config_file = command_line.config_of_run(values.model_dir)
    if not config_file or not (values.config_file or storage.exists(config_file)):
        raise command_line.UsageError(
            "--config_file must be given: there is no run in a model_dir to take the config of"
        )
    splits = () if values.dry_run else _SPLITS_READ[values.mode]
    config = command_line.load_config_file(config_file, values, splits)
    replicas = wanted_devices.known_replicas
    # Whether there are so many GPUs is the first thing to tell; that takes TensorFlow.
    if replicas and values.mode in _TRAINS and (values.dry_run or not wanted_devices.num_gpus):
        config = batch.settle(config, replicas)
        batch.check_compilation(config.training, replicas)

    # TensorFlow takes seconds to import: only once flags and config are known to be good.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if values.dry_run:
        from sp_transformer.training import dry_run

        print(dry_run.report(config))
        return 0

    import tensorflow as tf

    from sp_transformer.training import distribution, files, following, loop, modes

    try:
        strategy = distribution.create_strategy(wanted_devices)
        modes.run(values.mode, config, values.model_dir, values.eval_timeout_seconds, strategy)
    except loop.NonFiniteLossError as error:
        return _say(error, exit_codes.NOT_FINITE)
    except files.WriteError as error:
        return _say(error, exit_codes.CANNOT_WRITE)
    except following.FollowTimeoutError as error:
        return _say(error, exit_codes.TIMED_OUT)
    except tf.errors.OpError as error:
        if not transient.is_transient(error):
            raise
        return _say(
            f"another worker or a service was lost ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); start all workers again, the same command goes on "
            "from the last checkpoint",
            exit_codes.LOST_PEER,
        )
    except KeyboardInterrupt:
        return _say(
            "interrupted; the same command goes on from the last checkpoint", exit_codes.INTERRUPTED
        )
    return exit_codes.DONE


def _say(message, code):
    print(f"\ntrain: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    command_line.run(main, define_flags)
