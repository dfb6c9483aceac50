"""What stands in the sections of a report, as HTML that is safe to join: whatever comes from outside is escaped."""

from __future__ import annotations

import base64
import json

import numpy as np
from markupsafe import Markup

from sp_transformer.evaluation import curves, failure_analysis, superpixel_scores
from sp_transformer.evaluation.report import charts

_LONG_TABLE = 40  # Rows beyond which a table scrolls by itself.
_LARGEST_CONFUSIONS = 10
_MEANS = (
    ("pixel_accuracy", "Pixel accuracy"),
    ("mean_accuracy", "Mean class accuracy"),
    ("frequency_weighted_iou", "Frequency weighted IoU"),
)


def scores(results) -> Markup:
    """mIoU large, the other means beside it; one row a mode where there are several."""
    means = [(title, results[key]) for key, title in _MEANS]
    if "boundary_iou" in results:
        means.append(("Boundary IoU", results["boundary_iou"]["mean"]))
    if "category_miou" in results:
        means.append(("Category mIoU", results["category_miou"]))
    tiles = joined(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(title, percent(value))
        for title, value in means
    )
    known = sum(iou is not None for iou in results["per_class_iou"].values())
    parts = [
        Markup(
            '<div class="scores"><p class="lead"><strong>{}<small>%</small></strong>'
            '<span>mean IoU of {} classes</span></p><dl class="tiles">{}</dl></div>'
        ).format(percent(results["miou"], ""), known, tiles)
    ]
    if len(results["modes"]) > 1:
        parts.append(_modes(results["modes"]))
    return joined(parts)


def _modes(modes):
    columns = (("miou", "mIoU"), *_MEANS)
    rows = [
        [row_head(name), *(td(percent(of_mode[key])) for key, _ in columns)]
        for name, of_mode in modes.items()
    ]
    heads = [th("Way of predicting", "left"), *(th(title) for _, title in columns)]
    return Markup("<h3>Ways of predicting</h3>{}").format(table(heads, rows))


def classes(results, label_map) -> Markup:
    """A row for every class: IoU as a bar, boundary IoU as a mark on it, accuracy and share."""
    names = label_map.names
    pixels = np.array(results["confusion_matrix"]).sum(1)
    pixels += [results.get("unclassified", {}).get(name, 0) for name in names]
    total = max(1, int(pixels.sum()))
    has_boundary = "boundary_iou" in results
    rows = []
    for index, name in enumerate(names):
        iou = results["per_class_iou"][name]
        boundary = results["boundary_iou"]["per_class"][name] if has_boundary else None
        cells = [
            row_head(swatch(label_map.colors[index]) + name, index),
            Markup('<td class="bar">{}</td>').format(_bar(iou, boundary)),
            td(percent(iou), iou),
        ]
        if has_boundary:
            cells.append(td(percent(boundary), boundary, "optional"))
        accuracy, share = results["per_class_accuracy"][name], int(pixels[index]) / total
        cells += [td(percent(accuracy), accuracy, "optional"), td(percent(share, digits=2), share)]
        rows.append(cells)
    heads = [th("Class", "left", True), Markup('<th aria-hidden="true"></th>'), th("IoU", "", True)]
    if has_boundary:
        heads.append(th("Boundary IoU", "optional", True))
    heads += [th("Accuracy", "optional", True), th("Share of pixels", "", True)]
    return table(heads, rows, "sortable", "Classes and their scores")


def _bar(iou, boundary):
    if iou is None:
        return Markup("")
    mark = Markup("")
    if boundary is not None:
        mark = Markup('<b style="left:calc({:.2f}% - 1px)"></b>').format(100 * boundary)
    return Markup(
        '<span class="track" aria-hidden="true"><i style="width:{:.2f}%"></i>{}</span>'
    ).format(100 * iou, mark)


def confusion(results, names) -> Markup:
    """The matrix as a canvas with its numbers beside it, and its largest cells as a table."""
    counts = np.array(results["confusion_matrix"])
    unclassified = results.get("unclassified", {})
    totals = counts.sum(1) + [unclassified.get(name, 0) for name in names]
    data = {
        "names": list(names),
        "counts": counts.tolist(),
        "unclassified": [unclassified.get(name, 0) for name in names],
    }
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_LARGEST_CONFUSIONS]
    rows = []
    for truth, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        count = int(wrong[truth, predicted])
        if count:
            rows.append(
                [
                    row_head(names[truth]),
                    Markup('<td class="left">{}</td>').format(names[predicted]),
                    td(percent(count / int(totals[truth]))),
                    td(percent(count / max(1, int(wrong.sum())))),
                ]
            )
    heads = [
        th("True class", "left"),
        th("Taken for", "left"),
        th("of its pixels"),
        th("of all errors"),
    ]
    largest = (
        Markup('<h3>Largest confusions</h3><div class="narrow">{}</div>').format(table(heads, rows))
        if rows
        else ""
    )
    return Markup(
        '<div class="matrix"><canvas id="matrix" tabindex="0" role="img" aria-describedby="matrix-readout" '
        'aria-label="Confusion matrix: rows are true classes, columns predicted ones; arrow keys move through it">'
        '</canvas></div><p class="readout" id="matrix-readout" aria-live="polite">Point at a cell, or move with the '
        'arrow keys.</p><script type="application/json" id="matrix-data">{}</script>{}'
    ).format(script_json(data), largest)


def failures(analysis) -> Markup:
    """IoU by distance to a boundary and by size of the object, side by side."""
    halves = []
    for key, title in (
        ("by_distance", "Distance to a boundary"),
        ("by_object_size", "Size of the object"),
    ):
        bins = [entry for entry in analysis[key] if entry["pixels"]]
        total = sum(entry["pixels"] for entry in bins)
        rows = [
            [
                row_head(failure_analysis.span(entry, "px")),
                Markup('<td class="bar">{}</td>').format(_bar(entry["miou"], None)),
                td(percent(entry["miou"])),
                td(percent(entry["pixels"] / total)),
            ]
            for entry in bins
        ]
        heads = [
            th(title, "left"),
            Markup('<th aria-hidden="true"></th>'),
            th("mIoU"),
            th("Pixels"),
        ]
        halves.append(Markup("<div>{}</div>").format(table(heads, rows)))
    return Markup('<div class="halves">{}</div>').format(joined(halves))


def superpixels(measured) -> Markup:
    """The table of all kinds, the best of each column marked, and the curves."""
    headings = superpixel_scores.HEADINGS
    best = {}
    for measure, higher in superpixel_scores.HIGHER_IS_BETTER.items():
        values = [kind[measure] for kind in measured["kinds"] if kind[measure] is not None]
        best[measure] = (max if higher else min)(values, default=None)
    rows = [
        [
            row_head(superpixel_scores.title(kind)),
            *(
                td(
                    superpixel_scores.cell(measure, kind[measure]),
                    class_="best"
                    if kind[measure] is not None and kind[measure] == best.get(measure)
                    else "",
                )
                for measure in headings
            ),
        ]
        for kind in measured["kinds"]
    ]
    heads = [th("", "left"), *(th(heading) for heading in headings.values())]
    svg = curves.superpixel_curves(measured["curves"])
    picture = base64.b64encode(svg.encode()).decode()
    return Markup(
        '{}<h3>By count</h3><div class="figure"><img alt="Measures of superpixels by their count" '
        'src="data:image/svg+xml;base64,{}"></div>'
    ).format(table(heads, rows), picture)


def images(shown, title, first) -> Markup:
    """Images with a slider between what is chosen and the truth.

    Args:
      shown: list of pictures.Shown.
      title: of the group.
      first: number of the first one on the page, for ids that differ.
    """
    figures = joined(_example(image, first + index) for index, image in enumerate(shown))
    return Markup('<h3>{}</h3><div class="examples">{}</div>').format(title, figures)


def _example(image, number):
    titles = list(image.views)
    truth, views = titles[-1], titles[:-1]
    alt = "{} of {}"
    over = joined(
        Markup('<img class="over{}" data-view="{}" alt="{}" decoding="async" src="{}">').format(
            " chosen" if index == 0 else "", view, alt.format(view, image.name), image.views[view]
        )
        for index, view in enumerate(views)
    )
    choices = joined(
        Markup('<label><input type="radio" name="view-{}" value="{}"{}> {}</label>').format(
            number, view, Markup(" checked") if index == 0 else "", view
        )
        for index, view in enumerate(views)
    )
    lowest = ", ".join(f"{name} {percent(iou)}" for name, iou in image.lowest)
    height, width = image.size
    return Markup(
        '<figure class="example"><figcaption><b>{name}</b>'
        "<span>mIoU {miou} · accuracy {accuracy}</span></figcaption>"
        "<fieldset><legend>Left of the line</legend>{choices}</fieldset>"
        '<div class="stage" style="aspect-ratio:{width}/{height}">'
        '<img alt="{alt}" decoding="async" src="{truth}">{over}'
        '<span class="tag l">{view}</span><span class="tag r">{truth_title}</span><span class="knob"></span>'
        '<input type="range" min="0" max="100" value="50" aria-label="Position of the line between {view} and truth, '
        '{name}"></div><p class="lowest">Lowest: {lowest}</p></figure>'
    ).format(
        name=image.name,
        miou=percent(image.miou),
        accuracy=percent(image.pixel_accuracy),
        choices=choices,
        width=width,
        height=height,
        alt=alt.format(truth, image.name),
        truth=image.views[truth],
        truth_title=truth,
        over=over,
        view=views[0],
        lowest=lowest,
    )


def overview(per_image, small, miou) -> Markup:
    """The distribution of mIoU over images, and small pictures from the lowest to the highest."""
    values = [image["miou"] for image in per_image if image["miou"] is not None]
    parts = [charts.distribution(values, miou)]
    if small:
        items = joined(
            Markup(
                '<li><img alt="Prediction over {0}" decoding="async" src="{1}"><span title="{0}">{2} · {3}</span></li>'
            ).format(image.name, image.picture, percent(image.miou), image.name.rpartition("/")[2])
            for image in small
        )
        parts.append(
            Markup(
                "<details><summary>{} images, from the lowest mIoU to the highest</summary>"
                '<ul class="wall">{}</ul></details>'
            ).format(len(small), items)
        )
    return joined(parts)


def key(label_map) -> Markup:
    """Colours and names of all classes; folded away where they are many."""
    items = joined(
        Markup("<li>{}{}</li>").format(swatch(color), name)
        for name, color in zip(label_map.names, label_map.colors, strict=True)
    )
    listing = Markup('<ul class="key" aria-label="Colours of the classes">{}</ul>').format(items)
    if label_map.num_classes <= _LONG_TABLE:
        return listing
    return Markup("<details><summary>Colours of the {} classes</summary>{}</details>").format(
        label_map.num_classes, listing
    )


def facts(pairs) -> Markup:
    """A list of (title, value)."""
    items = (Markup("<dt>{}</dt><dd>{}</dd>").format(*pair) for pair in pairs)
    return Markup('<dl class="facts-list">{}</dl>').format(joined(items))


def percent(value, missing="–", digits=1) -> str:
    """A fraction in percent without the sign."""
    return missing if value is None else f"{100 * value:.{digits}f}"


def swatch(color) -> Markup:
    """A small square of an RGB colour."""
    return Markup('<span class="swatch" style="background:#{:02x}{:02x}{:02x}"></span>').format(
        *map(int, color)
    )


def table(heads, rows, class_="", label="") -> Markup:
    """A table of cells; a long one scrolls in its own frame, which the keyboard reaches."""
    long = len(rows) > _LONG_TABLE
    body = joined(Markup("<tr>{}</tr>").format(joined(row)) for row in rows)
    frame = Markup(' tabindex="0" role="region" aria-label="{}"').format(label) if long else ""
    return Markup(
        '<div class="scroll{}"{}><table class="{}"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(" long" if long else "", frame, class_, joined(heads), body)


def th(text, class_="", sorts=False) -> Markup:
    """The heading of a column."""
    inner = Markup('<button type="button">{}</button>').format(text) if sorts else text
    return Markup('<th scope="col" class="{}">{}</th>').format(class_, inner)


def row_head(text, value="") -> Markup:
    """The heading of a row; `value` is what it sorts by."""
    return Markup('<th scope="row" data-value="{}">{}</th>').format(value, text)


def td(text, value="", class_="") -> Markup:
    """A cell; `value` is what it sorts by."""
    return Markup('<td class="{}" data-value="{}">{}</td>').format(
        class_, "" if value is None else value, text
    )


def script_json(data) -> Markup:
    """JSON that no text in it can end the script element of."""
    return Markup(json.dumps(data).replace("<", "\\u003c"))


def joined(parts) -> Markup:
    """All parts, one after the other."""
    return Markup("").join(parts)
