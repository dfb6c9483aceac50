"""What a benchmark hands out: a table with its rules, environment and settings.

Importing this imports no TensorFlow.
"""

import dataclasses
import json
import math
import pathlib
from typing import Any

MISSING = "-"


@dataclasses.dataclass
class Report:
    """A finished measurement.

    Attributes:
      title: one line.
      rules: sentences that say how the numbers were taken.
      columns: keys of `rows` in the order in which the table shows them; what a row holds beside them is for the
        JSON only.
      rows: one dict per line of the table. Values are plain Python; a value that a row lacks, or None, is shown as "-".
      notes: sentences on what the numbers mean, printed below the table.
      environment: what `environment.describe` returns.
      settings: what was asked for, as plain Python.
    """

    title: str
    rules: list[str]
    columns: list[str]
    rows: list[dict[str, Any]]
    notes: list[str]
    environment: dict[str, Any]
    settings: dict[str, Any]


def table(report: Report) -> str:
    """The report as aligned text that is also valid Markdown."""
    lines = [f"## {report.title}", ""]
    if report.rules:
        lines += [*(f"- {rule}" for rule in report.rules), ""]
    lines += grid(report.columns, report.rows)
    if report.notes:
        lines += ["", *(f"- {note}" for note in report.notes)]
    if report.environment:
        lines += ["", "Environment:", ""]
        lines += [f"- {key}: {_flat(value)}" for key, value in report.environment.items()]
    return "\n".join(lines)


def grid(columns, rows) -> list[str]:
    """The lines of a Markdown table: `rows` are dicts by column; columns of numbers stand to the right."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    numeric = [
        any(line[i] != MISSING for line in cells)
        and all(line[i][:1].isdigit() or line[i][:1] in "-+" for line in cells)
        for i in range(len(columns))
    ]
    widths = [
        max(3, len(column), *(len(line[i]) for line in cells), 0)
        for i, column in enumerate(columns)
    ]

    def line(texts):
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, numeric, strict=True)
        ]
        return "| " + " | ".join(padded) + " |"

    rule = [
        "-" * (width - 1) + ":" if right else "-" * width
        for width, right in zip(widths, numeric, strict=True)
    ]
    return [line(columns), line(rule), *(line(texts) for texts in cells)]


def write_json(report: Report, path: str) -> None:
    """Writes everything in the report; folders on the way are made. Numbers that are not finite become null."""
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(dataclasses.asdict(report)), indent=1, allow_nan=False)
    # A benchmark that is interrupted here leaves the old file or the new one, never half of one.
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(file)


def format_number(value: float) -> str:
    """Three significant digits, no exponent, and whole numbers in full: 0.0123, 1.23, 12.3, 1,234."""
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    decimals = _decimals(value)
    # Rounding may carry into the next power of ten: 99.96 is 100, not 100.0.
    return f"{value:,.{_decimals(round(value, decimals))}f}"


def format_spread(samples, scale: float = 1.0) -> str:
    """Median and quartiles of a Timing or Ratio, as "1.23 [1.20, 1.31]"; each is multiplied by `scale`."""
    low, high = samples.first_quartile, samples.third_quartile
    return (
        f"{format_number(scale * samples.median)} "
        f"[{format_number(scale * low)}, {format_number(scale * high)}]"
    )


def _cell(value):
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return format_number(value)
    # A bar would end the cell and a line break the row.
    return " ".join(str(value).replace("|", "\\|").split())


def _flat(value):
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_flat, value)) or "none"
    return "unknown" if value is None else str(value)


def _decimals(value):
    """Decimals that three significant digits of a number other than 0 take."""
    return max(0, 2 - math.floor(math.log10(abs(value))))


def _finite(value):
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
