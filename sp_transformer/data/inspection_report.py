"""An Inspection as text for people and as JSON for programs, and the line that shows how far it has come."""

from __future__ import annotations

import collections
import json
import pathlib
import time

from sp_transformer.data import examination, inspection
from sp_transformer.data.faults import KINDS

REPORT_TEXT, REPORT_JSON = "report.txt", "report.json"
SUGGESTED_MAP = "suggested_label_map.textproto"
CONTACT_SHEET = "contact_sheet.png"

# Exit codes for scripts; 2 is that of faulty flags and configs in all binaries.
FINE, FAULTS, DOUBTS = 0, 1, 3

_LISTED = 20  # Files of one kind of fault that the text names before it only counts them.
_LISTED_SIZES = 6


def exit_code(found: inspection.Inspection) -> int:
    """FINE, FAULTS (files that training refuses) or DOUBTS (none of these, but things to look at)."""
    if found.faults:
        return FAULTS
    return DOUBTS if found.doubts else FINE


def text(found: inspection.Inspection, config) -> str:
    """The report for people."""
    folder = f", data in {config.data.data_dir}" if config.data.data_dir else ""
    lines = [f"Inspection of {config.experiment_name or config.data.dataset}{folder}"]
    for report in found.splits:
        lines += ["", *_split_lines(report, config.data)]
    lines += ["", *_doubt_lines(found.doubts), *_conclusion(found)]
    return "\n".join(lines) + "\n"


def _split_lines(report, data):
    looked = len(report.examined)
    sample = "" if looked == report.num_images else f", {looked} of them looked at (--max_images)"
    lines = [f"Split {report.split}: {report.num_images} images{sample}"]
    lines += [f"  {line}" for line in _image_lines(report, data)]
    if report.has_labels:
        lines += [f"  {line}" for line in _class_lines(report)]
        if report.split == data.train_split:
            lines += [f"  {line}" for line in _weight_lines(report)]
    lines += [f"  {line}" for line in _fault_lines(report)]
    return lines


def _image_lines(report, data):
    sizes = report.sizes()
    shown = [f"{y}x{x}: {n}" for (y, x), n in list(sizes.items())[:_LISTED_SIZES]]
    if len(sizes) > _LISTED_SIZES:
        rest = list(sizes)[_LISTED_SIZES:]
        shown.append(f"{len(rest)} other sizes: {sum(sizes[size] for size in rest)}")
    lines = [f"sizes (height x width): {', '.join(shown) or 'none could be read'}"]
    statistics = report.color_mean_std()
    if statistics:
        mean, std = (", ".join(f"{v:.1f}" for v in values) for values in statistics)
        lines.append(f"red, green, blue: mean {mean}; standard deviation {std}")
    if not (data.resize_height or data.resize_longer_side):
        small = sum(n for (y, x), n in sizes.items() if y < data.crop_height or x < data.crop_width)
        if small:
            lines.append(
                f"{small} images are smaller than the crop {data.crop_height}x{data.crop_width} "
                "somewhere and are padded in training, unless scaled up"
            )
    for trait, count in report.traits().items():
        lines.append(f"{trait}: {count}")
    return lines


def _class_lines(report):
    counts, images = report.train_counts(), report.images_with_class()
    total = max(1, counts.sum())
    ids = collections.defaultdict(list)
    for file_id in report.id_counts():
        ids[examination.train_id_of(file_id, report.label_map)].append(file_id)
    names = report.label_map.names
    width = max(len("(ignored)"), *map(len, names)) if names else 9
    lines = [f"{'id':>4}  {'class':<{width}}  {'pixels %':>8}  {'images':>6}  ids in files"]
    for train_id, name in enumerate(names):
        lines.append(
            f"{train_id:>4}  {name:<{width}}  {_percent(counts[train_id], total):>8}  "
            f"{images[train_id]:>6}  {_some(ids[train_id]) or '-'}"
        )
    ignore = report.label_map.ignore_label
    lines.append(
        f"{ignore:>4}  {'(ignored)':<{width}}  {_percent(counts[-1], total):>8}  "
        f"{images[-1]:>6}  {_some(ids[ignore]) or '-'}"
    )
    unknown = {i: n for i, n in report.id_counts().items() if _is_unknown(i, report.label_map)}
    for file_id, count in unknown.items():
        lines.append(f"   ?  id {file_id} is neither a class nor ignored: {count} pixels")
    absent = [name for name, count in zip(names, counts, strict=False) if not count]
    if absent:
        lines.append(
            f"{len(absent)} class{'es' if len(absent) > 1 else ''} without a pixel: "
            f"{', '.join(absent[:8])}{', ...' if len(absent) > 8 else ''}"
        )
    return lines


def _weight_lines(report):
    weights = report.balancing_weights()
    if weights is None:
        return []
    numbers = ", ".join(f"{weight:.2f}" for weight in weights)
    return [
        "to make rare classes count more (roots of the inverse frequencies):",
        f"  training {{ class_weights: [{numbers}] }}",
    ]


def _is_unknown(file_id, label_map):
    train_id = examination.train_id_of(file_id, label_map)
    return train_id != label_map.ignore_label and not 0 <= train_id < label_map.num_classes


def _fault_lines(report):
    faults = [(fault.kind, str(fault)) for fault in report.faults]
    return _lines_by_kind("FAULT", KINDS, faults) or ["no faults"]


def _doubt_lines(doubts):
    lines = _lines_by_kind("DOUBT", inspection.DOUBTS, [(x.kind, x.text) for x in doubts])
    return [*lines, ""] if lines else []


def _lines_by_kind(word, titles, found):
    """Lines of all (kind, text), those of a kind under its title, in the order of {kind: title}."""
    by_kind = collections.defaultdict(list)
    for kind, text in found:
        by_kind[kind].append(text)
    lines = []
    for kind, title in titles.items():
        texts = by_kind.get(kind, [])
        if texts:
            lines.append(f"{word} {title}: {len(texts)}")
            lines += [f"  {text}" for text in texts[:_LISTED]]
            if len(texts) > _LISTED:
                lines.append(f"  and {len(texts) - _LISTED} more, all in {REPORT_JSON}")
    return lines


def _conclusion(found):
    faults, doubts = len(found.faults), len(found.doubts)
    if not faults and not doubts:
        return ["No faults and no doubts."]
    lines = [
        f"{faults} fault{'' if faults == 1 else 's'} that training refuses "
        "(data.skip_corrupt: true skips such files), "
        f"{doubts} doubt{'' if doubts == 1 else 's'} to look at."
    ]
    if _suggested_maps(found):
        lines.append(
            f"A label map that would fit is in {SUGGESTED_MAP} (with --output_dir): if it is right, "
            "put it into the config"
        )
    return lines


def _percent(count, total):
    return f"{100 * count / total:.2f}"


def _some(ids):
    return ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")


def as_json(found: inspection.Inspection, config, max_images: int) -> dict:
    """The report for programs: everything that the text holds, and every file of every fault."""
    return {
        "experiment_name": config.experiment_name,
        "data_dir": config.data.data_dir,
        "max_images": max_images,
        "exit_code": exit_code(found),
        "faults": [
            {"split": report.split, "kind": fault.kind, "file": fault.file, "text": str(fault)}
            for report in found.splits
            for fault in report.faults
        ],
        "doubts": [
            {"kind": doubt.kind, "files": list(doubt.files), "text": doubt.text}
            for doubt in found.doubts
        ],
        "splits": [_split_json(report) for report in found.splits],
    }


def _split_json(report):
    statistics = report.color_mean_std()
    result = {
        "split": report.split,
        "num_images": report.num_images,
        "num_examined": len(report.examined),
        "num_usable": len(report.usable),
        "sizes": [{"height": y, "width": x, "images": n} for (y, x), n in report.sizes().items()],
        "color_mean": [round(v, 3) for v in statistics[0].tolist()] if statistics else None,
        "color_std": [round(v, 3) for v in statistics[1].tolist()] if statistics else None,
        "traits": report.traits(),
    }
    if report.has_labels:
        counts, images = report.train_counts(), report.images_with_class()
        weights = report.balancing_weights()
        result |= {
            "ignored_share": report.ignored_share(),
            "balancing_class_weights": None if weights is None else weights.round(4).tolist(),
            "classes": [
                {"id": i, "name": name, "pixels": int(counts[i]), "images": int(images[i])}
                for i, name in enumerate(report.label_map.names)
            ],
            "ids_in_files": {str(i): n for i, n in report.id_counts().items()},
            "suggestion": _suggestion_json(report.suggestion) if report.suggestion else None,
        }
    return result


def _suggestion_json(suggestion):
    return {
        "text": suggestion.text,
        "ignore_label": suggestion.ignore_label,
        "id_map": {str(i): t for i, t in sorted(suggestion.id_map.items())},
    }


def _suggested_maps(found):
    """The suggestions that consist of an id map."""
    suggestions = [report.suggestion for report in found.splits]
    return [s for s in suggestions if s is not None and s.textproto()]


def write(found: inspection.Inspection, config, max_images: int, output_dir) -> None:
    """Writes report.txt, report.json and, where there is one, the suggested label map."""
    folder = pathlib.Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT_TEXT).write_text(text(found, config), encoding="utf-8")
    contents = json.dumps(as_json(found, config, max_images), indent=1)
    (folder / REPORT_JSON).write_text(contents + "\n", encoding="utf-8")
    suggestions = _suggested_maps(found)
    # What an earlier inspection suggested has had its day.
    (folder / SUGGESTED_MAP).unlink(missing_ok=True)
    if suggestions:
        head = "".join(f"# {line}\n" for line in _wrapped(suggestions[0].text))
        (folder / SUGGESTED_MAP).write_text(head + suggestions[0].textproto(), encoding="utf-8")


def _wrapped(words, width=110):
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines


class Progress:
    """One line that is kept up to date on a terminal, and printed every ten seconds elsewhere.

    Args:
      stream: text stream to write to.
      clock: function that gives seconds.
    """

    _SECONDS_LIVE, _SECONDS_ELSEWHERE = 0.2, 10.0

    def __init__(self, stream, clock=time.monotonic):
        self._stream, self._clock = stream, clock
        self._live = stream.isatty()
        self._started = self._last = self._next = clock()
        if not self._live:
            self._next += self._SECONDS_ELSEWHERE
        self._split = None

    def __call__(self, split: str, done: int, total: int) -> None:
        """Shows that `done` of `total` images of a split have been looked at."""
        now = self._clock()
        if split != self._split:
            # It began where the one before it ended.
            self._split, self._started = split, self._last
        self._last = now
        if now < self._next and not (self._live and done == total):
            return
        self._next = now + (self._SECONDS_LIVE if self._live else self._SECONDS_ELSEWHERE)
        rate = done / max(now - self._started, 1e-9)
        line = f"{split}: {done} of {total} images, {rate:.0f}/s"
        end = "\n" if done == total or not self._live else ""
        self._stream.write((f"\r{line:<60}" if self._live else line) + end)
        self._stream.flush()
