"""One piece of textproto -> message, with errors that say where and what was probably meant."""

import re

from google.protobuf import text_format

from sp_transformer.config.suggestions import nearest_name
from sp_transformer.protos import experiment_pb2

_UNKNOWN_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "(\w+)"')
_UNKNOWN_ENUM_VALUE = re.compile(r'Enum type "([\w.]+)" has no value named (\w+)')
_NAME = re.compile(r"\w*")
_SPACE = re.compile(r"(?:\s|#[^\n]*)*")
_TOKEN = re.compile(
    r"""[{}\[\]<>]|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[^\s{}\[\]<>"'#]+|.""", re.DOTALL
)
# Python's text_format puts "line:column : " and sometimes the whole source line in front.
_POSITION = re.compile(r"^\d+:\d+ : ('.*': )?", re.DOTALL)


def parse(text: str, origin: str) -> tuple[experiment_pb2.ExperimentOptions, list[str]]:
    """Parses an experiment's textproto, past unknown fields, up to the first error of another kind.

    Args:
      text: the textproto.
      origin: what to call it in errors: the file's path, or e.g. "override 1".

    Returns:
      The message, which holds what could be read, and a list of faults, "origin:line:column: ...".
    """
    # As protobuf counts lines: str.splitlines would take a "\r\n" for one character less, and divide at more.
    lines, faults = text.split("\n"), []
    while True:
        message = experiment_pb2.ExperimentOptions()
        try:
            text_format.Parse(text, message)
        except text_format.ParseError as error:
            line, column = error.GetLine() or 1, error.GetColumn() or 1
            # The line itself tells which of several overrides, or of many like fields, is meant.
            shown = lines[line - 1].strip()
            faults.append(f"{origin}:{line}:{column}: {_explain(str(error))}, in '{shown}'")
            if not _UNKNOWN_FIELD.search(str(error)):
                return message, faults
            start = sum(len(row) + 1 for row in lines[: line - 1]) + column - 1
            # Blanked and not cut out: what follows keeps its line and column.
            end = _end_of_field(text, start)
            text = text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
        else:
            return message, faults


def is_unknown_field(fault: str) -> bool:
    """Whether a fault leaves everything else readable."""
    return ' has no field "' in fault


def _end_of_field(text: str, start: int) -> int:
    """Where the field ends whose name starts at `start`: behind its value, be it a scalar, list or message."""
    position = _SPACE.match(text, _NAME.match(text, start).end()).end()
    if text[position : position + 1] == ":":
        position = _SPACE.match(text, position + 1).end()
    depth = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        symbol = token[0]
        if symbol in "{[<":
            depth += 1
        elif symbol in "}]>":
            if depth == 0:
                return position
            depth -= 1
        position = _SPACE.match(text, token.end()).end()
        # Adjacent strings are one value.
        if depth == 0 and not (symbol[0] in "\"'" and text[position : position + 1] in ("'", '"')):
            return token.end()
    return len(text)


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
                guess = f"did you mean {nearest}? The" if nearest else "the"
                known_names = ", ".join(known)
                return f"{path}.{field.name} {value} is unknown; {guess} known are: {known_names}"
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
