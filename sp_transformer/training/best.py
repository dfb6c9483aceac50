"""`model_dir/best`: a copy of the checkpoint with the highest mIoU so far, a model_dir of its own to read from.

The copy has a folder of its own, so that training, which deletes old checkpoints, never touches it.
"""

import contextlib
import json
import logging
import os

import tensorflow as tf

from sp_transformer.data import storage
from sp_transformer.training import files

FOLDER = "best"
RECORD_FILE = "best.json"
_CONFIG_FILE = "config.textproto"


def recorded(model_dir):
    """What best/best.json says, a dict with step, miou, split and num_images; None if there is none."""
    text = files.read_text(os.path.join(os.fspath(model_dir), FOLDER, RECORD_FILE))
    try:
        record = None if text is None else json.loads(text)
        return record if record is None or {"step", "miou"} <= record.keys() else None
    except (ValueError, AttributeError):
        return None


def offer(model_dir, prefix, metrics):
    """Keeps a checkpoint if it scored higher than the best so far.

    A kill on the way leaves the former best one, or both.

    Args:
      model_dir: directory of the run.
      prefix: of the checkpoint's files, wherever they are.
      metrics: what the evaluator returned for it.

    Returns:
      Whether it is the best one now.

    Raises:
      tf.errors.NotFoundError: if its files are gone.
      WriteError: if it cannot be copied; the former best one stays.
    """
    record = recorded(model_dir)
    scored = {name: metrics[name] for name in ("split", "num_images")}
    if record is not None:
        if scored == {name: record.get(name) for name in scored}:
            if metrics["miou"] <= record["miou"]:
                return False
        else:
            logging.warning(
                "the best checkpoint so far was scored on %s images of split %s and this one on %s "
                "of %s, which does not compare: step %s takes the place of step %s",
                *(record.get("num_images"), record.get("split")),
                *(scored["num_images"], scored["split"]),
                *(metrics["step"], record["step"]),
            )
    folder = os.path.join(os.fspath(model_dir), FOLDER)
    kept = copy_checkpoint(prefix, folder)
    with contextlib.suppress(tf.errors.NotFoundError):
        # With it the folder serves as a --model_dir.
        files.copy(
            os.path.join(os.fspath(model_dir), _CONFIG_FILE), os.path.join(folder, _CONFIG_FILE)
        )
    record = {"step": metrics["step"], "miou": metrics["miou"], **scored}
    files.write_text(os.path.join(folder, RECORD_FILE), json.dumps(record) + "\n")
    for name in storage.list_folder(folder):
        if name.startswith("ckpt-") and not name.startswith(os.path.basename(kept) + "."):
            files.remove(os.path.join(folder, name))
    return True


def copy_checkpoint(prefix, folder):
    """Copies a checkpoint's files into a folder; the index comes last, so that there is all or none.

    Returns:
      The copy's prefix.

    Raises:
      tf.errors.NotFoundError: if there is no such checkpoint, any more.
      WriteError: if it cannot be written.
    """
    source, base = os.path.split(prefix)
    names = [name for name in storage.list_folder(source) if name.startswith(base + ".data-")]
    if not names:
        raise tf.errors.NotFoundError(None, None, f"{prefix}: no such checkpoint")
    files.make_folder(folder)
    for name in sorted(names):
        _link_or_copy(os.path.join(source, name), os.path.join(folder, name))
    # Not linked: TensorFlow writes an index in place when a step is saved again.
    files.copy(prefix + ".index", os.path.join(folder, base + ".index"))
    return os.path.join(folder, base)


def _link_or_copy(source, target):
    """Copies a file that is never changed in place, without taking room for it where that is possible."""
    if not storage.is_remote(source) and not storage.is_remote(target):
        partial = target + ".link"
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
            os.link(source, partial)
            os.replace(partial, target)
            # Replacing a link to the same file by another does nothing, and leaves both.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
            return
    files.copy(source, target)
