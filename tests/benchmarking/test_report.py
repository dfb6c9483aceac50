"""Tables for people and JSON for machines."""

import json

import pytest

from sp_transformer.benchmarking import report, timing


@pytest.fixture
def example():
    return report.Report(
        title="A against B",
        rules=["Timed by hand."],
        columns=["variant", "latency", "fits", "images"],
        rows=[
            {"variant": "a|b", "latency": 12.345, "fits": True, "images": 1234567, "hidden": [1.0]},
            {"variant": "two\nlines", "latency": None, "fits": False},
        ],
        notes=["A note."],
        environment={"machine": {"cores": 2, "gpus": []}, "git": None},
        settings={"rounds": 3},
    )


def test_table_is_markdown_and_aligned(example):
    text = report.table(example)
    grid = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in grid}) == 1
    assert grid[0].split() == ["|", "variant", "|", "latency", "|", "fits", "|", "images", "|"]
    # Numbers stand to the right, and Markdown is told so.
    assert grid[1].replace("-", "") == "|  | : |  | : |"
    assert grid[2].split() == ["|", "a\\|b", "|", "12.3", "|", "yes", "|", "1,234,567", "|"]
    assert grid[3].split() == ["|", "two", "lines", "|", "-", "|", "no", "|", "-", "|"]
    assert "hidden" not in text


def test_table_carries_rules_notes_and_environment(example):
    text = report.table(example)
    assert text.startswith("## A against B\n")
    assert text.index("- Timed by hand.") < text.index("| variant") < text.index("- A note.")
    assert "- machine: cores 2, gpus none" in text and "- git: unknown" in text


def test_table_without_rows_is_still_a_table(example):
    example.rows = []
    assert sum(line.startswith("|") for line in report.table(example).splitlines()) == 2


def test_json_holds_everything_and_is_strict(example, tmp_path):
    example.rows.append({"variant": "broken", "latency": float("nan"), "stride": {2: (1, 2)}})
    path = tmp_path / "new" / "out.json"
    report.write_json(example, str(path))
    read = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert read["title"] == "A against B" and read["settings"] == {"rounds": 3}
    assert read["rows"][0]["hidden"] == [1.0] and read["rows"][0]["latency"] == 12.345
    assert read["rows"][2] == {"variant": "broken", "latency": None, "stride": {"2": [1, 2]}}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.012345, "0.0123"),
        (1.0, "1.00"),
        (-2.345, "-2.35"),
        (99.96, "100"),
        (99.94, "99.9"),
        (1234.5, "1,234"),
        (float("inf"), "-"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert report.format_number(value) == text


def test_spread_is_median_and_quartiles():
    assert report.format_spread(timing.Timing((0.001, 0.002, 0.003)), 1e3) == "2.00 [1.50, 2.50]"
