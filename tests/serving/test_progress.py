"""The progress line on terminals and elsewhere."""

import io

from sp_transformer.serving.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(stream, total, seconds, count):
    now = [0.0]
    with Progress("predict", total, stream=stream, clock=lambda: now[0]) as progress:
        for number in range(count):
            now[0] += seconds
            progress.count()
            if number == 1:
                progress.note("skipped a.png")
    return stream.getvalue()


def test_a_terminal_has_one_line_that_is_drawn_over():
    text = run(Terminal(), total=4, seconds=0.5, count=4)
    shown = [part.strip() for part in text.split("\r") if part.strip()]
    assert shown[0] == "predict 1/4 images, 2 images/s, 0:00:02 left"
    assert shown[-1] == "predict 4/4 images, 2 images/s, 0:00:00 left"
    assert text.count("\n") == 2 and "skipped a.png\n" in text


def test_a_log_has_a_line_every_ten_seconds():
    lines = run(io.StringIO(), total=10, seconds=4, count=10).splitlines()
    assert lines == [
        "skipped a.png",
        "predict 3/10 images, 0.25 images/s, 0:00:28 left",
        "predict 6/10 images, 0.25 images/s, 0:00:16 left",
        "predict 9/10 images, 0.25 images/s, 0:00:04 left",
    ]


def test_without_a_known_end_no_time_is_left():
    text = run(Terminal(), total=None, seconds=1, count=3)
    assert "predict 3 images, 1 images/s" in text and "left" not in text
