"""What became of every variable of a model, and of every array of the file that it was initialised from."""

import dataclasses

_LISTED = 5  # Names that a short report shows of each kind.


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome of an initialisation.

    Attributes:
      source: what the weights are and where they lie, for people.
      loaded: names of the variables that got the file's values.
      missing: "NAME (KEY)": variables that the file should hold under KEY, and does not.
      mismatched: "NAME: SHAPE here, SHAPE in the file".
      skipped: names of variables that were not to be loaded.
      unused: keys of the file that this model has no place for, as was to be expected: a classification head, an
        optimizer, a decoder, stages behind the last endpoint.
      unexpected: keys of the file that a fitting network would have taken.
      others: number of variables of the model that were not asked for.
    """

    source: str
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    others: int = 0

    def with_others(self, number) -> "Report":
        """The report on a model of which `number` more variables were not asked for."""
        return dataclasses.replace(self, others=number)

    @property
    def fits(self) -> bool:
        """Whether everything that was asked for was found, and nothing else."""
        return not (self.missing or self.mismatched or self.unexpected)

    def text(self, listed=_LISTED) -> str:
        """The report in lines.

        Args:
          listed: names of each kind that are shown before the rest is counted; None shows all, those of `loaded` too.
        """
        lines = [f"initialized from {self.source}"]
        loaded = self.loaded if listed is None else ()
        for title, names, shown in (
            ("loaded", self.loaded, loaded),
            ("missing", self.missing, self.missing),
            ("shape mismatch", self.mismatched, self.mismatched),
            ("skipped", self.skipped, self.skipped),
            ("unused, unexpected", self.unexpected, self.unexpected),
            ("unused", self.unused, self.unused),
        ):
            lines.append(f"  {title:<18} {len(names)}")
            lines += [f"    {line}" for line in excerpt(shown, listed)]
        lines.append(f"  {'not asked for':<18} {self.others}")
        return "\n".join(lines) + "\n"

    def faults(self) -> str:
        """The lines that say why it does not fit, the first few names of each kind."""
        lines = []
        for title, names in (
            ("missing in the file", self.missing),
            ("of another shape", self.mismatched),
            ("only in the file", self.unexpected),
        ):
            if names:
                lines.append(f"  {title} ({len(names)}):")
                lines += [f"    {line}" for line in excerpt(names, _LISTED)]
        return "\n".join(lines)


def excerpt(names, listed):
    """The first `listed` names and how many there are beside; all of them for None."""
    if listed is None or len(names) <= listed:
        return list(names)
    return [*names[:listed], f"... and {len(names) - listed} more"]
