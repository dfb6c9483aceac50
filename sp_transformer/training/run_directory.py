"""What a model_dir says about the run in it, and whether a config may go on with that run."""

import json
import logging
import os

from google.protobuf import text_format

from sp_transformer import environment
from sp_transformer.model import weights
from sp_transformer.protos import experiment_pb2
from sp_transformer.training import best, files

CONFIG_FILE = "config.textproto"
VARIABLES_FILE = "trainable_variables.txt"
DATA_FILE = "training_data.json"
SESSIONS_FILE = "sessions.jsonl"
FINISHED_FILE = "finished.json"

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
    "training.rematerialize_backbone",
    "training.rematerialize_tokenizer",
    "training.steps_per_loop",
    "training.save_interval_steps",
    "training.checkpoints_to_keep",
    "training.log_interval_steps",
    "training.picture_interval_steps",
    # Read by a new run only: the file may have moved since.
    "training.initialization",
)


class RunMismatchError(ValueError):
    """The run in a model_dir is not the run that the config describes."""


def describe_data(config, source):
    """What a run's examples are drawn from, for `prepare`: the split, its number of images, a hash of their names."""
    return {
        "split": config.data.train_split,
        "num_images": len(source),
        "names_sha256": source.names_digest(),
    }


def prepare(model_dir, config, model, resuming, writes=True, data=None):
    """Checks config, trainable variables and data against those of the run being resumed; writes them.

    Args:
      model_dir: directory of the run; created if need be.
      config: merged ExperimentOptions.
      model: the built model.
      resuming: whether the directory holds a checkpoint.
      writes: whether this process is the one that writes into model_dir; others only check.
      data: what describe_data gives; None for data that nobody checks.

    Raises:
      RunMismatchError: if the run was started with other options, other trainable variables or other images, or
        a new one would start over the best checkpoint of another.
      WriteError: if the directory cannot be written.
    """
    model_dir = os.fspath(model_dir)
    if writes:
        files.make_folder(model_dir)
    names = {id(v): name for name, v in weights.named_variables(model).items()}
    variables = [f"{names[id(v)]} {list(v.shape)}" for v in model.trainable_variables]
    config_file = os.path.join(model_dir, CONFIG_FILE)
    variables_file = os.path.join(model_dir, VARIABLES_FILE)
    data_file = os.path.join(model_dir, DATA_FILE)
    if resuming:
        _check_config(config_file, config)
        _check_variables(variables_file, variables)
        if data is not None:
            _check_data(data_file, data, config.data.skip_corrupt)
    elif best.recorded(model_dir) is not None:
        raise RunMismatchError(
            f"{os.path.join(model_dir, best.FOLDER)} holds the best checkpoint of an earlier run, "
            "whose other checkpoints are gone; move it away, or give another model_dir to start a "
            "new run"
        )
    if not writes:
        return
    files.write_text(config_file, text_format.MessageToString(config))
    files.write_text(variables_file, "".join(f"{line}\n" for line in variables))
    if data is not None:
        files.write_text(data_file, json.dumps(data) + "\n")


def record_session(model_dir, first_step, replicas, workers):
    """Adds a line to sessions.jsonl: revision, versions and devices that the run goes on with.

    Args:
      model_dir: directory of the run.
      first_step: step that this session starts or resumes at.
      replicas: number of replicas.
      workers: number of processes.
    """
    path = os.path.join(os.fspath(model_dir), SESSIONS_FILE)
    session = {"first_step": first_step, "replicas": replicas, "workers": workers}
    session |= environment.describe() | {"devices": environment.devices()}
    lines = (files.read_text(path) or "").splitlines()
    if lines:
        _warn_of_other_environment(lines[-1], session)
    lines.append(json.dumps(session))
    files.write_text(path, "".join(f"{line}\n" for line in lines))


# What may make a resumed run differ in its last bits from one that was not interrupted.
_DECIDING = ("git", "sp_transformer", "versions", "machine", "devices", "replicas", "workers")


def _warn_of_other_environment(line, session):
    try:
        before = json.loads(line)
    except ValueError:
        return
    differences = [
        f"{name}: {json.dumps(before.get(name))} before, {json.dumps(session[name])} now"
        for name in _DECIDING
        if before.get(name) != session[name]
    ]
    if differences:
        logging.warning(
            "the run goes on in another environment, so that its weights may differ in their last "
            "digits from those of a run in one piece:\n  %s",
            "\n  ".join(differences),
        )


def mark_finished(model_dir, step):
    """Tells whoever follows the run that `step` is its last; None: that it goes on."""
    path = os.path.join(os.fspath(model_dir), FINISHED_FILE)
    if step is None:
        files.remove(path)
    else:
        files.write_text(path, json.dumps({"step": int(step)}) + "\n")


def finished_step(model_dir):
    """Last step of a run that is through, or None while it goes on."""
    text = files.read_text(os.path.join(os.fspath(model_dir), FINISHED_FILE))
    try:
        return None if text is None else int(json.loads(text)["step"])
    except (ValueError, KeyError, TypeError):
        return None


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
    text = files.read_text(config_file)
    if text is None:
        logging.warning(
            "%s is missing; its run is resumed without a check of its options", config_file
        )
        return
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
    text = files.read_text(variables_file)
    if text is None:
        logging.warning("%s is missing; its run is resumed without a check of it", variables_file)
        return
    before = text.splitlines()
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


def _check_data(data_file, data, skips):
    """Refuses other images than before; where faulty ones may be left out, only warns."""
    text = files.read_text(data_file)
    try:
        before = None if text is None else json.loads(text)
        count, names = before["num_images"], before["names_sha256"]
    except (ValueError, KeyError, TypeError):
        logging.warning(
            "%s is missing or damaged; its run is resumed without a check of its data", data_file
        )
        return
    # A hash that cannot be had now, or could not before, tells nothing.
    same_names = names == data["names_sha256"] or None in (names, data["names_sha256"])
    if count == data["num_images"] and same_names:
        return
    change = f"{count} images before, {data['num_images']} now"
    if count == data["num_images"]:
        change = f"{count} images before and now, with other names or in another order"
    text = (
        f"the run in {os.path.dirname(data_file)} trains on other data: split {data['split']!r} has "
        f"{change}"
    )
    if not skips:
        # Which image a step shows is drawn from all of them: each later step would show others.
        raise RunMismatchError(
            f"{text}\nrestore the images and labels that are missing and take away the new ones, or give another "
            "model_dir to start a new run"
        )
    # A run that a lost label has stopped must be able to go on without it.
    logging.warning(
        "%s; data.skip_corrupt lets it go on, with other examples from here than those of a run in one piece",
        text,
    )
