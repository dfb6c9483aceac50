"""Takes a real training step of configs at their own size and says what memory it needed.

Example: python scripts/measure_training_memory.py --config_file configs/cityscapes/resnet50.textproto --json mem.json

Each config is measured in a process of its own: one step unmeasured, then one measured, on random images. From the
peak follows the batch that an accelerator holds, by the rule in RULES. docs/memory.md has the numbers.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import sys
import time
from concurrent import futures

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import sp_transformer as spt
from sp_transformer import environment
from sp_transformer.benchmarking import memory, programs, variants
from sp_transformer.config import derived
from sp_transformer.model import summary
from sp_transformer.protos import training_pb2

GIB = 2**30
ACCELERATORS_GIB = (16, 32)
# What allocators, the compiler's workspace and the program itself take.
RESERVED_SHARE = 0.1
# Weight and two moments, and the gradient, in float32.
_STATE_BYTES, _GRADIENT_BYTES = 12, 4
RULES = (
    "Peak: largest resident memory of the whole process (program, TensorFlow, weights, moments, images, the step) "
    "during the second step.",
    "State: 12 bytes a trainable parameter (weight, two moments). Gradients: 4 bytes a trainable parameter, once "
    "whatever the batch.",
    "Per image: peak less what the process held before the step, less the gradients, over the batch.",
    f"Batch of an accelerator: (its memory less {RESERVED_SHARE:.0%}, less state and gradients) / per image, rounded "
    "down. Worked out from a step on a CPU and not tried: XLA and GPUs hold other temporaries.",
)


def measure(path, overrides, batch_size, timeout) -> dict:
    """Measures one config.

    Args:
      path: of the config.
      overrides: textprotos on top of it.
      batch_size: images in the step.
      timeout: seconds that both steps may take, with building and tracing.

    Returns:
      A row of the report; sizes in bytes.

    Raises:
      MemoryMeasurementError: as `memory.peak_memory`.
    """
    config = spt.load_config(path, overrides=overrides)
    config.training.batch_size = batch_size
    config.training.ClearField("batch_size_per_replica")
    variant = variants.Variant(
        name=config.experiment_name,
        config=config,
        mode="training",
        size=derived.input_size(config),
        batch_size=batch_size,
        precision=training_pb2.TrainingOptions.Precision.Name(config.training.precision).lower(),
        jit_compile=config.training.jit_compile,
        implementation="fold",
        inference_form=False,
    )
    # In a process of its own, so that no model lies in memory while a step is measured.
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        described = pool.submit(summary.summarize, config).result()
    start = time.monotonic()
    peak = memory.peak_memory(*programs.memory_case(variant), timeout=timeout)
    parameters = described["parameters"]["sum"]["trainable"]
    per_image = (peak.above_bytes - _GRADIENT_BYTES * parameters) / batch_size
    return {
        "config": "/".join(pathlib.Path(path).parts[-2:]),
        "overrides": list(overrides),
        "size": variants.format_size(variant.size),
        "batch_size": batch_size,
        "precision": variant.precision,
        "device": peak.device,
        "seconds_of_both_steps": round(time.monotonic() - start, 1),
        "trainable_parameters": parameters,
        "peak_bytes": peak.peak_bytes,
        "baseline_bytes": peak.baseline_bytes,
        "per_image_bytes": round(per_image),
        "estimated_bytes": described["training_memory"]["total"],
        "batches": {
            str(gib): largest_batch(gib * GIB, parameters, per_image) for gib in ACCELERATORS_GIB
        },
    }


def largest_batch(accelerator_bytes, parameters, per_image_bytes) -> int:
    """The batch that fits, by the last of RULES; 0 if not even one image does."""
    room = accelerator_bytes * (1 - RESERVED_SHARE)
    room -= (_STATE_BYTES + _GRADIENT_BYTES) * parameters
    return max(0, int(room // per_image_bytes))


def format_row(row) -> str:
    """A row of a Markdown table."""
    cells = [
        row["config"].removesuffix(".textproto"),
        f"{row['batch_size']} x {row['size']}",
        row["precision"],
        *(f"{row[key] / GIB:.2f}" for key in ("peak_bytes", "estimated_bytes", "per_image_bytes")),
        *(str(batch) for batch in row["batches"].values()),
    ]
    return f"| {' | '.join(cells)} |"


HEADER = (
    "| config | images | precision | peak (GiB) | dry run's estimate (GiB) | per image (GiB) | "
    + " | ".join(f"batch in {gib} GiB" for gib in ACCELERATORS_GIB)
    + " |\n|"
    + " --- |" * (6 + len(ACCELERATORS_GIB))
)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config_file", action="append", required=True, help="repeat for more")
    parser.add_argument("--override", action="append", default=[], help="textproto; repeat")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--limit_gib", type=float, help="ends with 1 if a peak is above")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for a config")
    parser.add_argument("--json", help="file for the results; rows are added to those in it")
    flags = parser.parse_args(arguments)
    if flags.batch_size < 1:
        parser.error(f"--batch_size is {flags.batch_size}; it must be at least 1")
    rows = []
    for path in flags.config_file:
        rows.append(measure(path, flags.override, flags.batch_size, flags.timeout))
        print(f"{HEADER}\n{format_row(rows[-1])}" if len(rows) == 1 else format_row(rows[-1]))
        sys.stdout.flush()
        if flags.json:
            _add_row(pathlib.Path(flags.json), rows[-1])
    above = [row for row in rows if flags.limit_gib and row["peak_bytes"] > flags.limit_gib * GIB]
    for row in above:
        print(f"{row['config']}: {row['peak_bytes'] / GIB:.2f} GiB is above {flags.limit_gib} GiB")
    return 1 if above else 0


def _add_row(path, row):
    report = json.loads(path.read_text()) if path.exists() else {"rules": list(RULES), "rows": []}
    # Each with its own environment: large ones are measured one by one, when the machine has room.
    report["rows"].append({**row, "environment": environment.describe()})
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
