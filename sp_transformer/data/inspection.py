"""Inspects the files of a data set before anything is trained on them: faults, doubts and statistics of each split.

What is found is one of two things. A fault (FileFault) is a file that training and evaluation refuse, or skip by
`data.skip_corrupt`. A doubt is something that they cannot notice and that is probably wrong: a label without a
counted pixel, ids that mean something else, the same image in both splits.

Shapes: K is the number of classes.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence

import numpy as np

from sp_transformer.config import derived
from sp_transformer.data import examination, label_suggestions, sources
from sp_transformer.data.faults import FileFault

# Kind of a doubt -> what it is called in a report.
DOUBTS = {
    "all_ignored": "label without a counted pixel",
    "duplicate_across_splits": "same image in two splits",
    "duplicate_in_split": "same image twice in a split",
    "much_ignored": "most pixels ignored",
    "suspicious_ids": "ids that probably mean something else",
}

_MUCH_IGNORED = 0.5  # Share of ignored pixels of a whole split that is worth a word.


@dataclasses.dataclass(frozen=True)
class Doubt:
    """Something that is probably wrong; kind is one of DOUBTS, files the paths (or names) concerned."""

    kind: str
    files: tuple[str, ...]
    text: str


@dataclasses.dataclass
class SplitReport:
    """What was found in one split.

    Attributes:
      split: its name; num_images: how many it has, without those that miss a partner.
      label_map: the LabelMap; without id_map where the source gives train ids.
      examined: Examinations, in the source's order, of the images that were looked at.
      unpaired: FileFaults of files without partner.
      suggestion: what the ids probably mean, where they do not fit.
    """

    split: str
    num_images: int
    label_map: object
    has_labels: bool
    examined: list[examination.Examination]
    unpaired: list[FileFault]
    suggestion: label_suggestions.Suggestion | None = None

    @property
    def faults(self) -> list[FileFault]:
        """All faults: of pairs first, then in the source's order."""
        return [*self.unpaired, *(fault for one in self.examined for fault in one.faults)]

    @property
    def usable(self) -> list[examination.Examination]:
        """The examinations without a fault."""
        return [one for one in self.examined if not one.faults]

    def id_counts(self) -> dict[int, int]:
        """{id in the files: pixels}, by id."""
        counts = collections.Counter()
        for one in self.examined:
            counts.update(one.id_counts)
        return dict(sorted(counts.items()))

    def train_counts(self) -> np.ndarray:
        """int64 [K + 1]: pixels of each class and, last, ignored, over labels without fault."""
        counts = np.zeros(self.label_map.num_classes + 1, np.int64)
        for one in self.examined:
            if one.train_counts is not None:
                counts += one.train_counts
        return counts

    def images_with_class(self) -> np.ndarray:
        """int64 [K + 1]: labels that hold each class and, last, ignored pixels."""
        counts = np.zeros(self.label_map.num_classes + 1, np.int64)
        for one in self.examined:
            if one.train_counts is not None:
                counts += one.train_counts > 0
        return counts

    def balancing_weights(self) -> np.ndarray | None:
        """Class weights [K] for training: roots of the classes' inverse frequencies, of mean 1 over the counted pixels.

        A class without a pixel has 1. None if no pixel counts.
        """
        counts = self.train_counts()[:-1]
        if not counts.any():
            return None
        weights = 1 / np.sqrt(np.maximum(counts, 1))
        weights *= counts.sum() / (counts * weights).sum()
        return np.where(counts, weights, 1.0)

    def ignored_share(self) -> float | None:
        """Share of ignored pixels, or None without labels."""
        counts = self.train_counts()
        return float(counts[-1] / counts.sum()) if counts.sum() else None

    def sizes(self) -> dict[tuple[int, int], int]:
        """{(height, width): images}, the most frequent first."""
        counts = collections.Counter(one.size for one in self.examined if one.size)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def traits(self) -> dict[str, int]:
        """{what is unusual about files but no fault: images}."""
        counts = collections.Counter(trait for one in self.examined for trait in one.traits)
        return dict(sorted(counts.items()))

    def color_mean_std(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and standard deviation [3] over all pixels of readable images, or None."""
        readable = [one for one in self.examined if one.size]
        if not readable:
            return None
        pixels = sum(one.size[0] * one.size[1] for one in readable)
        mean = sum(one.color_sum for one in readable) / pixels
        squares = sum(one.color_squares for one in readable) / pixels
        return mean, np.sqrt(np.maximum(squares - mean**2, 0))


@dataclasses.dataclass
class Inspection:
    """The whole: splits, and doubts of one and of several."""

    splits: list[SplitReport]
    doubts: list[Doubt]

    @property
    def faults(self) -> list[FileFault]:
        return [fault for split in self.splits for fault in split.faults]


def inspect(
    config,
    splits: Sequence[str],
    max_images: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Inspection:
    """Looks at every image and label of some splits, in parallel threads.

    Args:
      config: a validated ExperimentOptions.
      splits: names of splits.
      max_images: images to look at in each split, spread evenly over it; 0 for all. Whether files
        have partners is looked at for all of them anyway.
      progress: called as progress(split, done, total) after each image.

    Raises:
      ValueError: if a split does not exist or holds no pair at all.
    """
    data = type(config.data)()
    data.CopyFrom(config.data)
    # So that files without a partner are listed instead of raised.
    data.skip_corrupt = True
    reports = []
    for split in dict.fromkeys(splits):
        source = sources.create_source(data, split)
        indices = spread(len(source), max_images)
        label_map = derived.label_map(config)
        show = functools.partial(_show, progress, split, len(indices))
        examined = examine_all(source, indices, label_map, data.parallel_calls, show)
        reports.append(report_of(split, source, examined, label_map))
    doubts = [doubt for report in reports for doubt in doubts_of(report)]
    return Inspection(reports, doubts + _duplicates(reports))


def _show(progress, split, total, done):
    if progress:
        progress(split, done, total)


def spread(count: int, wanted: int) -> list[int]:
    """Returns `wanted` indices, evenly spread over 0..count-1 with both ends; all for 0."""
    if not 0 < wanted < count:
        return list(range(count))
    return sorted({round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)})


def examine_all(source, indices, label_map, workers=0, progress=None):
    """Returns the Examinations of some examples of a source.

    Args:
      source: a Source.
      indices: which.
      label_map: a LabelMap.
      workers: threads; 0 for one a core, at most 8.
      progress: called with the number that are done.
    """
    workers = workers or min(8, os.cpu_count() or 1)
    examined = []
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = [pool.submit(examination.examine, source, index, label_map) for index in indices]
        try:
            for future in pending:
                examined.append(future.result())
                if progress:
                    progress(len(examined))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return examined


def report_of(split, source, examined, label_map) -> SplitReport:
    """Sums up Examinations of one split's source."""
    if not examination.has_files(source):
        # Its ids, those of records for one, have been mapped.
        label_map = dataclasses.replace(label_map, id_map={}, ignore_unlisted_ids=False)
    report = SplitReport(
        split, len(source), label_map, source.has_labels, examined, list(source.left_out)
    )
    report.suggestion = label_suggestions.suggest(report.id_counts(), label_map)
    return report


def doubts_of(report: SplitReport) -> list[Doubt]:
    """Returns the Doubts of one split."""
    doubts = []
    for one in report.usable:
        if one.train_counts is not None and not one.train_counts[:-1].any():
            file = one.label or one.name
            text = f"every pixel of label {file} is ignored"
            doubts.append(Doubt("all_ignored", (file,), text))
    ignored = report.ignored_share()
    if ignored is not None and ignored > _MUCH_IGNORED:
        text = f"{100 * ignored:.1f}% of the pixels of split {report.split} are ignored"
        doubts.append(Doubt("much_ignored", (), text))
    if report.suggestion:
        text = f"split {report.split}: {report.suggestion.text}"
        doubts.append(Doubt("suspicious_ids", (), text))
    return doubts + _equal_images(
        [(report.split, one) for one in report.examined],
        "duplicate_in_split",
        lambda members: True,
    )


def _duplicates(reports):
    """Doubts of images that two splits share."""
    return _equal_images(
        [(report.split, one) for report in reports for one in report.examined],
        "duplicate_across_splits",
        lambda members: len({split for split, _ in members}) > 1,
    )


def _equal_images(entries, kind, counts):
    """A Doubt for every group of (split, Examination) with equal pixels for which `counts` holds."""
    groups = collections.defaultdict(list)
    for split, one in entries:
        if one.digest:
            groups[one.digest].append((split, one))
    doubts = []
    for members in groups.values():
        if len(members) > 1 and counts(members):
            files = tuple(one.image or one.name for _, one in members)
            listed = ", ".join(
                f"{file} ({split})" for file, (split, _) in zip(files, members, strict=True)
            )
            doubts.append(Doubt(kind, files, f"these images have equal pixels: {listed}"))
    return doubts
