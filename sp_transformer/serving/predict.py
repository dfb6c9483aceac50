"""Runs a model of any format on images, videos and cameras and writes what it sees.

Of the formats' runtimes, only that of the model at hand is imported.
"""

import dataclasses
import itertools
import os
import pathlib
import time
from collections.abc import Sequence

import numpy as np
from absl import logging

from sp_transformer import version
from sp_transformer.data import image_io
from sp_transformer.serving import (
    ahead,
    assets,
    ground_truth,
    interruption,
    memory,
    model_pictures,
    outputs,
    runtimes,
)
from sp_transformer.serving import inputs as inputs_lib
from sp_transformer.serving import prediction as prediction_lib
from sp_transformer.serving import progress as progress_lib

# Images and pictures that wait, in front of the model and behind it, hold this many pixels at most (at about 20 bytes).
_PIXELS_AHEAD = 32e6
_READERS = 2
_WRITERS = 2
_ITEMS_AHEAD = 8


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """What is written, and of which images.

    Attributes:
      outputs: names of outputs.NAMES; None for outputs.DEFAULT, and outputs.OF_TRUTH too if there is ground truth.
      resize: whether images of another size than the model takes are resized; else they are skipped.
      max_megapixels: larger images are skipped; None for the limit that follows from the memory that is free.
      max_frames: of each video and camera; None for all of them.
      pixel: (y, x) whose association is drawn in each image, which takes a training run's model; None for none.
      superpixel: id of the superpixel whose pixels and attention are drawn; likewise.
      ground_truth: label of the only image, or folder of labels, to be drawn beside predictions; None for none.
    """

    outputs: Sequence[str] | None = None
    resize: bool = False
    max_megapixels: float | None = None
    max_frames: int | None = None
    pixel: tuple[int, int] | None = None
    superpixel: int | None = None
    ground_truth: str | os.PathLike | None = None


@dataclasses.dataclass
class PredictSummary:
    """What came of a run.

    Attributes:
      predicted: the images that were predicted.
      videos: the videos and cameras that were predicted to their end.
      failed: (input, reason) of those that were skipped, wholly or from some frame on.
      without_truth: (input, reason) of those that were predicted, but not drawn beside their ground truth.
      frames: number of frames of videos and cameras that were predicted.
      seconds: wall time from the first image to the last, loading the model left out.
      exit_code: 0; 1 if something failed or was left without its ground truth; 128 and the signal's number after a
        signal.
    """

    predicted: list[pathlib.Path] = dataclasses.field(default_factory=list)
    failed: list[tuple[pathlib.Path, str]] = dataclasses.field(default_factory=list)
    without_truth: list[tuple[pathlib.Path, str]] = dataclasses.field(default_factory=list)
    videos: list[pathlib.Path] = dataclasses.field(default_factory=list)
    frames: int = 0
    seconds: float = 0.0
    exit_code: int = 0


def predict(
    model, inputs: str | Sequence[str], output_dir, options: PredictOptions | None = None
) -> PredictSummary:
    """Predicts images and videos and writes, for each of them, label maps, pictures and a table of superpixels.

    NAME_labels.png holds train ids (8-bit; 16-bit for more than 255 classes), NAME_overlay.png the image blended with
    the colours of its classes, NAME_superpixels.png the image with the outlines of the superpixels, and
    NAME_superpixels.json what is known of each of them; docs/predict.md describes them, further ones, and those of
    videos. NAME is the input's name without its ending, or with it where two of a folder differ only there. Folders
    below the input folder (or below the wildcard-free part of a glob) are kept below `output_dir`, so equal names in
    them do not collide.

    Reading, the model and writing overlap. Every file is complete or not there. After Ctrl-C or SIGTERM the image at
    hand is finished, and videos end with the frame at hand.

    Args:
      model: an export of any format, a training run's model_dir or a checkpoint; or a Runtime, which is opened already.
      inputs: an image, a video, a folder (searched with its subfolders), a glob ("**" for any depth), a camera
        ("camera:0"), or several of these.
      output_dir: made if missing.
      options: the PredictOptions.

    Returns:
      The summary; inputs that cannot be read are listed there and skipped.

    Raises:
      ValueError: if the model or the inputs are missing or unfit, an output would overwrite an
        input or another output, or nothing at all could be predicted.
      OSError: if an output cannot be written.
    """
    options = options or PredictOptions()
    output_dir = pathlib.Path(output_dir)
    truth_path = options.ground_truth
    names = outputs.chosen(options.outputs, truth_path is not None)
    options = dataclasses.replace(options, outputs=names)
    inputs = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    written = (*names, *model_pictures.drawn(options.pixel, options.superpixel))
    sources, empty = inputs_lib.plan(inputs, output_dir, written, truth_path)
    label_files = None
    if truth_path:
        label_files = ground_truth.find(truth_path, sources, output_dir, written)
    if any(source.kind != inputs_lib.IMAGE for source in sources):
        # Found missing before the model is loaded.
        from sp_transformer.serving import video

        video.require_av()
    runtime = model if isinstance(model, runtimes.Runtime) else runtimes.open_model(model)
    _check_version(runtime)
    truth = None
    if label_files is not None:
        truth = ground_truth.GroundTruth(label_files, runtime.label_map, runtime.label_map_file)
    draw = _model_pictures(runtime, options, sources)
    summary = PredictSummary(failed=[(pathlib.Path(entry), reason) for entry, reason in empty])
    start = time.monotonic()
    with interruption.Interruption() as interrupted:
        limit = _size_limit(model, runtime, options)
        run = _Run(runtime, limit, options, summary, interrupted, draw, truth)
        run.images([source for source in sources if source.kind == inputs_lib.IMAGE])
        for source in sources:
            if source.kind != inputs_lib.IMAGE and interrupted.signal is None:
                run.video(source)
    summary.seconds = time.monotonic() - start
    summary.exit_code = interrupted.exit_code or int(bool(summary.failed or summary.without_truth))
    if not summary.predicted and not summary.frames and interrupted.signal is None:
        listing = "\n".join(f"  {path}: {reason}" for path, reason in summary.failed)
        raise ValueError(f"none of the {len(summary.failed)} inputs could be predicted:\n{listing}")
    for name, legend in outputs.legends(runtime.label_map, names, truth is not None).items():
        image_io.write_png(output_dir / name, legend)
    _print_summary(summary, output_dir)
    return summary


class _Run:
    """Predicts sources with one model and keeps the summary."""

    def __init__(self, runtime, limit, options, summary, interrupted, draw, truth):
        self._runtime = runtime
        self._limit = limit
        self._options = options
        self._summary = summary
        self._interrupted = interrupted
        self._draw = draw
        self._truth = truth

    def images(self, sources):
        """Predicts images."""
        if not sources:
            return
        with (
            progress_lib.Progress("predict", len(sources)) as progress,
            ahead.Ahead(_READERS, _ITEMS_AHEAD, _PIXELS_AHEAD) as reading,
            ahead.Ahead(_WRITERS, _ITEMS_AHEAD, _PIXELS_AHEAD) as writing,
        ):

            def written(path):
                self._summary.predicted.append(path)
                progress.count()

            for item in self._read(sources, reading):
                prediction, reason = None, item.fault
                if not reason:
                    prediction, reason = self._predict(item.image, item.truth)
                path = item.source.path
                if reason:
                    self._list(self._summary.failed, path, reason, progress)
                    continue
                if item.truth_fault:
                    self._list(self._summary.without_truth, path, item.truth_fault, progress)
                cost = item.image.shape[0] * item.image.shape[1]
                while not writing.has_room(cost):
                    written(writing.take())
                writing.submit(self._write, item.source, prediction, cost=cost)
                for path in writing.take_done():
                    written(path)
            while len(writing):
                written(writing.take())

    def _read(self, sources, reading):
        """Yields _Items, in order."""
        for source in sources:
            if self._interrupted.signal is not None:
                return
            try:
                height, width = image_io.read_size(source.path)
                self._limit.check(height, width)
            except (ValueError, OSError) as error:
                while len(reading):
                    yield reading.take()
                yield _Item(source, fault=str(error))
                continue
            while not reading.has_room(height * width):
                yield reading.take()
            reading.submit(_read_image, source, self._truth, cost=height * width)
        while len(reading) and self._interrupted.signal is None:
            yield reading.take()

    def _predict(self, image, truth):
        """A Prediction and None, or None and why there is none."""
        try:
            prediction = prediction_lib.predict_image(self._runtime, image, self._options.resize)
            if self._draw:
                prediction = dataclasses.replace(prediction, pictures=self._draw(prediction))
            return dataclasses.replace(prediction, truth=truth), None
        # Every runtime has errors of its own, and one image must not lose the others.
        except Exception as error:
            logging.debug("Traceback:", exc_info=True)
            return None, (str(error) or type(error).__name__).splitlines()[0]

    def _write(self, source, prediction):
        outputs.write(
            source.target,
            prediction,
            self._runtime.label_map,
            self._options.outputs,
            source.path.name,
        )
        return source.path

    def _list(self, entries, path, reason, progress):
        what = "skipped" if entries is self._summary.failed else "no ground truth for"
        progress.note(f"{what} {path}: {reason}")
        entries.append((path, reason))

    def video(self, source):
        """Predicts the frames of a video or a camera."""
        from sp_transformer.serving import video, video_outputs

        try:
            reader = video.VideoReader(source.path, source.kind == inputs_lib.CAMERA)
        except ValueError as error:
            self._summary.failed.append((source.path, str(error)))
            return
        with reader:
            try:
                self._limit.check(*reader.size)
            except ValueError as error:
                self._summary.failed.append((source.path, str(error)))
                return
            labels = self._truth.of_video(source) if self._truth else None
            names = outputs.drawable(self._options.outputs, labels is not None)
            with video_outputs.VideoOutputs(
                source, reader, self._runtime.label_map, names
            ) as writer:
                fault = self._frames(reader, writer, source, labels)
        if self._truth and writer.num_frames:
            truth_fault = labels.fault() if labels else "it has no label"
            if truth_fault:
                self._summary.without_truth.append((source.path, truth_fault))
        fault = fault or reader.fault
        self._summary.frames += writer.num_frames
        if fault:
            reason = f"{fault}; {writer.num_frames} frames were predicted"
            self._summary.failed.append((source.path, reason))
        else:
            self._summary.videos.append(source.path)

    def _frames(self, reader, writer, source, labels):
        """Predicts frame by frame, with their FrameLabels or None; returns why that ended early, or None."""
        fault = None
        limit = self._options.max_frames
        total = min(filter(None, (reader.num_frames, limit)), default=None)
        pixels = reader.size[0] * reader.size[1]
        frames = _with_truth(itertools.islice(reader, limit), labels)
        # One thread each: frames are decoded and encoded one after another.
        with (
            progress_lib.Progress(source.path.name, total, "frames") as progress,
            ahead.Ahead(1, _ITEMS_AHEAD, _PIXELS_AHEAD) as reading,
            ahead.Ahead(1, _ITEMS_AHEAD, _PIXELS_AHEAD) as writing,
        ):
            while self._interrupted.signal is None:
                while reading.has_room(pixels):
                    reading.submit(next, frames, (None, None), cost=pixels)
                frame, truth = reading.take()
                if frame is None:
                    break
                prediction = None
                if frame.image is not None:
                    prediction, fault = self._predict(frame.image, truth)
                    if fault:
                        break
                while not writing.has_room(pixels):
                    writing.take()
                writing.submit(writer.write, frame, prediction, cost=pixels)
                if prediction is not None:
                    progress.count()
            while len(writing):
                writing.take()
        if self._interrupted.signal is not None and source.kind == inputs_lib.VIDEO:
            fault = "interrupted"
        return fault


@dataclasses.dataclass(frozen=True)
class _Item:
    """An image as it was read: why that failed, else its pixels; and its train ids, else why there are none."""

    source: inputs_lib.Source
    image: np.ndarray | None = None
    fault: str | None = None
    truth: np.ndarray | None = None
    truth_fault: str | None = None


def _read_image(source, ground_truth):
    try:
        image = image_io.read_image(source.path)
    except (ValueError, OSError) as error:
        return _Item(source, fault=str(error))
    truth, truth_fault = None, None
    if ground_truth:
        try:
            truth = ground_truth.of_image(source, image)
        except (ValueError, OSError) as error:
            truth_fault = str(error)
    return _Item(source, image, truth=truth, truth_fault=truth_fault)


def _with_truth(frames, labels):
    """Yields each frame with its train ids, None where there are no labels or no picture."""
    for frame in frames:
        yield frame, labels.next(frame.image) if labels and frame.image is not None else None


def _size_limit(model, runtime, options):
    if options.max_megapixels is not None:
        return memory.SizeLimit(max_megapixels=options.max_megapixels)
    if isinstance(model, runtimes.Runtime):
        config = getattr(model, "config", None)
        return memory.SizeLimit(config, memory.available_bytes(), model_size=model.image_size)
    folder = pathlib.Path(model)
    folder = folder if folder.is_dir() else folder.parent
    candidates = (folder / assets.FOLDER / assets.CONFIG, folder / assets.CONFIG)
    config = next((memory.read_config(path) for path in candidates if path.exists()), None)
    return memory.SizeLimit(config, memory.available_bytes(), model_size=runtime.image_size)


def _model_pictures(runtime, options, sources):
    """What draws association and attention; None if nobody asked for them."""
    if options.pixel is None and options.superpixel is None:
        return None
    if any(source.kind != inputs_lib.IMAGE for source in sources):
        raise ValueError("association and attention are drawn of images, not of videos or cameras")
    return model_pictures.ModelPictures(runtime, options.pixel, options.superpixel)


def _check_version(runtime):
    written_by = runtime.about.get("sp_transformer")
    if written_by != version.__version__:
        logging.warning(
            "the model was exported by version %s of sp_transformer, and this is %s; if it misbehaves, export it anew",
            written_by,
            version.__version__,
        )


def _print_summary(summary, output_dir):
    counts = [f"{len(summary.predicted)} images"]
    if summary.frames:
        counts.append(f"{summary.frames} frames")
    rate = (len(summary.predicted) + summary.frames) / summary.seconds
    skipped = f"{len(summary.failed)} skipped"
    interrupted = ", interrupted" if summary.exit_code > 1 else ""
    print(
        f"{' and '.join(counts)} predicted into {output_dir}, {rate:.2f} images/s, {skipped}{interrupted}"
    )
    for path, reason in summary.failed:
        print(f"  skipped {path}: {reason}")
    for path, reason in summary.without_truth:
        print(f"  no ground truth for {path}: {reason}")
