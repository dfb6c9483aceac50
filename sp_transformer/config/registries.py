"""Names that configs choose from, and what must be known about them before TensorFlow is imported.

The modules that implement a name look it up here, so that a config is refused for a name exactly
when no code answers to it.
"""

DATASETS = ("synthetic_streets", "folder", "cityscapes", "ade20k", "tfds", "records")

# Data sets that come with classes of their own: their bundled label maps.
DEFAULT_LABEL_MAPS = {
    "cityscapes": "cityscapes",
    "ade20k": "ade20k",
}

CITYSCAPES_ANNOTATIONS = ("fine", "coarse")

# Splits of the data sets whose layout is known, and those of them that have labels.
CITYSCAPES_SPLITS = ("train", "val", "test", "train_extra")
CITYSCAPES_LABELLED = {"fine": ("train", "val"), "coarse": ("train", "val", "train_extra")}
ADE20K_SPLITS = ("train", "val", "test")
ADE20K_LABELLED = ("train", "val")

COLOR_POLICIES = ("none", "jitter", "autoaugment")

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")

# ResNets of 1x1-3x3-1x1 blocks; the others have two 3x3 convolutions a block.
BOTTLENECK_RESNETS = ("resnet50", "resnet101")

CONVNEXTS = (
    "convnext_tiny",
    "convnext_small",
    "convnext_base",
    "convnext_large",
    "convnext_xlarge",
)

BACKBONES = RESNETS + CONVNEXTS

KERAS_CV_PREFIX = "keras_cv/"

# keras_cv 0.9.0's own preset names (without weights) of the families whose pyramid reaches down to
# stride 4 or 2.
_KERAS_CV_FROM_STRIDE_4 = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet18_v2",
    "resnet34_v2",
    "resnet50_v2",
    "resnet101_v2",
    "resnet152_v2",
    "densenet121",
    "densenet169",
    "densenet201",
    "csp_darknet_tiny",
    "csp_darknet_s",
    "csp_darknet_m",
    "csp_darknet_l",
    "csp_darknet_xl",
)
_KERAS_CV_FROM_STRIDE_2 = (
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnetv2_s",
    "efficientnetv2_m",
    "efficientnetv2_l",
    "efficientnetv2_b0",
    "efficientnetv2_b1",
    "efficientnetv2_b2",
    "efficientnetv2_b3",
    "efficientnetlite_b0",
    "efficientnetlite_b1",
    "efficientnetlite_b2",
    "efficientnetlite_b3",
    "efficientnetlite_b4",
)
KERAS_CV_BACKBONES = _KERAS_CV_FROM_STRIDE_4 + _KERAS_CV_FROM_STRIDE_2

# Those of them whose blocks can be dropped.
KERAS_CV_WITH_DROP_PATH = tuple(
    name for name in KERAS_CV_BACKBONES if name.startswith("efficientnet")
)


def backbone_names() -> tuple[str, ...]:
    """Every value that `model.backbone.name` may take."""
    return BACKBONES + tuple(KERAS_CV_PREFIX + name for name in KERAS_CV_BACKBONES)


def backbone_strides(name: str) -> tuple[int, ...]:
    """Strides of the endpoints that a backbone offers, smallest first.

    Args:
      name: one of `backbone_names()`.

    Returns:
      Strides in image pixels; the first is the stem's (keras_cv: the finest level of its pyramid).

    Raises:
      ValueError: for an unknown name.
    """
    if name in RESNETS:
        return (2, 4, 8, 16, 32)
    if name in CONVNEXTS:
        return (4, 8, 16, 32)
    if name.startswith(KERAS_CV_PREFIX):
        bare_name = name.removeprefix(KERAS_CV_PREFIX)
        if bare_name in _KERAS_CV_FROM_STRIDE_4:
            return (4, 8, 16, 32)
        if bare_name in _KERAS_CV_FROM_STRIDE_2:
            return (2, 4, 8, 16, 32)
    raise ValueError(f"unknown backbone {name!r}; the known are {', '.join(backbone_names())}")
