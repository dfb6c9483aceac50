"""The progress line and the log."""

import io
import json

from sp_transformer.training import progress

RATES = {"learning_rate": 1e-3, "backbone_learning_rate": 1e-4}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_rate_leaves_out_earlier_sessions_and_the_first_call():
    line = progress.ProgressLine(1000, 900, 4, io.StringIO())
    assert line.images_per_second == 0.0
    line.count(1, 60.0)
    assert line.images_per_second == 4 / 60.0
    line.count(10, 2.0)
    line.count(10, 2.0)
    assert line.images_per_second == 20.0


def test_a_file_gets_a_line_at_the_start_and_at_every_interval():
    stream = io.StringIO()
    line = progress.ProgressLine(100, 50, 4, stream)
    for step in range(51, 101):
        line.count(1, 0.5)
        line.show(1.25, RATES, at_interval=step % 20 == 0)
    lines = stream.getvalue().splitlines()
    assert [text.split()[1] for text in lines] == ["51/100", "60/100", "80/100", "100/100"]
    # The first call compiles: a time left that was worked out from it would be far off.
    assert "first call took" in lines[0] and "left" not in lines[0]
    assert "loss 1.2500" in lines[1] and "lr 0.001 (backbone 0.0001)" in lines[1]
    assert "8 images/s" in lines[1] and "0:00:20 left" in lines[1]


def test_a_terminal_keeps_one_line():
    seconds = iter(range(100))
    stream = Terminal()
    line = progress.ProgressLine(10, 0, 4, stream, clock=lambda: next(seconds))
    for _ in range(10):
        line.count(1, 1.0)
        line.show(1.0, RATES, at_interval=False)
    line.close()
    text = stream.getvalue()
    assert text.count("\r") == 10 and text.count("\n") == 1
    assert text.endswith("\n") and "step 10/10" in text


def test_formats_durations():
    assert progress.format_seconds(59.6) == "0:01:00"
    assert progress.format_seconds(2 * 86400 + 3723) == "2d 1:02:03"


def test_the_log_drops_what_will_be_written_again(tmp_path):
    path = tmp_path / "train" / "log.jsonl"
    log = progress.JsonLog(str(path), 0)
    for step in (10, 20, 30):
        log.write({"step": step, "loss": 1.0})
    log.close()
    with path.open("a") as file:
        file.write('{"step": 2')  # A line that a kill has cut off.
    log = progress.JsonLog(str(path), 20)
    log.write({"step": 30, "loss": 0.5})
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(10, 1.0), (20, 1.0), (30, 0.5)]
