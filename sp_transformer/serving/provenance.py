"""Where an export's weights come from: the run's revision, the exporter's, and the checkpoint's metrics."""

import json
import os

from sp_transformer import environment
from sp_transformer.data import storage
from sp_transformer.evaluation import evaluator
from sp_transformer.training import best, run_directory


def of_exporter() -> dict:
    """ "exporter": versions, revision and machine of this process."""
    described = environment.describe()
    kept = ("date", "git", "versions", "machine", "python")
    return {"exporter": {name: described[name] for name in kept}}


def of_run(checkpoint, step) -> dict:
    """ "run": revision and versions that the training of a checkpoint went on with last; {} where nothing tells."""
    for folder in _run_folders(checkpoint):
        text = _read(storage.join(folder, run_directory.SESSIONS_FILE))
        sessions = [session for session in map(_parsed, (text or "").splitlines()) if session]
        sessions = [entry for entry in sessions if entry.get("first_step", 0) < (step or 1)]
        if sessions:
            kept = ("date", "git", "versions", "sp_transformer")
            return {"run": {name: sessions[-1].get(name) for name in kept}}
    return {}


def metrics(checkpoint, step) -> dict | None:
    """What metrics.json beside a checkpoint says, if it is of that step; else what best.json does."""
    for folder in _run_folders(checkpoint):
        for parts in (("eval", evaluator.METRICS_FILE), (best.RECORD_FILE,)):
            found = _parsed(_read(storage.join(folder, *parts)) or "")
            if found and found.get("step") == step:
                return found
    return None


def _run_folders(checkpoint):
    """The checkpoint's folder, and for MODEL_DIR/best the run's."""
    if checkpoint is None:
        return []
    folder = os.path.dirname(os.fspath(checkpoint))
    if os.path.basename(folder) == best.FOLDER:
        return [folder, os.path.dirname(folder)]
    return [folder]


def _read(path):
    try:
        return storage.read_file(path).decode("utf-8", errors="replace")
    except OSError:
        return None


def _parsed(text):
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
