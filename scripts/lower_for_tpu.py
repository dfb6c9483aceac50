"""Lowers whole train, evaluation and inference steps of configs for TPUs, on a machine that has none.

Run by scripts/lower_for_tpu.sh, in an environment with tensorflow-tpu, whose XLA bridge holds the kernels of that
platform. What comes out is HLO: it shows that every op has a TPU kernel and that all shapes are static. The compiler
that comes after it, memory, speed and the reduction over replicas are not tried.

TensorFlow lowers for another platform only functions without variables, so each step is traced with the variables as
arguments and their new values as results. It is the step that trains (`train_step.TrainLoop`), not a copy of it.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import pathlib
import re
import sys
import time
import unittest.mock
from concurrent import futures
from importlib import metadata

# Before TensorFlow is imported: it would load the TPU driver, and ask the metadata server of a cloud for minutes.
os.environ["TPU_LIBRARY_PATH"] = "/dev/null"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["GCE_METADATA_IP"] = "127.0.0.1:9"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

import sp_transformer as spt
from sp_transformer import environment
from sp_transformer.config import derived
from sp_transformer.evaluation import device_counts
from sp_transformer.model import builder
from sp_transformer.protos import training_pb2
from sp_transformer.training import optimizer as optimizers
from sp_transformer.training import train_step

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAMS = ("train_step", "evaluation", "forward")
PRECISIONS = ("float32", "bfloat16")
_OPCODE = re.compile(
    r"^\s*(?:ROOT )?%?[\w.\-]+ = (?:\(.*?\)|\S+) ([a-z][a-z0-9\-]*)\(", re.MULTILINE
)
_CUSTOM_CALL = re.compile(r'custom_call_target="([^"]+)"')
# `f32[<=8,3]`: a dimension that is known at run time only.
_DYNAMIC = re.compile(r"\[[^\]]*<=\d+[^\]]*\]")
_ERROR_LETTERS = 600
# Where TensorFlow's message comes to the point, behind the stack of where the op was made.
_POINT = re.compile(r"Detected unsupported operations.*", re.DOTALL)


def _told(failure):
    """The point of an exception's message, in one line."""
    text = f"{type(failure).__name__}: {failure}"
    point = _POINT.search(text)
    return " ".join((point[0] if point else text).split())[:_ERROR_LETTERS]


def published_configs() -> list[pathlib.Path]:
    """The experiments of configs/, without the label maps that they extend."""
    paths = sorted((ROOT / "configs").glob("*/*.textproto"))
    return [path for path in paths if path.parent.name != "label_maps"]


class StatelessTrainStep:
    """The training step as a function of plain tensors.

    Args:
      config: a validated ExperimentOptions; `training.batch_size` images are the step's.
      model: its built model.

    Attributes:
      variables: keras.Variables of model and optimizer, in the order of the function's `values`.
      optimizer: the optimizer of the step. It works in this class's functions only.
    """

    def __init__(self, config, model):
        options = config.training
        self.optimizer = optimizers.create_optimizer(options, model)
        self.variables = [*model.variables, *self.optimizer.variables]
        ignore_label = derived.label_map(config).ignore_label
        self._loop = train_step.TrainLoop(
            model, self.optimizer, options, ignore_label, tf.distribute.get_strategy()
        )
        _work_on_tensors(self.optimizer, model.trainable_variables)

    def __call__(self, images, labels, values):
        """Takes a step.

        Args:
          images: float32 [b, Y, X, 3].
          labels: int32 [b, Y, X].
          values: tensors, what the `variables` hold before.

        Returns:
          Loss, gradient norm, and what the variables hold afterwards.
        """
        with (
            keras.StatelessScope(zip(self.variables, values, strict=True)) as scope,
            _tapes_watch(values),
        ):
            loss, norm = self._loop._replica_step(images, labels)
            return loss, norm, [scope.get_current_value(variable) for variable in self.variables]


def _work_on_tensors(optimizer, trainable_variables) -> None:
    """Lets an optimizer of Keras update variables that a StatelessScope holds, which it refuses on TensorFlow."""
    keys = {id(variable): optimizer._var_key(variable) for variable in trainable_variables}

    def update(gradients, variables, learning_rate):
        for gradient, variable in zip(gradients, variables, strict=True):
            optimizer.update_step(gradient, variable, learning_rate)

    optimizer._var_key = lambda variable: keys[id(variable)]
    optimizer._backend_update_step = update
    optimizer.assign = lambda variable, value: variable.assign(value)
    optimizer.assign_add = lambda variable, value: variable.assign_add(value)
    optimizer.assign_sub = lambda variable, value: variable.assign_sub(value)


@contextlib.contextmanager
def _tapes_watch(tensors):
    """Gradient tapes watch variables by themselves, but not the tensors that stand in for them."""
    floats = [tensor for tensor in tensors if tensor.dtype.is_floating]

    class WatchingTape(tf.GradientTape):
        def __enter__(self):
            tape = super().__enter__()
            tape.watch(floats)
            return tape

    with unittest.mock.patch.object(tf, "GradientTape", WatchingTape):
        yield


def make_program(name, config, model):
    """A program, and the TensorSpecs of its arguments.

    Args:
      name: one of PROGRAMS.
      config: a validated ExperimentOptions; `training.batch_size` is the number of images.
      model: its built model.
    """
    batch, size = config.training.batch_size, derived.input_size(config)
    labels = tf.TensorSpec((batch, *size), tf.int32)
    if name == "train_step":
        step = StatelessTrainStep(config, model)
        images = tf.TensorSpec((batch, *size, 3), tf.float32)
        return step, [images, labels, _specs(step.variables)]
    images = tf.TensorSpec((batch, *size, 3), tf.uint8)
    label_map = derived.label_map(config)

    def forward(images, values):
        with keras.StatelessScope(zip(model.variables, values, strict=True)):
            return model.labels(model.features(images, training=False))

    def evaluation(images, labels, values):
        return device_counts.pair_counts(
            labels, forward(images, values), len(label_map.names), label_map.ignore_label
        )

    if name == "forward":
        return forward, [images, _specs(model.variables)]
    return evaluation, [images, labels, _specs(model.variables)]


def _specs(variables):
    return [tf.TensorSpec(variable.shape, variable.dtype) for variable in variables]


def lower(function, specs, platform) -> dict:
    """Lowers a function of tensors.

    Returns:
      "seconds" of tracing and lowering, "ops" (HLO instructions) {opcode: number} with custom calls by their target,
      "dynamic_shapes", a list that should be empty, and "error", None if all went well.
    """
    start = time.monotonic()
    error, text = None, ""
    try:
        # The generator takes no lists among the arguments.
        compiled = tf.function(
            lambda *flat: function(*tf.nest.pack_sequence_as(specs, flat)), jit_compile=True
        )
        generator = compiled.experimental_get_compiler_ir(*tf.nest.flatten(specs))
        text = generator(stage="hlo", platform_name=platform)
    except Exception as failure:
        # A config that does not lower is what is looked for, and no reason to lose the others.
        error = _told(failure)
    return {
        "seconds": round(time.monotonic() - start, 1),
        "error": error,
        "dynamic_shapes": sorted(set(_DYNAMIC.findall(text))),
        "ops": histogram(text),
    }


def histogram(hlo: str) -> dict[str, int]:
    """{opcode: number of instructions} of HLO text, the most frequent first."""
    counts = {}
    for name in _OPCODE.findall(hlo):
        counts[name] = counts.get(name, 0) + 1
    for target in _CUSTOM_CALL.findall(hlo):
        name = f"custom-call {target}"
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def lower_config(path, overrides, precisions, programs, cores, platform) -> list[dict]:
    """Lowers the programs of one config, at its own size, with the images that one of `cores` cores gets."""
    rows = []
    for precision in precisions:
        config = spt.load_config(path, overrides=overrides)
        config.training.batch_size = max(1, config.training.batch_size // cores)
        config.training.precision = training_pb2.TrainingOptions.Precision.Value(precision.upper())
        # As on a TPU, where XLA compiles whatever runs.
        config.training.jit_compile = True
        # One seed: the same report whenever it is made.
        keras.utils.set_random_seed(0)
        model = builder.build_model(config)
        for name in programs:
            result = lower(*make_program(name, config, model), platform)
            height, width = derived.input_size(config)
            rows.append(
                {
                    "config": "/".join(path.parts[-2:]),
                    "overrides": list(overrides),
                    "precision": precision,
                    "program": name,
                    "images": [config.training.batch_size, height, width, 3],
                    **result,
                }
            )
            print(format_row(rows[-1]), flush=True)
    return rows


def format_row(row) -> str:
    """A line for people."""
    outcome = "lowered" if row["error"] is None else f"FAILED: {row['error']}"
    if row["dynamic_shapes"]:
        outcome = f"DYNAMIC SHAPES {row['dynamic_shapes'][:3]}"
    size = "x".join(map(str, row["images"][:3]))
    return (
        f"{row['config']:<42} {size:<12} {row['precision']:<9} {row['program']:<11} "
        f"{sum(row['ops'].values()):>7} ops {row['seconds']:>6.1f} s  {outcome}"
    )


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config_file", action="append", help="default: all of configs/; repeat")
    parser.add_argument("--override", action="append", default=[], help="textproto; repeat")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--programs", default=",".join(PROGRAMS), help="comma-separated")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="comma-separated")
    parser.add_argument("--cores", type=int, default=32, help="that training.batch_size is for")
    parser.add_argument("--platform", default="TPU", choices=("TPU", "CPU"))
    flags = parser.parse_args(arguments)
    programs, precisions = flags.programs.split(","), flags.precisions.split(",")
    for given, known in ((programs, PROGRAMS), (precisions, PRECISIONS)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    if flags.cores < 1:
        parser.error(f"--cores is {flags.cores}; it must be at least 1")
    paths = [pathlib.Path(path) for path in flags.config_file or published_configs()]
    rows = []
    for path in paths:
        # A process a config: TensorFlow keeps what it has traced, some GiB of a large model.
        with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            arguments = (path, flags.override, precisions, programs, flags.cores, flags.platform)
            rows += pool.submit(lower_config, *arguments).result()
        if flags.json:
            report = {"environment": _environment(), "platform": flags.platform, "rows": rows}
            pathlib.Path(flags.json).write_text(json.dumps(report, indent=1) + "\n")
    failed = [row for row in rows if row["error"] or row["dynamic_shapes"]]
    print(f"{len(rows) - len(failed)} of {len(rows)} programs lowered for {flags.platform}")
    return 1 if failed else 0


def _environment():
    versions = {}
    for name in ("tensorflow-tpu", "libtpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    described = environment.describe()
    described["versions"].update(versions)
    return described


if __name__ == "__main__":
    sys.exit(main())
