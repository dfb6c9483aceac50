"""Prediction of videos and cameras: files, frames, sound, damage, memory."""

import fractions
import json
import os
import signal
import threading
import time
import tracemalloc

import numpy as np
import pytest

from sp_transformer.serving import outputs as outputs_lib
from sp_transformer.serving import video
from sp_transformer.serving.predict import PredictOptions, predict

av = pytest.importorskip("av")


def write_video(path, frames, size=(24, 36), rate=10):
    """A video whose left half is bright in even frames and dark in odd ones."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            image = np.full((*size, 3), 20, np.uint8)
            if number % 2 == 0:
                image[:, : size[1] // 2] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def frames_of(path):
    with av.open(str(path)) as container:
        return [
            frame.to_ndarray() if path.suffix == ".mkv" else frame.to_ndarray(format="rgb24")
            for frame in container.decode(video=0)
        ]


def test_a_video_becomes_videos_of_its_frames(NumpyRuntime, tmp_path, capsys):
    path = write_video(tmp_path / "drive.mp4", 7)
    summary = predict(NumpyRuntime(), str(path), tmp_path / "out")
    assert summary.videos == [path] and summary.frames == 7 and summary.exit_code == 0
    assert "7 frames" in capsys.readouterr().out
    assert names(tmp_path / "out") == [
        "drive_labels.mkv",
        "drive_overlay.mp4",
        "drive_superpixels.jsonl",
        "drive_superpixels.mp4",
        "legend.png",
    ]
    labels = frames_of(tmp_path / "out" / "drive_labels.mkv")
    assert len(labels) == 7
    for number, array in enumerate(labels):
        assert array.shape == (24, 36)
        assert array[:, :15].mean() == (number % 2 == 0) and not array[:, 20:].any()
    overlays = frames_of(tmp_path / "out" / "drive_overlay.mp4")
    # Half white and half the yellow of "bright"; half dark and half black.
    for overlay, (left, right) in zip(
        overlays, [((242, 242, 115), 10), (10, 10)] * 4, strict=False
    ):
        assert np.abs(overlay[:, 4:12].astype(int) - left).max() < 12
        assert np.abs(overlay[:, 26:].astype(int) - right).max() < 12
    lines = (tmp_path / "out" / "drive_superpixels.jsonl").read_text().splitlines()
    tables = [json.loads(line) for line in lines]
    assert [table["frame"] for table in tables] == list(range(7))
    np.testing.assert_allclose([table["seconds"] for table in tables], 0.1 * np.arange(7))
    assert tables[0]["file"] == "drive.mp4" and len(tables[0]["superpixels"]) == 6 * 9


def test_images_and_videos_of_a_folder_are_both_predicted_and_a_bad_one_is_skipped(
    NumpyRuntime, tmp_path
):
    from PIL import Image

    folder = tmp_path / "in"
    folder.mkdir()
    write_video(folder / "a.mp4", 3)
    (folder / "bad.mov").write_bytes(b"no video")
    Image.new("RGB", (9, 8)).save(folder / "c.png")
    options = PredictOptions(outputs=["labels"], max_frames=2)
    summary = predict(NumpyRuntime(), str(folder), tmp_path / "out", options)
    assert summary.frames == 2 and len(summary.predicted) == 1 and summary.exit_code == 1
    assert [path.name for path, _ in summary.failed] == ["bad.mov"]
    assert names(tmp_path / "out") == ["a_labels.mkv", "c_labels.png", "legend.png"]
    assert len(frames_of(tmp_path / "out" / "a_labels.mkv")) == 2


def test_a_video_ends_where_the_model_fails_and_keeps_what_was_done(NumpyRuntime, tmp_path):
    calls = []

    def fail_at_fourth(image):
        calls.append(image)
        if len(calls) == 4:
            raise RuntimeError("no more")

    path = write_video(tmp_path / "drive.mp4", 8)
    runtime = NumpyRuntime(before_run=fail_at_fourth)
    summary = predict(runtime, str(path), tmp_path / "out")
    assert summary.failed == [(path, "no more; 3 frames were predicted")]
    assert len(frames_of(tmp_path / "out" / "drive_overlay.mp4")) == 3


def test_an_error_of_writing_leaves_no_file_behind(NumpyRuntime, tmp_path, monkeypatch):
    path = write_video(tmp_path / "drive.mp4", 8)
    write, written = video.VideoWriter.write, []

    def fail_at_third(self, array, time):
        written.append(time)
        if len(written) == 7:
            raise OSError(28, "No space left on device")
        write(self, array, time)

    monkeypatch.setattr(video.VideoWriter, "write", fail_at_third)
    with pytest.raises(OSError, match="No space left"):
        predict(NumpyRuntime(), str(path), tmp_path / "out")
    assert names(tmp_path / "out") == []


class EndlessReader:
    """A camera that counts the frames it was asked for."""

    size, rate, time_base = (16, 24), fractions.Fraction(30), fractions.Fraction(1, 30)
    sound = fault = num_frames = None

    def __init__(self, path, is_camera=False):
        assert is_camera and str(path) == "/dev/video7"
        self.given = 0
        EndlessReader.opened = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        while True:
            self.given += 1
            yield video.Frame(np.zeros((*self.size, 3), np.uint8), self.given, [])


def test_a_camera_is_read_no_faster_than_the_model_and_ends_after_the_frames_asked_for(
    NumpyRuntime, tmp_path, monkeypatch
):
    monkeypatch.setattr(video, "VideoReader", EndlessReader)
    behind = []

    def note(_):
        time.sleep(0.002)
        behind.append(EndlessReader.opened.given - len(behind))

    options = PredictOptions(outputs=["overlay"], max_frames=40)
    summary = predict(NumpyRuntime(before_run=note), "camera:7", tmp_path / "out", options)
    assert summary.frames == 40 and max(behind) <= 10
    assert names(tmp_path / "out") == ["camera_video7_overlay.mp4", "legend.png"]


def test_memory_does_not_grow_with_the_length_of_a_video(NumpyRuntime, tmp_path):
    size = (120, 160)
    peaks = []
    # Other tests' threads may still be there.
    threads = set(threading.enumerate())
    for frames in (40, 400):
        path = write_video(tmp_path / f"{frames}.mp4", frames, size)
        options = PredictOptions(outputs=["overlay", "labels"])
        tracemalloc.start()
        try:
            predict(NumpyRuntime(with_table=False), str(path), tmp_path / "out", options)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    # How much waits depends on the threads; that all 360 frames more are held must not be.
    assert peaks[1] - peaks[0] < 360 * 3 * size[0] * size[1] / 4
    assert set(threading.enumerate()) <= threads


def test_outputs_of_videos_have_names_of_their_own(tmp_path):
    found = outputs_lib.paths(tmp_path / "a" / "x", outputs_lib.DEFAULT, is_video=True)
    assert [path.name for path in found.values()] == [
        "x_labels.mkv",
        "x_overlay.mp4",
        "x_superpixels.mp4",
        "x_superpixels.jsonl",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_video_with_the_frame_at_hand_and_it_plays(NumpyRuntime, tmp_path, number):
    seen = []

    def interrupt_at_fourth(image):
        seen.append(image)
        if len(seen) == 4:
            os.kill(os.getpid(), number)

    path = write_video(tmp_path / "drive.mp4", 30)
    before = signal.getsignal(number)
    later = write_video(tmp_path / "later.mp4", 2)
    runtime = NumpyRuntime(before_run=interrupt_at_fourth)
    summary = predict(runtime, [str(path), str(later)], tmp_path / "out")
    assert len(seen) == 4
    assert summary.exit_code == 128 + number and signal.getsignal(number) is before
    assert summary.failed == [(path, "interrupted; 4 frames were predicted")]
    assert len(frames_of(tmp_path / "out" / "drive_overlay.mp4")) == 4
    assert len((tmp_path / "out" / "drive_superpixels.jsonl").read_text().splitlines()) == 4
    assert not [name for name in names(tmp_path / "out") if name.startswith(".")]


def test_a_second_signal_ends_at_once_and_leaves_no_half_video(NumpyRuntime, tmp_path):
    def interrupt_twice(_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    path = write_video(tmp_path / "drive.mp4", 5)
    with pytest.raises(KeyboardInterrupt):
        predict(NumpyRuntime(before_run=interrupt_twice), str(path), tmp_path / "out")
    assert names(tmp_path / "out") == []


def test_a_video_of_another_size_than_the_models_leaves_no_file(NumpyRuntime, tmp_path):
    path = write_video(tmp_path / "drive.mp4", 5)
    runtime = NumpyRuntime(image_size=(16, 16))
    with pytest.raises(ValueError, match=r"24x36.*16x16"):
        predict(runtime, str(path), tmp_path / "out")
    assert names(tmp_path / "out") == []
    summary = predict(runtime, str(path), tmp_path / "out", PredictOptions(resize=True))
    assert summary.frames == 5
    assert frames_of(tmp_path / "out" / "drive_labels.mkv")[0].shape == (24, 36)


def save_labels(folder, size, ids_of_frames):
    """Label files of frames, each of one id throughout."""
    from PIL import Image

    folder.mkdir(parents=True)
    for number, file_id in ids_of_frames.items():
        Image.fromarray(np.full(size, file_id, np.uint8)).save(folder / f"drive_{number:06}.png")
    return folder


def test_frames_are_drawn_beside_their_labels(NumpyRuntime, tmp_path):
    path = write_video(tmp_path / "drive.mp4", 4)
    # Of frame 1 there is none; those of the odd frames would be right.
    labels = save_labels(tmp_path / "gt" / "drive", (24, 36), {0: 1, 2: 255, 3: 0})
    options = PredictOptions(outputs=["panel", "errors"], ground_truth=labels.parent)
    summary = predict(NumpyRuntime(), str(path), tmp_path / "out", options)
    assert summary.exit_code == 0 and summary.frames == 4
    errors = frames_of(tmp_path / "out" / "drive_errors.mp4")
    blueness = [frame[4:20, 22:, 2].mean() - frame[4:20, 22:, 0].mean() for frame in errors]
    # The right half is dark: wrong (orange) in frame 0, ignored in 1 and 2, right (blue) in 3.
    assert blueness[0] < -60 and blueness[3] > 30
    assert abs(blueness[1]) < 15 and abs(blueness[2]) < 15
    panels = frames_of(tmp_path / "out" / "drive_panel.mp4")
    third = [frame[40:-80, -300:-40].mean((0, 1)) for frame in panels]
    np.testing.assert_allclose(third[0], (255, 255, 0), atol=12)
    assert max(third[number].max() for number in (1, 2, 3)) < 12
    # The only input's labels may lie in the folder itself.
    options = PredictOptions(ground_truth=labels)
    assert not predict(NumpyRuntime(), str(path), tmp_path / "direct", options).without_truth
    assert "drive_errors.mp4" in names(tmp_path / "direct")


def test_what_is_wrong_with_the_labels_of_a_video_is_said_once(NumpyRuntime, tmp_path):
    path = write_video(tmp_path / "drive.mp4", 5)

    def fault(labels):
        options = PredictOptions(outputs=["panel"], ground_truth=labels)
        summary = predict(NumpyRuntime(), str(path), tmp_path / "out", options)
        assert summary.frames == 5 and not summary.failed and summary.exit_code == 1
        ((named, reason),) = summary.without_truth
        assert named == path
        return reason

    reason = fault(save_labels(tmp_path / "ids", (24, 36), {0: 1, 1: 33, 2: 33, 3: 34}))
    assert "drive_000001.png holds id 33" in reason and "and 2 more of its labels" in reason
    reason = fault(save_labels(tmp_path / "size", (12, 18), {2: 1}))
    assert "12x18" in reason and "frame 2 of" in reason and "24x36" in reason
    reason = fault(save_labels(tmp_path / "late", (24, 36), {100: 1, 120: 1}))
    assert "none of its 5 frames" in reason and "frames 100 to 120" in reason


def test_labels_of_a_video_are_a_folder_of_numbered_files(NumpyRuntime, tmp_path):
    path = write_video(tmp_path / "drive.mp4", 3)
    labels = save_labels(tmp_path / "gt", (24, 36), {0: 1})
    runtime = NumpyRuntime()

    def refused(truth, words):
        with pytest.raises(ValueError, match=words):
            predict(runtime, str(path), tmp_path / "out", PredictOptions(ground_truth=truth))

    refused(labels / "drive_000000.png", "is one file.*a video.*numbers of their frames, from 0")
    (labels / "drive_0.png").write_bytes((labels / "drive_000000.png").read_bytes())
    refused(labels, "both labels of frame 0")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"no label that fits an input.*000000\.png")
    assert not (tmp_path / "out").exists()
