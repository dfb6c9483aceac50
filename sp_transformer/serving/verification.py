"""Compares an export, run in a fresh process by its own runtime, with the checkpoint that it was made from."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf

import sp_transformer
from sp_transformer import environment
from sp_transformer.config import derived
from sp_transformer.evaluation import metrics
from sp_transformer.serving import (
    assets,
    examples,
    sampling,
    stablehlo_options,
    table_verification,
    tolerances,
)
from sp_transformer.serving.runtimes import runtime

_WORKER = "sp_transformer.serving.verification_worker"
# Two processes share a device here: neither TensorFlow nor JAX may take all of its memory.
_SHARED_DEVICE = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
_SMALLEST_PROBABILITY = 1e-30  # Of a float32: what is less may have been rounded to 0.


class VerificationError(RuntimeError):
    """An export that does not compute what its checkpoint does, or that its runtime cannot run."""


def verify(config, inference, folder, options) -> dict:
    """Runs an export beside its checkpoint, prints the verdict and writes verification.json.

    Args:
      config: the ExperimentOptions.
      inference: the Inference of the checkpoint's model, of any size.
      folder: of the export, with its assets.
      options: the ExportOptions.

    Returns:
      What verification.json holds.

    Raises:
      VerificationError: if the export differs by more than its tolerance.
    """
    folder = pathlib.Path(folder)
    reason = _why_not(options)
    if reason:
        report = {"passed": None, "reason": f"not verified: {reason}"}
        assets.write_json(folder / assets.VERIFICATION, report)
        return report
    found, source = examples.verification_examples(
        config, options.image_size, options.verify_images
    )
    images = [example.image[None] for example in found]
    results = run_worker(folder, images)
    expected = [_expected(inference, image) for image in images]
    report = {
        "passed": False,
        "images": len(images),
        "source": source,
        "sizes": sorted({"x".join(map(str, image.shape[1:3])) for image in images}),
        **compare(config, found, expected, results),
        "tolerance": dataclasses.asdict(
            tolerances.tolerance(config, options, bool(tf.config.list_physical_devices("GPU")))
        ),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        **json.loads(str(results["about"])),
        "environment": environment.describe(),
    }
    faults = faults_of(report)
    report["passed"] = not faults
    assets.write_json(folder / assets.VERIFICATION, report)
    if faults:
        raise VerificationError(
            f"the export differs from its checkpoint on {len(images)} images of {source}: {'; '.join(faults)}"
        )
    return report


def _why_not(options):
    """Why an export cannot be verified, or None."""
    if not options.verify_images:
        return "--verify_images=0"
    if options.stablehlo is not None and not options.stablehlo.runs_alone:
        needed = ", ".join(stablehlo_options.ANY_SIZE)
        return f"that needs the programs {needed} for a batch of 1; scripts/run_stablehlo.py checks each program"
    return None


def run_worker(folder, images):
    """Opens and runs an export in a fresh process.

    Args:
      folder: of the export.
      images: list of uint8 [1, Y, X, 3].

    Returns:
      The loaded .npz of verification_worker.

    Raises:
      VerificationError: if the process fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        images_file, results_file = (os.path.join(scratch, name) for name in ("i.npz", "r.npz"))
        np.savez(images_file, **{str(number): image for number, image in enumerate(images)})
        command = [sys.executable, "-m", _WORKER, str(folder), images_file, results_file]
        root = str(pathlib.Path(sp_transformer.__file__).parent.parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {**os.environ, **_SHARED_DEVICE, "PYTHONPATH": os.pathsep.join(paths)}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            last = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise VerificationError(
                f"the exported model does not run (code {done.returncode}):\n{last}"
            )
        with np.load(results_file) as results:
            return {name: results[name] for name in results.files}


def compare(config, found, expected, results) -> dict:
    """Shares of equal pixels, differences and scores.

    Args:
      config: the ExperimentOptions.
      found: the Examples.
      expected: for each of them what the checkpoint gives, as `_expected`.
      results: what the worker returned.

    Returns:
      "equal_labels" (of each image's ways to labels the worst) and "equal_superpixels" (shares of all pixels),
      "max_probability_difference" and "max_logit_difference" (of logits less their log-sum-exp, which all exports
      tell: of log-probabilities),
      "misplaced_probability" (the share that lies on other classes, mean of the pixels), what
      `TableComparison.result` gives, and "miou_checkpoint", "miou_export", "miou_difference", None without any truth.
    """
    label_map = derived.label_map(config)
    scores = [
        metrics.ConfusionMatrix(label_map.num_classes, label_map.ignore_label) for _ in range(2)
    ]
    pixels, equal_labels, equal_superpixels = 0, 0, 0
    difference, logit_difference, misplaced = 0.0, 0.0, []
    tables = table_verification.TableComparison()
    for number, (example, wanted) in enumerate(zip(found, expected, strict=True)):
        result = {name: results[f"{number}/{name}"] for name in (*runtime.MAPS, "probabilities")}
        pixels += wanted["labels"].size
        ways = [result["labels"], results[f"{number}/labels_alone"]]
        if f"{number}/labels_of_files" in results:
            ways.append(results[f"{number}/labels_of_files"])
        equal_labels += min(int(np.sum(labels == wanted["labels"])) for labels in ways)
        equal_superpixels += int(np.sum(result["superpixels"] == wanted["superpixels"]))
        pair = result["probabilities"], wanted["probabilities"]
        difference = max(difference, _largest_difference(*pair))
        misplaced.append(np.mean(np.sum(np.abs(np.subtract(*pair)), -1) / 2))
        table = {name: results[f"{number}/{name}"] for name in runtime.TABLE}
        tables.update(result["superpixels"], table, wanted)
        logits = (np.log(np.maximum(values, _SMALLEST_PROBABILITY)) for values in pair)
        logit_difference = max(logit_difference, _largest_difference(*logits))
        if example.labels is not None:
            for score, labels in zip(scores, (wanted["labels"], result["labels"]), strict=True):
                score.update(example.labels, labels[0])
    known = scores[0].num_pixels > 0
    miou = [float(score.mean_iou()) if known else None for score in scores]
    return {
        "equal_labels": equal_labels / pixels,
        "equal_superpixels": equal_superpixels / pixels,
        "max_probability_difference": difference,
        "max_logit_difference": logit_difference,
        "misplaced_probability": _finite(np.mean(misplaced)),
        **tables.result(),
        "miou_checkpoint": miou[0],
        "miou_export": miou[1],
        "miou_difference": abs(miou[1] - miou[0]) if known else None,
    }


def _largest_difference(found, expected):
    return _finite(np.max(np.abs(found - expected)))


def _finite(difference):
    # NaN is the largest difference there is.
    return float(np.nan_to_num(difference, nan=np.inf))


def verdict(report) -> str:
    """The report in one line."""
    if report["passed"] is None:
        return report["reason"]
    miou = "no truth for mIoU"
    if report["miou_checkpoint"] is not None:
        miou = f"mIoU {report['miou_export']:.4f} and {report['miou_checkpoint']:.4f}"
    runtime = ", ".join(f"{name} {version}" for name, version in report["runtime"].items())
    latency = report["latency"]
    size = "x".join(map(str, latency["image_size"]))
    return (
        f"verified by {runtime} in a process of its own on {report['images']} images of {report['source']}: "
        f"labels equal the checkpoint's at {report['equal_labels']:.4%} of the pixels, superpixels at "
        f"{report['equal_superpixels']:.4%}, probabilities to {report['max_probability_difference']:.1e}, logits to "
        f"{report['max_logit_difference']:.1e}; {miou}; "
        f"{latency['labels']['milliseconds']:.1f} ms for labels of {size}, "
        f"{latency['superpixels']['milliseconds']:.1f} ms with superpixels"
    )


def _expected(inference, image):
    batch = tf.constant(image)
    outputs = inference.superpixels(batch)
    return {
        **{name: value.numpy() for name, value in outputs.items()},
        "probabilities": sampling.sample(inference.probabilities(batch).numpy()),
    }


def faults_of(report) -> list[str]:
    """What of a report, as `verify` writes it, is outside its tolerance, in words."""
    faults = []
    tolerance = report["tolerance"]
    for name, limit in (
        ("equal_labels", tolerance["equal_labels"]),
        ("equal_superpixels", tolerance["equal_superpixels"]),
        ("equal_superpixel_classes", tolerance["equal_superpixels"]),
    ):
        if not report[name] >= limit:
            faults.append(f"{name} {report[name]:.4%} is below {limit:.4%}")
    for name in ("misplaced_probability", "mean_confidence_difference"):
        if not report[name] <= tolerance["probabilities"]:
            faults.append(f"{name} {report[name]:.2g} is above {tolerance['probabilities']}")
    if report["superpixels_off_map"]:
        faults.append(
            f"pixels or centroids of {report['superpixels_off_map']} superpixels are not those of the export's own map"
        )
    difference = report["miou_difference"]
    if difference is not None and not difference <= tolerance["miou"]:
        faults.append(f"mIoU differs by {difference:.5f}, more than {tolerance['miou']}")
    return faults
