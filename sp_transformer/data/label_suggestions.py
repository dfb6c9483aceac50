"""Guesses what a data set's label ids mean where they and the class table do not fit, and says how to map them.

Every guess is drawn from how often each id occurs in the files, and from the label maps that come with the package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from sp_transformer.config import label_map as label_maps
from sp_transformer.config import loading
from sp_transformer.data import examination

# Ids by which tools write "nothing": 255 and -1, the latter as 16 bits hold it too.
_NOTHING = (255, -1, 65535)

# From this share on, ignored pixels look like a fault of the map rather than like void.
_MUCH_IGNORED = 0.5


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A guess.

    Attributes:
      text: what was seen and what it probably means.
      id_map: {id in files: train id}, the whole map to use; empty where none is needed ("remove it").
      ignore_label: the ignore label that goes with it.
    """

    text: str
    id_map: Mapping[int, int]
    ignore_label: int

    def textproto(self) -> str:
        """The label map's fields as an override that sets them; "" where no id_map would help."""
        if not self.id_map or min(self.id_map) < 0:
            return ""
        entries = "".join(
            f"    id_map {{ from: {file_id} to: {train_id} }}\n"
            for file_id, train_id in sorted(self.id_map.items())
        )
        return (
            f"data {{\n  label_map {{\n    ignore_label: {self.ignore_label}\n{entries}  }}\n}}\n"
        )


def suggest(id_counts: Mapping[int, int], label_map: label_maps.LabelMap) -> Suggestion | None:
    """Returns the likeliest guess, or None where ids and classes fit or nothing comes to mind.

    Args:
      id_counts: {id in the label files: pixels}, of the whole split.
      label_map: the configured LabelMap.
    """
    if not id_counts:
        return None
    seen = _Seen(id_counts, label_map)
    # The more particular a rule, the earlier it is asked.
    for rule in (_ids_of_the_files, _bundled_map, _masks, _spread, _one_based, _nothing, _in_order):
        guess = rule(seen)
        if guess is not None:
            return guess
    return None


class _Seen:
    """What the rules look at.

    Attributes:
      ids: set of ids in the files; nothing: those of them by which tools write pixels of no class;
        meant: the others, in order.
      unknown: ids that end up neither as a class nor ignored; absent: train ids of no pixel.
      ignored: share of pixels that end up ignored.
    """

    def __init__(self, id_counts, label_map):
        self.label_map = label_map
        self.classes = label_map.num_classes
        self.ids = set(id_counts)
        # With more than 255 classes, 255 is one of them.
        self.nothing = {i for i in self.ids.intersection(_NOTHING) if not 0 <= i < self.classes}
        self.meant = sorted(self.ids - self.nothing)
        self.unknown, self.ignored, present = [], 0.0, set()
        total = sum(id_counts.values())
        for file_id, count in sorted(id_counts.items()):
            train_id = examination.train_id_of(file_id, label_map)
            if 0 <= train_id < self.classes:
                present.add(train_id)
            elif train_id == label_map.ignore_label:
                self.ignored += count / total
            else:
                self.unknown.append(file_id)
        self.absent = [i for i in range(self.classes) if i not in present]

    def suggestion(self, text, id_map):
        return Suggestion(text, {**id_map, **self._nothing(id_map)}, self.label_map.ignore_label)

    def _nothing(self, id_map):
        """Entries for the ids of no class that are not the ignore label already."""
        ignore = self.label_map.ignore_label
        return {i: ignore for i in self.nothing - set(id_map) - {ignore}}


def _ids_of_the_files(seen):
    """An id_map is given, but the files hold train ids already (Cityscapes' labelTrainIds)."""
    label_map = seen.label_map
    if not label_map.id_map or not seen.meant:
        return None
    identical = all(0 <= i < seen.classes for i in seen.meant)
    # Data sets that number their classes otherwise do not write 255 for what has none.
    unlisted_nothing = bool(seen.nothing - set(label_map.id_map))
    suspicious = _doubtful(seen) or unlisted_nothing
    # A map that uses only part of the classes' own ids cannot be told from its absence.
    beyond = any(i >= seen.classes and i not in _NOTHING for i in label_map.id_map)
    moves = any(0 <= t < seen.classes and t != i for i, t in label_map.id_map.items())
    if not (identical and beyond and moves and suspicious):
        return None
    return seen.suggestion(
        f"the files hold only ids from {seen.meant[0]} to {seen.meant[-1]}, which are train ids of "
        f"the {seen.classes} classes already, but label_map.id_map expects other ids "
        f"({_some(sorted(label_map.id_map))}), so that {100 * seen.ignored:.0f}% of the pixels are "
        "ignored: remove id_map (take the classes without it)",
        {},
    )


def _bundled_map(seen):
    """A label map of the package has these classes and makes sense of all ids (Cityscapes, ADE20K)."""
    label_map = seen.label_map
    if not _doubtful(seen):
        return None
    for name, bundled in loading.bundled_label_maps().items():
        if bundled.names != label_map.names or not bundled.id_map:
            continue
        if bundled.id_map == label_map.id_map:
            continue
        if all(i in bundled.id_map for i in seen.meant):
            return seen.suggestion(
                f"the files hold ids {_some(seen.meant)}, which are the data set's own ids and not "
                f'train ids: take the id_map of {name} (base_config: "{name}")',
                dict(bundled.id_map),
            )
    return None


def _masks(seen):
    """Two classes, painted as 0 and 255: the second is taken for ignored pixels."""
    ids = seen.ids
    if seen.classes != 2 or seen.label_map.id_map or ids != {0, 255}:
        return None
    text = (
        "the files hold 0 and 255 alone and the classes are two: masks painted black and white. "
        f"255 is {'ignored' if seen.label_map.ignore_label == 255 else 'no class'}, so that "
        f'"{seen.label_map.names[1]}" has no pixel: map 255 to 1'
    )
    return Suggestion(text, {0: 0, 255: 1}, _free_ignore_label(seen, [0, 255]))


def _spread(seen):
    """Ids spread over 0..255 for the eye (0, 85, 170, 255): multiples of one step."""
    ids = sorted(i for i in seen.ids if i >= 0)
    if len(ids) < 3 or not seen.unknown or len(ids) > seen.classes:
        return None
    step = int(np.gcd.reduce(ids))
    if step < 2 or ids[-1] // step >= seen.classes:
        return None
    return Suggestion(
        f"the files' ids {_some(ids)} are all multiples of {step}, as written for the eye: id "
        f"{step} is class 1, {2 * step} is class 2 and so on",
        {i: i // step for i in range(0, step * seen.classes, step)},
        _free_ignore_label(seen, ids),
    )


def _one_based(seen):
    """Ids from 1 to K, 0 being nothing (ADE20K's 0..150 where 0..149 are expected)."""
    if seen.label_map.id_map or not seen.meant or seen.classes not in seen.unknown:
        return None
    if seen.meant[-1] != seen.classes or seen.meant[0] < 0:
        return None
    names = seen.label_map.names
    zero = "0 is what has no class" if 0 in seen.ids else "0 does not occur"
    return seen.suggestion(
        f"the files' ids reach {seen.classes}, one more than the last class "
        f"({seen.classes - 1}, {names[-1]}); {zero}: ids that start at 1. Then id 1 is "
        f'"{names[0]}" and {seen.classes} is "{names[-1]}". (If 0 is a class of its own, one class '
        "is missing from label_map.classes)",
        {0: seen.label_map.ignore_label} | {i: i - 1 for i in range(1, seen.classes + 1)},
    )


def _nothing(seen):
    """The only ids that fit nowhere are those by which tools write "nothing"."""
    if not seen.unknown or not set(seen.unknown) <= seen.nothing:
        return None
    ignore = seen.label_map.ignore_label
    written = "; 65535 is -1 written into 16 bits" if 65535 in seen.unknown else ""
    written += "; -1 itself no id_map can name, write 255 into the files" if -1 in seen.ids else ""
    return Suggestion(
        f"only {_some(seen.unknown)} fit{'s' if len(seen.unknown) == 1 else ''} no class, as tools "
        f"write pixels of no class{written}: map it to ignore_label {ignore}",
        dict(seen.label_map.id_map) | {i: ignore for i in seen.unknown},
        ignore,
    )


def _in_order(seen):
    """As many ids as classes: perhaps in their order."""
    if not seen.unknown or len(seen.meant) != seen.classes:
        return None
    names = seen.label_map.names
    pairs = ", ".join(f'{i} "{name}"' for i, name in list(zip(seen.meant, names, strict=True))[:5])
    return seen.suggestion(
        f"the files hold {len(seen.meant)} ids, as many as there are classes; if they come in the "
        f"classes' order, they mean {pairs}{', ...' if seen.classes > 5 else ''}. Check that "
        "against the shares of the ids",
        {file_id: train_id for train_id, file_id in enumerate(seen.meant)},
    )


def _free_ignore_label(seen, class_ids):
    """The ignore label, or one near it where that is the id of a class in the files."""
    ignore = seen.label_map.ignore_label
    while ignore in class_ids:
        ignore -= 1
    return ignore


def _doubtful(seen):
    return bool(seen.unknown) or seen.ignored > _MUCH_IGNORED


def _some(ids):
    ids = [str(i) for i in ids]
    return ", ".join(ids[:8]) + (f", ... {ids[-1]}" if len(ids) > 8 else "")
