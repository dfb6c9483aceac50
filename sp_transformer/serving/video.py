"""Videos and cameras, frame by frame: no more than one frame of each is held here.

Shapes: Y, X are the height and width of a frame in pixels, upright.
"""

import dataclasses
import fractions
import os
import pathlib
import platform

import numpy as np

# By quality for the size of the file; the last one is in every build of FFmpeg.
_ENCODERS = (("libx264", {"crf": "18", "preset": "veryfast"}), ("mpeg4", {"q:v": "3"}))
_LOSSLESS = "ffv1"
# What players take in MP4; FFmpeg would write more.
_SOUND_OF_MP4 = ("aac", "ac3", "alac", "eac3", "flac", "mp3", "opus")
_CAMERA_FORMATS = {"Linux": "v4l2", "Darwin": "avfoundation", "Windows": "dshow"}
_DEFAULT_RATE = fractions.Fraction(25)
_UNSPECIFIED = 2  # FFmpeg's number of a colour matrix that is not told.
_LIMITED_RANGE = 1  # Its number of the range 16 to 235.
# MPEG-4's clock has 16 bits; this one has the times of all usual rates.
_MPEG4_TIME_BASE = fractions.Fraction(1, 60000)


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame, and the sound that lies in front of it in the file.

    Attributes:
      image: uint8 [Y, X, 3]; None behind the last frame, where only sound is left.
      time: when it is shown, in units of the reader's time_base.
      sound: packets of the sound, as they are encoded.
    """

    image: np.ndarray | None
    time: int
    sound: list


def require_av():
    """Imports PyAV.

    Raises:
      ValueError: if it is not installed.
    """
    try:
        import av
    except ModuleNotFoundError:
        raise ValueError(
            "videos and cameras are read by PyAV, which is not installed: pip install 'sp-transformer[video]'"
        ) from None
    return av


class VideoReader:
    """The frames of a video or a camera, turned upright, in the order they are shown.

    Iterating gives Frames. A context that closes the file.

    Attributes:
      size: (Y, X) of every frame; frames of another size, which some streams hold, are resized.
      rate: frames per second on average, a Fraction.
      time_base: seconds that a unit of time is, a Fraction.
      num_frames: as the file says it; None if it does not, or not reliably.
      sound: the stream of the sound, None if there is none.
      fault: after the last frame, what was wrong with the file; None if nothing was.
    """

    def __init__(self, path, is_camera: bool = False):
        """Opens a video.

        Args:
          path: the file or the camera's device.
          is_camera: whether it is a device.

        Raises:
          ValueError: if PyAV is missing, or the file is no video.
        """
        self._av = require_av()
        self._path = path
        try:
            options = {"format": _CAMERA_FORMATS.get(platform.system())} if is_camera else {}
            self._container = self._av.open(os.fspath(path), **options)
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            what = "camera" if is_camera else "video"
            raise ValueError(f"cannot open {what} {path}: {_reason(error)}") from error
        if not self._container.streams.video:
            self._container.close()
            raise ValueError(f"{path} holds no video stream")
        self._stream = stream = self._container.streams.video[0]
        audio = self._container.streams.audio
        self.sound = audio[0] if audio else None
        self.rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE
        self.time_base = stream.time_base
        # AVI counts frames that were never stored, and cameras have no end.
        counts = "mp4" in self._container.format.name
        self.num_frames = (stream.frames or None) if counts else None
        self.fault = None
        self._frames = self._read()
        # Whether frames have to be turned is told by the frames alone.
        self._first = next(self._frames, None)
        if self._first is None or self._first.image is None:
            self._container.close()
            raise ValueError(f"no frame of {path} can be decoded: {self.fault or 'it has none'}")
        self.size = self._first.image.shape[:2]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._container.close()

    def __iter__(self):
        yield self._first
        self._first = None
        yield from self._frames

    def _read(self):
        faults, sound, count = [], [], 0
        first_time, last_time, size = None, -1, None
        step = max(round(1 / (self.rate * self.time_base)), 1)
        for packet in self._packets(faults):
            if packet.stream is not self._stream:
                # The last one of a stream is empty; it tells decoders to hand out what they still hold.
                if packet.dts is not None:
                    sound.append(packet)
                continue
            try:
                decoded = packet.decode()
            except self._av.error.FFmpegError as error:
                faults.append(_reason(error))
                continue
            for frame in decoded:
                first_time = frame.pts or 0 if first_time is None else first_time
                # A camera's clock began with the machine; and encoders take no time twice.
                time = last_time + step if frame.pts is None else frame.pts
                time -= self._shift(first_time)
                last_time = max(time, last_time + 1)
                image = self._upright(frame, size)
                size = size or (frame.height, frame.width)
                count += 1
                yield Frame(image, last_time, sound)
                sound = []
        self.fault = self._what_was_wrong(faults, count)
        if sound:
            yield Frame(None, last_time, sound)

    def _shift(self, first_time):
        return first_time if self.sound is None else 0

    def _packets(self, faults):
        streams = [self._stream] if self.sound is None else [self._stream, self.sound]
        try:
            yield from self._container.demux(*streams)
        except (self._av.error.FFmpegError, OSError) as error:
            faults.append(_reason(error))

    def _upright(self, frame, size):
        height, width = size or (frame.height, frame.width)
        matrix = None
        if frame.colorspace == _UNSPECIFIED and "yuv" in frame.format.name:
            matrix = _matrix(self._av, frame.height, frame.width)
        image = frame.reformat(width, height, "rgb24", src_colorspace=matrix).to_ndarray()
        # The display matrix counts its angle counter-clockwise, as NumPy does.
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    def _what_was_wrong(self, faults, count):
        if self.num_frames is not None and count < self.num_frames:
            faults.append(
                f"the file announces {self.num_frames} frames, and {count} could be decoded"
            )
        return "; ".join(dict.fromkeys(faults)) or None


class VideoWriter:
    """Writes a video under a temporary name; `close` gives it its own.

    Args:
      path: the file; ".mp4" for pictures, which H.264 compresses, ".mkv" for label maps, which FFV1 keeps to the bit.
      reader: the VideoReader of the video that this one goes with, for its size, rate and times.
      with_sound: whether the reader's sound is copied, as it is encoded.

    Attributes:
      lost_sound: name of the sound's encoding if the file cannot hold it, else None.

    Raises:
      ValueError: if FFmpeg cannot write it.
    """

    def __init__(self, path: pathlib.Path, reader: VideoReader, with_sound: bool = False):
        self._av = require_av()
        self._path = path
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
        self._reader = reader
        self._lossless = path.suffix == ".mkv"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(os.fspath(self._temporary), "w")
        self._stream = None
        self._sound = None
        self.lost_sound = None
        self.num_frames = 0
        if with_sound and reader.sound is not None:
            codec = reader.sound.codec_context.codec.canonical_name
            if codec in _SOUND_OF_MP4:
                self._sound = self._container.add_stream_from_template(reader.sound)
            else:
                self.lost_sound = codec

    def write(self, array: np.ndarray, time: int) -> None:
        """Adds a frame.

        Args:
          array: uint8 [Y, X, 3]; or, for label maps, uint8 or uint16 [Y, X].
          time: when it is shown, in units of the reader's time_base; later than the one before.
        """
        if self._stream is None:
            self._add_stream(array)
        if not self._lossless:
            array = _even(array)
        layout = {2: "gray" if array.dtype == np.uint8 else "gray16le", 3: "rgb24"}[array.ndim]
        frame = self._av.VideoFrame.from_ndarray(array, format=layout)
        if not self._lossless:
            matrix = _matrix(self._av, *array.shape[:2])
            frame = frame.reformat(format=self._stream.pix_fmt, dst_colorspace=matrix)
        frame.pts, frame.time_base = time, self._reader.time_base
        self._container.mux(self._stream.encode(frame))
        self.num_frames += 1

    def write_sound(self, packets) -> None:
        """Adds packets of the reader's sound; they can be written once."""
        if self._sound is None:
            return
        if self._stream is None:
            raise ValueError("sound can be written once there is a frame")
        for packet in packets:
            packet.stream = self._sound
            self._container.mux(packet)

    def close(self) -> None:
        """Finishes the file and gives it its name; without a frame there is none."""
        if self._stream is None:
            self.abort()
            return
        self._container.mux(self._stream.encode(None))
        self._container.close()
        os.replace(self._temporary, self._path)

    def abort(self) -> None:
        """Leaves no file behind; after `close`, does nothing."""
        self._container.close()
        self._temporary.unlink(missing_ok=True)

    def _add_stream(self, array):
        if self._lossless:
            codec, options = _LOSSLESS, {}
            layout = "gray" if array.dtype == np.uint8 else "gray16le"
        else:
            available = self._av.codec.codecs_available
            codec, options = next(entry for entry in _ENCODERS if entry[0] in available)
            layout = "yuv420p"
            array = _even(array)
        self._stream = stream = self._container.add_stream(
            codec, rate=self._reader.rate, options=options
        )
        stream.height, stream.width = array.shape[:2]
        stream.pix_fmt = layout
        context = stream.codec_context
        context.time_base = self._reader.time_base
        if codec == "mpeg4":
            context.time_base = max(context.time_base, _MPEG4_TIME_BASE)
        if not self._lossless:
            # Told, as players guess by the size, and not all alike.
            context.colorspace = _matrix(self._av, *array.shape[:2])
            context.color_range = _LIMITED_RANGE


def _matrix(av, height, width):
    """The matrix of colours that players take a video of this size to have where it does not tell: HD has BT.709."""
    is_high_definition = width >= 1280 or height > 576
    matrices = av.video.reformatter.Colorspace
    return matrices.ITU709 if is_high_definition else matrices.ITU601


def _even(image):
    """The image with its last row or column twice where their number is odd: colours are stored for 2x2 pixels."""
    below, right = (side % 2 for side in image.shape[:2])
    return np.pad(image, [(0, below), (0, right), (0, 0)], mode="edge") if below or right else image


def _reason(error):
    return getattr(error, "strerror", None) or str(error)
