"""The faults that a file of a data set can have: one error for all, so that each can be told from the others."""

from __future__ import annotations

# Kind of a fault -> what it is called in a report. The kinds are also what report.json holds.
KINDS = {
    "image_without_label": "image without a label",
    "label_without_image": "label without an image",
    "unreadable_image": "unreadable or truncated image",
    "unreadable_label": "unreadable or truncated label",
    "color_label": "label of colours where ids are expected",
    "lossy_label": "label in a lossy format",
    "size_mismatch": "image and label of different sizes",
    "unknown_ids": "label ids outside the class table",
}


# What is said of the files without a partner.
_UNPAIRED = {
    "image_without_label": "image {} has no label",
    "label_without_image": "label {} has no image",
}


class FileFault(ValueError):
    """A file that can be neither trained on nor evaluated.

    Attributes:
      kind: one of KINDS.
      file: path of the faulty file.
    """

    def __init__(self, kind: str, file, text: str):
        super().__init__(text)
        self.kind = kind
        self.file = str(file)

    def __reduce__(self):
        # By default an exception is rebuilt from its text alone, and a process that receives one cannot.
        return type(self), (self.kind, self.file, str(self))


def unpaired(kind: str, file: str) -> FileFault:
    """The fault of a file without a partner; kind is image_without_label or label_without_image."""
    return FileFault(kind, file, _UNPAIRED[kind].format(file))
