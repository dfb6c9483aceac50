"""Weights from checkpoints: finding them, checking that they fit a model, and reading them.

A checkpoint is found by its index file, which TensorFlow writes last; the state file `checkpoint`
beside it is not relied on, as a kill can leave it empty.
"""

import collections
import logging
import os
import re
import uuid

import keras
import tensorflow as tf

from sp_transformer.data import transient

# What reading a truncated or corrupt checkpoint raises, by what part of it is hurt. TensorFlow raises the same where
# the storage has failed, often without the code that would say so: `is_torn` finds out.
TORN_ERRORS = (IndexError, ValueError, tf.errors.OpError)
_OTHER_CAUSES = (
    tf.errors.ResourceExhaustedError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnauthenticatedError,
)

# What a checkpoint holds beside the `model`: the moving average of its weights, under the same names.
AVERAGES = "averages"
_MODEL = "model"

_INDEX_FILE = re.compile(r"ckpt-(\d+)\.index")
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_LISTED = 5  # Variables that an error names before it only counts them.


class CheckpointError(ValueError):
    """There is no checkpoint to read, or it does not fit the model."""


class UnreadableCheckpointError(CheckpointError):
    """A checkpoint is truncated or corrupt."""


def list_checkpoints(model_dir):
    """Pairs (step, prefix `model_dir/ckpt-STEP`) of the checkpoints there, oldest first.

    Raises:
      tf.errors.OpError: if the storage is away.
    """
    model_dir = os.fspath(model_dir)
    try:
        # Not isdir, which says no also where the storage is away, so that a run would start anew.
        if not tf.io.gfile.stat(model_dir).is_directory:
            return []
    except tf.errors.OpError as error:
        if transient.is_transient(error):
            raise
        return []
    matches = (_INDEX_FILE.fullmatch(name) for name in tf.io.gfile.listdir(model_dir))
    steps = sorted(int(match[1]) for match in matches if match)
    return [(step, checkpoint_prefix(model_dir, step)) for step in steps]


def checkpoint_prefix(model_dir, step):
    """Prefix of the files of the checkpoint of `step`."""
    return os.path.join(model_dir, f"ckpt-{step}")


def prefix_of(path):
    """The checkpoint that a path means: people complete one of its files' names in their shell."""
    return re.sub(r"\.(index|data-\d+-of-\d+)$", "", path)


def is_checkpoint(path):
    """Whether a path names a checkpoint, and not the directory of a run."""
    return tf.io.gfile.exists(prefix_of(os.fspath(path)) + ".index")


def read(prefix):
    """A reader of a checkpoint's variables.

    Raises:
      One of TORN_ERRORS if it cannot be read.
    """
    # Not tf.train.load_checkpoint: to it a prefix on ram:// is a directory.
    return tf.compat.v1.train.NewCheckpointReader(prefix)


def is_torn(prefix, error):
    """Whether reading a checkpoint has failed for what its files hold, and not for the storage or the machine.

    A copy in memory is read to tell: what fails there is damaged.

    Args:
      prefix: of the checkpoint.
      error: one of TORN_ERRORS, which reading it has raised.

    Raises:
      tf.errors.OpError: if its files cannot be copied.
    """
    if isinstance(error, (CheckpointError, *_OTHER_CAUSES)) or transient.is_transient(error):
        return False
    folder, base = os.path.split(prefix)
    copy = f"ram://{uuid.uuid4().hex}"
    tf.io.gfile.makedirs(copy)
    try:
        tf.io.gfile.copy(prefix + ".index", os.path.join(copy, base + ".index"))
        # Before the rest is copied, which takes its time.
        _read_whole(os.path.join(copy, base), only_index=True)
        for name in tf.io.gfile.listdir(folder):
            if name.startswith(base + ".data-"):
                tf.io.gfile.copy(os.path.join(folder, name), os.path.join(copy, name))
        _read_whole(os.path.join(copy, base))
    except (_Damaged, tf.errors.NotFoundError):
        return True
    finally:
        tf.io.gfile.rmtree(copy)
    return False


class _Damaged(Exception):
    """What is_torn asks for."""


def _read_whole(prefix, only_index=False):
    try:
        reader = read(prefix)
        for name in () if only_index else reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except TORN_ERRORS as error:
        raise _Damaged from error


def restore_latest(model_dir, restore):
    """Restores the newest checkpoint that can be read; warns of the newer ones that cannot.

    Args:
      model_dir: directory of ckpt-STEP files.
      restore: called with a prefix; raises one of TORN_ERRORS if the checkpoint cannot be read.

    Returns:
      The prefix that was restored, or None if the directory holds no checkpoint at all.

    Raises:
      CheckpointError: if there are checkpoints and none can be read, or one does not fit.
      tf.errors.OpError: if the storage is away, or another fault comes between that is not the checkpoint's.
    """
    faults = []
    for _, prefix in reversed(list_checkpoints(model_dir)):
        try:
            restore(prefix)
        except TORN_ERRORS as error:
            if not is_torn(prefix, error):
                raise
            fault = f"{prefix}: {type(error).__name__}: {str(error).splitlines()[0]}"
            logging.warning("Skipping an unreadable checkpoint, %s", fault)
            faults.append(fault)
        else:
            return prefix
    if faults:
        raise CheckpointError(
            f"none of the checkpoints in {model_dir} can be read; restore the files from a copy, "
            "or use another model_dir to start afresh:\n  " + "\n  ".join(faults)
        )
    return None


def restore_model(model, path, averaged=False):
    """Reads the model's weights out of a training checkpoint.

    Args:
      model: a built model.
      path: a checkpoint's prefix, such as RUN/ckpt-60000, or a model_dir, of which the newest
        readable one is taken.
      averaged: whether the moving average of the weights is read in their place.

    Returns:
      The step at which the checkpoint was saved.

    Raises:
      CheckpointError: if there is no checkpoint at `path`, it cannot be read, it belongs to
        another model, or holds no averages where they are asked for.
    """
    path = os.fspath(path)
    part = AVERAGES if averaged else _MODEL
    step = tf.Variable(-1, dtype=tf.int64, trainable=False)

    def restore(prefix):
        check_fits(model, prefix, part)
        parts = {part: model_weights(model), "step": step}
        status = tf.train.Checkpoint(**parts).read(prefix)
        status.assert_existing_objects_matched().expect_partial()

    if not is_checkpoint(path) and tf.io.gfile.isdir(path):
        if restore_latest(path, restore) is None:
            raise CheckpointError(
                f"there is no checkpoint in {path}: no file ckpt-STEP.index; "
                "give the model_dir of a training run that has saved at least once"
            )
        return int(step.numpy())
    prefix = prefix_of(path)
    if not is_checkpoint(prefix):
        raise CheckpointError(
            f"there is no checkpoint {path}: no such directory, and no file {prefix}.index; "
            "give a model_dir, or a checkpoint as model_dir/ckpt-STEP"
        )
    try:
        restore(prefix)
    except TORN_ERRORS as error:
        if not is_torn(prefix, error):
            raise
        raise UnreadableCheckpointError(
            f"checkpoint {prefix} cannot be read, it is truncated or corrupt: {error}; "
            "take an earlier one"
        ) from error
    return int(step.numpy())


def check_fits(model, prefix, part=_MODEL):
    """Raises CheckpointError unless the variables and shapes of a part of the checkpoint are those of `model`.

    TensorFlow's own checks pass where only a part of the checkpoint is used, and name shapes only
    one at a time.
    """
    shapes = read(prefix).get_variable_to_shape_map()
    stored = {
        key.removeprefix(f"{part}/")
        .removesuffix(_VALUE)
        .replace(".S", "/")
        .replace("..", "."): shape
        for key, shape in shapes.items()
        if key.startswith(f"{part}/")
    }
    if part == AVERAGES and not stored:
        raise CheckpointError(
            f"{prefix} holds no averaged weights; evaluate and export without --averaged_weights, or train with "
            "training.ema_decay"
        )
    if not stored or f"step{_VALUE}" not in shapes:
        raise CheckpointError(
            f"{prefix} is no checkpoint of a training run: it holds no `model` and `step`"
        )
    wanted = {name: list(variable.shape) for name, variable in named_variables(model).items()}
    missing = sorted(wanted.keys() - stored.keys())
    unexpected = sorted(stored.keys() - wanted.keys())
    mismatched = sorted(
        name for name in wanted.keys() & stored.keys() if wanted[name] != stored[name]
    )
    if not (missing or unexpected or mismatched):
        return
    lines = [
        f"checkpoint {prefix} belongs to another model; use the config that it was trained with."
    ]
    lines += _excerpt("only in this model", [f"{n} {wanted[n]}" for n in missing])
    lines += _excerpt("only in the checkpoint", [f"{n} {stored[n]}" for n in unexpected])
    lines += _excerpt(
        "of another shape",
        [f"{n}: {wanted[n]} here, {stored[n]} in the checkpoint" for n in mismatched],
    )
    raise CheckpointError("\n".join(lines))


def model_weights(model):
    """The model's variables as a trackable, to be the `model` of a `tf.train.Checkpoint`.

    Not the model itself: TensorFlow does not see layers that Keras keeps in lists, so that a
    checkpoint of the model silently lacks their weights.
    """
    return tf.train.Checkpoint(**named_variables(model))


def named_variables(model):
    """The model's variables by name, random-number states left out.

    A name is the path of attributes to the variable, such as backbone/stem/kernel or
    blocks/0/attention/bias. Keras' own paths are no names: in them a layer's number counts how many
    of its class the process has built before.

    Args:
      model: a built model.

    Returns:
      Dict of name to `keras.Variable`, in the order of `model.variables`.

    Raises:
      ValueError: if a variable cannot be reached by attributes, lists, tuples and dicts.
    """
    wanted = [v for v in model.variables if "seed_generator" not in v.path]
    names = {}
    queue, seen = collections.deque([("", model)]), {id(model)}
    while queue:
        path, node = queue.popleft()
        for name, child in _children(node):
            if id(child) in seen:
                continue
            seen.add(id(child))
            child_path = f"{path}/{name}" if path else name
            if isinstance(child, keras.Variable):
                names[id(child)] = child_path
            else:
                queue.append((child_path, child))
    lost = [v.path for v in wanted if id(v) not in names]
    if lost:
        raise ValueError(
            "variables that no attribute of the model leads to cannot be saved under a name: "
            + ", ".join(lost[:_LISTED])
        )
    return {names[id(v)]: v for v in wanted}


def _children(node):
    """Pairs (name, value) of what `node` holds that may lead to variables, public ones first."""
    if isinstance(node, dict):
        items = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, list | tuple):
        items = [(str(index), value) for index, value in enumerate(node)]
    else:
        items = sorted(vars(node).items(), key=lambda item: (item[0].startswith("_"), item[0]))
    for name, value in items:
        if isinstance(value, keras.Variable):
            # Keras keeps Dense.kernel as Dense._kernel.
            yield name.removeprefix("_"), value
        elif isinstance(value, keras.layers.Layer | list | tuple | dict):
            yield name, value


def _excerpt(title, items):
    if not items:
        return []
    more = [f"... and {len(items) - _LISTED} more"] if len(items) > _LISTED else []
    return [f"  {title} ({len(items)}):", *(f"    {item}" for item in items[:_LISTED] + more)]
