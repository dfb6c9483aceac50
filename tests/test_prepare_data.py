"""The preparing binary, and whole runs from official archives to a score with no change but the data directory."""

import importlib.util
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from absl import flags

from sp_transformer import command_line, prepare_data

ROOT = pathlib.Path(__file__).parents[1]

# Sized for seconds on a laptop, and the same wherever the data come from.
SMALL = """
model {
  channels: 16
  backbone { name: "resnet18" }
  hypercolumn { stride: 8 max_hidden_channels: 16 }
  tokenizer { superpixel_stride: 32 layers: 1 }
  classifier { layers: 1 heads: 2 feed_forward_width: 16 }
}
data { crop_height: 64 crop_width: 64 resize_longer_side: 0 }
training { batch_size: 2 steps: 20 warmup_steps: 1 save_interval_steps: 20 picture_interval_steps: 0 }
evaluation { batch_size: 2 }
"""


@pytest.fixture(scope="module")
def official():
    """tests/data/official.py, which builds the archives."""
    path = ROOT / "tests" / "data" / "official.py"
    spec = importlib.util.spec_from_file_location("official", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(*arguments):
    values = flags.FlagValues()
    prepare_data.define_flags(values)
    values(["prepare_data", *map(str, arguments)])
    return values


def run(binary, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", f"sp_transformer.{binary}", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prepares_verifies_and_says_what_it_made(official, tmp_path, capsys):
    official.write_ade20k_zips(tmp_path / "zips", official.ade20k_files())
    arguments = [
        "--config_file=configs/ade20k/resnet50.textproto",
        f"--data_dir={tmp_path / 'zips'}",
        f"--output_dir={tmp_path / 'out'}",
        "--num_workers=1",
        "--verify",
    ]
    assert prepare_data.main(parse(*arguments)) == 0
    printed = capsys.readouterr()
    assert "train              4       1" in printed.out and "4 of 24x32" in printed.out
    assert "Verified: every pixel of every image" in printed.out and "(ignored)" in printed.out
    assert "4/6" in printed.err or "6/6" in printed.err
    assert "images/s" in printed.err
    # Again: nothing to do, and verified all the same.
    assert prepare_data.main(parse(*arguments)) == 0
    shard = next((tmp_path / "out").glob("*train*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    capsys.readouterr()
    assert prepare_data.main(parse(*arguments)) == 1
    assert "DIFFERS: " in capsys.readouterr().out


def test_faults_of_flags_are_found_before_tensorflow_is_imported(tmp_path):
    code = (
        "import sys\nfrom sp_transformer import command_line, prepare_data\n"
        "sys.argv = ['prepare_data', *sys.argv[1:]]\n"
        "try:\n    command_line.run(prepare_data.main, prepare_data.define_flags)\n"
        "finally:\n    print('tensorflow' in sys.modules)\n"
    )
    config = "--config_file=configs/ade20k/resnet50.textproto"
    for arguments, words in (
        ([config], "--output_dir must be given"),
        ([config, f"--output_dir={tmp_path}", "--splits=train,"], "--splits is empty"),
        ([config, f"--output_dir={tmp_path}", "--encoding=gif"], "encoding"),
        (["--config_file=absent", f"--output_dir={tmp_path}"], "absent"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert done.stdout.strip() == "False"


def test_encodings_of_the_flag_are_those_there_are():
    from sp_transformer.data import preparation_plan

    assert prepare_data.ENCODINGS == preparation_plan.ENCODINGS


def test_missing_data_are_named(tmp_path):
    arguments = [
        "--config_file=configs/cityscapes/resnet50.textproto",
        f"--data_dir={tmp_path}",
        f"--output_dir={tmp_path / 'out'}",
    ]
    with pytest.raises(ValueError, match="holds no split of cityscapes"):
        prepare_data.main(parse(*arguments))
    with pytest.raises(
        ValueError, match=r"split 'train' of Cityscapes needs leftImg8bit_trainvaltest\.zip"
    ):
        prepare_data.main(parse(*arguments, "--splits=train"))
    with pytest.raises(command_line.UsageError, match="--splits"):
        prepare_data.main(parse(*arguments, "--splits="))


def _common(config, data_dir):
    return [f"--config_file={config}", f"--data_dir={data_dir}", f"--override={SMALL}"]


def _train_and_score(config, data_dir, folder):
    """Trains 20 steps and evaluates; returns the metrics."""
    common = _common(config, data_dir)
    run("train", *common, f"--model_dir={folder / 'run'}", "--mode=train")
    scores = [f"--model_dir={folder / 'run'}", f"--output_dir={folder / 'scores'}"]
    run("evaluate", *common, *scores)
    metrics = json.loads((folder / "scores" / "metrics.json").read_text())
    return {key: metrics[key] for key in ("step", "num_images", "confusion_matrix")}


def _inspect(config, data_dir, folder):
    """Inspects, which finds nothing; returns what each split holds, as report.json says it."""
    output = folder / "inspection"
    common = _common(config, data_dir)
    # Ends with exit code 0: neither faults nor doubts.
    assert "No faults and no doubts." in run("inspect_data", *common, f"--output_dir={output}")
    report = json.loads((output / "report.json").read_text())
    assert report["exit_code"] == 0 and (output / "contact_sheet.png").exists()
    keys = ("split", "num_images", "sizes", "color_mean", "classes", "ignored_share")
    return [{key: split[key] for key in keys} for split in report["splits"]]


def _camvid_files(official):
    files = {}
    # None of val shows what train shows, which inspection would notice.
    for split, numbers in (("train", range(6)), ("val", range(6, 8))):
        for number in numbers:
            image, ids = official.scene(number, (64, 96), np.arange(12, dtype=np.uint8))
            files[f"{split}/0001TP_{number:06d}.png"] = official.encoded(image)
            files[f"{split}annot/0001TP_{number:06d}.png"] = official.encoded(ids)
    return files


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["cityscapes", "ade20k", "camvid"])
def test_from_official_archives_to_a_score(official, dataset, tmp_path):
    """Archives and what is prepared of them are inspected, trained on and scored alike: in no bit do they differ."""
    data, prepared = tmp_path / "data", tmp_path / "prepared"
    config = f"configs/{dataset}/resnet50.textproto"
    if dataset == "cityscapes":
        official.write_cityscapes_zips(data, official.cityscapes_files((6, 3, 3)))
    elif dataset == "ade20k":
        official.write_ade20k_zips(data, official.ade20k_files((6, 3), size=(64, 96)))
    else:
        official.write_folder(data, _camvid_files(official))
        config = "configs/camvid/resnet18.textproto"
    prepare = [f"--config_file={config}", f"--data_dir={data}", f"--output_dir={prepared}"]
    if dataset == "camvid":
        # The parts of train that the config names besides go by the drives of the real frames.
        prepare.append("--splits=train,val")
    assert "Verified" in run("prepare_data", *prepare, "--verify", "--num_workers=2")
    sides = [(data, tmp_path / "from_data"), (prepared, tmp_path / "from_records")]
    found = [_inspect(config, data_dir, folder) for data_dir, folder in sides]
    assert found[0] == found[1]
    scores = [_train_and_score(config, data_dir, folder) for data_dir, folder in sides]
    assert scores[0] == scores[1]
    assert scores[0]["step"] == 20 and np.sum(scores[0]["confusion_matrix"]) > 0


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_goes_on(tmp_path):
    config = "configs/synthetic/quickstart.textproto"
    override = "data { synthetic_streets { train_images: 600 val_images: 10 } }"
    output = tmp_path / "out"
    arguments = [f"--config_file={config}", f"--override={override}", f"--output_dir={output}"]
    arguments += ["--num_workers=2", "--num_shards=30"]
    command = [sys.executable, "-m", "sp_transformer.prepare_data", *arguments]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(output.glob("index/*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    running.kill()
    running.wait()
    while _members(running.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _members(running.pid)
    finished = {
        path: path.stat().st_mtime_ns
        for path in output.glob("*.tfrecord-*")
        if path.suffix != ".partial"
        and (
            output / "index" / f"{path.name.split('-', 1)[1].replace('.tfrecord', '')}.npz"
        ).exists()
    }
    assert 3 <= len(finished) < 60 and not (output / "records.json").exists()
    assert "Verified" in run("prepare_data", *arguments, "--verify")
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())


def _members(session):
    """Processes that live in a session."""
    found = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True)
    return found.stdout.split()


@pytest.mark.slow
def test_cityscapes_by_the_builder_of_tfds(official, tmp_path):
    """tfds's own builder prepares the official archives; its images are those that the archives hold."""
    from sp_transformer.config import load_config
    from sp_transformer.data import sources

    # The builder takes no other size.
    files = official.cityscapes_files((2, 1, 1), size=(1024, 2048))
    official.write_cityscapes_zips(tmp_path / "zips", files)
    override = f"""data {{ dataset: "tfds" tfds {{
      name: "cityscapes/semantic_segmentation" image_key: "image_left" name_key: "image_id"
      manual_dir: "{tmp_path / "zips"}" }} }}"""
    config = "configs/cityscapes/resnet50.textproto"
    arguments = [f"--config_file={config}", f"--override={override}", f"--data_dir={tmp_path}/tfds"]
    run("prepare_data", *arguments, f"--output_dir={tmp_path}/out", "--splits=train", "--verify")
    options = load_config(config, [override], f"{tmp_path}/out").data
    prepared = sources.create_source(options, "train")
    ours = sources.create_source(load_config(config, (), f"{tmp_path}/zips").data, "train")
    found = {np.sum(image, dtype=np.int64): label for image, label in map(prepared.read, range(2))}
    for image, label in map(ours.read, range(2)):
        assert np.array_equal(found[np.sum(image, dtype=np.int64)], label)
