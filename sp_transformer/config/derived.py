"""Values that several parts of the program derive from a config, each in one place.

All functions take a validated ExperimentOptions.
"""

import dataclasses
import functools
import math

from sp_transformer.config import label_map as label_maps
from sp_transformer.config import registries


def label_map(config) -> label_maps.LabelMap:
    """The classes of the data: `data.label_map`, or those that come with the data set.

    Raises:
      ValueError: if the data set has no default label map and the config none either.
    """
    return data_label_map(config.data)


def data_label_map(data_options) -> label_maps.LabelMap:
    """`label_map`, for callers that hold only the DataOptions."""
    if data_options.label_map.classes:
        return label_maps.from_options(data_options.label_map)
    if data_options.dataset == "synthetic_streets":
        return drawn_label_map()
    if data_options.dataset in registries.DEFAULT_LABEL_MAPS:
        return bundled_label_map(registries.DEFAULT_LABEL_MAPS[data_options.dataset])
    raise ValueError(
        f'data.label_map.classes is empty, and dataset "{data_options.dataset}" has no default; '
        "list the classes, or add one of configs/label_maps as a base_config"
    )


@functools.cache
def drawn_label_map() -> label_maps.LabelMap:
    """The classes of the synthetic streets: Cityscapes', drawn with train ids, so that there is nothing to map."""
    return dataclasses.replace(
        bundled_label_map("cityscapes"), id_map={}, ignore_unlisted_ids=False
    )


@functools.cache
def bundled_label_map(name) -> label_maps.LabelMap:
    """The classes of configs/label_maps/`name`.textproto."""
    # Not at the top: loading validates what it has read, and so imports this module.
    from sp_transformer.config import loading

    return label_maps.from_options(loading.bundled_label_map(name).label_map)


def num_classes(config) -> int:
    """Number of classes that the model predicts."""
    return config.model.num_classes or label_map(config).num_classes


def input_size(config) -> tuple[int, int]:
    """(height, width) in pixels that queries and position embeddings are laid out for.

    Images of other sizes are served by resizing these (the superpixel stride stays).
    """
    model, data = config.model, config.data
    return model.input_height or data.crop_height, model.input_width or data.crop_width


def endpoint_strides(config) -> list[int]:
    """Strides of the summed endpoints; by default the stem's, 8 and 32 (paper, section IV-A).

    Raises:
      ValueError: if the default is asked for and the backbone is unknown.
    """
    chosen = config.model.hypercolumn.endpoint_strides
    if chosen:
        return list(chosen)
    return [registries.backbone_strides(config.model.backbone.name)[0], 8, 32]


def size_multiple(config) -> int:
    """Sides of training crops are multiples of this.

    They must hold whole superpixels and whole cells of the coarsest endpoint.
    """
    return math.lcm(config.model.tokenizer.superpixel_stride, max(endpoint_strides(config)))
