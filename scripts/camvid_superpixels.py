"""Puts the superpixel measures of several seeds' models together, for docs/camvid.md.

    python scripts/camvid_superpixels.py --evaluations OUT/seed0,OUT/seed1,OUT/seed2 [--json FILE]

Each OUT is an --output_dir of `sp_transformer.evaluate --superpixels`. The table has the means over them, and from
three on the sample's standard deviation.
"""

import json
import pathlib

import camvid_tables
from absl import flags

from sp_transformer import command_line
from sp_transformer.evaluation import superpixel_scores

# Measures of single images are left out.
_OF_SUPERPIXELS = ("boundary_tolerance", "slic_compactness", "kinds")
_OF_METRICS = ("experiment_name", "step", "split", "miou", "failure_analysis")
_COUNTS = ("superpixels", "components")


def define_flags(values: flags.FlagValues) -> None:
    """Defines this script's flags in `values`."""
    flags.DEFINE_list(
        "evaluations", [], "Folders that evaluate wrote, one a seed. Required.", flag_values=values
    )
    flags.DEFINE_string("json", None, "File that all numbers are written to.", flag_values=values)


def main(values: flags.FlagValues) -> int:
    """Prints the table, and writes the JSON if that is asked for; returns the exit code."""
    command_line.require(values, "evaluations")
    evaluations = [load(folder) for folder in values.evaluations]
    print(camvid_tables.markdown(table(evaluations)))
    if values.json:
        text = json.dumps({"evaluations": evaluations}, indent=1, allow_nan=False)
        pathlib.Path(values.json).write_text(text + "\n", encoding="utf-8")
    return 0


def load(folder) -> dict:
    """What the JSON holds of an evaluation.

    Raises:
      UsageError: if the folder holds none with superpixels.
    """
    kept = {}
    for file, names in (("superpixels.json", _OF_SUPERPIXELS), ("metrics.json", _OF_METRICS)):
        path = pathlib.Path(folder) / file
        if not path.exists():
            raise command_line.UsageError(
                f"there is no {path}; --evaluations takes what evaluate --superpixels wrote"
            )
        contents = json.loads(path.read_text(encoding="utf-8"))
        kept |= {name: contents[name] for name in names if name in contents}
    return kept


def table(evaluations):
    """Rows of texts, the heading first: a kind of superpixels each, and each measure's spread over the evaluations.

    Raises:
      UsageError: if they compare with other kinds than the first does.
    """
    titles = [[superpixel_scores.title(kind) for kind in e["kinds"]] for e in evaluations]
    if any(other != titles[0] for other in titles):
        raise command_line.UsageError(
            "the evaluations compare with different kinds of superpixels; give all of them one evaluation.superpixels"
        )
    rows = []
    for title, *kinds in zip(titles[0], *(e["kinds"] for e in evaluations), strict=True):
        row = [title]
        for measure in superpixel_scores.HEADINGS:
            is_count = measure in _COUNTS
            scaled = (kind[measure] * (1 if is_count else 100) for kind in kinds)
            row.append(camvid_tables.spread(scaled, digits=0 if is_count else 2))
        rows.append(row)
    return [["", *superpixel_scores.HEADINGS.values()], *rows]


if __name__ == "__main__":
    command_line.run(main, define_flags)
