"""camvid_superpixels.py on files as evaluate writes them."""

import importlib.util
import json
import pathlib
import statistics

import pytest
from absl import flags

from sp_transformer import command_line
from sp_transformer.evaluation import superpixel_scores

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"
TITLES = {"model": ("model", None), "SLIC, 2 x count": ("SLIC", 2.0)}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    spec = importlib.util.spec_from_file_location("it", SCRIPTS / "camvid_superpixels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, seed, titles=TITLES):
    """An evaluation whose measures grow with the seed."""
    folder.mkdir()
    kinds = []
    for number, (kind, factor) in enumerate(titles.values()):
        measures = dict.fromkeys(superpixel_scores.HEADINGS, 0.5 + 0.1 * number + 0.01 * seed**2)
        measures |= {"superpixels": 400.0 + seed, "components": 500.0 + seed}
        kinds.append({"kind": kind, "factor": factor, **measures})
    (folder / "superpixels.json").write_text(
        json.dumps({"slic_compactness": 10.0, "kinds": kinds, "per_image": [{"name": "a"}]})
    )
    (folder / "metrics.json").write_text(json.dumps({"miou": seed, "confusion_matrix": [[1]]}))
    return str(folder)


def run(script, *arguments):
    values = flags.FlagValues()
    script.define_flags(values)
    values(["it", *arguments])
    return script.main(values)


def test_means_and_spreads_of_the_seeds(script, tmp_path, capsys):
    folders = [write(tmp_path / str(seed), seed) for seed in range(3)]
    path = tmp_path / "all.json"
    assert run(script, f"--evaluations={','.join(folders)}", f"--json={path}") == 0
    heading, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
    )
    found = {row[0]: dict(zip(heading[1:], row[1:], strict=True)) for row in rows}
    assert list(found) == list(TITLES)
    assert found["model"]["count"] == "401 ± 1"
    values = [60 + seed**2 for seed in range(3)]
    assert found["SLIC, 2 x count"]["ASA %"] == f"61.67 ± {statistics.stdev(values):.2f}"
    written = json.loads(path.read_text())["evaluations"]
    assert [evaluation["miou"] for evaluation in written] == [0, 1, 2]
    assert written[1]["kinds"][0]["superpixels"] == 401
    assert all(set(e) == {"slic_compactness", "kinds", "miou"} for e in written)


def test_evaluations_that_do_not_compare_are_refused(script, tmp_path):
    one = write(tmp_path / "one", 0)
    other = write(tmp_path / "other", 1, {"model": ("model", None)})
    with pytest.raises(command_line.UsageError, match="different kinds"):
        run(script, f"--evaluations={one},{other}")
    (tmp_path / "other" / "superpixels.json").unlink()
    with pytest.raises(command_line.UsageError, match=r"no .*superpixels\.json.*--superpixels"):
        run(script, f"--evaluations={one},{other}")
    with pytest.raises(command_line.UsageError, match="--evaluations must be given"):
        run(script)
