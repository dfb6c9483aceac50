"""Scores a model on the evaluation split: numbers into metrics.json, a table, pictures.

Shapes: Y, X are the height and width of one image in pixels; K classes.
"""

import json
import os
import time

import tensorflow as tf

from sp_transformer.config import derived
from sp_transformer.data import drawing, skipping, sources, storage
from sp_transformer.evaluation import (
    curves,
    failure_analysis,
    passes,
    predictors,
    scores,
    superpixel_scores,
)
from sp_transformer.evaluation.report import page, pictures
from sp_transformer.model import inference as inference_lib
from sp_transformer.pictures import panels

METRICS_FILE = "metrics.json"
PER_IMAGE_FILE = "per_image.json"
SUPERPIXELS_FILE = "superpixels.json"
REPORT_FILE = "report.html"
CURVES_FILE = "superpixels.svg"
_PICTURE_SIDE = 512  # Of a panel for TensorBoard, in pixels.


def evaluate(
    config,
    model,
    output_dir,
    step=None,
    summary_writer=None,
    *,
    checkpoint=None,
    inference=None,
    strategy=None,
    predictor=None,
) -> dict:
    """Scores `model` on the images of `config.data.eval_split`, each once, at their own size.

    Args:
      config: a validated ExperimentOptions.
      model: a built SPTransformer with the weights to be scored; None with a predictor.
      output_dir: folder for metrics.json; made if missing. An older metrics.json is replaced.
      step: training step of the weights, written down with the numbers; None if unknown.
      summary_writer: a tf.summary writer for scalars and `config.evaluation.pictures` pictures;
        None for none.
      checkpoint: name of the checkpoint, written down with the numbers.
      inference: an Inference of `model`, for callers that evaluate one model often and would trace
        it each time.
      strategy: the tf.distribute.Strategy that the model was built under: each of its replicas
        predicts batches of its own. Default: the current one. Of several processes the one that
        calls evaluates alone.
      predictor: a StoredPredictions, whose predictions are scored in place of a model's.

    Returns:
      What metrics.json holds: the scores of the first mode (scores.SegmentationScores.results),
      its name as mode, and modes {name: scores} of all; num_images, seconds and images_per_second
      (the whole evaluation, tracing included), step, checkpoint, averaged_weights (whether the
      moving average of the weights was asked for), experiment_name, split, and
      skipped_files {name: reason} where `data.skip_corrupt` left files out.

      Beside it, per_image.json lists name, num_pixels (counted ones), miou and pixel_accuracy of
      every image, in the first mode; superpixels.json (superpixel_scores.SuperpixelScores.results)
      and its curves as superpixels.svg, and report.html are written if they are asked for.

    Raises:
      ValueError: if the split is empty or without labels, every pixel is ignored, or (naming the
        image) an image and its label differ in size or a label is neither a class nor ignored.
      OSError: if `output_dir` cannot be written, before anything is evaluated.
    """
    output_dir = os.fspath(output_dir)
    options = config.evaluation
    label_map = derived.label_map(config)
    source = _labelled_source(config)
    storage.check_writable(output_dir)
    if predictor is None:
        inference = inference or inference_lib.Inference(model, config.data)
        wanted = options.superpixels.enabled or options.report.enabled
        predictor = predictors.ModelPredictor(inference, config, strategy, superpixels=wanted)
    superpixels = None
    if options.superpixels.enabled:
        superpixels = superpixel_scores.SuperpixelScores(label_map, options.superpixels)
    by_mode = {mode: scores.SegmentationScores(label_map, options) for mode in predictor.modes}
    first_mode = predictor.modes[0]
    expected = min(len(source), options.max_images or len(source))
    # Where only counts leave the device there is nothing to draw.
    drawn = set(drawing.evenly_spaced(expected, 0 if predictor.counts else options.pictures))
    report_pictures = None
    if options.report.enabled:
        report_pictures = pictures.ReportPictures(label_map, expected, options.report)
    per_image = []
    start = time.monotonic()
    skipped = skipping.SkippedFiles(source.left_out)
    for example in passes.predicted_examples(
        config, source, predictor, skipped, max_images=options.max_images
    ):
        try:
            of_image = {}
            for mode, total in by_mode.items():
                add = total.add_counts if predictor.counts else total.update
                of_image[mode] = add(example.label, example.predictions[mode])
        except ValueError as error:
            raise ValueError(
                f"image {example.name!r} of split {config.data.eval_split!r}: {error}"
            ) from error
        outlined = {pictures.SUPERPIXELS: example.superpixels}
        if superpixels is not None:
            outlined[pictures.SLIC] = superpixels.update(
                example.name, example.image, example.label, example.superpixels
            )
        if summary_writer is not None and len(per_image) in drawn:
            with summary_writer.as_default(step=step or 0):
                _write_picture(inference, example, first_mode, label_map)
        if report_pictures is not None:
            report_pictures.add(
                example.name,
                example.image,
                example.label,
                example.predictions[first_mode],
                outlined,
                of_image[first_mode],
            )
        per_image.append(_image_scores(example.name, of_image[first_mode]))
    seconds = time.monotonic() - start
    if skipped.message():
        print(skipped.message(), flush=True)
    _check_counted(per_image, config, label_map)
    results_of = {mode: total.results() for mode, total in by_mode.items()}
    results = {
        **results_of[first_mode],
        "mode": first_mode,
        "modes": results_of,
        "num_images": len(per_image),
        "seconds": seconds,
        "images_per_second": len(per_image) / seconds,
        "step": None if step is None else int(step),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "averaged_weights": options.averaged_weights,
        "experiment_name": config.experiment_name,
        "split": config.data.eval_split,
    }
    if skipped.reasons():
        results["skipped_files"] = skipped.reasons()
    measured = None if superpixels is None else superpixels.results()
    # Before the files: should the disk be full by now, the scores have been seen.
    _print_tables(results, measured, label_map)
    write_json(storage.join(output_dir, PER_IMAGE_FILE), per_image)
    if measured is not None:
        write_json(storage.join(output_dir, SUPERPIXELS_FILE), measured)
        picture = curves.superpixel_curves(measured["curves"])
        storage.write_file(storage.join(output_dir, CURVES_FILE), picture.encode())
    write_json(storage.join(output_dir, METRICS_FILE), results)
    if report_pictures is not None:
        report = page.Evaluation(config, label_map, results, per_image, measured, report_pictures)
        storage.write_file(storage.join(output_dir, REPORT_FILE), page.render(report).encode())
    if summary_writer is not None:
        _write_scalars(summary_writer, results, step or 0)
    return results


def write_json(path, contents) -> None:
    """Writes JSON so that a reader finds the old file or the new one, never half of it."""
    path = os.fspath(path)
    text = json.dumps(contents, indent=1, allow_nan=False) + "\n"
    storage.make_folder(os.path.dirname(path) or ".")
    storage.write_file(path, text.encode())


def _labelled_source(config):
    """The source of the evaluation split.

    Raises:
      ValueError: if it is empty or without labels.
    """
    split = config.data.eval_split
    source = sources.create_source(config.data, split)
    if len(source) == 0:
        raise ValueError(f"split {split!r} holds no image; nothing can be evaluated")
    if not source.has_labels:
        raise ValueError(
            f"split {split!r} has no labels, so there is no truth to compare with; "
            "give the split's `labels` in data.folder, or name another eval_split"
        )
    return source


def _image_scores(name, confusion) -> dict:
    return {
        "name": name,
        "num_pixels": confusion.num_pixels,
        "miou": confusion.mean_iou(),
        "pixel_accuracy": confusion.pixel_accuracy(),
    }


def _check_counted(per_image, config, label_map) -> None:
    """Raises ValueError if no image, or no pixel, was scored."""
    split = config.data.eval_split
    if not per_image:
        raise ValueError(f"no image of split {split!r} can be used; nothing was evaluated")
    if not any(image["num_pixels"] for image in per_image):
        raise ValueError(
            f"every pixel of the {len(per_image)} images of split {split!r} is ignored "
            f"(label {label_map.ignore_label}); there is nothing to score. The published test "
            "splits of many data sets hold no truth; take the validation split"
        )


def _print_tables(results, measured, label_map) -> None:
    for mode, of_mode in results["modes"].items():
        if len(results["modes"]) > 1:
            print(f"\n{mode}")
        print(scores.format_table(label_map.names, of_mode, results["num_images"]))
        if "failure_analysis" in of_mode:
            print("\n" + failure_analysis.format_results(of_mode["failure_analysis"]))
    if measured is not None:
        print("\n" + superpixel_scores.format_table(measured))
    print(end="", flush=True)


def _write_scalars(summary_writer, results: dict, step: int) -> None:
    with summary_writer.as_default(step=step):
        for name in (
            "miou",
            "pixel_accuracy",
            "mean_accuracy",
            "frequency_weighted_iou",
            "images_per_second",
        ):
            tf.summary.scalar(f"eval/{name}", results[name])
        if "boundary_iou" in results:
            tf.summary.scalar("eval/boundary_iou", results["boundary_iou"]["mean"])
        for name, iou in results["per_class_iou"].items():
            if iou is not None:
                tf.summary.scalar(f"iou/{name}", iou)
    summary_writer.flush()


def _write_picture(inference, example: passes.Example, mode, label_map) -> None:
    """Image, truth, prediction and superpixels in one picture; a summary an image: sizes differ."""
    superpixels = example.superpixels
    if superpixels is None:
        _, ids = inference.labels_and_superpixels(tf.constant(example.image[None]))
        superpixels = ids[0].numpy()
    picture = panels.segmentation_panel(
        example.image,
        example.predictions[mode],
        superpixels,
        label_map,
        example.label,
        max_side=_PICTURE_SIDE,
    )
    tf.summary.image(f"pictures/{example.name}", picture[None])
