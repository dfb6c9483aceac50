"""Writing the small files of a run."""

import os


def write_text(path, text):
    """Writes a file in one piece, so that a kill leaves the old one or the new one."""
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".tmp", path)
