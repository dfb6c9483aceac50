"""Arrays of a file -> variables of a model: all of them, or none."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from sp_transformer.training.initialization.errors import InitializationError
from sp_transformer.training.initialization.report import Report


class Key(NamedTuple):
    """Where a variable's value lies in a file, and how it becomes ours.

    Attributes:
      name: key in the file.
      convert: function of the stored array that gives ours; raises ValueError for an array of another rank.
    """

    name: str
    convert: Callable = np.asarray


def permuted(*axes) -> Callable:
    """A `convert` that transposes."""
    return lambda array: np.transpose(array, axes)


def flattened(array):
    """A `convert` for a vector that is stored with axes of length 1."""
    return np.reshape(array, (-1,)) if np.size(array) == max(np.shape(array), default=0) else array


@dataclasses.dataclass(frozen=True)
class Source:
    """An open file of weights.

    Attributes:
      description: what it is and where it lies, for people.
      arrays: the file's arrays by key; may read them when they are asked for.
      key_of: function of a variable's name, as `weights.named_variables` gives it, to its Key.
      is_expected_leftover: whether an array that no variable takes is one that others than this model need.
      mend: what to do if it does not fit.
    """

    description: str
    arrays: Mapping[str, np.ndarray]
    key_of: Callable[[str], Key]
    is_expected_leftover: Callable[[str], bool]
    mend: str

    def below(self, root) -> "Source":
        """The source for names that start with `root`, which its own do not."""
        return dataclasses.replace(self, key_of=lambda name: self.key_of(name.removeprefix(root)))


def match(source, variables, skip=()):
    """Finds each variable's value.

    Args:
      source: a Source.
      variables: {name: `keras.Variable`} of those that are to get a value.
      skip: beginnings of names of those that are not.

    Returns:
      ({name: array of the variable's shape}, Report).

    Raises:
      InitializationError: if an entry of `skip` begins no name.
    """
    for prefix in skip:
        if not any(name.startswith(prefix) for name in variables):
            raise InitializationError(
                f'training.initialization.skip "{prefix}" begins no variable that would be loaded; they are called as '
                f"{', '.join(list(variables)[:3])}, ... {next(reversed(variables))}"
            )
    values, used = {}, set()
    skipped, missing, mismatched = [], [], []
    for name, variable in variables.items():
        key = source.key_of(name)
        used.add(key.name)
        if name.startswith(tuple(skip)):
            skipped.append(name)
        elif key.name not in source.arrays:
            missing.append(f"{name} ({key.name})" if key.name != name else name)
        else:
            stored, shape = source.arrays[key.name], tuple(variable.shape)
            try:
                value = key.convert(stored)
            except ValueError:
                value = stored
            if np.shape(value) == shape:
                values[name] = value
            else:
                mismatched.append(
                    f"{name}: {list(shape)} here, {list(np.shape(value))} in the file"
                )
    leftover = sorted(key for key in source.arrays if key not in used)
    report = Report(
        source=source.description,
        loaded=tuple(values),
        missing=tuple(missing),
        mismatched=tuple(mismatched),
        skipped=tuple(skipped),
        unused=tuple(key for key in leftover if source.is_expected_leftover(key)),
        unexpected=tuple(key for key in leftover if not source.is_expected_leftover(key)),
    )
    return values, report


def load(source, variables, skip=(), strict=True):
    """Assigns each variable its value.

    Args:
      source: a Source.
      variables: {name: `keras.Variable`} of those that are to get a value.
      skip: beginnings of names of those that are not.
      strict: whether everything has to fit.

    Returns:
      A Report.

    Raises:
      InitializationError: if it does not fit; no variable has changed then.
    """
    values, report = match(source, variables, skip)
    if not values or (strict and not report.fits):
        raise InitializationError(
            f"{source.description} does not fit the model, of which {len(values)} of {len(variables)} variables could "
            f"be loaded:\n{report.faults()}\n{source.mend}"
        )
    for name, value in values.items():
        values[name] = np.asarray(value, np.float32)
        if not np.isfinite(values[name]).all():
            raise InitializationError(
                f"{source.description} holds values for {name} that are NaN or infinite; take another file"
            )
    for name, value in values.items():
        variables[name].assign(value)
    return report
