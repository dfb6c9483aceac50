"""From the ids in label files to train ids, as a label map says.

Shapes: Y, X are the height and width of one image in pixels.
"""

from __future__ import annotations

import numpy as np

from sp_transformer.config.label_map import MAX_FILE_ID
from sp_transformer.data.faults import FileFault


class TrainIds:
    """Maps the ids of label files; a table look-up, made once for a label map."""

    def __init__(self, label_map):
        """Makes the table of a LabelMap."""
        self._label_map = label_map
        self._train_ids, self._is_valid = _lookup_tables(label_map)

    def __call__(self, ids: np.ndarray, path: str) -> np.ndarray:
        """Maps ids.

        Args:
          ids: int32 [Y, X], as a file holds them.
          path: of the file, for errors.

        Returns:
          Train ids, uint8 or (where the label map does not fit into it) int32 [Y, X].

        Raises:
          FileFault: if an id is neither a class nor ignored; it names file and id.
        """
        in_table = np.clip(ids, 0, MAX_FILE_ID)
        is_valid = self._is_valid[in_table] & (in_table == ids)
        if not is_valid.all():
            bad = np.unique(ids[~is_valid])
            listed = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
            raise FileFault(
                "unknown_ids",
                path,
                f"label {path} holds id{'s' if len(bad) > 1 else ''} {listed}, which after id_map "
                f"is neither one of the {len(self._label_map.names)} classes "
                f"(0..{len(self._label_map.names) - 1}) nor ignore_label "
                f"{self._label_map.ignore_label}; list it in label_map.id_map or set "
                "ignore_unlisted_ids together with an id_map",
            )
        return self._train_ids[in_table]


def check_sizes(image, image_path, ids, label_path) -> None:
    """Raises a FileFault if an image [Y, X, 3] and the ids of its label are not of one size."""
    if ids.shape != image.shape[:2]:
        turned = ids.shape == image.shape[1::-1]
        guess = (
            "; perhaps the label was drawn on the image as stored, not as shown" if turned else ""
        )
        raise FileFault(
            "size_mismatch",
            label_path,
            f"label {label_path} is {ids.shape[0]}x{ids.shape[1]} pixels (height x width) but its "
            f"image {image_path} is {image.shape[0]}x{image.shape[1]} (EXIF orientation applied); "
            f"both must have one size{guess}",
        )


def _lookup_tables(label_map):
    """Returns, for every id in a file, its train id and whether that is a class or ignored."""
    table = np.arange(MAX_FILE_ID + 1, dtype=np.int32)
    if label_map.id_map and label_map.ignore_unlisted_ids:
        table[:] = label_map.ignore_label
    for file_id, train_id in label_map.id_map.items():
        table[file_id] = train_id
    is_valid = ((table >= 0) & (table < len(label_map.names))) | (table == label_map.ignore_label)
    if 0 <= label_map.ignore_label <= 255 and len(label_map.names) <= 256:
        table = np.where(is_valid, table, 0).astype(np.uint8)
    return table, is_valid
