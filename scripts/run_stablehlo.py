"""Runs, checks and times what `sp_transformer.export --format stablehlo` wrote. Needs JAX and NumPy, and neither
TensorFlow nor this project.

Example: python scripts/run_stablehlo.py exports/fold exports/gather --programs forward --json times.json

Every program is compiled by JAX's PJRT client for its default device, run on the seeded inputs that the export was
checked on, compared with what TensorFlow computed there, and timed. Seen to work with jax 0.10.2.
"""

import argparse
import datetime
import gc
import hashlib
import json
import os
import pathlib
import platform
import statistics
import sys
import time

import jax
import ml_dtypes
import numpy as np
from jax.extend import backend as jax_backend
from jaxlib import xla_client

TRAIN_STEP = "train_step"
RULES = (
    "Timed: one execution, from the call until every output is computed on the device; inputs and weights are on "
    "the device before, outputs stay there. Compilation is not included.",
    "Interleaved: each round runs every program once, starting with another one each round. The garbage collector is "
    "off.",
    "Given: median and quartiles over the rounds; ratio: of the quotients to the first program in the same round.",
    "A train step continues from its own last weights, on one and the same batch.",
)


class CheckError(Exception):
    """An output that is not what was to be expected."""


class Program:
    """One program on the device, with its arguments.

    Args:
      folder: an export.
      name: of the program.
      random_weights: seed to draw weights like the export's, in place of weights.npz; None to read that.
    """

    def __init__(self, folder, name, random_weights=None):
        self.folder = pathlib.Path(folder)
        self.manifest = read_manifest(folder)
        self.name = name
        self._random = None if random_weights is None else np.random.default_rng(random_weights)
        self._entry = self.manifest["programs"][name]
        text = (self.folder / self._entry["file"]).read_text()
        client = jax_backend.get_backend()
        devices = xla_client.DeviceList(tuple(jax.devices()[:1]))
        start = time.perf_counter()
        self._executable = client.compile_and_load(text, devices, xla_client.CompileOptions())
        self.compile_seconds = time.perf_counter() - start
        self._arguments = self._make_arguments()

    @property
    def memory(self):
        """Bytes that the compiled program needs, as XLA planned them; None where the platform does not say."""
        stats = self._executable.get_compiled_memory_stats()
        if stats is None:
            return None
        parts = ("argument", "output", "alias", "temp")
        return {part: getattr(stats, f"{part}_size_in_bytes") for part in parts}

    def run(self):
        """Executes once; variables that the program changes keep their new values for the next time.

        Returns:
          {name: array on the device} of the results, and all outputs.
        """
        outputs = self._executable.execute(self._arguments)
        results = {}
        for description, output in zip(self._entry["outputs"], outputs, strict=True):
            if description["kind"] == "update":
                # The old value's memory is the new one's: it cannot be used any more.
                self._arguments[description["argument"]] = output
            else:
                results[description["name"]] = output
        return results, outputs

    def check(self, tolerance, loss_tolerance):
        """Runs from the stored weights and compares with what TensorFlow computed.

        Args:
          tolerance: largest difference of float outputs, over their largest magnitude. Of outputs of whole numbers
            (labels) at most this share, and at least one in 1000, may differ.
          loss_tolerance: largest relative difference of what train steps return.

        Returns:
          {output: {"error": float, ...}}; a train step's have its values, one a step.

        Raises:
          CheckError: if an output differs by more.
        """
        expected = self._entry["expected"]
        if self._random is not None or not expected:
            return {}
        stored = np.load(self.folder / "expected.npz")
        steps = next(iter(expected.values())).get("steps", 1)
        runs = [self._fetched() for _ in range(steps)]
        report = {}
        for output, description in expected.items():
            training = "steps" in description
            value = np.stack([run[output] for run in runs]) if training else runs[0][output]
            sample, wanted = value.reshape(-1)[:: description["stride"]], stored[description["key"]]
            limit = loss_tolerance if training else tolerance
            if value.dtype.kind == "f":
                error = np.max(np.abs(sample - wanted)) / max(np.max(np.abs(wanted)), 1e-30)
            else:
                error, limit = np.mean(sample != wanted), max(limit, 1e-3)
            report[output] = {"error": float(error), "limit": limit}
            if training:
                report[output]["values"] = [float(entry) for entry in value]
            # Written so that NaN fails.
            if not error <= limit:
                raise CheckError(
                    f"{self.folder}: output {output!r} of {self.name} is off by {error:.3g}, more than {limit:g}; "
                    "a GPU may multiply float32 in TensorFloat-32 (NVIDIA_TF32_OVERRIDE=0 forbids it), and programs "
                    "of bfloat16 need a --tolerance of some 0.05"
                )
        return report

    def _fetched(self):
        results, _ = self.run()
        # bfloat16, as the export's expected values, is compared as float32.
        return {
            name: np.asarray(array.astype("float32") if array.dtype == "bfloat16" else array)
            for name, array in results.items()
        }

    def _make_arguments(self):
        weights = None
        if self._random is None:
            path = self.folder / "weights.npz"
            if not path.exists():
                raise ValueError(f"{path} is missing; copy it here, or give --random_weights SEED")
            weights = np.load(path)
        return [
            jax.device_put(self._make_argument(argument, weights))
            for argument in self._entry["arguments"]
        ]

    def _make_argument(self, argument, weights):
        shape, dtype = argument["shape"], np.dtype(argument["dtype"])
        if argument["kind"] == "input":
            return draw_input(argument)
        if "fill" in argument:
            return np.full(shape, argument["fill"], dtype)
        if "value" in argument:
            return np.array(argument["value"], dtype).reshape(shape)
        if weights is not None:
            value = weights[argument["name"]]
            if argument["stored"] == "bfloat16":
                value = value.view(ml_dtypes.bfloat16)
            return value.astype(dtype)
        if "mean" not in argument:
            raise ValueError(
                f"argument {argument['name']!r} of {self.name} holds {dtype} values, which cannot be "
                "drawn; copy the export's weights.npz here"
            )
        value = self._random.normal(argument["mean"], argument["std"], shape)
        # Variances, as all that was never negative, stay so.
        return (np.abs(value) if argument["minimum"] >= 0 else value).astype(dtype)


def read_manifest(folder):
    """The manifest of an export.

    Raises:
      ValueError: if `folder` is no export.
    """
    path = pathlib.Path(folder) / "manifest.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"there is no {path}; name a folder that the export wrote") from None


def draw_input(argument):
    """The input that the export was checked on.

    Raises:
      ValueError: if this NumPy draws other numbers than the export's.
    """
    generator = np.random.default_rng(argument["seed"])
    value = generator.integers(argument["low"], argument["high"], argument["shape"], np.int32)
    value = value.astype(argument["dtype"])
    if hashlib.sha256(value.tobytes()).hexdigest() != argument["sha256"]:
        raise ValueError(
            f"NumPy {np.__version__} draws another input {argument['name']!r} than the one that was exported; "
            "use the NumPy of the export"
        )
    return value


def measure(programs, rounds, warmup):
    """Times programs in turns; see RULES.

    Args:
      programs: {name: Program}.
      rounds: how often each is timed.
      warmup: how often each is run before.

    Returns:
      {name: list of seconds, one a round}.
    """
    names = list(programs)
    seconds = {name: [] for name in names}
    for name in names:
        for _ in range(warmup):
            jax.block_until_ready(programs[name].run())
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            first = number % len(names)
            for name in [*names[first:], *names[:first]]:
                start = time.perf_counter()
                jax.block_until_ready(programs[name].run())
                seconds[name].append(time.perf_counter() - start)
    finally:
        gc.enable()
    return seconds


def quartiles(values):
    """First quartile, median, third quartile."""
    if len(values) == 1:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def rows_of(programs, seconds):
    """One dict of numbers for each program."""
    reference = seconds[next(iter(seconds))]
    rows = []
    for name, times in seconds.items():
        program = programs[name]
        ratios = [own / other for own, other in zip(times, reference, strict=True)]
        rows.append(
            {
                "name": name,
                "milliseconds": [1e3 * value for value in quartiles(times)],
                "images_per_second": program.manifest["batch_size"] / statistics.median(times),
                "ratio": quartiles(ratios),
                "memory": program.memory,
                "compile_seconds": program.compile_seconds,
                "seconds": times,
            }
        )
    return rows


def table(rows):
    """The rows as a Markdown table."""
    lines = [
        "| program | ms, median [quartiles] | images/s | ratio to the first | temporary MiB | compiled in s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, middle, high = row["milliseconds"]
        ratio_low, ratio, ratio_high = row["ratio"]
        memory = "" if row["memory"] is None else f"{row['memory']['temp'] / 2**20:.1f}"
        lines.append(
            f"| {row['name']} | {middle:.2f} [{low:.2f}, {high:.2f}] | {row['images_per_second']:.2f} | "
            f"{ratio:.3f} [{ratio_low:.3f}, {ratio_high:.3f}] | {memory} | {row['compile_seconds']:.1f} |"
        )
    return "\n".join(lines)


def environment():
    """Where the numbers come from."""
    kept = ("XLA_", "JAX_", "NVIDIA_TF32", "OMP_NUM_THREADS", "CUDA_VISIBLE")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        "platform": jax_backend.get_backend().platform_version,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "processors": os.cpu_count(),
        "variables": {key: os.environ[key] for key in sorted(os.environ) if key.startswith(kept)},
    }


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("exports", nargs="+", help="Folders that the export wrote.")
    parser.add_argument("--programs", help="Comma-separated; default: all of each export.")
    parser.add_argument("--rounds", type=int, default=10, help="0 checks and does not time.")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="Largest error of an output, relative."
    )
    parser.add_argument(
        "--loss_tolerance", type=float, default=1e-4, help="The same for what train steps return."
    )
    parser.add_argument(
        "--random_weights",
        type=int,
        metavar="SEED",
        help="Draws weights like the export's instead of reading weights.npz; nothing is checked then.",
    )
    parser.add_argument("--json", help="File that all numbers are written to.")
    values = parser.parse_args(arguments)
    if values.rounds < 0 or values.warmup < 0:
        parser.error("--rounds and --warmup must not be negative")
    return values


def load_all(values):
    """{name: Program} of the programs asked for; the folder is part of the name where there are several."""
    programs = {}
    for folder in values.exports:
        available = read_manifest(folder)["programs"]
        wanted = values.programs.split(",") if values.programs else list(available)
        for name in wanted:
            if name not in available:
                raise ValueError(f"{folder} has no program {name!r}; it has {', '.join(available)}")
            title = name if len(values.exports) == 1 else f"{pathlib.Path(folder).name}/{name}"
            if title in programs:
                raise ValueError(f"{title!r} was named twice; give the folders names of their own")
            programs[title] = Program(folder, name, values.random_weights)
    return programs


def main(arguments=None):
    """Runs as the arguments say; returns the exit code."""
    values = parse_arguments(arguments)
    # Otherwise int64 arguments, as the optimizer's step, would become int32.
    jax.config.update("jax_enable_x64", True)
    try:
        programs = load_all(values)
        checks = {}
        for title, program in programs.items():
            checks[title] = program.check(values.tolerance, values.loss_tolerance)
            if not checks[title]:
                print(f"{title}: not checked")
            for output, result in checks[title].items():
                steps = " ".join(f"{entry:.6g}" for entry in result.get("values", ()))
                print(
                    f"{title}: {output} off by {result['error']:.2g}"
                    + (f": {steps}" if steps else "")
                )
    except (ValueError, CheckError) as error:
        print(f"run_stablehlo: {error}", file=sys.stderr)
        return 1 if isinstance(error, CheckError) else 2
    report = {"rules": RULES, "environment": environment(), "checks": checks, "rows": []}
    report["exports"] = {
        str(folder): {k: v for k, v in read_manifest(folder).items() if k != "programs"}
        for folder in values.exports
    }
    if values.rounds:
        seconds = measure(programs, values.rounds, values.warmup)
        report["rows"] = rows_of(programs, seconds)
    if values.json:
        pathlib.Path(values.json).write_text(json.dumps(report, indent=1) + "\n")
    if values.rounds:
        weights = "" if values.random_weights is None else " Weights are random."
        rules = [*RULES, f"{values.warmup} warm-up runs, {values.rounds} rounds.{weights}"]
        print("\n".join([json.dumps(report["environment"]), *rules, "", table(report["rows"])]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
