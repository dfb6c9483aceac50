"""One piece of textproto -> message, with errors that say where and what was probably meant."""

import re

from google.protobuf import text_format

from sp_transformer.config.suggestions import nearest_name
from sp_transformer.protos import experiment_pb2

_UNKNOWN_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "(\w+)"')
_UNKNOWN_ENUM_VALUE = re.compile(r'Enum type "([\w.]+)" has no value named (\w+)')
# Python's text_format puts "line:column : " and sometimes the whole source line in front.
_POSITION = re.compile(r"^\d+:\d+ : ('.*': )?", re.DOTALL)


def parse(text: str, origin: str) -> tuple[experiment_pb2.ExperimentOptions, list[str]]:
    """Parses an experiment's textproto up to its first error.

    Args:
      text: the textproto.
      origin: what to call it in errors: the file's path, or e.g. "override 1".

    Returns:
      The message, which holds what stands before the error if there is one, and a list of at most
      one fault, "origin:line:column: ...".
    """
    message = experiment_pb2.ExperimentOptions()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine() or 1, error.GetColumn() or 1
        # The line itself tells which of several overrides, or of many like fields, is meant.
        text_of_line = (text.splitlines() or [""])[line - 1].strip()
        return message, [f"{origin}:{line}:{column}: {_explain(str(error))}, in '{text_of_line}'"]
    return message, []


def _explain(error: str) -> str:
    match = _UNKNOWN_FIELD.search(error)
    if match:
        return _explain_unknown_field(*match.groups())
    match = _UNKNOWN_ENUM_VALUE.search(error)
    if match:
        return _explain_unknown_enum_value(*match.groups())
    return _POSITION.sub("", error).rstrip(".")


def _explain_unknown_field(message_name: str, field_name: str) -> str:
    places = _places()
    descriptor = next(d for d in places.values() if d.full_name == message_name)
    known = [field.name for field in descriptor.fields]
    elsewhere = [
        f"{path}.{field_name}".lstrip(".")
        for path, other in places.items()
        if field_name in other.fields_by_name
    ]
    paths = [path for path, other in places.items() if other is descriptor]
    here = paths[0] or "the top level"
    fault = f'{here} has no field "{field_name}"'
    nearest = nearest_name(field_name, known)
    if elsewhere:
        fault += f"; there is {' and '.join(elsewhere)}"
    if nearest:
        fault += f'; did you mean "{nearest}"?'
    elif not elsewhere:
        fault += f"; its fields are: {', '.join(known)}"
    return fault


def _explain_unknown_enum_value(enum_name: str, value: str) -> str:
    for path, descriptor in _places().items():
        for field in descriptor.fields:
            if field.enum_type is not None and field.enum_type.full_name == enum_name:
                known = [entry.name for entry in field.enum_type.values]
                nearest = nearest_name(value, known)
                guess = f"did you mean {nearest}? " if nearest else ""
                known_names = ", ".join(known)
                return (
                    f"{path}.{field.name} {value} is unknown; {guess}The known are: {known_names}"
                )
    return f"{enum_name} has no value {value}"


def _places() -> dict[str, object]:
    """Dotted path of every message in an experiment ("" for itself) -> its descriptor."""
    places = {}

    def visit(path, descriptor):
        places[path] = descriptor
        for field in descriptor.fields:
            if field.message_type is not None:
                visit(f"{path}.{field.name}".lstrip("."), field.message_type)

    visit("", experiment_pb2.ExperimentOptions.DESCRIPTOR)
    return places
