"""A training run: from a config to checkpoints in a model_dir, interrupted and resumed at will."""

import contextlib
import logging
import math
import os
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from sp_transformer import exit_codes
from sp_transformer.config import derived
from sp_transformer.data import pipeline, skipping, sources, start_check
from sp_transformer.model import builder, weights
from sp_transformer.training import (
    averages,
    batch,
    checkpoints,
    distribution,
    files,
    freezing,
    initialization,
    optimizer,
    progress,
    replica_seeds,
    reporting,
    run_directory,
    run_lock,
    supervisor,
    termination,
    train_step,
    train_summary,
    workers,
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


def train(config, model_dir, strategy=None, after_save=None, after_resume=None):
    """Trains the model of `config`, from the newest checkpoint in `model_dir` if there is one.

    Args:
      config: a validated ExperimentOptions.
      model_dir: directory of the run.
      strategy: `tf.distribute.Strategy`; default: the current one, outside any scope one device.
      after_save: called as after_save(step, model) after every checkpoint, by the worker that writes
        it.
      after_resume: called in the same way where a run starts at one of these checkpoints, before its first step, as
        after_save may have been kept from it; not at one that only a SIGTERM has made.

    Returns:
      A TrainSummary.

    Raises:
      ValueError: if the strategy cannot do what the options ask, or if images or labels are faulty
        and `data.skip_corrupt` is off; it names the file.
      RunMismatchError: if `model_dir` holds a run with other options.
      CheckpointError: if `model_dir` holds checkpoints and none of them can be read.
      InitializationError: if a new run cannot start from the weights that it should.
      RunLockedError: if another process trains in `model_dir`.
      WriteError: if `model_dir` cannot be written; what was saved stays.
      NonFiniteLossError: if the loss becomes NaN or infinite.
      SystemExit: with code 143 on SIGTERM, after saving.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    given, config = config, batch.settle(config, replicas)
    distribution.check_strategy(config.training, strategy)
    source = sources.create_source(config.data, config.data.train_split)
    saved = weights.list_checkpoints(model_dir)
    # Before the model is built: a fault of the data, or of the weights' path, should cost seconds.
    if not saved:
        initialization.check(config)
    start_check.check(config, source, first_step=saved[-1][0] if saved else 0)
    skipped = skipping.SkippedFiles(source.left_out)

    def make_dataset(first_step, input_context=None):
        return pipeline.train_dataset(config, source, first_step, input_context, skipped)

    run = TrainingRun(
        config,
        model_dir,
        builder.build_model,
        make_dataset,
        strategy,
        make_examples=lambda: _validation_examples(config),
        data=run_directory.describe_data(config, source),
    )
    try:
        if run.is_chief:
            print(batch.describe(given, config, replicas), flush=True)
        return run.train(after_save, after_resume=after_resume)
    finally:
        if run.is_chief:
            skipping.report(skipped, os.path.join(model_dir, "train"))


def _validation_examples(config):
    """The examples of the evaluation split to draw, or None where it cannot be had."""
    try:
        source = sources.create_source(config.data, config.data.eval_split)
        if len(source) and source.has_labels:
            return reporting.examples_of_source(source, config.evaluation.pictures)
        fault = "it holds no labelled image"
    except (ValueError, OSError) as error:
        fault = str(error)
    logging.warning(
        "TensorBoard shows training images, as split %r cannot be drawn: %s",
        config.data.eval_split,
        fault,
    )
    return None


class TrainingRun:
    """A run with everything it needs built and restored.

    Args:
      config: a validated ExperimentOptions.
      model_dir: directory of the run.
      build_model: function of the config that gives a built model.
      make_dataset: function of (first_step, input_context) that gives the endless batches from
        first_step on.
      strategy: `tf.distribute.Strategy`; default: the current one.
      make_examples: function that gives the examples for pictures, as `Reporter` takes them, or
        None; default: the run's first batch.
      data: what the batches are drawn from, as `run_directory.prepare` checks it; default: not checked.

    Raises:
      RunMismatchError, CheckpointError, InitializationError, RunLockedError, WriteError: as `train`.
      WorkerMismatchError: if the workers of the strategy do not see one model_dir.
    """

    def __init__(
        self,
        config,
        model_dir,
        build_model,
        make_dataset,
        strategy=None,
        make_examples=None,
        data=None,
    ):
        self._config = config
        self._options = config.training
        self._model_dir = os.fspath(model_dir)
        self._make_dataset = make_dataset
        self._make_examples = make_examples
        self._data = data
        self._strategy = strategy or tf.distribute.get_strategy()
        self._averages = None
        self._workers = workers.Workers(self._strategy)
        self.is_chief = self._workers.is_chief
        self._lock = None
        if self.is_chief:
            # Before anything is built for it: a directory that cannot be had should cost seconds.
            files.make_folder(self._model_dir)
            self._lock = run_lock.RunLock(self._model_dir, "trains")
        try:
            self._build(build_model)
            self._open()
        except BaseException:
            self.close()
            raise

    def _build(self, build_model):
        """Builds model, optimizer and step, and what saves them."""
        options = self._options
        # The weights, and the seeds of dropout and drop path, are drawn from the global generators.
        keras.utils.set_random_seed(options.seed % 2**32)
        with self._strategy.scope():
            self.model = build_model(self._config)
            freezing.freeze(self.model, options)
            replica_seeds.differ_between_replicas(self.model)
            self._optimizer = optimizer.create_optimizer(options, self.model)
            if options.ema_decay:
                self._averages = averages.WeightAverages(
                    self.model, options.ema_decay, self._strategy
                )
            ignore_label = derived.label_map(self._config).ignore_label
            self._loop = train_step.TrainLoop(
                self.model, self._optimizer, options, ignore_label, self._strategy, self._averages
            )
        # Sum and number of the losses since the last log interval's end: saved, so that a resumed
        # run logs the same means.
        self._interval_loss = tf.Variable([0.0, 0.0], dtype=tf.float64, trainable=False)
        extra = {"interval_loss": self._interval_loss}
        if self._averages is not None:
            extra[weights.AVERAGES] = self._averages.trackable()
        self._checkpoints = checkpoints.TrainingCheckpoints(
            self._model_dir,
            self.model,
            self._optimizer,
            options.checkpoints_to_keep,
            extra,
            writes=self.is_chief,
        )

    def _open(self):
        """Checks the directory, restores from it and writes down what goes on in it."""
        resuming = bool(weights.list_checkpoints(self._model_dir))
        if not resuming:
            self._initialize()
        run_directory.prepare(
            self._model_dir, self._config, self.model, resuming, self.is_chief, self._data
        )
        self.step = self._checkpoints.restore_latest()
        self._workers.check_same_step(self.step, self._model_dir)
        self._checkpoint = weights.checkpoint_prefix(self._model_dir, self.step) if resuming else ""
        self._reporter = None
        if self.is_chief:
            replicas = self._strategy.num_replicas_in_sync
            run_directory.record_session(self._model_dir, self.step, replicas, self._workers.count)
            if self.step < self._options.steps:
                run_directory.mark_finished(self._model_dir, None)
            self._reporter = reporting.Reporter(
                self._model_dir, self.model, self._config, self.step, self._examples
            )

    def _initialize(self):
        """Loads the weights that a new run starts from; a resumed one has its own."""
        if not initialization.is_wanted(self._config):
            return
        with self._strategy.scope():
            report = initialization.initialize(self._config, self.model)
        if self._averages is not None:
            self._averages.start()
        if self.is_chief:
            sys.stdout.write(report.text())
            path = os.path.join(self._model_dir, initialization.REPORT_FILE)
            files.write_text(path, report.text(listed=None))

    def close(self):
        """Gives the model_dir free for others; `train` does so at its end."""
        if self._lock is not None:
            self._lock.release()

    def train(self, after_save=None, stream=None, after_resume=None):
        """Takes the steps that are left and returns the TrainSummary; see `train`."""
        options = self._options
        started, stream = time.monotonic(), stream or sys.stdout
        if not self.is_chief:
            stream = progress.Silence()
        line = progress.ProgressLine(options.steps, self.step, options.batch_size, stream)
        if self.step:
            stream.write(f"resumed at step {self.step} of {options.steps} in {self._model_dir}\n")
        loss = math.nan
        iterator = None
        try:
            with termination.Termination() as terminated:
                if self.step and self._is_due(options.save_interval_steps):
                    self._call(after_resume, terminated)
                while self.step < options.steps:
                    if iterator is None:
                        iterator = iter(self._distributed_dataset())
                    loss = self._advance(iterator, line)
                    # One worker may be told alone; all of them save the same step.
                    leaving = self._workers.any(terminated.requested)
                    if self._is_due(options.save_interval_steps) or leaving:
                        line.close()
                        self._save()
                        # Asked again: one that came during the save must not cost another loop and save.
                        leaving = self._workers.any(terminated.requested)
                        leaving = leaving and self.step < options.steps
                        if not leaving:
                            self._call(after_save, terminated)
                    if leaving:
                        raise SystemExit(exit_codes.TERMINATED)
            if self.is_chief:
                self._lock.check()
                run_directory.mark_finished(self._model_dir, self.step)
        except SystemExit:
            stream.write(f"terminated; step {self.step} is saved\n")
            raise
        finally:
            line.close()
            if self._reporter is not None:
                self._reporter.close()
                self._reporter = None
            self.close()
        summary = train_summary.TrainSummary(
            self.step,
            loss,
            time.monotonic() - started,
            line.images_per_second,
            self._checkpoint,
        )
        stream.write(train_summary.describe(summary, options.steps))
        return summary

    def _call(self, function, terminated):
        """Calls after_save or after_resume, if there is one; SIGTERM ends it."""
        if function is not None and self.is_chief:
            with terminated.at_once(), self._evaluated_weights():
                function(self.step, self.model)

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
        with pipeline.plain_errors():
            losses, norms = self._loop(iterator, count)
        seconds = time.monotonic() - start
        self._check_finite(losses, norms)
        self.step += count
        line.count(count, seconds)
        if self._reporter is not None:
            self._reporter.count(count, seconds)
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
            if self._reporter is not None:
                self._reporter.report(
                    self.step, {"loss": loss, **rates, "gradient_norm": float(norms[-1])}
                )
        self._interval_loss.assign([total, number])
        line.show(loss, rates, at_interval)
        draws = self._reporter is not None and options.picture_interval_steps
        if draws and self._is_due(options.picture_interval_steps):
            with self._evaluated_weights():
                self._reporter.draw(self.step)
        return loss

    def _evaluated_weights(self):
        """A context in which the model has the weights that are to be evaluated and drawn."""
        if self._config.evaluation.averaged_weights:
            return self._averages.in_place()
        return contextlib.nullcontext()

    def _is_due(self, interval):
        return self.step % interval == 0 or self.step == self._options.steps

    def _check_finite(self, losses, norms):
        finite = np.isfinite(losses) & np.isfinite(norms)
        if not finite.all():
            first = int(np.argmin(finite))
            raise NonFiniteLossError(
                self.step + first + 1, losses[first], norms[first], self._checkpoint
            )

    def _examples(self):
        """The examples to draw: those given, or else the first ones that the run trained on."""
        examples = self._make_examples() if self._make_examples is not None else None
        if examples is None:
            first = next(iter(self._make_dataset(0).take(1)))
            examples = reporting.examples_of_batch(first, self._config.evaluation.pictures)
        return examples

    def _save(self):
        if self._lock is not None:
            self._lock.check()
        self._checkpoint = self._checkpoints.save(self.step)
        supervisor.report_progress(self.step)
