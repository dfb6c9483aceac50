"""Scores a model on the evaluation split: numbers into metrics.json, a table, pictures.

Shapes: b images of one batch; Y, X an image's own height and width; K classes.
"""

import json
import os
import time

import tensorflow as tf
from absl import logging

from sp_transformer.config import derived
from sp_transformer.data import drawing, pipeline, skipping, sources, storage
from sp_transformer.evaluation import metrics
from sp_transformer.model import inference as inference_lib

METRICS_FILE = "metrics.json"
_SECONDS_BETWEEN_PROGRESS_LINES = 10.0


def evaluate(
    config,
    model,
    output_dir,
    step=None,
    summary_writer=None,
    *,
    checkpoint=None,
    inference=None,
) -> dict:
    """Scores `model` on the images of `config.data.eval_split`, each once, at their own size.

    Args:
      config: a validated ExperimentOptions.
      model: a built SPTransformer with the weights to be scored.
      output_dir: folder for metrics.json; made if missing. An older metrics.json is replaced.
      step: training step of the weights, written down with the numbers; None if unknown.
      summary_writer: a tf.summary writer for scalars and `config.evaluation.pictures` pictures;
        None for none.
      checkpoint: name of the checkpoint, written down with the numbers.
      inference: an Inference of `model`, for callers that evaluate one model often and would trace
        it each time.

    Returns:
      What metrics.json holds: miou, pixel_accuracy, mean_accuracy (fractions from 0 to 1),
      per_class_iou {name: fraction, or None for a class that occurs neither in the truth nor in the
      predictions}, confusion_matrix (rows: truth, columns: prediction; pixels), num_images,
      num_pixels (counted ones), seconds and images_per_second (the whole evaluation, tracing
      included), step, checkpoint, experiment_name, split, and skipped_files {name: reason} where
      `data.skip_corrupt` left files out.

    Raises:
      ValueError: if the split is empty or without labels, every pixel is ignored, or (naming the
        image) an image and its label differ in size or a label is neither a class nor ignored.
    """
    output_dir = os.fspath(output_dir)
    label_map = derived.label_map(config)
    split = config.data.eval_split
    source = sources.create_source(config.data, split)
    if len(source) == 0:
        raise ValueError(f"split {split!r} holds no image; nothing can be evaluated")
    if not source.has_labels:
        raise ValueError(
            f"split {split!r} has no labels, so there is no truth to compare with; "
            "give the split's `labels` in data.folder, or name another eval_split"
        )
    options = config.evaluation
    inference = inference or inference_lib.Inference(model, config.data)
    confusion = metrics.ConfusionMatrix(len(label_map.names), label_map.ignore_label)
    expected = min(len(source), options.max_images or len(source))
    drawn = set(drawing.evenly_spaced(expected, options.pictures))
    num_images = 0
    start = last_line = time.monotonic()
    skipped = skipping.SkippedFiles(source.left_out)
    dataset = pipeline.eval_dataset(
        config, source, options.batch_size, options.max_images, skipped=skipped
    )
    for batch in pipeline.with_plain_errors(dataset):
        names = [source.name(int(index)) for index in batch["index"].numpy()]
        labels = batch["label"].numpy()
        predictions = inference.labels(batch["image"]).numpy()
        for name, label, prediction in zip(names, labels, predictions, strict=True):
            try:
                confusion.update(label, prediction)
            except ValueError as error:
                raise ValueError(f"image {name!r} of split {split!r}: {error}") from error
        chosen = [i for i in range(len(names)) if num_images + i in drawn]
        if summary_writer is not None and chosen:
            with summary_writer.as_default(step=step or 0):
                _write_pictures(inference, batch, names, chosen, label_map)
        num_images += len(names)
        now = time.monotonic()
        if now - last_line >= _SECONDS_BETWEEN_PROGRESS_LINES:
            last_line = now
            logging.info(
                "evaluated %d of %d images, %.2f images/s",
                num_images,
                expected,
                num_images / (now - start),
            )
    seconds = time.monotonic() - start
    if skipped.message():
        print(skipped.message(), flush=True)
    if num_images == 0:
        raise ValueError(f"no image of split {split!r} can be used; nothing was evaluated")
    if confusion.num_pixels == 0:
        raise ValueError(
            f"every pixel of the {num_images} images of split {split!r} is ignored "
            f"(label {label_map.ignore_label}); there is nothing to score. The published test "
            "splits of many data sets hold no truth; take the validation split"
        )
    results = {
        "miou": confusion.mean_iou(),
        "pixel_accuracy": confusion.pixel_accuracy(),
        "mean_accuracy": confusion.mean_accuracy(),
        "per_class_iou": dict(zip(label_map.names, confusion.per_class_iou(), strict=True)),
        "num_images": num_images,
        "num_pixels": confusion.num_pixels,
        "seconds": seconds,
        "images_per_second": num_images / seconds,
        "step": None if step is None else int(step),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "experiment_name": config.experiment_name,
        "split": split,
        "confusion_matrix": confusion.counts.tolist(),
    }
    if skipped.reasons():
        results["skipped_files"] = skipped.reasons()
    write_json(storage.join(output_dir, METRICS_FILE), results)
    print(format_table(label_map.names, confusion, num_images), flush=True)
    if summary_writer is not None:
        _write_scalars(summary_writer, results, step or 0)
    return results


def format_table(names, confusion: metrics.ConfusionMatrix, num_images: int) -> str:
    """A table for people: class, IoU in percent, share of the counted pixels; below it, means."""
    width = max(len("pixel accuracy"), *(len(name) for name in names))
    rows = [f"{'class':<{width}}  {'IoU %':>6}  {'pixels %':>8}"]
    for name, iou, share in zip(
        names, confusion.per_class_iou(), confusion.class_shares(), strict=True
    ):
        rows.append(f"{name:<{width}}  {_percent(iou):>6}  {_percent(share):>8}")
    rows.append("-" * len(rows[0]))
    for name, value in (
        ("mIoU", confusion.mean_iou()),
        ("pixel accuracy", confusion.pixel_accuracy()),
        ("mean accuracy", confusion.mean_accuracy()),
    ):
        rows.append(f"{name:<{width}}  {_percent(value):>6}")
    rows.append(f"{num_images} images, {confusion.num_pixels} pixels counted")
    return "\n".join(rows)


def write_json(path, contents: dict) -> None:
    """Writes JSON so that a reader finds the old file or the new one, never half of it."""
    path = os.fspath(path)
    text = json.dumps(contents, indent=1, allow_nan=False) + "\n"
    storage.make_folder(os.path.dirname(path) or ".")
    storage.write_file(path, text.encode())


def _percent(value) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _write_scalars(summary_writer, results: dict, step: int) -> None:
    with summary_writer.as_default(step=step):
        for name in ("miou", "pixel_accuracy", "mean_accuracy", "images_per_second"):
            tf.summary.scalar(f"eval/{name}", results[name])
        for name, iou in results["per_class_iou"].items():
            if iou is not None:
                tf.summary.scalar(f"iou/{name}", iou)
    summary_writer.flush()


def _write_pictures(inference, batch: dict, names: list[str], chosen: list[int], label_map) -> None:
    """Image, truth, prediction and superpixels in one picture; a summary an image: sizes differ."""
    images = tf.gather(batch["image"], chosen)
    labels = tf.gather(batch["label"], chosen).numpy()
    predictions, superpixels = inference.labels_and_superpixels(images)
    for place, number in enumerate(chosen):
        picture = drawing.example_picture(
            images[place].numpy(),
            labels[place],
            predictions[place].numpy(),
            superpixels[place].numpy(),
            label_map,
        )
        tf.summary.image(f"pictures/{names[number]}", picture[None])
