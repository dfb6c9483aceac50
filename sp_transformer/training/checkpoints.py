"""The whole state of a run on disk: `model_dir/ckpt-STEP`, the newest few of them."""

import contextlib
import logging
import os
import tempfile

import tensorflow as tf

from sp_transformer.data import storage
from sp_transformer.model import weights
from sp_transformer.training import files

UNREADABLE = "unreadable-"


class TrainingCheckpoints:
    """Saves and restores weights, optimizer, random-number states and step.

    The data pipeline has no state to save: its examples are a function of the step.

    Args:
      model_dir: directory of the run.
      model: a built model.
      optimizer: a built optimizer.
      keep: how many checkpoints stay on disk.
      extra: dict of further variables to save, by name.
      writes: whether this process is the one that writes into model_dir. Another worker saves too, as
        saving may need all of them, but into a scratch directory of its own.
    """

    def __init__(self, model_dir, model, optimizer, keep, extra, writes=True):
        self._model_dir = os.fspath(model_dir)
        self._model = model
        self._keep = keep if writes else 1
        self._scratch = None if writes else tempfile.TemporaryDirectory(prefix="sp_transformer-")
        self._save_dir = self._model_dir if writes else self._scratch.name
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
        if self._scratch is None:
            self._tidy(restored)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, self._save_dir, max_to_keep=self._keep, checkpoint_name="ckpt"
        )
        return int(self._step.numpy())

    def save(self, step):
        """Saves the state as ckpt-`step`.

        Returns:
          The checkpoint's prefix in model_dir.

        Raises:
          WriteError: if there is no room or no right for it; checkpoints from before stay.
        """
        self._step.assign(step)
        prefix = weights.checkpoint_prefix(self._save_dir, step)
        try:
            with files.writing(prefix):
                self._manager.save(checkpoint_number=step)
        except files.WriteError as error:
            self._remove_partial(prefix)
            saved = weights.list_checkpoints(self._save_dir)
            raise files.WriteError(
                f"step {step} could not be saved: {error}. The last checkpoint is "
                f"{saved[-1][1] if saved else 'none: no step was saved yet'}; the same command goes "
                "on from there"
            ) from error
        return weights.checkpoint_prefix(self._model_dir, step)

    def _restore(self, prefix):
        weights.check_fits(self._model, prefix)
        try:
            self._checkpoint.restore(prefix).assert_existing_objects_matched()
        except AssertionError as error:
            raise weights.CheckpointError(
                f"checkpoint {prefix} lacks a part of the training state, so that the run cannot "
                f"go on from it; use another model_dir: {error}"
            ) from error

    def _tidy(self, restored):
        """Makes the manager know the checkpoints up to `restored`, whatever `checkpoint` holds."""
        known = [prefix for _, prefix in weights.list_checkpoints(self._model_dir)]
        count = known.index(restored) + 1 if restored else 0
        known, torn = known[:count], known[count:]
        for prefix in torn:
            # Out of the way of everyone who looks for the newest one.
            self._rename_unreadable(prefix)
        state_file = os.path.join(self._model_dir, "checkpoint")
        if known:
            names = [os.path.basename(prefix) for prefix in known]
            # A text-format tensorflow.CheckpointState; the newest one is also named at the top.
            lines = [f'model_checkpoint_path: "{names[-1]}"']
            lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
            # Without its time the manager forgets a checkpoint, and never deletes it.
            times = [tf.io.gfile.stat(prefix + ".index").mtime_nsec / 1e9 for prefix in known]
            lines += [f"all_model_checkpoint_timestamps: {time}" for time in times]
            files.write_text(state_file, "\n".join(lines) + "\n")
        else:
            files.remove(state_file)
        for name in storage.list_folder(self._model_dir):
            if name.startswith("ckpt-") and name.endswith("_temp"):
                # What a killed save had written so far; nothing refers to it.
                self._remove_folder(os.path.join(self._model_dir, name))

    def _rename_unreadable(self, prefix):
        folder, base = os.path.split(prefix)
        # The index first: without it the rest is no checkpoint.
        names = [name for name in storage.list_folder(folder) if name.startswith(base + ".")]
        for name in sorted(names, key=lambda name: not name.endswith(".index")):
            with files.writing(prefix):
                tf.io.gfile.rename(
                    os.path.join(folder, name), os.path.join(folder, UNREADABLE + name), True
                )
        logging.warning("%s cannot be read; its files are now %s%s.*", prefix, UNREADABLE, base)

    def _remove_partial(self, prefix):
        """Frees the room that a failed save takes, but for a checkpoint that is complete."""
        self._remove_folder(prefix + "_temp")
        try:
            weights.read(prefix)
        except weights.TORN_ERRORS as error:
            with contextlib.suppress(OSError, tf.errors.OpError):
                if weights.is_torn(prefix, error):
                    self._remove_files(prefix)

    def _remove_files(self, prefix):
        folder, base = os.path.split(prefix)
        for name in storage.list_folder(folder):
            if name.startswith(base + "."):
                with contextlib.suppress(OSError, tf.errors.OpError):
                    tf.io.gfile.remove(os.path.join(folder, name))

    def _remove_folder(self, folder):
        with contextlib.suppress(OSError, tf.errors.OpError):
            tf.io.gfile.rmtree(folder)
