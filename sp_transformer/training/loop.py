"""A training run: from a config to checkpoints in a model_dir, interrupted and resumed at will."""

import dataclasses
import math
import os
import signal
import sys
import threading
import time

import keras
import numpy as np
import tensorflow as tf

from sp_transformer.config import derived
from sp_transformer.data import pipeline, skipping, sources, start_check
from sp_transformer.model import builder, weights
from sp_transformer.training import (
    checkpoints,
    optimizer,
    progress,
    run_directory,
    summaries,
    train_step,
)


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient has become NaN or infinite.

    Attributes:
      step: the step, counted from 1, whose loss it was.
    """

    def __init__(self, step, loss, gradient_norm, checkpoint):
        super().__init__(
            f"step {step} has loss {loss} and gradient norm {gradient_norm}; the run was stopped "
            "without saving. The last good checkpoint is "
            f"{checkpoint or 'none: no step was saved yet'}. Lower training.learning_rate, set "
            "training.gradient_clip_norm, or look for faulty images and labels"
        )
        self.step = step


@dataclasses.dataclass(frozen=True)
class TrainSummary:
    """What a training session did.

    Attributes:
      steps: step that the run is at.
      loss: mean loss since the last log interval's end; NaN if the session took no step.
      seconds: wall-clock time of the session.
      images_per_second: training speed, without saving, evaluation and compilation.
      checkpoint: prefix of the last checkpoint.
    """

    steps: int
    loss: float
    seconds: float
    images_per_second: float
    checkpoint: str


def train(config, model_dir, strategy=None, after_save=None):
    """Trains the model of `config`, from the newest checkpoint in `model_dir` if there is one.

    Args:
      config: a validated ExperimentOptions.
      model_dir: directory of the run.
      strategy: `tf.distribute.Strategy`; default: the current one, outside any scope one device.
      after_save: called as after_save(step, model) after every checkpoint.

    Returns:
      A TrainSummary.

    Raises:
      ValueError: if images or labels are faulty and `data.skip_corrupt` is off; it names the file.
      RunMismatchError: if `model_dir` holds a run with other options.
      CheckpointError: if `model_dir` holds checkpoints and none of them can be read.
      NonFiniteLossError: if the loss becomes NaN or infinite.
      SystemExit: with code 143 on SIGTERM, after saving.
    """
    source = sources.create_source(config.data, config.data.train_split)
    saved = weights.list_checkpoints(model_dir)
    # Before the model is built: a fault of the data should cost seconds.
    start_check.check(config, source, first_step=saved[-1][0] if saved else 0)
    skipped = skipping.SkippedFiles(source.left_out)

    def make_dataset(first_step, input_context=None):
        return pipeline.train_dataset(config, source, first_step, input_context, skipped)

    run = TrainingRun(config, model_dir, builder.build_model, make_dataset, strategy)
    try:
        return run.train(after_save)
    finally:
        skipping.report(skipped, os.path.join(model_dir, "train"))


class TrainingRun:
    """A run with everything it needs built and restored.

    Args:
      config: a validated ExperimentOptions.
      model_dir: directory of the run.
      build_model: function of the config that gives a built model.
      make_dataset: function of (first_step, input_context) that gives the endless batches from
        first_step on.
      strategy: `tf.distribute.Strategy`; default: the current one.
    """

    def __init__(self, config, model_dir, build_model, make_dataset, strategy=None):
        self._config = config
        self._options = config.training
        self._model_dir = os.fspath(model_dir)
        self._make_dataset = make_dataset
        self._strategy = strategy or tf.distribute.get_strategy()
        label_map = derived.label_map(config)
        # The weights, and the seeds of dropout and drop path, are drawn from the global generators.
        keras.utils.set_random_seed(self._options.seed % 2**32)
        with self._strategy.scope():
            self.model = build_model(config)
            self._optimizer = optimizer.create_optimizer(self._options, self.model)
            self._loop = train_step.TrainLoop(
                self.model, self._optimizer, self._options, label_map.ignore_label, self._strategy
            )
        # Sum and number of the losses since the last log interval's end: saved, so that a resumed
        # run logs the same means.
        self._interval_loss = tf.Variable([0.0, 0.0], dtype=tf.float64, trainable=False)
        self._checkpoints = checkpoints.TrainingCheckpoints(
            self._model_dir,
            self.model,
            self._optimizer,
            self._options.checkpoints_to_keep,
            {"interval_loss": self._interval_loss},
        )
        resuming = bool(weights.list_checkpoints(self._model_dir))
        run_directory.prepare(self._model_dir, config, self.model, resuming)
        self.step = self._checkpoints.restore_latest()
        self._checkpoint = weights.checkpoint_prefix(self._model_dir, self.step) if resuming else ""
        log_dir = os.path.join(self._model_dir, "train")
        self._json_log = progress.JsonLog(os.path.join(log_dir, "log.jsonl"), self.step)
        self._summaries = summaries.TrainSummaries(log_dir, self.model, label_map, self.step)
        self._picture_batch = None

    def train(self, after_save=None, stream=None):
        """Takes the steps that are left and returns the TrainSummary; see `train`."""
        options = self._options
        started, stream = time.monotonic(), stream or sys.stdout
        line = progress.ProgressLine(options.steps, self.step, options.batch_size, stream)
        if self.step:
            stream.write(f"resumed at step {self.step} of {options.steps} in {self._model_dir}\n")
        loss = math.nan
        iterator = None
        try:
            with _SigtermFlag() as terminated:
                while self.step < options.steps:
                    if iterator is None:
                        iterator = iter(self._distributed_dataset())
                    loss = self._advance(iterator, line)
                    if self._is_due(options.save_interval_steps) or terminated.is_set():
                        line.close()
                        leaving = terminated.is_set() and self.step < options.steps
                        self._save(None if leaving else after_save)
                    if terminated.is_set() and self.step < options.steps:
                        stream.write(f"terminated; step {self.step} is saved\n")
                        raise SystemExit(128 + signal.SIGTERM)
        finally:
            line.close()
            self._json_log.close()
            self._summaries.close()
        summary = TrainSummary(
            self.step, loss, time.monotonic() - started, line.images_per_second, self._checkpoint
        )
        _print_summary(summary, options.steps, stream)
        return summary

    def _distributed_dataset(self):
        first_step = self.step
        return self._strategy.distribute_datasets_from_function(
            lambda context: self._make_dataset(first_step, context)
        )

    def _advance(self, iterator, line):
        """Runs one loop of steps and reports.

        Returns:
          The mean loss since the last log interval's end.
        """
        options = self._options
        # Loops end at multiples of steps_per_loop, wherever the run was resumed.
        count = min(
            options.steps_per_loop - self.step % options.steps_per_loop, options.steps - self.step
        )
        start = time.monotonic()
        try:
            losses, norms = self._loop(iterator, count)
        except pipeline.SOURCE_ERRORS as error:
            plain = pipeline.plain_error(error)
            if plain is None:
                raise
            raise plain from error
        seconds = time.monotonic() - start
        self._check_finite(losses, norms)
        self.step += count
        line.count(count, seconds)
        total, number = self._interval_loss.numpy()
        # One after the other, so that the sum does not depend on steps_per_loop.
        for value in losses:
            total += float(value)
        number += count
        loss = float(total / number)
        at_interval = self._is_due(options.log_interval_steps)
        rates = self._optimizer.learning_rates(self.step - 1)
        if at_interval:
            total, number = 0.0, 0.0
            values = {
                "loss": loss,
                **rates,
                "gradient_norm": float(norms[-1]),
                "images_per_second": line.images_per_second,
            }
            self._json_log.write({"step": self.step, **values})
            self._summaries.scalars(self.step, values)
        self._interval_loss.assign([total, number])
        line.show(loss, rates, at_interval)
        if options.picture_interval_steps and self._is_due(options.picture_interval_steps):
            self._draw()
        return loss

    def _is_due(self, interval):
        return self.step % interval == 0 or self.step == self._options.steps

    def _check_finite(self, losses, norms):
        finite = np.isfinite(losses) & np.isfinite(norms)
        if not finite.all():
            first = int(np.argmin(finite))
            raise NonFiniteLossError(
                self.step + first + 1, losses[first], norms[first], self._checkpoint
            )

    def _draw(self):
        if self._picture_batch is None:
            # The run's first batch at every interval, so that progress can be seen on it.
            batch = next(iter(self._make_dataset(0).take(1)))
            self._picture_batch = {
                name: values[: summaries.MAX_PICTURES] for name, values in batch.items()
            }
        self._summaries.pictures(self.step, self._picture_batch)

    def _save(self, after_save):
        self._checkpoint = self._checkpoints.save(self.step)
        if after_save is not None:
            after_save(self.step, self.model)


def _print_summary(summary, steps, stream):
    if math.isnan(summary.loss):
        stream.write(
            f"nothing to do: the run is at step {summary.steps} of {steps}; "
            "raise training.steps to go on\n"
        )
        return
    stream.write(
        f"trained to step {summary.steps} in {progress.format_seconds(summary.seconds)}: "
        f"loss {summary.loss:.4f}, {summary.images_per_second:.3g} images/s, "
        f"checkpoint {summary.checkpoint}\n"
    )


class _SigtermFlag:
    """Notes SIGTERM, which preempted machines get, so that the run can save at the end of its loop.

    Signals reach only the main thread; in others the flag stays down.
    """

    def __enter__(self):
        flag = threading.Event()
        self._previous = None
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, lambda *_: flag.set())
        return flag

    def __exit__(self, *_):
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
