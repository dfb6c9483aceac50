"""compare_exports.py on an export of a real model."""

import importlib.util
import json
import pathlib
import shutil

import pytest

from sp_transformer.serving import export
from sp_transformer.serving.export_options import ExportOptions

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "compare_exports.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    """A verified export."""
    folder = tmp_path_factory.mktemp("exports") / "of_the_run"
    model = tiny_run.inference.model
    export.export_model(tiny_run.config, model, folder, ExportOptions(verify_images=2))
    return folder


def test_a_row_tells_the_verification_and_new_times(script, exported, tmp_path, capsys):
    changed = {"equal_labels": 0.5, "miou_export": 0.25, "miou_checkpoint": 0.5}
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    report = other / "verification.json"
    report.write_text(json.dumps(json.loads(report.read_text()) | changed))
    path = tmp_path / "exports.json"
    capsys.readouterr()
    assert script.main([str(other), "--size", "40x72", "--json", str(path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    heading, _, cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in printed)
    row = dict(zip(heading, cells, strict=True))
    assert row["export"] == "other" and row["equal labels"] == "50.0000%"
    assert row["mIoU, difference"] == "0.2500, -0.25000"
    (written,) = json.loads(path.read_text())["rows"]
    for name in ("labels", "superpixels"):
        milliseconds = written["latency"][name]["milliseconds"]
        assert milliseconds > 0 and row[f"{name}, ms"] == f"{milliseconds:.1f}"
    assert float(row["MB"]) > 1


def test_images_without_truth_have_no_miou(script, exported):
    row = script.row_of(exported, (40, 72)) | {"miou_export": None, "miou_checkpoint": None}
    assert "no truth" in script.table([row])


def test_what_was_not_verified_is_no_row(script, exported, tmp_path, capsys):
    unverified = tmp_path / "unverified"
    shutil.copytree(exported, unverified)
    (unverified / "verification.json").write_text('{"passed": null}')
    assert script.main([str(unverified), str(exported)]) == 2
    assert "export it with --verify_images" in capsys.readouterr().err
    assert script.main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main([str(exported), "--size", "40"])
    assert "HEIGHTxWIDTH" in capsys.readouterr().err
