"""Wording shared by parse errors and semantic faults: the known names nearest to a mistyped one."""

import difflib
from collections.abc import Iterable


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely meant, or None where none is close."""
    by_folded_name = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_folded_name, n=1, cutoff=0.6)
    return by_folded_name[found[0]] if found else None


def unknown_name(field: str, name: str, known: Iterable[str]) -> str:
    """A fault for a value that is not among the known ones, with the nearest and all of them."""
    known = tuple(known)
    nearest = nearest_name(name, known)
    guess = f'did you mean "{nearest}"? The' if nearest else "the"
    return f'{field} "{name}" is unknown; {guess} known are: {", ".join(known)}'
