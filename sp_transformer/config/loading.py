"""Textproto, its base files and overrides -> one validated ExperimentOptions."""

import pathlib
from collections.abc import Sequence

from sp_transformer.config import label_map, parsing, validation
from sp_transformer.config.errors import ConfigError
from sp_transformer.config.suggestions import nearest_name
from sp_transformer.protos import experiment_pb2

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# Configs lie beside the package in a source tree, and inside it in a wheel.
_BUNDLED_ROOTS = (_PACKAGE.parent / "configs", _PACKAGE / "configs")


def load_config(
    path,
    overrides: Sequence[str] = (),
    data_dir: str | None = None,
    check_data: bool | Sequence[str] = False,
) -> experiment_pb2.ExperimentOptions:
    """Reads, merges and validates an experiment.

    Args:
      path: a textproto file, or one that comes with the package, for example
        "configs/cityscapes/resnet50.textproto".
      overrides: textproto snippets such as 'training { batch_size: 8 }', applied last and in order.
      data_dir: if given, replaces `data.data_dir`.
      check_data: also require that the data are there: of the splits that these fields name, such as ("eval_split",),
        or of both for True.

    Returns:
      The merged message; `base_config` is cleared and `experiment_name` set.

    Raises:
      ConfigError: with every fault that could be found: all unknown fields, and all values out of bounds. A text with
        an error of another kind is reported up to there, and values are then not judged.
    """
    if isinstance(overrides, str):
        # A string is a sequence too, and would be parsed letter by letter.
        overrides = (overrides,)
    faults = []
    config = experiment_pb2.ExperimentOptions()
    file = _find(pathlib.Path(path), faults)
    if file is not None:
        config = _read(file, [], faults)
    for number, text in enumerate(overrides, 1):
        merge(_parse_override(text, f"override {number}", faults), config)
    if not all(map(parsing.is_unknown_field, faults)):
        raise ConfigError(faults)
    if data_dir:
        config.data.data_dir = str(data_dir)
    if file is not None and not config.experiment_name:
        config.experiment_name = f"{file.resolve().parent.name}/{file.stem}"
    value_faults = validation.find_faults(config, check_data)
    if faults:
        # A field that is not set may be one of the misspelt.
        value_faults = [fault for fault in value_faults if " is not set" not in fault]
    if faults or value_faults:
        raise ConfigError(faults + value_faults)
    return config


def merge(source, target) -> None:
    """Merges source into target: set scalars and lists replace, messages are merged field by field.

    protobuf's own MergeFrom appends to lists, which would leave no way to shorten one.
    """
    for field, value in source.ListFields():
        # Lists are told by their value: the descriptor's way of saying it differs between protobuf
        # 6.31 and 7.
        if hasattr(value, "extend"):
            target.ClearField(field.name)
            getattr(target, field.name).extend(value)
        elif field.message_type is not None:
            getattr(target, field.name).SetInParent()
            merge(value, getattr(target, field.name))
        else:
            setattr(target, field.name, value)


def bundled_configs() -> list[str]:
    """Paths, as `load_config` takes them, of all configs that come with the package."""
    root = next((root for root in _BUNDLED_ROOTS if root.is_dir()), None)
    if root is None:
        return []
    return sorted(
        (pathlib.Path("configs") / file.relative_to(root)).as_posix()
        for file in root.rglob("*.textproto")
    )


def bundled_label_map(name: str):
    """The DataOptions of a file in configs/label_maps, of which `label_map` is set.

    Raises:
      ConfigError: if there is no such file, or it is at fault.
    """
    faults = []
    file = _find(pathlib.Path("configs", "label_maps", f"{name}.textproto"), faults)
    options = _read(file, [], faults).data if file is not None else None
    if faults:
        raise ConfigError(faults)
    return options


def bundled_label_maps() -> dict[str, label_map.LabelMap]:
    """{path as `base_config` takes it: label map} of the files in configs/label_maps."""
    maps = {}
    for path in bundled_configs():
        if path.startswith("configs/label_maps/"):
            faults = []
            message = _read(_find(pathlib.Path(path), faults), [], faults)
            maps[path] = label_map.from_options(message.data.label_map)
    return maps


def _find(path: pathlib.Path, faults: list[str], named_by: pathlib.Path | None = None):
    """The existing file that `path` means, or None and a fault."""
    candidates = [path if named_by is None else named_by.parent / path]
    if path.parts[:1] == ("configs",):
        candidates += [root.joinpath(*path.parts[1:]) for root in _BUNDLED_ROOTS]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if candidates[0].is_dir():
        known = sorted(file.name for file in candidates[0].glob("*.textproto"))
        mend = f"name one of its files: {', '.join(known)}" if known else "name a textproto file"
        faults.append(f"{candidates[0]} is a folder, not a config; {mend}")
        return None
    fault = f"{candidates[0]} does not exist"
    if named_by is not None:
        fault = (
            f'{named_by}: base_config "{path}" does not exist; it is looked for at {candidates[0]}'
        )
    nearest = nearest_name(path.as_posix(), bundled_configs())
    faults.append(fault + (f"; did you mean the bundled {nearest}?" if nearest else ""))
    return None


def _read(file: pathlib.Path, including: list[pathlib.Path], faults: list[str]):
    """The message of a file merged over its base files.

    Args:
      file: an existing file.
      including: the files whose base_config led here, outermost first.
      faults: receives what is wrong in this file and its bases.
    """
    if file.resolve() in [other.resolve() for other in including]:
        chain = " -> ".join(str(other) for other in [*including, file])
        faults.append(f"base_config forms a cycle: {chain}; remove one of these base_config lines")
        return experiment_pb2.ExperimentOptions()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{file} cannot be read: {error}; a config is a UTF-8 text file")
        return experiment_pb2.ExperimentOptions()
    own, parse_faults = parsing.parse(text, str(file))
    faults.extend(parse_faults)
    merged = experiment_pb2.ExperimentOptions()
    for base in own.base_config:
        base_file = _find(pathlib.Path(base), faults, named_by=file)
        if base_file is not None:
            merge(_read(base_file, [*including, file], faults), merged)
    own.ClearField("base_config")
    merge(own, merged)
    return merged


def _parse_override(text: str, origin: str, faults: list[str]):
    message, parse_faults = parsing.parse(text, origin)
    faults.extend(parse_faults)
    if message.base_config:
        faults.append(
            f'{origin}: base_config "{message.base_config[0]}" cannot be set by an override; '
            "name the base in a config file"
        )
        message.ClearField("base_config")
    return message
