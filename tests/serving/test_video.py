"""Videos read and written: size, times, rotation, sound, damage, memory."""

import fractions
import struct

import numpy as np
import pytest

from sp_transformer.serving import video

av = pytest.importorskip("av")
MILLISECONDS = fractions.Fraction(1, 1000)


def picture(number, size):
    """Red at the top left, blue at the top right, green below, and a bar that moves."""
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 200, 30, 30
    image[: height // 2, width // 2 :] = 30, 30, 200
    image[height // 2 :] = 20, 150, 20
    image[-4:, number % width] = 255
    return image


def write_video(path, frames=12, size=(48, 64), times=None, rotation=None, sound=None):
    """A video of `picture`, 25 frames per second or at `times` in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = MILLISECONDS
        if rotation is not None:
            stream.set_display_rotation(rotation)
        audio = container.add_stream(sound, rate=48000) if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts, frame.time_base = times[number] if times else 40 * number, MILLISECONDS
            container.mux(stream.encode(frame))
            if audio:
                samples = np.zeros((1, 1920), np.float32 if sound == "aac" else np.int16)
                layout = "fltp" if sound == "aac" else "s16"
                tone = av.AudioFrame.from_ndarray(samples, format=layout, layout="mono")
                tone.sample_rate, tone.pts = 48000, 1920 * number
                container.mux(audio.encode(tone))
        container.mux(stream.encode(None))
        if audio:
            container.mux(audio.encode(None))
    return path


def copy(path, folder):
    """Reads a video and writes its frames and, as label maps, their red."""
    with video.VideoReader(path) as reader:
        pictures = video.VideoWriter(folder / "copy.mp4", reader, with_sound=True)
        labels = video.VideoWriter(folder / "copy.mkv", reader)
        frames = []
        for frame in reader:
            if frame.image is not None:
                frames.append(frame)
                pictures.write(frame.image, frame.time)
                labels.write(frame.image[..., 0], frame.time)
            pictures.write_sound(frame.sound)
        pictures.close()
        labels.close()
    return reader, frames, pictures


def seconds(frames, reader):
    return [float(frame.time * reader.time_base) for frame in frames]


def read(path):
    with video.VideoReader(path) as reader:
        return reader, [frame for frame in reader if frame.image is not None]


def test_a_copy_has_the_frames_the_times_and_the_rate(tmp_path):
    reader, frames, _ = copy(write_video(tmp_path / "in.mp4"), tmp_path)
    assert reader.size == (48, 64) and reader.rate == 25 and reader.num_frames == 12
    assert reader.fault is None and len(frames) == 12
    np.testing.assert_allclose(seconds(frames, reader), 0.04 * np.arange(12))
    for number, frame in enumerate(frames):
        assert np.abs(frame.image.astype(int) - picture(number, (48, 64))).mean() < 4
    again, copies = read(tmp_path / "copy.mp4")
    assert again.rate == 25
    np.testing.assert_allclose(seconds(copies, again), 0.04 * np.arange(12))
    for one, other in zip(frames, copies, strict=True):
        assert np.abs(one.image.astype(int) - other.image).mean() < 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.mkv", "copy.mp4", "in.mp4"]


# Y, Cb, Cr of (200, 30, 30) in the range 16 to 235: ITU-R BT.601 and BT.709, in the formulas' own numbers.
YUV_OF_RED = {"601": (85, 103, 203), "709": (73, 111, 203)}


def yuv_of(rgb, red, blue):
    """By the definition: luma is a weighted sum, the others are differences from it, scaled."""
    r, g, b = np.array(rgb) / 255
    luma = red * r + (1 - red - blue) * g + blue * b
    y, cb, cr = luma, (b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))
    return np.round([16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr])


def write_yuv(path, size, yuv, told=None):
    """One colour; `told` is FFmpeg's number of its matrix, by default not told."""
    frame = av.VideoFrame(size[1], size[0], "yuv420p")
    for plane, value in zip(frame.planes, yuv, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        if told is not None:
            stream.codec_context.colorspace = told
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("size", "matrix"), [((48, 64), "601"), ((576, 720), "601"), ((720, 960), "709")]
)
def test_colours_are_those_of_the_matrix_that_players_take(tmp_path, size, matrix):
    weights = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}
    np.testing.assert_array_equal(yuv_of((200, 30, 30), *weights[matrix]), YUV_OF_RED[matrix])
    _, (frame,), _ = copy(write_yuv(tmp_path / "in.mp4", size, YUV_OF_RED[matrix]), tmp_path)
    assert np.abs(frame.image.astype(int) - (200, 30, 30)).max() <= 3
    with av.open(str(tmp_path / "copy.mp4")) as container:
        (copied,) = container.decode(video=0)
    planes = [np.asarray(plane).reshape(-1)[0] for plane in copied.planes]
    assert np.abs(np.array(planes, int) - YUV_OF_RED[matrix]).max() <= 2
    assert copied.colorspace == {"601": 5, "709": 1}[matrix]


def test_a_matrix_that_is_told_is_taken(tmp_path):
    path = write_yuv(tmp_path / "in.mp4", (720, 960), YUV_OF_RED["601"], told=5)
    _, (frame,) = read(path)
    assert np.abs(frame.image.astype(int) - (200, 30, 30)).max() <= 3


def test_without_h264_a_fine_clock_is_no_obstacle(tmp_path, monkeypatch):
    path = tmp_path / "in.ts"
    write_video(path, frames=5)
    monkeypatch.setattr(video, "_ENCODERS", video._ENCODERS[1:])
    reader, frames, _ = copy(path, tmp_path)
    assert reader.time_base == fractions.Fraction(1, 90000)
    again, copies = read(tmp_path / "copy.mp4")
    np.testing.assert_allclose(seconds(copies, again), seconds(frames, reader), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_maps_are_kept_to_the_bit_in_any_size(tmp_path, dtype):
    path = write_video(tmp_path / "in.mp4", frames=3)
    maps = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (3, 33, 47)).astype(dtype)
    with video.VideoReader(path) as reader:
        writer = video.VideoWriter(tmp_path / "labels.mkv", reader)
        for number, labels in enumerate(maps):
            writer.write(labels, number)
        writer.close()
    with av.open(str(tmp_path / "labels.mkv")) as container:
        found = [frame.to_ndarray() for frame in container.decode(video=0)]
    np.testing.assert_array_equal(found, maps)


def test_variable_frame_rates_are_kept(tmp_path):
    times = [0, 40, 100, 110, 400, 440, 1000, 1033]
    path = write_video(tmp_path / "in.mp4", frames=len(times), times=times)
    reader, frames, _ = copy(path, tmp_path)
    np.testing.assert_allclose(seconds(frames, reader), np.array(times) / 1000)
    for name in ("copy.mp4", "copy.mkv"):
        again, copies = read(tmp_path / name)
        np.testing.assert_allclose(seconds(copies, again), np.array(times) / 1000, atol=6e-4)


def test_pictures_of_odd_sizes_get_one_row_and_column_more(tmp_path):
    path = write_video(tmp_path / "in.mp4", frames=2)
    image = picture(0, (33, 47))
    with video.VideoReader(path) as reader:
        writer = video.VideoWriter(tmp_path / "odd.mp4", reader)
        writer.write(image, 0)
        writer.close()
    again, (frame,) = read(tmp_path / "odd.mp4")
    assert again.size == (34, 48)
    expected = np.pad(image, [(0, 1), (0, 1), (0, 0)], mode="edge")
    assert np.abs(frame.image.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_videos_recorded_on_their_side_are_turned_upright(tmp_path, rotation):
    path = write_video(tmp_path / "in.mp4", frames=2, rotation=rotation)
    # The matrix in the file's header, by the standard: x' = a x + c y, y' = b x + d y, with y pointing down.
    header = path.read_bytes()
    start = header.index(b"tkhd") + 4 + 40
    a, b, _, c, d = struct.unpack(">5i", header[start : start + 20])
    reader, (frame, _), _ = copy(path, tmp_path)
    assert reader.size == ((48, 64) if rotation == 180 else (64, 48))
    original = picture(0, (48, 64))
    turned = frame.image.astype(int)
    height, width = turned.shape[:2]
    for y, x in ((8, 8), (8, 50), (40, 30)):
        # From the middle of the picture, whose place the turn does not change.
        down, right = y - 23.5, x - 31.5
        to_right, to_down = ((a * right + c * down) / 65536, (b * right + d * down) / 65536)
        place = round(to_down + (height - 1) / 2), round(to_right + (width - 1) / 2)
        assert np.abs(turned[place] - original[y, x]).max() < 12
    again, _ = read(tmp_path / "copy.mp4")
    assert again.size == reader.size


def test_sound_is_copied_as_it_is_or_said_to_be_left_out(tmp_path):
    _, frames, writer = copy(write_video(tmp_path / "in.mp4", sound="aac"), tmp_path)
    assert writer.lost_sound is None and len(frames) == 12

    def packets(path):
        with av.open(str(path)) as container:
            found = [bytes(packet) for packet in container.demux(audio=0) if packet.dts is not None]
        return found

    assert packets(tmp_path / "copy.mp4") == packets(tmp_path / "in.mp4")
    _, _, writer = copy(write_video(tmp_path / "in.mkv", sound="pcm_s16le"), tmp_path)
    assert writer.lost_sound == "pcm_s16le"
    again, copies = read(tmp_path / "copy.mp4")
    assert again.sound is None and len(copies) == 12


def test_of_a_torn_video_the_frames_in_front_are_read_and_the_fault_is_named(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", frames=60)
    # Header first, as files for streaming have it: without a header, nothing of a torn file can be read.
    with av.open(str(whole)) as source:
        options = {"movflags": "faststart"}
        with av.open(str(tmp_path / "front.mp4"), "w", options=options) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    data = (tmp_path / "front.mp4").read_bytes()
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(data[: len(data) * 2 // 3])
    reader, frames = read(torn)
    assert 5 < len(frames) < 60
    assert "60 frames" in reader.fault and str(len(frames)) in reader.fault
    for number in (0, len(frames) // 2):
        assert np.abs(frames[number].image.astype(int) - picture(number, (48, 64))).mean() < 4


def test_files_that_are_no_video_are_refused(tmp_path):
    path = tmp_path / "no.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"cannot open video .*no\.mp4"):
        video.VideoReader(path)
    with pytest.raises(ValueError, match=r"absent\.mp4"):
        video.VideoReader(tmp_path / "absent.mp4")
    with pytest.raises(ValueError, match="cannot open camera"):
        video.VideoReader(tmp_path / "video0", is_camera=True)
    whole = write_video(tmp_path / "whole.mp4")
    (tmp_path / "headless.mp4").write_bytes(whole.read_bytes()[:800])
    with pytest.raises(ValueError, match=r"headless\.mp4"):
        video.VideoReader(tmp_path / "headless.mp4")


def test_a_writer_leaves_a_whole_file_or_none(tmp_path):
    path = write_video(tmp_path / "in.mp4", frames=2)
    with video.VideoReader(path) as reader:
        writer = video.VideoWriter(tmp_path / "out.mp4", reader)
        writer.write(picture(0, (48, 64)), 0)
        assert not (tmp_path / "out.mp4").exists()
        writer.abort()
        empty = video.VideoWriter(tmp_path / "out.mp4", reader)
        empty.close()
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_without_pyav_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ValueError, match=r"sp-transformer\[video\]"):
        video.require_av()
