"""Curves of superpixel measures by their count, as an SVG that any browser shows."""

from __future__ import annotations

from xml.sax import saxutils

# Colour-blind safe (Okabe and Ito), in the order of the kinds.
_COLORS = ("#0072b2", "#56b4e9", "#d55e00", "#009e73")
_WIDTH, _HEIGHT, _COLUMNS = 300, 220, 4
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 30, 34
_LEGEND = 30


def superpixel_curves(curves: dict) -> str:
    """One panel for each measure, with one line (or point) for each kind.

    Args:
      curves: {measure: {kind: [[count, fraction or None], ...]}}, as superpixels.json holds them.

    Returns:
      The text of an SVG file.
    """
    kinds = list(dict.fromkeys(kind for lines in curves.values() for kind in lines))
    colors = {kind: _COLORS[i % len(_COLORS)] for i, kind in enumerate(kinds)}
    rows = -(-len(curves) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, rows * _HEIGHT + _LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, kind in enumerate(kinds):
        left = 20 + i * 230
        parts.append(f'<circle cx="{left}" cy="{_LEGEND / 2}" r="4" fill="{colors[kind]}"/>')
        parts.append(_text(left + 10, _LEGEND / 2 + 4, kind))
    for i, (measure, lines) in enumerate(curves.items()):
        left, top = i % _COLUMNS * _WIDTH, i // _COLUMNS * _HEIGHT + _LEGEND
        parts.append(f'<g transform="translate({left} {top})">')
        parts += _panel(measure, lines, colors)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(measure, lines, colors):
    lines = {
        kind: [point for point in points if None not in point] for kind, points in lines.items()
    }
    points = [point for line in lines.values() for point in line]
    # Half way up or down where all are equal.
    counts = _range([count for count, _ in points])
    values = _range([100 * value for _, value in points])

    def place(count, value):
        x = _LEFT + (count - counts[0]) / (counts[1] - counts[0]) * (_WIDTH - _LEFT - _RIGHT)
        y = (100 * value - values[0]) / (values[1] - values[0])
        return round(x, 1), round(_HEIGHT - _BOTTOM - y * (_HEIGHT - _TOP - _BOTTOM), 1)

    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    title = measure.replace("_", " ").replace("miou", "mIoU")
    yield _text(_LEFT, _TOP - 10, f"{title}, %", weight="bold")
    yield f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#444"/>'
    for end, y in zip(values, (bottom, _TOP), strict=True):
        yield _text(_LEFT - 5, y + 4, f"{end:.1f}", anchor="end")
    for end, x, anchor in zip(counts, (_LEFT, right), ("start", "end"), strict=True):
        yield _text(x, bottom + 14, f"{end:.0f}", anchor=anchor)
    yield _text((_LEFT + right) / 2, bottom + 14, "superpixels", anchor="middle")
    for kind, line in lines.items():
        places = [place(*point) for point in line]
        if len(places) > 1:
            joined = " ".join(f"{x},{y}" for x, y in places)
            yield f'<polyline points="{joined}" fill="none" stroke="{colors[kind]}"/>'
        for x, y in places:
            yield f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colors[kind]}"/>'


def _range(values):
    low, high = (min(values), max(values)) if values else (0, 1)
    return (low - 0.5, high + 0.5) if low == high else (low, high)


def _text(x, y, text, anchor="start", weight="normal"):
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{saxutils.escape(text)}</text>"
    )
