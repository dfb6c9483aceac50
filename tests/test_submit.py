"""From a checkpoint and the published archives to a submission that the official script scores."""

import importlib.util
import json
import pathlib
import zipfile

import numpy as np
import pytest
from absl import flags
from PIL import Image

from sp_transformer import command_line, evaluate, submit


def parse(binary, *arguments):
    values = flags.FlagValues()
    binary.define_flags(values)
    values([binary.__name__, *map(str, arguments)])
    return values


@pytest.fixture(scope="module")
def published():
    """The module tests/data/official.py, which writes archives as the data sets' publishers do."""
    path = pathlib.Path(__file__).parent / "data" / "official.py"
    spec = importlib.util.spec_from_file_location("official", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_official_script_scores_a_submission_as_evaluate_scores_the_model(
    tiny_run, published, tmp_path, capsys
):
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as script

    data = tmp_path / "data"
    published.write_cityscapes_zips(data, published.cityscapes_files())
    common = [
        f"--model_dir={tiny_run.model_dir}",
        f"--data_dir={data}",
        '--override=data { dataset: "cityscapes" }',
    ]
    assert evaluate.main(parse(evaluate, *common, f"--output_dir={tmp_path / 'scores'}")) == 0
    ours = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert submit.main(parse(submit, *common, f"--output_dir={tmp_path / 'val'}")) == 0
    assert "3 images of split 'val'" in capsys.readouterr().out
    with zipfile.ZipFile(data / "gtFine_trainvaltest.zip") as archive:
        archive.extractall(tmp_path / "truth")
    args = script.args
    args.evalInstLevelScore = args.evalPixelAccuracy = args.JSONOutput = False
    args.quiet = True
    args.predictionPath, args.predictionWalk = str(tmp_path / "val"), None
    truth = sorted(map(str, (tmp_path / "truth").glob("gtFine/val/*/*_gtFine_labelIds.png")))
    for path in truth:
        # License plates, -1, which no published file holds, are void like 0.
        ids = np.array(Image.open(path))
        Image.fromarray(np.where(ids == 255, 0, ids).astype(np.uint8)).save(path)
    # The script itself looks up which file is the prediction of which image.
    theirs = script.evaluateImgLists([script.getPrediction(args, t) for t in truth], truth, args)
    assert len(truth) == ours["num_images"] == 3 and ours["miou"] is not None
    assert ours["miou"] == theirs["averageScoreClasses"]
    assert ours["category_miou"] == theirs["averageScoreCategories"]
    for name, iou in ours["per_class_iou"].items():
        assert iou == theirs["classScores"][name]
    # And read back as any stored predictions.
    config = f"--config_file={tiny_run.model_dir / 'config.textproto'}"
    again = [config, *common[1:], f"--predictions={tmp_path / 'val'}", "--report"]
    assert evaluate.main(parse(evaluate, *again, f"--output_dir={tmp_path / 'again'}")) == 0
    stored = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert stored["confusion_matrix"] == ours["confusion_matrix"]
    report = (tmp_path / "again" / "report.html").read_text()
    assert "Prediction of " in report and "Superpixels of " not in report
    # The test split has no truth; its predictions are wanted all the same.
    test_set = [*common, f"--output_dir={tmp_path / 'test'}", "--split=test"]
    assert submit.main(parse(submit, *test_set)) == 0
    with zipfile.ZipFile(tmp_path / "test.zip") as archive:
        assert archive.namelist() == [
            f"berlin_{number:06d}_000019_labelIds.png" for number in range(3)
        ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output_dir=o"], "exactly one of --checkpoint and --model_dir"),
        (["--model_dir={run}"], "--output_dir must be given"),
        (["--model_dir={run}", "--output_dir=o", "--mode=fast"], "'fast' is none of"),
        (["--model_dir={run}", "--output_dir=o", "--format=cityscapes", "--split=tst"], "'tst'"),
        (["--model_dir={run}", "--output_dir={run}"], "is not empty"),
    ],
)
def test_faults_are_refused_before_a_model_is_built(tiny_run, arguments, words, monkeypatch):
    from sp_transformer.model import builder

    monkeypatch.setattr(builder, "build_model", None)
    arguments = [argument.format(run=tiny_run.model_dir) for argument in arguments]
    with pytest.raises(ValueError, match=words):
        submit.main(parse(submit, *arguments))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--predictions=p", "--model_dir=m"], "--model_dir needs a model"),
        (["--predictions=p", "--superpixels"], "--superpixels needs a model"),
        (["--predictions=p"], "--predictions needs --config_file"),
        (["--model_dir=m", "--predictions_format=ade20k"], "that of --predictions"),
    ],
)
def test_flags_that_contradict_stored_predictions_are_refused(arguments, words):
    with pytest.raises(command_line.UsageError, match=words):
        evaluate.main(parse(evaluate, "--output_dir=o", *arguments))
