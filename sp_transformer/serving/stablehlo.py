"""Writes a model's compiled programs as StableHLO, for machines that have XLA but no TensorFlow.

A program is one function of plain arrays: first its inputs, then the variables that it reads. It returns its results,
then the new value of every variable that it changes. `scripts/run_stablehlo.py` runs, checks and times what is written.

Shapes: B images; Y, X their height and width in pixels.
"""

import contextlib
import math
import pathlib

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf

from sp_transformer import version
from sp_transformer.config import derived
from sp_transformer.model import inference as inference_lib
from sp_transformer.model import inference_form
from sp_transformer.serving import assets, lowering, stablehlo_options
from sp_transformer.serving.runtimes import runtime
from sp_transformer.training import optimizer as optimizers
from sp_transformer.training import train_step

WEIGHTS = "weights.npz"
EXPECTED = "expected.npz"
# Larger outputs are stored as evenly spaced samples, so that an export of a large model stays small.
_SAMPLES = 2**18
# Whole numbers up to this many are written into the manifest.
_INLINE_VALUES = 1024


class _Programs:
    """The programs of one model at one batch and image size.

    Args:
      config: a validated ExperimentOptions.
      model: a built SPTransformer.
      options: StableHLOOptions.
    """

    def __init__(self, config, model, options):
        self._config = type(config)()
        self._config.CopyFrom(config)
        # The step divides by the batch size of the options.
        self._config.training.batch_size = options.batch_size
        self._model = model
        self._inferred = inference_form.convert(model) if options.fold_batch_norm else model
        size = options.size or derived.input_size(config)
        self._shape = (options.batch_size, *size)
        self._inference = inference_lib.Inference(
            self._inferred, config.data, size, options.batch_size
        )
        self._names = {}

    def lower(self, name) -> lowering.LoweredProgram:
        """The program of that name, one of PROGRAMS."""
        if name == stablehlo_options.TRAIN_STEP:
            return self._lower_train_step()
        images = lowering.SeededInput("images", (*self._shape, 3), "uint8", 256)
        functions = {
            "forward": self._forward,
            "logits": self._inference.both_logits,
            "superpixels": self._superpixels,
        }
        function = functions.get(name) or (lambda images: self._stages(images, name))
        return lowering.lower(function, [images], self._named("weight", self._inferred.variables))

    def _forward(self, images):
        return {"labels": self._inference.labels(images)}

    def _superpixels(self, images):
        outputs = self._inference.superpixels(images)
        return {name: outputs[name] for name in (*runtime.MAPS, *runtime.TABLE)}

    def _stages(self, images, last):
        model = self._inferred
        x, _ = model.prepare(images)
        grid = model.superpixel_grid(*x.shape[1:3])
        x = model.backbone(x, training=False)
        if last != "backbone":
            x = model.hypercolumn(x, grid=grid)
        if last in ("tokenizer", "classifier"):
            x = model.tokenizer(x, grid=grid)
        if last == "classifier":
            pixels, superpixels = x
            x = (pixels, superpixels, model.classifier(superpixels))
        tensors = [entry for entry in tf.nest.flatten(x) if tf.is_tensor(entry)]
        return {f"{last}_{number:02d}": tensor for number, tensor in enumerate(tensors)}

    def _lower_train_step(self):
        options = self._config.training
        optimizer = optimizers.create_optimizer(options, self._model)
        loop = train_step.TrainLoop(
            self._model,
            optimizer,
            options,
            derived.label_map(self._config).ignore_label,
            tf.distribute.get_strategy(),
        )

        def step(images, labels):
            loss, norm = loop._replica_step(images, labels)
            return {"gradient_norm": norm, "loss": loss}

        inputs = [
            lowering.SeededInput("images", (*self._shape, 3), "float32", 256),
            lowering.SeededInput("labels", self._shape, "int32", derived.num_classes(self._config)),
        ]
        variables = [
            *self._named("weight", self._model.variables),
            *self._named("optimizer", optimizer.variables),
        ]
        return lowering.lower(step, inputs, variables)

    def _named(self, kind, variables):
        """(kind, name, variable) with a name of its own for every variable of all programs."""
        for variable in variables:
            name = variable.path
            # Folded convolutions have the names of those that they were made from.
            while self._names.setdefault(name, variable) is not variable:
                name += "_folded"
            yield kind, name, variable


def write(config, model, folder, options, about=None) -> None:
    """Writes programs, their weights, and what they must compute on a seeded input.

    `folder` comes to hold PROGRAM.stablehlo (text) of each program, weights.npz, expected.npz and manifest.json, which
    says what each of the others holds. `model` has the weights that it had, afterwards.

    Args:
      config: the validated ExperimentOptions of `model`.
      model: a built SPTransformer.
      folder: where to.
      options: StableHLOOptions.
      about: dict of strings that the manifest repeats (checkpoint, step).

    Raises:
      RuntimeError: if TensorFlow lowers otherwise than is counted on.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    factory = _Programs(config, model, options)
    lowered = {name: factory.lower(name) for name in options.programs}
    with _rounded(lowered, options.weights_dtype):
        weights, entries = _describe(lowered, options.weights_dtype)
        expected = {}
        for name, program in lowered.items():
            entries[name]["expected"] = _expect(program, name, options.check_steps, expected)
    for name, program in lowered.items():
        (folder / entries[name]["file"]).write_text(program.text)
    np.savez(folder / WEIGHTS, **weights)
    np.savez(folder / EXPECTED, **expected)
    size = options.size or derived.input_size(config)
    manifest = {
        "sp_transformer": version.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        # What XLA's bridge was asked to lower for; the text runs on any platform.
        "lowered_for": "CPU",
        "experiment_name": config.experiment_name,
        **(about or {}),
        "batch_size": options.batch_size,
        "height": size[0],
        "width": size[1],
        "compute_dtype": model.compute_dtype,
        "batch_norm_folded": options.fold_batch_norm,
        "weights_dtype": options.weights_dtype,
        "weights_bytes": sum(array.nbytes for array in weights.values()),
        "programs": entries,
    }
    assets.write_json(folder / stablehlo_options.MANIFEST, manifest)


@contextlib.contextmanager
def _rounded(lowered, weights_dtype):
    """Rounds the float weights to the dtype that they are stored as; afterwards every variable is as before."""
    variables = {
        id(variable): variable for program in lowered.values() for variable in program.variables
    }
    before = {key: variable.numpy() for key, variable in variables.items()}
    try:
        if weights_dtype == "bfloat16":
            for key, variable in variables.items():
                if before[key].dtype == np.float32:
                    variable.assign(before[key].astype(ml_dtypes.bfloat16).astype(np.float32))
        yield
    finally:
        for key, variable in variables.items():
            variable.assign(before[key])


def _describe(lowered, weights_dtype):
    """Every value that programs start with, and the manifest's entry of each program.

    Returns:
      {name: array} for weights.npz, and {program: dict}.
    """
    weights, entries = {}, {}
    for name, program in lowered.items():
        arguments = []
        for argument, source in zip(program.arguments, program.sources, strict=True):
            if argument["kind"] == "input":
                arguments.append({**argument, **source.description()})
                continue
            value = np.asarray(source.numpy())
            argument = {**argument, **_statistics(value)}
            # Fresh moments and biases need not travel.
            if "fill" not in argument and "value" not in argument:
                if argument["kind"] == "constant":
                    argument["name"] = f"{name}/{argument['name']}"
                weights[argument["name"]] = _as_stored(value, weights_dtype)
                argument["stored"] = (
                    weights_dtype if value.dtype == np.float32 else argument["dtype"]
                )
            arguments.append(argument)
        entries[name] = {
            "file": f"{name}.stablehlo",
            "arguments": arguments,
            "outputs": program.outputs,
        }
    return weights, entries


def _as_stored(value, weights_dtype):
    if value.dtype == np.float32 and weights_dtype == "bfloat16":
        return value.astype(ml_dtypes.bfloat16).view(np.uint16)
    return value.view(np.uint16) if value.dtype == ml_dtypes.bfloat16 else value


def _statistics(value) -> dict:
    """The values themselves if they are few or one; else what a runner without them needs to draw some like them."""
    if value.size and (value == value.flat[0]).all():
        return {"fill": value.flat[0].item()}
    if value.dtype.kind != "f":
        # Seeds cannot be drawn as weights can.
        return {"value": value.tolist()} if value.size <= _INLINE_VALUES else {}
    value = value.astype(np.float64)
    return {"mean": value.mean(), "std": value.std(), "minimum": value.min()}


def _expect(program, name, check_steps, arrays) -> dict:
    """Runs a program here on its seeded inputs.

    Args:
      program: a LoweredProgram; a train step leaves its variables changed.
      name: its name.
      check_steps: how often a train step is run.
      arrays: dict that the values go to, under "PROGRAM/OUTPUT".

    Returns:
      {output: dict} for the manifest: the key and the stride of the samples, the mean magnitude of the whole output,
      and for a train step the number of steps (each output then has one value a step).
    """
    inputs = [
        tf.constant(source.draw())
        for argument, source in zip(program.arguments, program.sources, strict=True)
        if argument["kind"] == "input"
    ]
    training = name == stablehlo_options.TRAIN_STEP
    if training and not check_steps:
        return {}
    runs = [program.function(*inputs) for _ in range(check_steps if training else 1)]
    descriptions = {}
    for output in runs[0]:
        values = [np.asarray(tf.cast(run[output], _comparable(run[output].dtype))) for run in runs]
        value = np.stack(values) if training else values[0]
        stride = math.ceil(value.size / _SAMPLES)
        key = f"{name}/{output}"
        arrays[key] = value.reshape(-1)[::stride]
        descriptions[output] = {
            "key": key,
            "stride": stride,
            "mean_magnitude": float(np.mean(np.abs(value), dtype=np.float64)),
        }
        if training:
            descriptions[output]["steps"] = check_steps
    return descriptions


def _comparable(dtype):
    """NumPy has no bfloat16 of its own."""
    return tf.float32 if dtype == tf.bfloat16 else dtype
