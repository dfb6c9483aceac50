"""report.html: the sections of an evaluation in one file that asks for nothing from anywhere."""

from __future__ import annotations

import dataclasses
import importlib.resources
import shlex
import sys

from google.protobuf import text_format
from markupsafe import Markup

from sp_transformer import environment
from sp_transformer.evaluation.report import pictures, sections

# Nothing but what stands in the file: a browser refuses any request.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def command_line() -> str:
    """How this process was called, as a shell takes it."""
    return shlex.join(sys.orig_argv)


@dataclasses.dataclass
class Evaluation:
    """What a report is made of.

    Attributes:
      config: the ExperimentOptions.
      label_map: its LabelMap.
      results: what metrics.json holds.
      per_image: what per_image.json holds.
      superpixels: what superpixels.json holds, or None.
      pictures: a ReportPictures that has seen the split.
      environment: where this process runs, of `environment.describe`.
      command: how the program was called.
    """

    config: object
    label_map: object
    results: dict
    per_image: list
    superpixels: dict | None
    pictures: pictures.ReportPictures
    environment: dict = dataclasses.field(default_factory=environment.describe)
    command: str = dataclasses.field(default_factory=command_line)


def render(evaluation: Evaluation) -> str:
    """The text of the file."""
    results, config = evaluation.results, evaluation.config
    parts = list(_sections(evaluation))
    links = sections.joined(
        Markup('<li><a href="#{}">{}</a></li>').format(name, title) for name, title, _, _ in parts
    )
    body = sections.joined(
        Markup(
            '<section id="{0}" aria-labelledby="{0}-title"><h2 id="{0}-title">{1}</h2>{2}{3}</section>\n'
        ).format(
            name, title, Markup('<p class="note">{}</p>').format(note) if note else "", content
        )
        for name, title, note, content in parts
    )
    facts = sections.joined(Markup("<li>{}</li>").format(fact) for fact in _short_facts(evaluation))
    page = _resource("report.html").format(
        policy=_POLICY,
        title=config.experiment_name or "Evaluation",
        miou=sections.percent(results["miou"]),
        style=_resource("report.css"),
        facts=facts,
        links=links,
        scores=sections.scores(results),
        sections=body,
        version=evaluation.environment["sp_transformer"],
        script=_resource("report.js"),
    )
    return str(page)


def _sections(evaluation):
    """(id, title, note, content) of each section that there is something for."""
    results, label_map = evaluation.results, evaluation.label_map
    note = "In percent. A heading sorts the table."
    if "boundary_iou" in results:
        note += (
            " The mark on a bar is the boundary IoU, that of the class's margins alone "
            f"({results['boundary_iou']['width']:g} of the image's diagonal wide)."
        )
    yield "classes", "Classes", note, sections.classes(results, label_map)
    yield (
        "confusion",
        "Confusion",
        "Rows are true classes, columns what was predicted, in percent of the row. Blue is right, orange "
        "wrong; the strength of a colour goes by the square root of the share.",
        sections.confusion(results, label_map.names),
    )
    shown, content = 0, []
    for title, group in (
        ("Lowest mIoU", evaluation.pictures.worst()),
        ("Highest mIoU", evaluation.pictures.best()),
    ):
        if group:
            content.append(sections.images(group, title, shown))
            shown += len(group)
    overview = sections.overview(evaluation.per_image, evaluation.pictures.small(), results["miou"])
    yield (
        "images",
        "Images",
        "One dot an image, by its own mIoU. Below, move the line with the pointer or the arrow keys. "
        "In views of errors, orange is wrong, blue right, and hatched pixels do not count.",
        sections.joined([overview, sections.key(label_map), *content]),
    )
    if "failure_analysis" in results:
        yield (
            "failures",
            "Where it loses",
            "Each pixel of the truth by its distance to the nearest boundary between two classes, and by "
            "the size of the connected object that it belongs to.",
            sections.failures(results["failure_analysis"]),
        )
    if evaluation.superpixels is not None:
        yield (
            "superpixels",
            "Superpixels",
            f"Means of {evaluation.superpixels['kinds'][0]['images']} images; the best of each column is "
            "bold. ASA: achievable segmentation accuracy, mIoU: the achievable one, UE: undersegmentation "
            "error (lower is better), BR and BP: boundary recall and precision, EV: explained variation, "
            "CO: compactness.",
            sections.superpixels(evaluation.superpixels),
        )
    config = text_format.MessageToString(evaluation.config)
    yield (
        "run",
        "Run",
        "",
        sections.joined(
            [
                sections.facts(_long_facts(evaluation)),
                Markup(
                    "<details><summary>Config</summary>"
                    '<pre tabindex="0" role="region" aria-label="Config"><code>{}</code></pre></details>'
                ).format(config),
            ]
        ),
    )


def _short_facts(evaluation):
    results = evaluation.results
    yield f"{results['num_images']} images of split {results['split']}"
    if results["step"] is not None:
        yield f"step {results['step']:,}"
    yield evaluation.environment["date"].partition("T")[0]
    if evaluation.environment["git"]:
        yield f"revision {evaluation.environment['git']['revision'][:9]}"


def _long_facts(evaluation):
    results, here = evaluation.results, evaluation.environment
    git, machine = here["git"], here["machine"]
    versions = {"Python": here["python"], **here["versions"]}
    yield "Checkpoint", results["checkpoint"] or "–"
    yield "Command", Markup("<code>{}</code>").format(evaluation.command)
    yield "Date", here["date"]
    if git:
        yield "Revision", git["revision"] + (", with uncommitted changes" if git["dirty"] else "")
    yield "Way of predicting", results["mode"]
    yield "Counted pixels", f"{results['num_pixels']:,}"
    yield "Speed", f"{results['images_per_second']:.2f} images/s, evaluation included"
    yield "Machine", ", ".join([f"{machine['cores']} cores of {machine['cpu']}", *machine["gpus"]])
    yield "Versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    skipped = results.get("skipped_files")
    if skipped:
        yield "Skipped", f"{len(skipped)} files: {', '.join(list(skipped)[:5])}"


def _resource(name) -> Markup:
    """A file of this package, as it stands."""
    return Markup(importlib.resources.files(__package__).joinpath(name).read_text("utf-8"))
