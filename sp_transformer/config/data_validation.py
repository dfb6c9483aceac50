"""What `data` must satisfy: splits, label map, sizes, augmentation, and the files themselves."""

import glob
import os
import re

from sp_transformer.config import checks, derived, label_map, registries
from sp_transformer.config.suggestions import unknown_name

# The file that marks a folder written by prepare_data.
RECORDS_MANIFEST = "records.json"

# Fields of DataOptions that name a split.
SPLIT_FIELDS = ("train_split", "eval_split")


def check_data_options(faults, config):
    """All rules that can be judged without looking at files."""
    data = config.data
    _check_dataset(faults, data.dataset)
    _check_splits(faults, data)
    _check_label_map(faults, data)
    _check_synthetic_streets(faults, data)
    _check_resize(faults, data)
    _check_crop(faults, config)
    _check_augmentation(faults, data.augmentation)
    checks.not_negative(faults, "data.parallel_calls", data.parallel_calls, "tf.data decides")
    checks.not_negative(faults, "data.start_check_images", data.start_check_images, "no check")
    _check_data_service(faults, data)


def size_multiple_or_none(config) -> tuple[int, str] | None:
    """`derived.size_multiple` and its reason, or None where the strides are themselves at fault."""
    if config.model.backbone.name not in registries.backbone_names():
        return None
    endpoints, cell = derived.endpoint_strides(config), config.model.tokenizer.superpixel_stride
    offered = registries.backbone_strides(config.model.backbone.name)
    if cell <= 0 or not set(endpoints) <= set(offered):
        return None
    reason = f"superpixel stride {cell}, largest endpoint stride {max(endpoints)}"
    return derived.size_multiple(config), reason


def _check_dataset(faults, dataset):
    if not dataset:
        faults.append(
            f"data.dataset is not set; set it to one of {', '.join(registries.DATASETS)} (files in "
            "configs/label_maps are no experiments: name them as a base_config)"
        )
    else:
        checks.one_of(faults, "data.dataset", dataset, registries.DATASETS)


def _check_splits(faults, data):
    if data.dataset == "folder":
        _check_folder(faults, data.folder)
        known = [split.name for split in data.folder.splits]
        labelled = [split.name for split in data.folder.splits if split.labels]
    elif data.dataset == "synthetic_streets":
        known = labelled = ["train", "val"]
    elif data.dataset == "cityscapes":
        annotations = data.cityscapes.annotations
        path = "data.cityscapes.annotations"
        checks.one_of(faults, path, annotations, registries.CITYSCAPES_ANNOTATIONS)
        known = registries.CITYSCAPES_SPLITS
        labelled = registries.CITYSCAPES_LABELLED.get(annotations, known)
    elif data.dataset == "ade20k":
        known, labelled = registries.ADE20K_SPLITS, registries.ADE20K_LABELLED
    else:
        # Only what lies in data_dir tells.
        _check_tfds(faults, data)
        return
    for field in ("train_split", "eval_split"):
        name = getattr(data, field)
        if known and name not in known:
            faults.append(unknown_name(f"data.{field}", name, known))
        elif known and name not in labelled:
            mend = (
                "give that split of data.folder its labels globs"
                if data.dataset == "folder"
                else f"choose one of {', '.join(labelled)}"
            )
            faults.append(f'data.{field} "{name}" names a split without labels; {mend}')


def _check_tfds(faults, data):
    if data.dataset == "tfds" and not data.tfds.image_key:
        faults.append(
            "data.tfds.image_key is empty; name the feature that holds the images, for example image"
        )


def _check_folder(faults, folder):
    if not folder.splits:
        faults.append(
            "data.folder.splits is empty; describe at least the splits that data.train_split and "
            "data.eval_split name"
        )
    names = [split.name for split in folder.splits]
    for index, split in enumerate(folder.splits):
        path = f"data.folder.splits[{index}]"
        if not split.name:
            faults.append(f"{path}.name is not set; give the split a name, for example train")
        elif names.index(split.name) < index:
            faults.append(
                f'{path}.name "{split.name}" is already that of splits[{names.index(split.name)}]; '
                "name each split once (one split may have several globs)"
            )
        if not split.images:
            faults.append(f"{path}.images is empty; give at least one glob relative to data_dir")
        _check_globs(faults, f"{path}.images", split.images)
        _check_globs(faults, f"{path}.labels", split.labels)


def _check_globs(faults, path, patterns):
    for pattern in patterns:
        if not pattern:
            faults.append(
                f'{path} "" is an empty glob; remove it or write one such as "train/*.png"'
            )
        elif os.path.isabs(pattern):
            faults.append(
                f'{path} "{pattern}" is absolute; write it relative to data.data_dir, which says '
                "where the data lie"
            )


def _check_label_map(faults, data):
    options = data.label_map
    if data.dataset in registries.DATASETS and not options.classes:
        if data.dataset in ("synthetic_streets", *registries.DEFAULT_LABEL_MAPS):
            _check_default_label_map(faults, data)
            return
        faults.append(
            f"data.label_map.classes is empty, and {data.dataset} has no default; list the classes, or "
            "name one of configs/label_maps as a base_config"
        )
    _check_classes(faults, options.classes)
    _check_ignore_label(faults, options)
    _check_id_map(faults, options)


def _check_default_label_map(faults, data):
    """Without classes the data set's own label map serves whole: nothing else of `label_map` would be read."""
    options, default = data.label_map, derived.data_label_map(data)
    bundled = registries.DEFAULT_LABEL_MAPS.get(data.dataset, "cityscapes")
    stated = []
    # The ignore_label of synthetic_streets is judged with or without classes, see below.
    if options.ignore_label != default.ignore_label and data.dataset != "synthetic_streets":
        stated.append(f"ignore_label {options.ignore_label}")
    if options.id_map:
        stated.append("id_map")
    if options.ignore_unlisted_ids:
        stated.append("ignore_unlisted_ids true")
    for field in stated:
        faults.append(
            f"data.label_map.{field} has no effect without data.label_map.classes: {data.dataset} then takes its "
            "own label map whole; remove it, or list the classes too (for example by base_config "
            f'"configs/label_maps/{bundled}.textproto")'
        )


def _check_classes(faults, classes):
    names = [entry.name for entry in classes]
    for index, entry in enumerate(classes):
        path = f"data.label_map.classes[{index}]"
        if not entry.name:
            faults.append(f"{path}.name is not set; name the class")
        elif names.index(entry.name) < index:
            faults.append(
                f'{path}.name "{entry.name}" is already that of '
                f"classes[{names.index(entry.name)}]; names must differ "
                "(ids that mean one class are joined by id_map)"
            )
        try:
            label_map.parse_color(entry.color)
        except ValueError as error:
            faults.append(f"{path}.color {error}")


def _check_ignore_label(faults, options):
    ignore_label, num_classes = options.ignore_label, len(options.classes)
    checks.in_range(faults, "data.label_map.ignore_label", ignore_label, 0, label_map.MAX_FILE_ID)
    if 0 <= ignore_label < num_classes:
        faults.append(
            f"data.label_map.ignore_label {ignore_label} is the train id of class "
            f'"{options.classes[ignore_label].name}"; set it to {num_classes} or more, for '
            "example 255, and map the files' ids to it by id_map"
        )


def _check_id_map(faults, options):
    num_classes, seen = len(options.classes), {}
    for index, entry in enumerate(options.id_map):
        path = f"data.label_map.id_map[{index}]"
        missing = [field for field in ("from", "to") if not entry.HasField(field)]
        faults.extend(f"{path}.{field} is not set; set it, also where it is 0" for field in missing)
        if missing:
            continue
        file_id, train_id = getattr(entry, "from"), entry.to
        checks.in_range(faults, f"{path}.from", file_id, 0, label_map.MAX_FILE_ID)
        if file_id in seen:
            faults.append(
                f"{path}.from {file_id} is already mapped by id_map[{seen[file_id]}]; "
                "list each id once"
            )
        seen.setdefault(file_id, index)
        if options.classes and not (
            0 <= train_id < num_classes or train_id == options.ignore_label
        ):
            faults.append(
                f"{path}.to {train_id} is neither a class (0 to {num_classes - 1}) nor "
                f"ignore_label {options.ignore_label}; map id {file_id} to one of these"
            )
    if options.ignore_unlisted_ids and not options.id_map:
        faults.append(
            "data.label_map.ignore_unlisted_ids true has no id_map to go by; list the ids that are "
            "classes in id_map, or remove it"
        )


def _check_synthetic_streets(faults, data):
    options, path = data.synthetic_streets, "data.synthetic_streets"
    for field in ("train_images", "val_images"):
        checks.positive(faults, f"{path}.{field}", getattr(options, field))
    for field in ("height", "width"):
        checks.at_least(faults, f"{path}.{field}", getattr(options, field), 32)
    checks.not_negative(faults, f"{path}.seed", options.seed)
    if data.dataset != "synthetic_streets":
        return
    drawn, mend = (
        derived.drawn_label_map(),
        "use configs/label_maps/cityscapes.textproto or no label map",
    )
    num_classes = len(data.label_map.classes)
    if num_classes not in (0, drawn.num_classes):
        faults.append(
            f"data.label_map.classes lists {num_classes} classes but synthetic_streets draws "
            f"Cityscapes' {drawn.num_classes}; {mend}"
        )
    if data.label_map.ignore_label != drawn.ignore_label:
        faults.append(
            f"data.label_map.ignore_label {data.label_map.ignore_label} is not the "
            f"{drawn.ignore_label} that synthetic_streets draws; {mend}"
        )


def _check_resize(faults, data):
    fields = ("resize_height", "resize_width", "resize_longer_side")
    height, width, longer_side = (getattr(data, field) for field in fields)
    for field in fields:
        checks.not_negative(faults, f"data.{field}", getattr(data, field), "no resizing")
    if (height > 0) != (width > 0):
        missing = "resize_width" if height > 0 else "resize_height"
        faults.append(
            f"data.{missing} is not set but the other of resize_height and resize_width is "
            f"{max(height, width)}; set both, or data.resize_longer_side alone to keep the aspect"
        )
    if longer_side > 0 and (height > 0 or width > 0):
        faults.append(
            f"data.resize_longer_side {longer_side} contradicts data.resize_height {height} and "
            f"data.resize_width {width}; set either the longer side or both others (0 unsets)"
        )


def _check_crop(faults, config):
    data = config.data
    if not data.dataset:
        return
    multiple = size_multiple_or_none(config)
    for field in ("crop_height", "crop_width"):
        path, value = f"data.{field}", getattr(data, field)
        if not data.HasField(field):
            example = f", a multiple of {multiple[0]} ({multiple[1]})" if multiple else ""
            faults.append(
                f"{path} is not set; set it to the size in pixels of training examples{example}"
            )
            continue
        checks.positive(faults, path, value)
        if value > 0 and multiple:
            checks.multiple_of(faults, path, value, *multiple)


def _check_augmentation(faults, augmentation):
    path = "data.augmentation"
    low, high, step = augmentation.min_scale, augmentation.max_scale, augmentation.scale_step
    checks.positive(faults, f"{path}.min_scale", low)
    checks.positive(faults, f"{path}.max_scale", high)
    checks.positive(faults, f"{path}.scale_step", step)
    if low > high:
        faults.append(
            f"{path}.min_scale {checks.number(low)} exceeds max_scale {checks.number(high)}; "
            "exchange them or set both to 1 for no scaling"
        )
    elif low > 0 and 0 < step < float("inf") and high < float("inf"):
        _check_scale_step(faults, low, high, step)
    checks.one_of(
        faults, f"{path}.color_policy", augmentation.color_policy, registries.COLOR_POLICIES
    )
    checks.in_range(faults, f"{path}.color_strength", augmentation.color_strength, 0, 1)


def _check_scale_step(faults, low, high, step):
    """max_scale is drawn too, so the step must fit into the range a whole number of times."""
    steps = (high - low) / step
    if abs(steps - round(steps)) > 1e-6:
        fitting = (high - low) / max(1, round(steps))
        faults.append(
            f"data.augmentation.scale_step {checks.number(step)} does not divide the range "
            f"{checks.number(low)} to {checks.number(high)} into whole steps; the nearest that "
            f"does is {checks.number(fitting)}"
        )


def _check_data_service(faults, data):
    address = data.data_service
    if not address:
        return
    if not re.fullmatch(r"grpc://.+:\d+", address):
        faults.append(
            f'data.data_service "{address}" is not the address of a tf.data service; write it as '
            '"grpc://HOST:PORT"'
        )
    if data.deterministic:
        faults.append(
            f'data.data_service "{address}" cannot keep data.deterministic true: its workers '
            "deliver in no order; set data.deterministic to false, or remove data_service"
        )
    if data.cache_in_memory:
        faults.append(
            f'data.data_service "{address}" has no use for data.cache_in_memory true: every '
            "worker would keep the whole data set; set it to false"
        )


def check_files(faults, data, split_fields):
    """The folder of the data, and at least one file for every list of globs of the splits in use.

    Paths with a scheme ("gs://...") are not looked at: listing them needs TensorFlow.
    """
    if data.dataset == "synthetic_streets" or "://" in data.data_dir:
        return
    if not data.data_dir:
        if data.dataset == "tfds":
            # tfds has a place of its own for what it prepares.
            return
        faults.append(
            "data.data_dir is not set; give the folder of the data by --data_dir or "
            "--override 'data { data_dir: \"/path\" }'"
        )
        return
    if not os.path.isdir(data.data_dir):
        faults.append(
            f'data.data_dir "{data.data_dir}" is not an existing folder; '
            "correct it or give --data_dir"
        )
        return
    if data.dataset != "folder" or os.path.exists(os.path.join(data.data_dir, RECORDS_MANIFEST)):
        # The sources name what is missing; what is prepared serves for any data set.
        return
    for index, split in enumerate(data.folder.splits):
        if split.name in [getattr(data, field) for field in split_fields]:
            path = f"data.folder.splits[{index}]"
            _check_globs_match(faults, f"{path}.images", split.images, data.data_dir)
            _check_globs_match(faults, f"{path}.labels", split.labels, data.data_dir)


def _check_globs_match(faults, path, patterns, data_dir):
    """One match suffices: data sets come with either extension, and a config may list both."""
    for pattern in patterns:
        if next(glob.iglob(pattern, root_dir=data_dir, recursive=True), None) is not None:
            return
    if patterns:
        quoted = " and ".join(f'"{pattern}"' for pattern in patterns)
        faults.append(
            f'{path} {quoted} matches no file in data.data_dir "{data_dir}"; correct the '
            "glob, or give the data set's root by --data_dir"
        )
