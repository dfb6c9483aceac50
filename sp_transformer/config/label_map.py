"""What the ids in label files mean: names, colours, the ignored id and the files' own ids."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

_COLOR = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")


def parse_color(text: str) -> tuple[int, int, int]:
    """Reads "#rrggbb".

    Raises:
      ValueError: if text has another form.
    """
    match = _COLOR.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is not a colour; write six hexadecimal digits as "#rrggbb"')
    return tuple(int(digits, 16) for digits in match.groups())


# eq=False: comparing the colour arrays of two maps would give an array, not a truth value.
@dataclasses.dataclass(frozen=True, eq=False)
class LabelMap:
    """Classes of a data set; K is their number.

    Attributes:
      names: K class names in the order of their train ids.
      colors: uint8 [K, 3], RGB.
      ignore_label: train id of pixels that are not counted, never one of 0..K-1.
      id_map: id in a label file -> train id, for the ids that differ.
      ignore_unlisted_ids: whether ids that a (non-empty) id_map leaves out become ignore_label
        instead of staying as they are.
    """

    names: tuple[str, ...]
    colors: np.ndarray
    ignore_label: int = 255
    id_map: Mapping[int, int] = dataclasses.field(default_factory=dict)
    ignore_unlisted_ids: bool = False

    @property
    def num_classes(self) -> int:
        return len(self.names)


def from_options(options) -> LabelMap:
    """The LabelMap of a LabelMapOptions message.

    Raises:
      ValueError: if a colour cannot be read.
    """
    colors = [parse_color(entry.color) for entry in options.classes]
    return LabelMap(
        names=tuple(entry.name for entry in options.classes),
        colors=np.array(colors, np.uint8).reshape(-1, 3),
        ignore_label=options.ignore_label,
        id_map={getattr(entry, "from"): entry.to for entry in options.id_map},
        ignore_unlisted_ids=options.ignore_unlisted_ids,
    )
