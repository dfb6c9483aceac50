"""Prints the tables of docs/camvid.md from the results of camvid_study.py.

    python scripts/camvid_tables.py [--results_dir docs/results/camvid]

Experiments without a result are left out, and how many seeds each number is of is said beside it.
"""

import json
import pathlib
import statistics

import camvid_experiments
from absl import flags

from sp_transformer import command_line
from sp_transformer.benchmarking import report

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What the experiments of a group are compared with.
_BASES = {"remedy": "tuning_ours_rate_1e-3", "ablation": "ablation_none"}
_LAST_LOSSES = 10


def define_flags(values: flags.FlagValues) -> None:
    """Defines this script's flags in `values`."""
    flags.DEFINE_string(
        "results_dir",
        str(ROOT / "docs" / "results" / "camvid"),
        "Folder of the results that camvid_study.py wrote.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> int:
    """Prints what there is; returns the exit code."""
    results = load(values.results_dir)
    if not results:
        raise command_line.UsageError(
            f"{values.results_dir} holds no result of camvid_study.py; run that first"
        )
    for title, table in (
        ("Headline", scores_table(results, "headline")),
        ("IoU of classes", class_table(results, "headline")),
        ("Learning curves, mIoU", curve_table(results, "headline")),
        ("Tuning, on a part of the training split", scores_table(results, "tuning")),
        ("Remedies, on a part of the training split", scores_table(results, "remedy")),
        ("Ablations", scores_table(results, "ablation")),
    ):
        if table:
            print(f"### {title}\n\n{markdown(table)}\n")
    return 0


def load(folder) -> dict:
    """{name of the experiment: its results, by seed}, in the order of the experiments."""
    found = {}
    for experiment in camvid_experiments.EXPERIMENTS:
        paths = pathlib.Path(folder).glob(f"{experiment.name}-seed*.json")
        runs = [json.loads(path.read_text()) for path in paths]
        if runs:
            found[experiment.name] = sorted(runs, key=lambda run: run["seed"])
    return found


def scores_table(results, group):
    """Rows of the experiments of a group, the heading first; none if there is no result.

    Where the group has a common base, that comes first and the differences from its mIoU are told.
    """
    runs_of = of_group(results, group)
    base = results.get(_BASES.get(group)) if runs_of else None
    if base:
        runs_of = {_BASES[group]: base} | runs_of
    rows = []
    for name, runs in runs_of.items():
        row = {
            "run": name.removeprefix(f"{group}_"),
            "parameters M": f"{runs[0]['parameters'] / 1e6:.2f}",
            "steps": f"{runs[0]['steps']:,}",
            "seeds": ", ".join(str(run["seed"]) for run in runs),
            "training loss": spread((training_loss(run) for run in runs), digits=2),
            "mIoU": spread(miou(run) for run in runs),
        }
        if base:
            difference = statistics.mean(map(miou, runs)) - statistics.mean(map(miou, base))
            row["difference"] = "" if runs is base else f"{difference:+.3f}"
        row["pixel accuracy"] = spread(run["result"]["pixel_accuracy"] for run in runs)
        rows.append(row)
    return [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []


def miou(run) -> float:
    return run["result"]["miou"]


def training_loss(run) -> float:
    """The mean of the last logged losses, each of the steps since the one before: one batch alone says little."""
    return statistics.mean(loss for _, loss in run["curve"][-_LAST_LOSSES:])


def class_table(results, group):
    """IoU of each class by experiment, means over the seeds."""
    runs_of = of_group(results, group)
    if not runs_of:
        return []
    classes = list(next(iter(runs_of.values()))[0]["result"]["per_class_iou"])
    rows = []
    for name in classes:
        values = [
            [run["result"]["per_class_iou"][name] for run in runs] for runs in runs_of.values()
        ]
        rows.append([name, *(spread(of_runs) for of_runs in values)])
    return [["class", *runs_of], *rows]


def curve_table(results, group):
    """mIoU at the saved steps, means over the seeds."""
    runs_of = of_group(results, group)
    curves = {
        name: [{point["step"]: point["miou"] for point in run["evaluations"]} for run in runs]
        for name, runs in runs_of.items()
    }
    steps = sorted({step for runs in curves.values() for run in runs for step in run})
    rows = []
    for step in steps:
        values = [[run[step] for run in runs if step in run] for runs in curves.values()]
        rows.append([f"{step:,}", *(spread(of_runs) if of_runs else "" for of_runs in values)])
    return [["step", *runs_of], *rows] if rows else []


def of_group(results, group) -> dict:
    """The results of one group of experiments."""
    names = [e.name for e in camvid_experiments.EXPERIMENTS if e.group == group]
    return {name: results[name] for name in names if name in results}


def spread(values, digits=3) -> str:
    """The mean, and from three values on the sample's standard deviation; below, all values where there are two."""
    values = list(values)
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) > 2:
        return f"{mean} ± {statistics.stdev(values):.{digits}f}"
    if len(values) == 2:
        return f"{mean} ({min(values):.{digits}f}, {max(values):.{digits}f})"
    return mean


def markdown(table) -> str:
    """A Markdown table of rows of texts, the heading first."""
    heading, *rows = table
    return "\n".join(report.grid(heading, [dict(zip(heading, row, strict=True)) for row in rows]))


if __name__ == "__main__":
    command_line.run(main, define_flags)
