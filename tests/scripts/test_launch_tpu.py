"""scripts/launch_tpu.sh against a gcloud that pretends, and its dry run."""

import contextlib
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tarfile

import pytest

from sp_transformer import exit_codes
from sp_transformer.training import supervisor

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "launch_tpu.sh"
CONFIG = "configs/cityscapes/resnet50.textproto"
OVERRIDE = 'training { steps: 5 } data { dataset: "folder" } # it\'s $HOME'
FLAGS = {
    "--name": "segmenter",
    "--zone": "us-central2-b",
    "--accelerator_type": "v4-8",
    "--model_dir": "gs://bucket/run",
    "--poll_seconds": "1",
}
TRAINING = ["--", "--config_file", CONFIG, "--override", OVERRIDE]


def arguments(*more, training=TRAINING, **changed):
    flags = {**FLAGS, **{f"--{name}": value for name, value in changed.items()}}
    given = [word for name, value in flags.items() if value is not None for word in (name, value)]
    return [*given, *more, *training]


class Cloud:
    """The folder that tests/scripts/fake_gcloud.sh calls a cloud."""

    def __init__(self, folder):
        self.folder = folder
        programs = folder / "programs"
        programs.mkdir()
        scripts = ROOT / "tests" / "scripts"
        shutil.copy(scripts / "fake_gcloud.sh", programs / "gcloud")
        shutil.copy(scripts / "fake_curl.sh", programs / "curl")
        shutil.copy(scripts / "fake_training.sh", folder / "python")
        shutil.copy(scripts / "fake_tpu_server.py", folder / "start_grpc_tpu_worker")
        (programs / "sleep").write_text("#!/bin/sh\nexec /bin/sleep 0.1\n")
        (programs / "python3.11").write_text("#!/bin/sh\n")
        servers = [folder / "python", folder / "start_grpc_tpu_worker"]
        for program in (*programs.iterdir(), *servers):
            program.chmod(0o755)
        (folder / "hosts").write_text("127.0.0.1\n")
        with socket.socket() as free:
            free.bind(("", 0))
            self.port = free.getsockname()[1]

    def launch(self, plan, *more, **changed):
        (self.folder / "plan").write_text("".join(f"{line}\n" for line in plan))
        return subprocess.run(
            ["bash", SCRIPT, *arguments(*more, **changed)],
            env={
                **os.environ,
                "FAKE": str(self.folder),
                "TPU_TASK_PORT": str(self.port),
                "TPU_WORKER_WAIT_SECONDS": "20",
                "PATH": f"{self.folder / 'programs'}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )

    def calls(self):
        """The verbs of gcloud, in order, without the looking."""
        lines = (self.folder / "log").read_text().splitlines()
        return [line.split()[3] for line in lines if line.split()[3] not in ("describe", "ssh")]

    def clean_up(self):
        """Ends what was left running on the machines."""
        for path in self.folder.glob("home*/sp-transformer/pid"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(path.read_text()), signal.SIGKILL)

    def trainings(self):
        path = self.folder / "trainings"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def cloud(tmp_path):
    cloud = Cloud(tmp_path)
    yield cloud
    cloud.clean_up()


def test_creates_installs_trains_and_deletes(cloud):
    result = cloud.launch([0], "--delete_at_end")
    assert result.returncode == 0, result.stderr
    assert cloud.calls() == ["create", "scp", "delete"]
    words = (cloud.folder / "arguments").read_text().splitlines()
    assert words == [
        *["-m", "sp_transformer.train", *TRAINING[1:]],
        *["--model_dir", "gs://bucket/run", "--master", "local"],
    ]


def test_what_is_installed_is_the_source_tree(cloud):
    assert cloud.launch([0]).returncode == 0
    with tarfile.open(cloud.folder / "home" / "sp-transformer.tar.gz") as archive:
        names = archive.getnames()
    for name in (
        "constraints-tpu.txt",
        "setup.py",
        "protos/model.proto",
        "sp_transformer/train.py",
    ):
        assert name in names
    assert CONFIG in names
    assert not [name for name in names if name.endswith((".pyc", "_pb2.py"))]


def test_reuses_a_tpu_and_leaves_it(cloud):
    assert cloud.launch([0]).returncode == 0
    result = cloud.launch([0])
    assert result.returncode == 0
    assert cloud.calls() == ["create", "scp", "scp"]
    assert "still costs money" in result.stdout


def test_goes_on_after_preemptions(cloud):
    result = cloud.launch(["preempted", "preempted", 0], "--spot", "--max_restarts", "0")
    assert result.returncode == 0, result.stderr
    assert cloud.trainings() == 3
    assert cloud.calls() == ["create", "scp", "delete", "create", "scp", "delete", "create", "scp"]
    assert result.stdout.count("segmenter was taken away") == 2
    assert "--spot" in (cloud.folder / "log").read_text()


def test_a_zone_without_room_is_asked_again_and_again(cloud):
    (cloud.folder / "stockout").write_text("12")
    result = cloud.launch([0], "--spot")
    assert result.returncode == 0, result.stdout + result.stderr
    assert cloud.calls() == [*["create"] * 13, "scp"]
    waits = re.findall(r"could not be created;.* next in (\d+) s", result.stdout)
    assert waits == ["1", "2", "4", "8", "16", *["30"] * 7]
    assert "no more capacity" in result.stderr and "given up" not in result.stdout


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED"])
def test_replaces_what_a_preemption_left(cloud, state):
    (cloud.folder / "state").write_text(state)
    (cloud.folder / "home").mkdir()
    assert cloud.launch([0]).returncode == 0
    assert cloud.calls() == ["delete", "create", "scp"]


@pytest.mark.parametrize(
    "code",
    [exit_codes.USAGE, exit_codes.NOT_FINITE, exit_codes.CANNOT_WRITE, exit_codes.INTERRUPTED],
)
def test_does_not_repeat_what_would_fail_again(cloud, code):
    result = cloud.launch([code, 0])
    assert result.returncode == code
    assert cloud.trainings() == 1
    assert f"ended with code {code}" in result.stdout
    assert "step 12 of 60000" in result.stdout


@pytest.mark.parametrize(
    "end", [exit_codes.FAILED, exit_codes.LOST_PEER, exit_codes.TERMINATED, "killed"]
)
def test_starts_again_what_died_on_a_machine_that_lives(cloud, end):
    result = cloud.launch([end, 0])
    assert result.returncode == 0, result.stderr
    assert cloud.trainings() == 2
    assert cloud.calls().count("create") == 1


def test_gives_up_after_so_many_restarts(cloud):
    result = cloud.launch([1] * 9, "--max_restarts", "2")
    assert result.returncode == 1
    assert cloud.trainings() == 3


def test_final_codes_are_the_supervisors():
    line = next(line for line in SCRIPT.read_text().splitlines() if "final_codes=" in line)
    assert sorted(map(int, shlex.split(line)[0].split("=")[1].split())) == sorted(supervisor._FINAL)


def test_takes_up_a_training_that_runs(cloud):
    home = cloud.folder / "home" / "sp-transformer"
    home.mkdir(parents=True)
    (cloud.folder / "state").write_text("READY")
    running = subprocess.Popen(["bash", "-c", f"/bin/sleep 2; echo 0 > '{home}/exit_code'"])
    (home / "pid").write_text(str(running.pid))
    (home / "train.log").write_text("step 7\rstep 8")
    try:
        result = cloud.launch([])
    finally:
        running.wait()
    assert result.returncode == 0, result.stderr
    assert "step 8" in result.stdout and "step 7" not in result.stdout
    assert cloud.trainings() == 0
    assert not (cloud.folder / "plan").read_text()


@pytest.fixture
def slice_of_three(cloud):
    (cloud.folder / "hosts").write_text("127.0.0.1;127.0.0.2;127.0.0.3\n")
    return cloud


def test_a_slice_runs_the_same_command_on_all_workers(slice_of_three):
    cloud = slice_of_three
    refused = cloud.launch([0])
    assert refused.returncode == exit_codes.USAGE
    assert "has 3 hosts" in refused.stderr and "--slice" in refused.stderr
    result = cloud.launch([0], "--slice")
    assert result.returncode == 0, result.stdout + result.stderr
    servers = ",".join(f"grpc://127.0.0.{n}:{cloud.port}" for n in (1, 2, 3))
    assert (cloud.folder / "arguments").read_text().splitlines() == [
        *["-m", "sp_transformer.train", *TRAINING[1:]],
        *["--model_dir", "gs://bucket/run", "--master", servers],
    ]
    # Trained on one worker, which leaves the chips to the servers; all of them served, and none does any more.
    assert (cloud.folder / "trainings").read_text() == "0\n"
    assert not [
        line for line in (cloud.folder / "log").read_text().splitlines() if "--worker 0" in line
    ]
    for worker in range(3):
        pid = int((cloud.folder / f"server{worker}").read_text())
        assert (
            not pathlib.Path(f"/proc/{pid}").exists()
            or "State:\tZ" in pathlib.Path(f"/proc/{pid}/status").read_text()
        )


def test_a_slice_starts_anew_where_a_worker_lost_its_server(slice_of_three):
    result = slice_of_three.launch(["lost", 0], "--slice")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "training ended with code 75; starting it again" in result.stdout
    assert slice_of_three.trainings() == 2


def test_a_slice_says_which_worker_has_no_server(slice_of_three):
    (slice_of_three.folder / "faulty_server").write_text("2")
    result = slice_of_three.launch([0], "--slice", "--max_restarts", "0")
    assert result.returncode == exit_codes.LOST_PEER
    assert "worker 2: the TPU server ended: no chips here" in result.stdout
    assert slice_of_three.trainings() == 0


def test_a_slice_comes_back_after_a_preemption(slice_of_three):
    result = slice_of_three.launch(["preempted", 0], "--slice", "--delete_at_end")
    assert result.returncode == 0, result.stdout + result.stderr
    assert slice_of_three.calls() == ["create", "scp", "delete"] * 2


def test_does_not_create_what_it_may_not_see(cloud):
    (cloud.folder / "refused").touch()
    result = cloud.launch([0])
    assert result.returncode == exit_codes.LOST_PEER
    assert "PERMISSION_DENIED" in result.stderr
    assert cloud.calls() == []


@pytest.mark.parametrize(
    ("kind", "extra"), [("v4-8", []), ("v3-32", ["--slice", "--project", "mine", "--spot"])]
)
def test_dry_run_prints_commands_that_a_shell_reads(kind, extra, tmp_path):
    result = subprocess.run(
        ["bash", SCRIPT, *arguments("--dry_run", *extra, accelerator_type=kind)],
        # Neither gcloud nor anything else of ours.
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    commands = [shlex.split(line) for line in result.stdout.splitlines() if "gcloud" in line]
    assert [command[4] for command in commands] == [
        *["describe", "create", "scp", "ssh", *(["ssh"] if extra else []), "ssh", "ssh"],
    ]
    for command in commands:
        assert command[command.index("--zone") + 1] == "us-central2-b"
        assert ("mine" in command) == ("--project" in extra)
        if "--command" in command:
            remote = command[command.index("--command") + 1]
            subprocess.run(["bash", "-n", "-c", remote], check=True)
    started = next(command for command in commands if "nohup" in str(command))
    assert started[started.index("--worker") + 1] == "all"
    remote = shlex.split(started[started.index("--command") + 1])
    training = shlex.split(remote[remote.index("-c") + 1])
    assert OVERRIDE in training and "gs://bucket/run" in training
    if extra:
        assert (
            training[:2] == ["bash", "scripts/tpu_slice_worker.sh"] and "--master" not in training
        )
    else:
        assert training[training.index("--master") + 1] == "local"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"name": None}, "--name must be given"),
        ({"zone": None}, "--zone must be given"),
        ({"accelerator_type": None}, "--accelerator_type must be given"),
        ({"model_dir": None}, "--model_dir must be given"),
        ({"name": "My_TPU"}, "My_TPU is not a name"),
        ({"zone": "europe"}, "europe is not a zone"),
        ({"accelerator_type": "a100"}, "a100 is not a type of TPU"),
        ({"model_dir": "runs/streets"}, "runs/streets is not gs://BUCKET/FOLDER"),
        ({"model_dir": "gs://bucket"}, "gs://bucket is not gs://BUCKET/FOLDER"),
        ({"poll_seconds": "0"}, "poll_seconds 0 is not a whole number above 0"),
        ({"max_restarts": "-1"}, "max_restarts -1 is not a whole number"),
        ({"training": []}, "nothing to train"),
        ({"training": ["--"]}, "nothing to train"),
        ({"training": ["--", "--model_dir=x"]}, "--model_dir is set by this script"),
        ({"training": ["--", "--master", "x"]}, "--master is set by this script"),
        ({"training": ["--config_file", "x"]}, "unknown argument --config_file"),
        ({"training": ["--name"]}, "--name needs a value"),
    ],
)
def test_bad_arguments_get_one_line(changed, fault):
    result = subprocess.run(
        ["bash", SCRIPT, *arguments("--dry_run", **changed)], capture_output=True, text=True
    )
    assert result.returncode == exit_codes.USAGE
    assert fault in result.stderr and len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_says_that_gcloud_is_missing(tmp_path):
    result = subprocess.run(
        ["/bin/bash", SCRIPT, *arguments()],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == exit_codes.USAGE
    assert "gcloud was not found" in result.stderr
