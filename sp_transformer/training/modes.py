"""The modes of the training program: train, evaluate, both in turns, or evaluate what another process trains."""

import json
import os

import tensorflow as tf

from sp_transformer.evaluation import evaluator
from sp_transformer.model import builder, inference, weights
from sp_transformer.training import best, files, following, loop, run_lock, summaries

EVAL_FOLDER = "eval"


def run(mode, config, model_dir, timeout_seconds=0.0, strategy=None):
    """Runs `mode`: "train", "eval", "train_and_eval" or "continuous_eval".

    Args:
      mode: what to do.
      config: a validated ExperimentOptions.
      model_dir: directory of the run; evaluation writes to model_dir/eval, and all modes that train
        or follow training keep the best checkpoint in model_dir/best.
      timeout_seconds: how long continuous_eval waits for a checkpoint; 0: for ever.
      strategy: `tf.distribute.Strategy` to train and evaluate under; default: the current one.

    Raises:
      FollowTimeoutError: if continuous_eval has waited for so long.
      ValueError, OSError: as `loop.train`, `evaluator.evaluate` and `weights.restore_model`.
    """
    model_dir = os.fspath(model_dir)
    if mode == "train":
        loop.train(config, model_dir, strategy)
        return
    if mode not in ("eval", "train_and_eval", "continuous_eval"):
        raise ValueError(
            f"unknown mode {mode!r}; use train, eval, train_and_eval or continuous_eval"
        )
    strategy = strategy or tf.distribute.get_strategy()
    with Evaluation(config, model_dir, mode != "eval", strategy) as evaluation:
        if mode == "eval":
            _evaluate_newest(config, model_dir, evaluation, strategy)
        elif mode == "train_and_eval":
            loop.train(config, model_dir, strategy, evaluation, evaluation.make_up)
        else:
            with strategy.scope():
                model = builder.build_model(config)
            following.follow(
                model_dir,
                model,
                evaluation,
                averaged=config.evaluation.averaged_weights,
                poll_seconds=config.evaluation.poll_interval_seconds,
                timeout_seconds=timeout_seconds,
            )


def _evaluate_newest(config, model_dir, evaluation, strategy):
    with strategy.scope():
        model = builder.build_model(config)
        step = weights.restore_model(model, model_dir, config.evaluation.averaged_weights)
    evaluation(step, model)


class Evaluation:
    """Evaluates a model as it is after `step`, into model_dir/eval: an `after_save` of the loop.

    Args:
      config: a validated ExperimentOptions.
      model_dir: directory of the run.
      keep_best: whether a checkpoint that scores higher than all before is copied to
        model_dir/best.
      strategy: `tf.distribute.Strategy` that the models were built under; default: the current one.
    """

    def __init__(self, config, model_dir, keep_best=True, strategy=None):
        self._strategy = strategy
        self._config = config
        self._model_dir = model_dir
        self._keep_best = keep_best
        self._output_dir = os.path.join(model_dir, EVAL_FOLDER)
        self._lock = None
        self._writer = None
        self._inference = None
        self._written_step = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._writer is not None:
            self._writer.close()
        if self._lock is not None:
            self._lock.release()

    def last_step(self):
        """Step of the last evaluation that was written down, or None."""
        text = files.read_text(os.path.join(self._output_dir, evaluator.METRICS_FILE))
        try:
            return None if text is None else json.loads(text)["step"]
        except (ValueError, KeyError, TypeError):
            return None

    def make_up(self, step, model):
        """Evaluates unless that was done: a kill may come between a save and its evaluation, or during it."""
        if self.last_step() != step:
            self(step, model)

    def open(self):
        """Takes the folder model_dir/eval for this process, if it has not yet.

        Raises:
          RunLockedError: if another process evaluates there.
          WriteError: if it cannot be written.
        """
        if self._lock is None:
            files.make_folder(self._output_dir)
            self._lock = run_lock.RunLock(self._output_dir, "evaluates")

    def __call__(self, step, model, prefix=None):
        """Evaluates.

        Args:
          step: step of the weights.
          model: the model with the weights.
          prefix: checkpoint to keep if it is the best; default: that of `step` in model_dir.

        Returns:
          What the evaluator returns.
        """
        self.open()
        if self._inference is None or self._inference.model is not model:
            self._inference = inference.Inference(model, self._config.data)
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._output_dir)
        if self._written_step is None or step <= self._written_step:
            # Scored before: by an earlier process, or before training fell back to an older save.
            summaries.forget_from(self._writer, step)
        self._written_step = step
        checkpoint = weights.checkpoint_prefix(self._model_dir, step)
        metrics = evaluator.evaluate(
            self._config,
            model,
            self._output_dir,
            step=step,
            summary_writer=self._writer,
            checkpoint=checkpoint,
            inference=self._inference,
            strategy=self._strategy,
        )
        self._writer.flush()
        is_best = self._keep_best and best.offer(self._model_dir, prefix or checkpoint, metrics)
        print(
            f"evaluated step {step}: mIoU {metrics['miou']:.4f} on {metrics['num_images']} images"
            f"{', the best so far' if is_best else ''}, "
            f"see {os.path.join(self._output_dir, evaluator.METRICS_FILE)}",
            flush=True,
        )
        return metrics
