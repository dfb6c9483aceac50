"""The command line of prediction; a tiny SavedModel made by hand stands for an export."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from sp_transformer import predict


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Labels a pixel by whether it is bright; a superpixel for each column."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")])
    def both(images):
        columns = tf.broadcast_to(tf.range(tf.shape(images)[2]), tf.shape(images)[:3])
        return {"labels": tf.cast(images[..., 0] > 127, tf.int32), "superpixels": columns}

    module.both = both
    folder = tmp_path_factory.mktemp("model")
    tf.saved_model.save(
        module, str(folder), signatures={"superpixels": both, "serving_default": both}
    )
    classes = [{"name": "dark", "color": "#000000"}, {"name": "bright", "color": "#ffff00"}]
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "label_map.json").write_text(
        json.dumps({"classes": classes, "ignore_label": 255, "id_map": {}})
    )
    (folder / "assets.extra" / "version.json").write_text(json.dumps({"sp_transformer": "0.1.0"}))
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(image).save(folder / "good.png")
    return folder


def parse(*arguments):
    values = flags.FlagValues()
    predict.define_flags(values)
    values(["predict", *map(str, arguments)])
    return values


def test_exit_code_tells_whether_images_were_skipped(model, photos, tmp_path, capsys):
    def run(out):
        return predict.main(
            parse(f"--model={model}", f"--input={photos}", f"--output_dir={tmp_path / out}")
        )

    assert run("first") == 0
    (photos / "bad.png").write_bytes(b"not a png")
    assert run("second") == 1
    assert "bad.png" in capsys.readouterr().out
    labels = np.asarray(Image.open(tmp_path / "second" / "good_labels.png"))
    truth = np.asarray(Image.open(photos / "good.png"))[..., 0] > 127
    np.testing.assert_array_equal(labels, truth)


def test_missing_flags_are_named_all_at_once():
    with pytest.raises(ValueError, match="--model and --output_dir must be given"):
        predict.main(parse("--input=photos"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--modell=x"], "modell"),
        (["--model=x", "photos"], "unexpected argument 'photos'"),
        (["--model=x", "--input=absent.png", "--output_dir=out"], "'absent.png' does not exist"),
    ],
)
def test_faults_exit_with_2_and_plain_text(arguments, words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sp_transformer.predict", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 2, done.stderr
    assert "predict: " in done.stderr and words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_whole_files_only(model, tmp_path, number, code):
    folder = tmp_path / "in"
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    for index in range(400):
        Image.fromarray(image).save(folder / f"{index:03}.bmp")
    out = tmp_path / "out"
    running = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sp_transformer.predict",
            *(f"--model={model}", f"--input={folder}", f"--output_dir={out}"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    deadline = time.monotonic() + 120
    while not (out / "003_labels.png").exists() and time.monotonic() < deadline:
        assert running.poll() is None, running.stdout.read()
        time.sleep(0.005)
    running.send_signal(number)
    printed, _ = running.communicate(timeout=120)
    assert running.returncode == code, printed
    assert "interrupted" in printed and "Traceback" not in printed
    written = sorted(path.name for path in out.iterdir())
    done = [name for name in written if name.endswith("_superpixels.json")]
    assert 3 < len(done) < 400
    assert f"{len(done)} images predicted" in printed
    for name in done:
        for ending in ("labels.png", "overlay.png", "superpixels.png"):
            Image.open(out / name.replace("superpixels.json", ending)).load()
    assert len(written) == 4 * len(done) + 1


def test_ground_truth_is_drawn_beside_the_prediction(model, photos, tmp_path, capsys):
    labels = tmp_path / "labels"
    labels.mkdir()
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(labels / "good.png")
    arguments = (f"--model={model}", f"--input={photos}", f"--output_dir={tmp_path / 'out'}")
    assert predict.main(parse(*arguments, f"--ground_truth={labels}")) == 0
    assert (tmp_path / "out" / "good_panel.png").exists()
    assert (tmp_path / "out" / "good_errors.png").exists()
    Image.fromarray(np.full((5, 7), 9, np.uint8)).save(labels / "good.png")
    assert predict.main(parse(*arguments, f"--ground_truth={labels}", "--outputs=panel")) == 1
    printed = capsys.readouterr().out
    assert "holds id 9" in printed and "label_map.json" in printed


def test_a_pixel_is_given_as_two_numbers():
    with pytest.raises(ValueError, match=r"--pixel=3 is no pixel.*--pixel=100,250"):
        predict.main(parse("--model=m", "--input=i", "--output_dir=o", "--pixel=3"))
