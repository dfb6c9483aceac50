"""What a model_dir says about the run in it, and whether a config may go on with that run."""

import logging
import os

from google.protobuf import text_format

from sp_transformer.model import weights
from sp_transformer.protos import experiment_pb2
from sp_transformer.training import files

CONFIG_FILE = "config.textproto"
VARIABLES_FILE = "trainable_variables.txt"

# Fields that a run may change when it is resumed, because they change neither its weights nor its
# data: names of whole messages or of fields.
_FREE_FIELDS = (
    "experiment_name",
    "base_config",
    "evaluation",
    "model.tokenizer.implementation",
    "data.data_dir",
    "data.eval_split",
    "data.cache_in_memory",
    "data.parallel_calls",
    "data.deterministic",
    "data.data_service",
    # A run that a torn file has stopped must be able to go on without it.
    "data.skip_corrupt",
    "data.start_check_images",
    "training.steps",
    "training.jit_compile",
    "training.steps_per_loop",
    "training.save_interval_steps",
    "training.checkpoints_to_keep",
    "training.log_interval_steps",
    "training.picture_interval_steps",
)


class RunMismatchError(ValueError):
    """The run in a model_dir is not the run that the config describes."""


def prepare(model_dir, config, model, resuming):
    """Checks config and trainable variables against those of the run being resumed; writes them.

    Args:
      model_dir: directory of the run; created if need be.
      config: merged ExperimentOptions.
      model: the built model.
      resuming: whether the directory holds a checkpoint.

    Raises:
      RunMismatchError: if the run was started with other options or other trainable variables.
    """
    os.makedirs(model_dir, exist_ok=True)
    names = {id(v): name for name, v in weights.named_variables(model).items()}
    variables = [f"{names[id(v)]} {list(v.shape)}" for v in model.trainable_variables]
    config_file = os.path.join(model_dir, CONFIG_FILE)
    variables_file = os.path.join(model_dir, VARIABLES_FILE)
    if resuming:
        _check_config(config_file, config)
        _check_variables(variables_file, variables)
    files.write_text(config_file, text_format.MessageToString(config))
    files.write_text(variables_file, "".join(f"{line}\n" for line in variables))


def differing_fields(before, after):
    """Fields that decide a run's result and differ between two configs.

    An unset field equals its default. Fields that a resumed run may change are left out.

    Returns:
      List of (path, value before, value after), values as text.
    """
    before, after = _flatten(before), _flatten(after)
    unset = "(not set)"
    return [
        (path, before.get(path, unset), after.get(path, unset))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
        and not any(path == free or path.startswith(free + ".") for free in _FREE_FIELDS)
    ]


def _flatten(message, prefix=""):
    """Dict of field path to value as text, with defaults for unset scalars."""
    flat = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        path = prefix + field.name
        if field.is_repeated:
            for index, item in enumerate(value):
                text = (
                    text_format.MessageToString(item, as_one_line=True)
                    if field.message_type
                    else repr(item)
                )
                flat[f"{path}[{index}]"] = text
        elif field.message_type:
            flat.update(_flatten(value, path + "."))
        elif field.enum_type:
            flat[path] = field.enum_type.values_by_number[value].name
        else:
            flat[path] = repr(value)
    return flat


def _check_config(config_file, config):
    if not os.path.exists(config_file):
        logging.warning(
            "%s is missing; its run is resumed without a check of its options", config_file
        )
        return
    with open(config_file, encoding="utf-8") as file:
        text = file.read()
    try:
        before = text_format.Parse(text, experiment_pb2.ExperimentOptions())
    except text_format.ParseError as error:
        raise RunMismatchError(
            f"{config_file} cannot be read, it is of another version or damaged: {error}; go on with the version that "
            "wrote it, or give another model_dir to start a new run"
        ) from error
    differences = differing_fields(before, config)
    if differences:
        lines = "\n".join(f"  {path}: {old} before, {new} now" for path, old, new in differences)
        raise RunMismatchError(
            f"the run in {os.path.dirname(config_file)} was started with other options:\n{lines}\n"
            "go on with the options before, or give another model_dir to start a new run"
        )
    if before.training.steps != config.training.steps:
        logging.warning(
            "training.steps was %d and is %d now: "
            "the learning rate decays over the new number of steps from here on",
            before.training.steps,
            config.training.steps,
        )


def _check_variables(variables_file, variables):
    if not os.path.exists(variables_file):
        logging.warning("%s is missing; its run is resumed without a check of it", variables_file)
        return
    with open(variables_file, encoding="utf-8") as file:
        before = file.read().splitlines()
    if before == variables:
        return
    # The optimizer's moments are saved by position: with another list they would go to other
    # variables, unnoticed.
    gone = sorted(set(before) - set(variables))
    new = sorted(set(variables) - set(before))
    changes = [f"  no longer trained: {name}" for name in gone[:5]]
    changes += [f"  newly trained: {name}" for name in new[:5]]
    raise RunMismatchError(
        f"the run in {os.path.dirname(variables_file)} trains other variables "
        f"({len(before)} before, {len(variables)} now):\n"
        + "\n".join(changes or ["  the same, in another order"])
        + "\ngo on with the model before, or give another model_dir to start a new run"
    )
