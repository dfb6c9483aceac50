"""Evaluating a run that another process, perhaps on another machine, is training."""

import logging
import os
import time

import tensorflow as tf

from sp_transformer.model import weights
from sp_transformer.training import best, files, run_directory

# The checkpoint being evaluated, copied so that training may delete or replace its own meanwhile.
CANDIDATE_FOLDER = "candidate"

# How often a finished run's last checkpoint is tried before it counts as damaged.
_LAST_TRIES = 3


class FollowTimeoutError(Exception):
    """No checkpoint came for too long."""


def follow(
    model_dir,
    model,
    evaluation,
    *,
    poll_seconds,
    timeout_seconds=0.0,
    averaged=False,
    clock=time.monotonic,
    sleep=time.sleep,
):
    """Evaluates the newest checkpoint, again and again, until training is through.

    Checkpoints that come while another is being evaluated are skipped, but for the last of the run.
    The directory need not exist yet.

    Args:
      model_dir: directory of the run.
      model: a built model, which gets the weights.
      evaluation: an `Evaluation` of the directory.
      averaged: whether the moving average of the weights is evaluated.
      poll_seconds: time between two looks.
      timeout_seconds: how long to wait for the next checkpoint; 0: for ever.
      clock: function that gives seconds.
      sleep: function of seconds.

    Raises:
      FollowTimeoutError: if no checkpoint came for timeout_seconds.
      CheckpointError: if a checkpoint belongs to another model, or the last one is damaged.
      RunLockedError: if another process evaluates in the directory.
    """
    evaluation.open()
    candidates = os.path.join(model_dir, "eval", CANDIDATE_FOLDER)
    done = (evaluation.last_step(), None)
    waiting_since, failures = clock(), 0
    while True:
        # Looked up before the checkpoints, as the last one comes before the mark.
        finished = run_directory.finished_step(model_dir)
        newest = _newest(model_dir)
        if newest is not None and not _is_same(newest, done):
            fault = _evaluate(model_dir, newest[0], model, evaluation, averaged, candidates)
            if fault is None:
                done, failures, waiting_since = newest, 0, clock()
                continue
            failures += 1
            logging.warning("step %d cannot be read, or not yet: %s", newest[0], fault)
        elif finished is not None:
            if newest is None:
                raise weights.CheckpointError(
                    f"{os.path.join(model_dir, run_directory.FINISHED_FILE)} says that training is "
                    "through, and there is no checkpoint"
                )
            print(f"training ended at step {finished}, which is evaluated", flush=True)
            return
        if finished is not None and failures >= _LAST_TRIES:
            raise weights.CheckpointError(
                f"training has ended, and its last checkpoint cannot be read: {fault}"
            )
        if timeout_seconds and clock() - waiting_since >= timeout_seconds:
            raise FollowTimeoutError(
                f"no checkpoint came into {model_dir} for {timeout_seconds:g} seconds, and training "
                f"has not ended; the last one evaluated is of step {done[0]}. See whether training "
                "still runs"
            )
        sleep(poll_seconds)


def _newest(model_dir):
    """Step of the newest checkpoint and when it was written, or None."""
    try:
        found = weights.list_checkpoints(model_dir)
        if not found:
            return None
        step, prefix = found[-1]
        return step, tf.io.gfile.stat(prefix + ".index").mtime_nsec
    except tf.errors.NotFoundError:
        # Deleted between two looks.
        return None


def _is_same(found, done):
    """Whether a checkpoint is the one that was evaluated; training may write a step anew."""
    return found == done or (found[0] == done[0] and done[1] is None)


def _evaluate(model_dir, step, model, evaluation, averaged, candidates):
    """Evaluates a checkpoint.

    Returns:
      None, or what was wrong with a checkpoint that is gone, or half written.
    """
    prefix = weights.checkpoint_prefix(model_dir, step)
    try:
        copied = best.copy_checkpoint(prefix, candidates)
        found = weights.restore_model(model, copied, averaged)
    except (tf.errors.NotFoundError, weights.UnreadableCheckpointError) as error:
        return str(error).splitlines()[0]
    try:
        evaluation(found, model, copied)
    finally:
        _remove(candidates)
    return None


def _remove(folder):
    try:
        tf.io.gfile.rmtree(folder)
    except tf.errors.OpError as error:
        logging.warning("%s cannot be removed: %s", folder, files.fault(error))
