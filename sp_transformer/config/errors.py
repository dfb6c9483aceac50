"""The one exception that a faulty config raises."""

from collections.abc import Iterable


class ConfigError(ValueError):
    """A config that cannot be used.

    Attributes:
      faults: every fault found, each naming the place, the value, the limit and the mend.
    """

    def __init__(self, faults: Iterable[str]):
        self.faults = list(faults)
        super().__init__(str(self))

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return f"the config has a fault: {self.faults[0]}"
        listed = "".join(f"\n  {number}. {fault}" for number, fault in enumerate(self.faults, 1))
        return f"the config has {len(self.faults)} faults:{listed}"

    def __reduce__(self):
        # The default would pickle the message and unpickle it as a list of letters.
        return type(self), (self.faults,)
