"""The check that the first examples of a training run pass before anything is built for them."""

from __future__ import annotations

import logging

import numpy as np

from sp_transformer.config import derived
from sp_transformer.data import inspection, pipeline, transient

_LISTED = 10  # Faults that an error names before it only counts them.
_INSPECT = "python -m sp_transformer.inspect_data lists the faults of all files"


def check(config, source, first_step=0) -> None:
    """Examines the first `data.start_check_images` examples that training will see, as inspect_data does.

    All hosts look at the same examples, so that either all of them go on or none.

    Args:
      config: a validated ExperimentOptions.
      source: the Source of the training split.
      first_step: step that the run starts or resumes at.

    Raises:
      LostStorageError: if one of the examples may be read on another try.
      ValueError: if one of the examples is faulty and `data.skip_corrupt` is off, if all of them are, or if none of
        them has a pixel that counts; it names the files.
    """
    count = min(config.data.start_check_images, len(source))
    if not count or config.data.dataset == "synthetic_streets":
        # Drawn by the program: there are no files to be faulty.
        return
    first = first_step * config.training.batch_size
    numbers = np.arange(first, first + count, dtype=np.int64)
    indices = [
        int(pipeline.shuffled_index(number, len(source), config.data.seed)) for number in numbers
    ]
    indices = list(dict.fromkeys(indices))  # At an epoch's end one may come twice.
    label_map = derived.label_map(config)
    examined = inspection.examine_all(source, indices, label_map, config.data.parallel_calls)
    faults = [fault for one in examined for fault in one.faults]
    for fault in faults:
        if transient.is_transient(fault):
            # No fault of the data: they are to be read again, and neither refused nor skipped.
            raise transient.LostStorageError(str(fault)) from fault
    usable = [one for one in examined if not one.faults]
    report = inspection.report_of(config.data.train_split, source, examined, label_map)
    hints = [f"Perhaps {report.suggestion.text}"] if report.suggestion else []
    if faults and not (config.data.skip_corrupt and usable):
        raise ValueError(_refusal(faults, examined, hints, config.data.skip_corrupt))
    counted = sum(one.train_counts[:-1].sum() for one in usable if one.train_counts is not None)
    if not counted:
        raise ValueError(
            f"no pixel of the first {len(examined)} labels counts, all are ignored (label "
            f"{label_map.ignore_label}), for example {usable[0].label or usable[0].name}; "
            + "; ".join([*hints, "correct data.label_map", _INSPECT])
        )
    for fault in faults[:_LISTED]:
        logging.warning("skip_corrupt will skip: %s", fault)
    for doubt in inspection.doubts_of(report):
        logging.warning("The first %d training examples: %s", len(examined), doubt.text)


def _refusal(faults, examined, hints, skipping):
    lines = [
        f"{sum(bool(one.faults) for one in examined)} of the first {len(examined)} training "
        "examples cannot be used:"
    ]
    lines += [f"  {fault}" for fault in faults[:_LISTED]]
    if len(faults) > _LISTED:
        lines.append(f"  and {len(faults) - _LISTED} more faults")
    mend = (
        "data.skip_corrupt would have nothing left to train on"
        if skipping
        else "mend the files or the config, or set data.skip_corrupt to go on without such files"
    )
    return "\n".join([*lines, *hints, f"{_INSPECT}; {mend}"])
