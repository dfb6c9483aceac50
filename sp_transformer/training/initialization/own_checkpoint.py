"""Checkpoints of this package: the backbone, or the whole model."""

import logging
import os

from google.protobuf import text_format

from sp_transformer.protos import experiment_pb2, training_pb2
from sp_transformer.training import files, run_directory
from sp_transformer.training.initialization import checkpoint_arrays
from sp_transformer.training.initialization.errors import InitializationError
from sp_transformer.training.initialization.matching import Key, Source

_WHOLE = training_pb2.InitializationOptions.WHOLE_MODEL
_ROOT = "model/"
# Fields that change neither what weights mean nor their shapes; the tables' sizes are told by their shapes.
_FREE_FIELDS = (
    "model.backbone.drop_path_rate",
    "model.backbone.batch_norm_momentum",
    "model.backbone.zero_init_residual",
    "model.zero_initialized_branches",
    "model.hypercolumn.endpoint_strides",
    "model.num_classes",
    "model.input_height",
    "model.input_width",
)


def open_source(config, variables) -> Source:
    """Opens a checkpoint for variables of a model.

    Args:
      config: ExperimentOptions of the model that is to take the weights.
      variables: names of the variables.

    Raises:
      InitializationError: if there is no checkpoint of a run, or its model was another one.
    """
    options = config.training.initialization
    prefix = checkpoint_arrays.find(options.path)
    arrays = checkpoint_arrays.CheckpointArrays(prefix)
    if not any(key.startswith(_ROOT) for key in arrays) or "step" not in arrays:
        raise InitializationError(
            f"{prefix} is no checkpoint of a training run of this program: it holds no `model` and `step`; correct "
            "training.initialization.kind or path"
        )
    whole = options.part == _WHOLE
    _check_config(prefix, config, whole)
    # The variables of one part or stage are all taken, or the checkpoint's network is a larger one.
    parts = {_part(_ROOT + name) for name in variables}

    def is_expected_leftover(key):
        if not key.startswith(_ROOT) or checkpoint_arrays.is_optimizer_slot(key):
            return True
        return not whole and _part(key) not in parts

    return Source(
        f"{'the model' if whole else 'the backbone'} in {prefix}",
        arrays,
        lambda name: Key(_ROOT + name),
        is_expected_leftover,
        "use the model options of that run; for other classes, set training.initialization "
        '{ skip: "classifier/logits" }; for another crop size, set model.input_height and model.input_width to those '
        "of that run",
    )


def _part(key):
    """Such as model/backbone/stage3."""
    return "/".join(key.split("/")[:3])


def _check_config(prefix, config, whole):
    """The run's own config, if it lies beside the checkpoint, must describe the same model."""
    path = os.path.join(os.path.dirname(prefix), run_directory.CONFIG_FILE)
    text = files.read_text(path)
    if text is None:
        logging.warning(
            "there is no %s: whether the model's options are those of the weights is not checked",
            path,
        )
        return
    try:
        before = text_format.Parse(text, experiment_pb2.ExperimentOptions())
    except text_format.ParseError as error:
        raise InitializationError(
            f"{path} cannot be read, it is of another version or damaged: {error}; copy the checkpoint away to use "
            "it without its config"
        ) from error
    part = "model." if whole else "model.backbone."
    accepted = (*_FREE_FIELDS, *config.training.initialization.accepted_differences)
    differences = [
        (field, old, new)
        for field, old, new in run_directory.differing_fields(before, config)
        if field.startswith(part) and field.partition("[")[0] not in accepted
    ]
    if differences:
        lines = "\n".join(f"  {field}: {old} there, {new} here" for field, old, new in differences)
        raise InitializationError(
            f"the weights in {prefix} were trained with other options of the model:\n{lines}\nset these fields as they "
            "are there, or list them in training.initialization.accepted_differences"
        )
