"""Where an export's weights come from, read from the folder of its run."""

import json

import pytest

from sp_transformer.serving import provenance


@pytest.fixture
def run(tmp_path):
    """A run that was gone on with at step 100 by another revision, evaluated at step 200."""
    sessions = [
        {"first_step": 0, "git": {"revision": "aaa"}, "date": "1", "versions": {}},
        {"first_step": 100, "git": {"revision": "bbb"}, "date": "2", "versions": {}},
    ]
    lines = "".join(json.dumps(session) + "\n" for session in sessions)
    (tmp_path / "sessions.jsonl").write_text(lines + "half a li")
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "metrics.json").write_text(json.dumps({"step": 200, "miou": 0.5}))
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "best.json").write_text(json.dumps({"step": 150, "miou": 0.6}))
    return tmp_path


@pytest.mark.parametrize(("step", "revision"), [(50, "aaa"), (100, "aaa"), (150, "bbb")])
def test_the_revision_is_that_which_trained_last_up_to_the_step(run, step, revision):
    found = provenance.of_run(run / f"ckpt-{step}", step)
    assert found["run"]["git"] == {"revision": revision}


def test_metrics_are_those_of_the_step_only(run):
    assert provenance.metrics(run / "ckpt-200", 200)["miou"] == 0.5
    assert provenance.metrics(run / "best" / "ckpt-150", 150)["miou"] == 0.6
    assert provenance.metrics(run / "ckpt-100", 100) is None
    assert provenance.of_run(run / "best" / "ckpt-150", 150)["run"]["git"] == {"revision": "bbb"}


def test_weights_without_a_run_have_no_provenance(tmp_path):
    assert provenance.of_run(None, None) == {} and provenance.metrics(None, None) is None
    assert provenance.of_run(tmp_path / "ckpt-3", 3) == {}
    assert provenance.metrics(tmp_path / "ckpt-3", 3) is None


def test_the_exporter_tells_its_versions():
    assert provenance.of_exporter()["exporter"]["versions"]["tensorflow"]
