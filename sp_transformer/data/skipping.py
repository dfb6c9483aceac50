"""What `data.skip_corrupt` does with images and labels that cannot be used: takes another, and keeps a list."""

from __future__ import annotations

import json
import os
import sys
import threading

from sp_transformer.data import storage, transient

# So many faulty images in a row are no torn files but a fault of all of them (an id map, a wrong folder).
MAX_SKIPPED_IN_A_ROW = 100

SKIPPED_FILE = "skipped_files.json"

_LISTED = 10  # Files that a message names before it only counts them.


class SkippedFiles:
    """The files that were skipped, each once, with the reason; threads may add at the same time.

    Args:
      left_out: FileFaults of files that were skipped from the start, `Source.left_out`.
    """

    def __init__(self, left_out=()):
        self._reasons = {fault.file: str(fault) for fault in left_out}
        self._lock = threading.Lock()

    def add(self, name: str, reason: str) -> None:
        """Notes that the image `name` was skipped, with the text of its error."""
        with self._lock:
            self._reasons.setdefault(name, reason)

    def reasons(self) -> dict[str, str]:
        """Returns {name of the image: what was wrong}, by name."""
        with self._lock:
            return dict(sorted(self._reasons.items()))

    def message(self) -> str:
        """Text for the end of a run, or "" if nothing was skipped."""
        reasons = self.reasons()
        if not reasons:
            return ""
        lines = [f"  {reason}" for reason in list(reasons.values())[:_LISTED]]
        if len(reasons) > _LISTED:
            lines.append(f"  and {len(reasons) - _LISTED} more")
        files = "file" if len(reasons) == 1 else "files"
        return "\n".join([f"data.skip_corrupt skipped {len(reasons)} {files}:", *lines])


def report(skipped: SkippedFiles, folder) -> None:
    """Says what was skipped, and writes folder/skipped_files.json: {name: reason}; nothing if nothing was."""
    message = skipped.message()
    if not message:
        return
    print(message, file=sys.stderr, flush=True)
    folder = os.fspath(folder)
    storage.make_folder(folder)
    text = json.dumps(skipped.reasons(), indent=1) + "\n"
    storage.write_file(os.path.join(folder, SKIPPED_FILE), text.encode())


def usable(source, index, read, skipped):
    """Reads example `index`, or the next one in the source's order that can be read.

    Which example that is follows from the files alone, so that the training stream stays a function of its seed.

    Args:
      source: a Source, for the number of images and their names.
      index: from 0 to len(source) - 1.
      read: function of an index.
      skipped: a SkippedFiles to note faulty ones in, or None to raise their errors.

    Returns:
      The index that was read, and what `read` returned for it.

    Raises:
      ValueError: if the example is faulty and `skipped` is None, or all, or MAX_SKIPPED_IN_A_ROW in a row, are.
      OSError: if it may be read on another try.
    """
    if skipped is None:
        return index, read(index)
    count = min(len(source), MAX_SKIPPED_IN_A_ROW)
    for offset in range(count):
        candidate = (index + offset) % len(source)
        try:
            return candidate, read(candidate)
        except ValueError as error:
            if transient.is_transient(error):
                # It is there on another try, and a resumed run would see another stream.
                raise
            skipped.add(source.name(candidate), str(error))
            last = error
    raise ValueError(
        f"{count} images in a row cannot be used, which is no matter of torn files that "
        f"data.skip_corrupt could skip; the last: {last}. Find what is wrong by inspect_data"
    ) from last
