"""What a config must satisfy before anything is built; rules of `data` are in data_validation.py.

Rules that need TensorFlow to judge have no place here: a faulty config has to be refused before it
is imported.
"""

from sp_transformer.config import (
    checks,
    data_validation,
    derived,
    evaluation_validation,
    fine_tuning_validation,
    registries,
    training_validation,
)


def find_faults(config, check_data=False) -> list[str]:
    """Everything that is wrong with a merged experiment, each as "field value limit; mend".

    Args:
      config: ExperimentOptions.
      check_data: also look for the data's files: of the splits that these fields of DataOptions name, or of
        all in use for True.
    """
    faults = []
    _check_backbone(faults, config.model.backbone)
    _check_hypercolumn(faults, config)
    _check_tokenizer(faults, config.model)
    _check_classifier(faults, config.model)
    _check_association(faults, config.model.association)
    _check_channels(faults, config.model)
    _check_input_size(faults, config)
    data_validation.check_data_options(faults, config)
    _check_num_classes(faults, config)
    training_validation.check_training_options(faults, config)
    fine_tuning_validation.check_fine_tuning_options(faults, config)
    evaluation_validation.check_evaluation_options(faults, config)
    if check_data:
        fields = data_validation.SPLIT_FIELDS if check_data is True else tuple(check_data)
        data_validation.check_files(faults, config.data, fields)
    return faults


def _check_backbone(faults, backbone):
    path = "model.backbone"
    known = registries.backbone_names()
    if backbone.name not in known:
        checks.one_of(faults, f"{path}.name", backbone.name, known)
        return
    checks.in_range(faults, f"{path}.drop_path_rate", backbone.drop_path_rate, 0, 1, open_high=True)
    checks.positive(faults, f"{path}.batch_norm_epsilon", backbone.batch_norm_epsilon)
    checks.in_range(
        faults, f"{path}.batch_norm_momentum", backbone.batch_norm_momentum, 0, 1, open_high=True
    )
    is_resnet = backbone.name in registries.RESNETS
    resnet_only = (
        *("batch_norm_epsilon", "batch_norm_momentum", "stem_max_pool", "conv_bias"),
        "zero_init_residual",
    )
    for field in resnet_only:
        if not is_resnet:
            _check_unused(faults, backbone, field, f"one of {', '.join(registries.RESNETS)}")
    if backbone.name not in registries.CONVNEXTS:
        _check_unused(faults, backbone, "zero_padding", f"one of {', '.join(registries.CONVNEXTS)}")
    if backbone.name not in registries.BOTTLENECK_RESNETS:
        bottlenecks = f"one with bottlenecks, {' or '.join(registries.BOTTLENECK_RESNETS)}"
        _check_unused(faults, backbone, "stride_in_first_conv", bottlenecks)
    bare_name = backbone.name.removeprefix(registries.KERAS_CV_PREFIX)
    if bare_name != backbone.name and bare_name not in registries.KERAS_CV_WITH_DROP_PATH:
        users = "a ResNet or ConvNeXt of this package, or an EfficientNet of keras_cv"
        _check_unused(faults, backbone, "drop_path_rate", users)


def _check_unused(faults, backbone, field, users):
    """The field is unset or holds its default, to which an override can always return it."""
    value = getattr(backbone, field)
    default = backbone.DESCRIPTOR.fields_by_name[field].default_value
    if value != default:
        shown, shown_default = (
            str(v).lower() if isinstance(v, bool) else checks.number(v) for v in (value, default)
        )
        faults.append(
            f"model.backbone.{field} {shown} has no effect on {backbone.name}; remove it (or set "
            f"it to its default, {shown_default}), or choose {users}"
        )


_PIXEL_FEATURE_STRIDES = (1, 2, 4, 8, 16, 32)


def _check_hypercolumn(faults, config):
    hypercolumn = config.model.hypercolumn
    checks.positive(
        faults, "model.hypercolumn.max_hidden_channels", hypercolumn.max_hidden_channels
    )
    if hypercolumn.stride not in _PIXEL_FEATURE_STRIDES:
        faults.append(
            f"model.hypercolumn.stride {hypercolumn.stride} is not a stride of pixel features; "
            f"set it to one of {', '.join(map(str, _PIXEL_FEATURE_STRIDES))}"
        )
    if config.model.backbone.name not in registries.backbone_names():
        return
    offered = registries.backbone_strides(config.model.backbone.name)
    chosen = list(hypercolumn.endpoint_strides)
    for stride in dict.fromkeys(chosen):
        if stride not in offered:
            faults.append(
                f"model.hypercolumn.endpoint_strides {stride} is not an endpoint of "
                f"{config.model.backbone.name}; it has {', '.join(map(str, offered))}"
            )
        if chosen.count(stride) > 1:
            faults.append(
                f"model.hypercolumn.endpoint_strides {stride} is listed {chosen.count(stride)} "
                "times; list each endpoint once"
            )


def _check_tokenizer(faults, model):
    tokenizer, path = model.tokenizer, "model.tokenizer"
    checks.positive(faults, f"{path}.superpixel_stride", tokenizer.superpixel_stride)
    checks.positive(faults, f"{path}.layers", tokenizer.layers)
    checks.positive(faults, f"{path}.heads", tokenizer.heads)
    checks.positive(
        faults, f"{path}.position_embedding_stride", tokenizer.position_embedding_stride
    )
    checks.not_negative(
        faults, f"{path}.feed_forward_width", tokenizer.feed_forward_width, "no such layer"
    )
    if tokenizer.superpixel_stride > 0 and model.hypercolumn.stride in _PIXEL_FEATURE_STRIDES:
        checks.multiple_of(
            faults,
            f"{path}.superpixel_stride",
            tokenizer.superpixel_stride,
            model.hypercolumn.stride,
            f"model.hypercolumn.stride {model.hypercolumn.stride}, "
            "as a cell holds whole pixel features",
        )


def _check_classifier(faults, model):
    classifier, path = model.classifier, "model.classifier"
    checks.not_negative(faults, f"{path}.layers", classifier.layers, "no self-attention")
    checks.positive(faults, f"{path}.heads", classifier.heads)
    checks.positive(faults, f"{path}.feed_forward_width", classifier.feed_forward_width)


def _check_association(faults, association):
    checks.not_negative(
        faults, "model.association.scale", association.scale, "the default, channels^-0.5"
    )


def _check_channels(faults, model):
    checks.positive(faults, "model.channels", model.channels)
    for part in ("tokenizer", "classifier"):
        heads = getattr(model, part).heads
        if model.channels > 0 and heads > 0:
            checks.divides(faults, f"model.{part}.heads", heads, "model.channels", model.channels)


def _check_input_size(faults, config):
    """model.input_*: both or none, and whole superpixels."""
    sizes = {
        "model.input_height": config.model.input_height,
        "model.input_width": config.model.input_width,
    }
    for path, value in sizes.items():
        checks.not_negative(faults, path, value, "the training crop")
    unset = [path for path, value in sizes.items() if value == 0]
    if len(unset) == 1:
        faults.append(
            f"{unset[0]} is not set but the other of model.input_height and model.input_width is "
            f"{max(sizes.values())}; set both or none"
        )
    multiple = data_validation.size_multiple_or_none(config)
    for path, value in sizes.items():
        if value > 0 and multiple:
            checks.multiple_of(faults, path, value, *multiple)


def _check_num_classes(faults, config):
    stated = config.model.num_classes
    checks.not_negative(faults, "model.num_classes", stated, "as many as data.label_map has")
    try:
        known = derived.label_map(config).num_classes
    except ValueError:
        # None, or one at fault: data_validation says so.
        known = len(config.data.label_map.classes)
    if stated > 0 and known and stated != known:
        faults.append(
            f"model.num_classes {stated} does not agree with the {known} classes of "
            f"data.label_map; remove it, or set it to {known}"
        )
