"""What is written of a video: label maps, pictures and tables of its frames, each a file."""

import contextlib
import json
import os

from absl import logging

from sp_transformer.serving import outputs, video


class VideoOutputs:
    """The files that a video leads to. A context that finishes them, or removes them if it ends with an error or there
    is no frame.

    Args:
      source: the Source.
      reader: its VideoReader.
      label_map: the model's LabelMap.
      names: of outputs.

    Attributes:
      num_frames: how many have been written.
    """

    def __init__(self, source, reader, label_map, names):
        self._reader = reader
        self._label_map = label_map
        self._about = {"file": source.path.name}
        self._writers = {}
        self._table = None
        self.num_frames = 0
        paths = outputs.paths(source.target, names, is_video=True)
        # A packet of sound can be written once.
        with_sound = next((name for name in paths if name in outputs.PICTURES), None)
        with contextlib.ExitStack() as opened:
            for name, path in paths.items():
                if name == outputs.TABLE:
                    file = self._table = _Lines(path)
                else:
                    file = video.VideoWriter(path, reader, name == with_sound)
                    self._writers[name] = file
                opened.callback(file.abort)
            self._removal = opened.pop_all()
        lost = [writer.lost_sound for writer in self._writers.values() if writer.lost_sound]
        if lost:
            logging.warning(
                "%s: MP4 takes no sound of kind %s, so it is left out", source.path, lost[0]
            )

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        # What has been closed has its own name and is not removed.
        with self._removal:
            if kind is None and self.num_frames:
                for file in (*self._writers.values(), *([self._table] if self._table else [])):
                    file.close()

    def write(self, frame, prediction):
        """Adds a Frame and its sound; `prediction` is None where there is only sound."""
        if prediction is not None:
            self._write_frame(frame, prediction)
        for writer in self._writers.values():
            writer.write_sound(frame.sound)

    def _write_frame(self, frame, prediction):
        for name, writer in self._writers.items():
            if name == outputs.LABELS:
                array = outputs.label_image(prediction.labels, self._label_map)
            else:
                array = outputs.PICTURES[name](prediction, self._label_map)
            writer.write(array, frame.time)
        if self._table:
            seconds = round(float(frame.time * self._reader.time_base), 6)
            about = {**self._about, "frame": self.num_frames, "seconds": seconds}
            self._table.write(json.dumps(outputs.table(prediction, self._label_map, about)))
        self.num_frames += 1


class _Lines:
    """A text file written line by line under a temporary name, which `close` gives its own."""

    def __init__(self, path):
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._temporary.open("w", encoding="utf-8")

    def write(self, line):
        self._file.write(line + "\n")

    def close(self):
        self._file.close()
        os.replace(self._temporary, self._path)

    def abort(self):
        self._file.close()
        self._temporary.unlink(missing_ok=True)
