"""The weights that a run starts from: read, checked against the model, and assigned all together or not at all."""

import os

from sp_transformer.config import registries
from sp_transformer.data import storage
from sp_transformer.model import weights
from sp_transformer.protos import training_pb2
from sp_transformer.training.initialization import (
    backbone_names,
    checkpoint_arrays,
    deeplab2,
    keras_applications,
    keras_cv,
    matching,
    own_checkpoint,
    torchvision,
)
from sp_transformer.training.initialization.errors import InitializationError
from sp_transformer.training.initialization.report import Report

REPORT_FILE = "initialization.txt"

_OPTIONS = training_pb2.InitializationOptions
_BACKBONE = "backbone/"
_STAGED = {
    _OPTIONS.DEEPLAB2: deeplab2.open_source,
    _OPTIONS.KERAS_APPLICATIONS: keras_applications.open_source,
    _OPTIONS.TORCHVISION: torchvision.open_source,
}


def is_wanted(config) -> bool:
    """Whether a run of `config` starts from other weights than random ones."""
    return config.training.initialization.kind != _OPTIONS.NONE


def check(config) -> None:
    """Looks whether there is something to start from, without reading it.

    Raises:
      InitializationError: if `training.initialization.path` is not set, or there is no such file or checkpoint.
    """
    if not is_wanted(config):
        return
    options = config.training.initialization
    if not options.path:
        raise InitializationError(
            "training.initialization.path is not set; give the file by --override 'training { initialization "
            '{ path: "/path" } }\''
        )
    if options.kind in (_OPTIONS.CHECKPOINT, _OPTIONS.DEEPLAB2):
        checkpoint_arrays.find(options.path)
    elif not storage.exists(options.path) or storage.is_folder(options.path):
        raise InitializationError(
            f"training.initialization.path {options.path} is no existing file; correct it"
        )


def initialize(config, model) -> Report:
    """Gives the variables of a model the values that `training.initialization` names.

    Args:
      config: a validated ExperimentOptions, of which `is_wanted`.
      model: the built model.

    Returns:
      A Report.

    Raises:
      InitializationError: if there is nothing to read, or it does not fit; the model is unchanged then.
    """
    check(config)
    options = config.training.initialization
    named = weights.named_variables(model)
    whole = options.part == _OPTIONS.WHOLE_MODEL
    wanted = named if whole else {k: v for k, v in named.items() if k.startswith(_BACKBONE)}
    report = matching.load(
        _open_source(config, model, list(wanted)), wanted, options.skip, options.strict
    )
    return report.with_others(len(named) - len(wanted))


def _open_source(config, model, names):
    options, backbone = config.training.initialization, config.model.backbone.name
    if options.kind == _OPTIONS.CHECKPOINT:
        return own_checkpoint.open_source(config, names)
    path = os.fspath(options.path)
    if options.kind == _OPTIONS.KERAS_CV:
        source = keras_cv.open_source(path, backbone, model.backbone.endpoint_strides)
    else:
        parse = (
            backbone_names.parse_resnet
            if backbone in registries.RESNETS
            else backbone_names.parse_convnext
        )
        stages = {parse(name.removeprefix(_BACKBONE)).stage for name in names}
        source = _STAGED[options.kind](path, backbone, stages)
    return source.below(_BACKBONE)


__all__ = ["REPORT_FILE", "InitializationError", "Report", "check", "initialize", "is_wanted"]
