"""Trains the models of docs/camvid.md on CamVid, ours and its peers alike, one after the other.

    python scripts/camvid_study.py --data_dir DATA --runs_dir RUNS --experiments ours,deeplab_v3_plus --seeds 0,1,2

Each run leaves one small JSON in --results_dir as soon as it ends, and is skipped where that exists: the runs add up
over days of work. A run that was interrupted goes on from its last checkpoint in --runs_dir. --list tells what there
is.
"""

import json
import math
import os
import pathlib
import statistics
import sys
import tempfile

import camvid_experiments
from absl import flags

from sp_transformer import command_line

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOG = os.path.join("train", "log.jsonl")
EVALUATIONS = "evaluations.json"


def define_flags(values: flags.FlagValues) -> None:
    """Defines this script's flags in `values`."""
    flags.DEFINE_string("data_dir", None, "Folder of CamVid. Required to run.", flag_values=values)
    flags.DEFINE_string(
        "runs_dir", None, "Folder for checkpoints. Required to run.", flag_values=values
    )
    flags.DEFINE_string(
        "results_dir",
        str(ROOT / "docs" / "results" / "camvid"),
        "Folder of the JSON results, NAME-seedN.json.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "experiments", [], "Names of experiments to run, in order.", flag_values=values
    )
    flags.DEFINE_list("seeds", ["0"], "Seeds of weights and data order.", flag_values=values)
    flags.DEFINE_multi_string(
        "override",
        [],
        "Textproto merged over every experiment, to try things out. Give another --results_dir with it.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "list", False, "Only lists the experiments and their results.", flag_values=values
    )


def main(values: flags.FlagValues) -> int:
    """Runs what has no result yet; returns the exit code."""
    known = {experiment.name: experiment for experiment in camvid_experiments.EXPERIMENTS}
    results_dir = pathlib.Path(values.results_dir)
    if values.list:
        for name in known:
            found = sorted(path.stem for path in results_dir.glob(f"{name}-seed*.json"))
            print(f"{name}: {', '.join(found) or 'no result'}")
        return 0
    command_line.require(values, "data_dir", "runs_dir", "experiments")
    unknown = [name for name in values.experiments if name not in known]
    if unknown:
        raise command_line.UsageError(
            f"no experiment is called {unknown[0]!r}; --list names those there are"
        )
    try:
        seeds = [int(seed) for seed in values.seeds]
    except ValueError as error:
        raise command_line.UsageError(
            f"--seeds {','.join(values.seeds)} are no integers"
        ) from error
    for seed in seeds:
        for name in values.experiments:
            target = results_dir / f"{name}-seed{seed}.json"
            if target.exists():
                print(f"{target.name} is there already")
                continue
            run_dir = pathlib.Path(values.runs_dir) / target.stem
            overrides = [*known[name].overrides(seed), *values.override]
            contents = run(known[name], seed, overrides, values.data_dir, run_dir)
            write(target, contents)
            print(f"{target.name}: mIoU {contents['result']['miou']:.4f}", flush=True)
    return 0


def run(experiment, seed, overrides, data_dir, run_dir) -> dict:
    """Trains an experiment, from its last checkpoint if there is one, and scores it.

    Args:
      experiment: an Experiment.
      seed: of weights and data order.
      overrides: of the config, the experiment's and the seed's among them.
      data_dir: folder of the data set.
      run_dir: model_dir of the run.

    Returns:
      What its JSON holds.
    """
    config = load_config(overrides, data_dir)
    # TensorFlow takes seconds to import: only once the config is known to be good.
    import peer_segmenter

    from sp_transformer import environment
    from sp_transformer.data import pipeline, sources
    from sp_transformer.evaluation import evaluator
    from sp_transformer.model import builder, inference
    from sp_transformer.training import loop

    source = sources.create_source(config.data, config.data.train_split)

    def build_model(options):
        if experiment.model == camvid_experiments.OURS:
            return builder.build_model(options)
        return peer_segmenter.build(experiment.model, options)

    def make_dataset(first_step, input_context=None):
        return pipeline.train_dataset(config, source, first_step, input_context)

    evaluations = Evaluations(run_dir / EVALUATIONS)
    training = loop.TrainingRun(config, run_dir, build_model, make_dataset)
    # One for all evaluations of the run, which would each trace the model anew.
    runner = inference.Inference(training.model, config.data)

    def evaluate(step, model):
        with tempfile.TemporaryDirectory() as folder:
            evaluations.add(
                step, evaluator.evaluate(config, model, folder, step=step, inference=runner)
            )

    parameters = sum(math.prod(v.shape) for v in training.model.trainable_variables)
    training.train(evaluate)
    return {
        "experiment": experiment.name,
        "model": experiment.model,
        "overrides": overrides,
        "config": camvid_experiments.CONFIG,
        "seed": seed,
        "steps": config.training.steps,
        "parameters": parameters,
        **training_log(run_dir / LOG),
        "evaluations": evaluations.curve(),
        "result": evaluations.at(config.training.steps),
        "environment": environment.describe(),
    }


def load_config(overrides, data_dir):
    """The validated ExperimentOptions of a run."""
    import sp_transformer as spt

    overrides = [*overrides, f"data {{ data_dir: {json.dumps(str(data_dir))} }}"]
    return spt.load_config(ROOT / camvid_experiments.CONFIG, overrides=overrides)


class Evaluations:
    """Scores after each save, kept in a file beside the checkpoints, so that a resumed run has them all."""

    def __init__(self, path):
        self._path = pathlib.Path(path)
        self._by_step = {}
        if self._path.exists():
            self._by_step = {int(k): v for k, v in json.loads(self._path.read_text()).items()}

    def add(self, step, metrics):
        """Notes what matters of an evaluator's result."""
        kept = ("miou", "pixel_accuracy", "mean_accuracy", "per_class_iou", "split", "num_images")
        self._by_step[step] = {name: metrics[name] for name in kept}
        write(self._path, self._by_step)

    def at(self, step):
        """The scores at a step, or None."""
        return self._by_step.get(step)

    def curve(self):
        """[{"step", "miou"}] in the order of the steps."""
        return [
            {"step": step, "miou": self._by_step[step]["miou"]} for step in sorted(self._by_step)
        ]


def training_log(path) -> dict:
    """The learning curve and the time that training took, from a run's log.jsonl.

    Returns:
      "curve": [[step, loss]], each loss the mean since the one before; "median_step_seconds"; "train_seconds": all
      steps' wall-clock time, evaluation, saving and compilation left out.
    """
    lines = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    steps = [0] + [line["step"] for line in lines]
    seconds = [line["step_seconds"] for line in lines]
    return {
        "curve": [[line["step"], round(line["loss"], 4)] for line in lines],
        "median_step_seconds": statistics.median(seconds),
        "train_seconds": sum(
            s * (b - a) for s, a, b in zip(seconds, steps, steps[1:], strict=False)
        ),
    }


def write(path, contents) -> None:
    """Writes JSON whole or not at all."""
    from sp_transformer.training import files

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps(contents, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "scripts"))
    command_line.run(main, define_flags)
