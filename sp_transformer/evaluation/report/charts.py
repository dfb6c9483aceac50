"""Small charts as inline SVG; colours and letters come from the page's style."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

_WIDTH, _LEFT, _RIGHT = 1000, 6, 6


def distribution(values: list[float], mean: float) -> Markup:
    """How many images have which mIoU: one dot an image, stacked where they are alike.

    Args:
      values: a fraction for each image.
      mean: the mIoU of the whole split, which is marked.
    """
    low = np.floor(min([*values, mean]) * 10) / 10
    high = max(np.ceil(max([*values, mean]) * 10) / 10, low + 0.1)

    def x_of(value):
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    bins = 100
    places = np.minimum(((np.array(values) - low) / (high - low) * bins).astype(int), bins - 1)
    tallest = max(np.bincount(places))
    radius = min(4.0, 130 / (2 * tallest))
    baseline = max(40.0, tallest * 2 * radius) + 22
    parts, stacked = [], np.zeros(bins, int)
    for place in sorted(places):
        x = x_of(low + (place + 0.5) / bins * (high - low))
        y = baseline - radius * (2 * stacked[place] + 1) - 1
        stacked[place] += 1
        parts.append(
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.2f}"/>').format(x, y, radius * 0.92)
        )
    ticks = [
        Markup(
            '<path class="tick" d="M{0:.1f} {1:.0f}v5"/><text x="{0:.1f}" y="{2:.0f}" '
            'text-anchor="{3}">{4:.0f}</text>'
        ).format(x_of(tick), baseline, baseline + 20, anchor, 100 * tick)
        for tick, anchor in _ticks(low, high)
    ]
    at = x_of(mean)
    anchor, offset = ("end", -6) if at > _WIDTH * 0.7 else ("start", 6)
    return Markup(
        '<svg class="chart" viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{label}">'
        '<g class="dots">{dots}</g><path class="axis" d="M{left} {base:.1f}H{right}"/>{ticks}'
        '<path class="mark" d="M{at:.1f} 4V{base:.1f}"/>'
        '<text class="strong" x="{text:.1f}" y="14" text-anchor="{anchor}">mIoU {mean:.1f}</text></svg>'
    ).format(
        width=_WIDTH,
        height=baseline + 26,
        label=f"{len(values)} images from {100 * min(values):.1f} to {100 * max(values):.1f} % mIoU",
        dots=Markup("").join(parts),
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        base=baseline,
        ticks=Markup("").join(ticks),
        at=at,
        text=at + offset,
        anchor=anchor,
        mean=100 * mean,
    )


def _ticks(low, high):
    count = round((high - low) * 10)
    for index in range(count + 1):
        anchor = "start" if index == 0 else "end" if index == count else "middle"
        yield low + index / 10, anchor
