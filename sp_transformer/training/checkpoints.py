"""The whole state of a run on disk: `model_dir/ckpt-STEP`, the newest few of them."""

import glob
import os
import shutil

import tensorflow as tf

from sp_transformer.model import weights
from sp_transformer.training import files


class TrainingCheckpoints:
    """Saves and restores weights, optimizer, random-number states and step.

    The data pipeline has no state to save: its examples are a function of the step.

    Args:
      model_dir: directory of the run.
      model: a built model.
      optimizer: a built optimizer.
      keep: how many checkpoints stay on disk.
      extra: dict of further variables to save, by name.
    """

    def __init__(self, model_dir, model, optimizer, keep, extra):
        self._model_dir = model_dir
        self._model = model
        self._keep = keep
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._checkpoint = tf.train.Checkpoint(
            model=weights.model_weights(model),
            optimizer=optimizer,
            step=self._step,
            # Dropout's and drop path's generators, without which a resumed run draws other masks.
            rng=[v for v in model.variables if "seed_generator" in v.path],
            **extra,
        )
        self._manager = None

    def restore_latest(self):
        """Restores the newest readable checkpoint and clears the way for the next saves.

        Returns:
          The step it was saved at; 0 where there is none.

        Raises:
          CheckpointError: if none is readable, or one belongs to another model.
        """
        restored = weights.restore_latest(self._model_dir, self._restore)
        self._start_manager(restored)
        return int(self._step.numpy())

    def save(self, step):
        """Saves the state as ckpt-`step` and returns its prefix."""
        self._step.assign(step)
        return self._manager.save(checkpoint_number=step)

    def _restore(self, prefix):
        weights.check_fits(self._model, prefix)
        try:
            self._checkpoint.restore(prefix).assert_existing_objects_matched()
        except AssertionError as error:
            raise weights.CheckpointError(
                f"checkpoint {prefix} lacks a part of the training state, so that the run cannot "
                f"go on from it; use another model_dir: {error}"
            ) from error

    def _start_manager(self, restored):
        """Makes the manager know the checkpoints up to `restored`, whatever `checkpoint` holds."""
        known = [prefix for _, prefix in weights.list_checkpoints(self._model_dir)]
        known = known[: known.index(restored) + 1] if restored else []
        state_file = os.path.join(self._model_dir, "checkpoint")
        if known:
            names = [os.path.basename(prefix) for prefix in known]
            # A text-format tensorflow.CheckpointState; the newest one is also named at the top.
            lines = [f'model_checkpoint_path: "{names[-1]}"']
            lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
            # Without its time the manager forgets a checkpoint, and never deletes it.
            times = [os.path.getmtime(prefix + ".index") for prefix in known]
            lines += [f"all_model_checkpoint_timestamps: {time}" for time in times]
            files.write_text(state_file, "\n".join(lines) + "\n")
        elif os.path.exists(state_file):
            os.remove(state_file)
        for leftover in glob.glob(os.path.join(glob.escape(self._model_dir), "ckpt-*_temp")):
            # What a killed save had written so far; nothing refers to it.
            shutil.rmtree(leftover, ignore_errors=True)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, self._model_dir, max_to_keep=self._keep, checkpoint_name="ckpt"
        )
