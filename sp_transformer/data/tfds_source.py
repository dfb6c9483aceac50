"""Data sets that tensorflow_datasets has prepared, read by number at random.

tfds itself reads TFRecords in order only. Here the lengths of all records are looked up once, which needs twelve bytes
of each, and any example is read where it lies.
"""

from __future__ import annotations

import bisect
import os

import numpy as np

from sp_transformer.data import image_io, records, storage
from sp_transformer.data.source import Source
from sp_transformer.data.train_ids import TrainIds, check_sizes


class TfdsSource(Source):
    """One split of a prepared tfds data set, or a part of one: "train[:90%]"."""

    def __init__(self, options, data_dir: str, split: str, label_map):
        """Finds the data set and indexes the split.

        Args:
          options: a TfdsOptions message.
          data_dir: tfds's data_dir, or the folder of one version; empty for tfds's own place.
          split: as tfds takes it.
          label_map: a LabelMap, which says what the ids in its labels become.

        Raises:
          ValueError: if it is not prepared, has no such split or feature, or is in another format than TFRecord.
        """
        builder = create_builder(options, data_dir)
        self._where = str(builder.data_dir)
        if not is_prepared(builder):
            raise ValueError(
                f"tfds has not prepared {options.name} in {self._where}; run python -m sp_transformer.prepare_data "
                "with this config, which lets tfds do so first, or correct --data_dir"
            )
        info = builder.info
        if info.file_format is not None and info.file_format.value != "tfrecord":
            raise ValueError(
                f"{self._where} is in format {info.file_format.value}, which cannot be read at random here; prepare "
                "it as tfrecord"
            )
        self._options = options
        self.has_labels = bool(options.label_key)
        for key in filter(None, (options.image_key, options.label_key)):
            _check_is_image(info.features, key, self._where)
        if options.name_key and options.name_key not in info.features:
            raise ValueError(
                f"data.tfds.name_key {options.name_key!r} is no feature of {self._where}; it has "
                f"{', '.join(info.features)}"
            )
        try:
            parts = info.splits[split].file_instructions
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"split {split!r} is unknown; {self._where} has {', '.join(info.splits)}"
            ) from error
        self._files, self._spans, self._starts = [], [], [0]
        for part in parts:
            file = storage.RandomAccessFile(os.fspath(part.filename))
            spans = _record_spans(file)
            taken = spans[part.skip :][: part.take if part.take >= 0 else None]
            self._files.append(file)
            self._spans.append(taken)
            self._starts.append(self._starts[-1] + len(taken))
        self._split = split
        self._to_train_ids = TrainIds(label_map)

    def __len__(self):
        return self._starts[-1]

    def names_digest(self):
        """Returns a hash of the names, or None where they are parts of the examples."""
        return None if self._options.name_key else super().names_digest()

    def name(self, index):
        """Returns what `name_key` holds, or the split and a number."""
        if self._options.name_key:
            text = self._value(self._example(index), self._options.name_key, index).decode()
            if text:
                return text
        return f"{''.join(c if c.isalnum() else '_' for c in self._split)}/{index:06d}"

    def image_path(self, index) -> str:
        """Returns where an image lies, for people."""
        part = bisect.bisect_right(self._starts, index) - 1
        return f"{self._files[part].path}:{self._options.image_key} {index}"

    def label_path(self, index) -> str | None:
        """Returns where a label lies, for people, or None where there are none."""
        if not self.has_labels:
            return None
        part = bisect.bisect_right(self._starts, index) - 1
        return f"{self._files[part].path}:{self._options.label_key} {index}"

    def image_file(self, index):
        """Returns the bytes of the image as tfds has stored it."""
        return self._value(self._example(index), self._options.image_key, index)

    def read(self, index):
        """Reads one image and its train ids; see `Source.read`.

        Raises:
          ValueError: if the record is unreadable, the sizes differ or an id is neither a class nor ignored; it names
            file and number.
        """
        example = self._example(index)
        image_path = self.image_path(index)
        image = image_io.read_image(
            image_path, self._value(example, self._options.image_key, index)
        )
        if not self.has_labels:
            return image, None
        label_path = self.label_path(index)
        ids = image_io.read_label_ids(
            label_path, self._value(example, self._options.label_key, index)
        )
        check_sizes(image, image_path, ids, label_path)
        return image, self._to_train_ids(ids, label_path)

    def _example(self, index):
        import tensorflow as tf

        part = bisect.bisect_right(self._starts, index) - 1
        start, length = (int(n) for n in self._spans[part][index - self._starts[part]])
        data = self._files[part].read(start, length)
        try:
            return tf.train.Example.FromString(data)
        # protobuf's own error is none of ValueError.
        except Exception as error:
            raise ValueError(
                f"record {index} of {self._files[part].path} is damaged: {error}"
            ) from error

    def _value(self, example, key, index):
        values = example.features.feature[key].bytes_list.value
        if not values:
            raise ValueError(f"record {index} in {self._where} has no {key}")
        return values[0]


def create_builder(options, data_dir: str):
    """Returns the tfds builder of a TfdsOptions message and a data_dir; downloads nothing.

    Raises:
      ValueError: if tfds knows no such data set.
    """
    import tensorflow_datasets as tfds

    try:
        if data_dir and storage.exists(storage.join(data_dir, "dataset_info.json")):
            return tfds.builder_from_directory(data_dir)
        if not options.name:
            raise ValueError(
                f"data.tfds.name is not set, and {data_dir or 'data_dir'} is not the folder of a version (it has no "
                "dataset_info.json); name the data set, for example cityscapes/semantic_segmentation"
            )
        return tfds.builder(options.name, data_dir=data_dir or None, try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"tfds knows no data set {options.name!r}: {first}") from error


def is_prepared(builder) -> bool:
    """Returns whether tfds has the data of a builder."""
    # tfds's own is_prepared wants the folder to be named by a version.
    return storage.exists(storage.join(str(builder.data_dir), "dataset_info.json"))


def split_names(options, data_dir: str) -> list[str]:
    """Returns the splits of a prepared data set."""
    return list(create_builder(options, data_dir).info.splits)


def ensure_prepared(options, data_dir: str) -> None:
    """Lets tfds prepare a data set from the files in `manual_dir`, if it is not prepared yet.

    Raises:
      ValueError: if tfds does not find what it needs there.
    """
    import tensorflow_datasets as tfds

    builder = create_builder(options, data_dir)
    if is_prepared(builder):
        return
    config = tfds.download.DownloadConfig(
        manual_dir=options.manual_dir or None, try_download_gcs=False
    )
    try:
        builder.download_and_prepare(download_config=config)
    except AssertionError as error:
        # What tfds raises where a file that it cannot download is not in manual_dir.
        raise ValueError(f"tfds cannot prepare {options.name}: {error}") from error


def _check_is_image(features, key, where):
    import tensorflow_datasets as tfds

    images = [
        name for name, feature in features.items() if isinstance(feature, tfds.features.Image)
    ]
    if key not in images:
        raise ValueError(
            f"{key!r} is no image feature of {where}; it has {', '.join(sorted(images)) or 'none'} (set "
            "data.tfds.image_key and label_key; an empty label_key serves prediction)"
        )


def _record_spans(file) -> np.ndarray:
    """Returns int64 [n, 2]: first byte and length of the data of each record in a TFRecord file."""
    spans, position = [], 0
    while position < file.size:
        head = file.read(position, records.RECORD_HEADER.size)
        if len(head) < records.RECORD_HEADER.size:
            break
        length, _ = records.RECORD_HEADER.unpack(head)
        start = position + records.RECORD_HEADER.size
        position = start + length + records.RECORD_FOOTER.size
        spans.append((start, length))
    if position != file.size:
        raise ValueError(
            f"{file.path} ends within a record; its copy is incomplete, or it is no TFRecord file"
        )
    return np.array(spans, np.int64).reshape(-1, 2)
