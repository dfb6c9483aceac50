"""Rules of starting from other weights and of training a part of them, or with weighted classes."""

from sp_transformer.config import checks, derived, registries, weight_sources
from sp_transformer.protos import training_pb2

_OPTIONS = training_pb2.InitializationOptions
_PATH = "training.initialization"


def check_fine_tuning_options(faults, config) -> None:
    """Appends what is wrong with `training.initialization`, what is frozen, and `training.class_weights`.

    Whether the file is there is not asked here: only a run that starts afresh reads it.
    """
    if config.model.backbone.name in registries.backbone_names():
        _check_initialization(faults, config)
        _check_frozen(faults, config)
    _check_class_weights(faults, config)


def _check_initialization(faults, config):
    options, backbone = config.training.initialization, config.model.backbone
    kind = _OPTIONS.Kind.Name(options.kind)
    if options.kind == _OPTIONS.NONE:
        if options.path:
            kinds = ", ".join(name for name in _OPTIONS.Kind.keys() if name != kind)  # noqa: SIM118
            faults.append(
                f'{_PATH}.path "{options.path}" is set but not {_PATH}.kind; set it to what the file is: {kinds}'
            )
        return
    if options.part == _OPTIONS.WHOLE_MODEL and options.kind != _OPTIONS.CHECKPOINT:
        faults.append(
            f"{_PATH}.part WHOLE_MODEL is for kind CHECKPOINT, as {kind} holds a backbone only; set it to BACKBONE"
        )
    for index, prefix in enumerate(options.skip):
        if not prefix.strip("/"):
            faults.append(
                f'{_PATH}.skip[{index}] "{prefix}" would skip every variable; name the beginning of a name, such as '
                '"classifier/logits"'
            )
    for field in options.accepted_differences:
        if not field.startswith("model."):
            faults.append(
                f'{_PATH}.accepted_differences "{field}" is no field of the model; write it in full, such as '
                '"model.backbone.input_normalization"'
            )
    if backbone.name not in weight_sources.backbones(options.kind):
        faults.append(
            f"{_PATH}.kind {kind} has no weights for model.backbone.name {backbone.name}; choose one of "
            f"{', '.join(weight_sources.backbones(options.kind))}{_other_kind(options.kind, backbone.name)}"
        )
        return
    _check_required_options(faults, options, backbone)


def _other_kind(kind, name):
    if kind == _OPTIONS.KERAS_CV and name in registries.RESNETS:
        # keras_cv pads strided convolutions at one side only.
        return f'; keras_cv\'s own form of it is "{registries.KERAS_CV_PREFIX}{name}"'
    return ""


def _check_required_options(faults, options, backbone):
    required = {
        field: value
        for field, value in weight_sources.differing_options(options.kind, backbone).items()
        if f"model.backbone.{field}" not in options.accepted_differences
    }
    if not required:
        return
    have = ", ".join(
        weight_sources.textproto(field, getattr(backbone, field)) for field in required
    )
    wanted = " ".join(weight_sources.textproto(*item) for item in required.items())
    faults.append(
        f"{_PATH}.kind {_OPTIONS.Kind.Name(options.kind)} loads weights that {backbone.name} would use otherwise than "
        f"they were trained, with model.backbone {have}; set model {{ backbone {{ {wanted} }} }}, or, if meant, list "
        f'the field in {_PATH}.accepted_differences as "model.backbone.{next(iter(required))}"'
    )


def _check_frozen(faults, config):
    training, name = config.training, config.model.backbone.name
    for field in ("freeze_backbone", "freeze_batch_norm"):
        if getattr(training, field) and training.initialization.kind == _OPTIONS.NONE:
            faults.append(
                f"training.{field} true would keep random values, as no {_PATH}.kind is set; set it, or remove "
                f"training.{field}"
            )
    if training.freeze_batch_norm and name in registries.CONVNEXTS:
        faults.append(
            f"training.freeze_batch_norm true has no effect on {name}, which has no BatchNorm; remove it"
        )


def _check_class_weights(faults, config):
    weights = list(config.training.class_weights)
    if not weights:
        return
    path = "training.class_weights"
    for index, weight in enumerate(weights):
        checks.not_negative(faults, f"{path}[{index}]", weight, "a class that is not learned")
    if not any(weight > 0 for weight in weights):
        faults.append(f"{path} has no weight above 0; give the classes that are to be learned one")
    classes = _num_classes(config)
    if classes and len(weights) != classes:
        faults.append(
            f"{path} lists {len(weights)} weights for {classes} classes; list one for each class, in the order of the "
            "train ids"
        )


def _num_classes(config):
    try:
        return derived.num_classes(config)
    except ValueError:
        # The label map is at fault itself, and reported as such.
        return 0
