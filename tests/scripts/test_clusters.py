"""The files of scripts/clusters: against schemas, and run with what a cluster would set."""

import json
import os
import pathlib
import signal
import subprocess
import time

import pytest
import yaml

from sp_transformer import exit_codes
from sp_transformer.training import devices, supervisor

ROOT = pathlib.Path(__file__).parents[2]
CLUSTERS = ROOT / "scripts" / "clusters"
SBATCH = CLUSTERS / "train.sbatch"
ARGUMENTS = ["--config_file", "c.textproto", "--override", "training { steps: 5 }"]

# One task a machine, at the same time, with the highest of their codes: what srun does.
SRUN = """#!/usr/bin/env bash
shift  # --kill-on-bad-exit=0
export SLURM_STEP_ID=0
pids=()
for ((i = 0; i < SLURM_NNODES; i++)); do SLURM_NODEID=$i "$@" & pids+=($!); done
echo "${pids[@]}" >"$FAKE/tasks"
trap 'signalled=true; kill -TERM "${pids[@]}"' TERM
highest=0
for pid in "${pids[@]}"; do
  signalled=false
  wait "$pid"; code=$?
  if $signalled; then wait "$pid"; code=$?; fi
  if [ "$code" -gt "$highest" ]; then highest=$code; fi
done
exit "$highest"
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1 $2" = "show hostnames" ]; then
  [ "$3" = "node[1-3]" ] && printf 'node1\\nnode2\\nnode3\\n'
else
  echo "$*" >>"$FAKE/requeued"
fi
"""
SCANCEL = """#!/usr/bin/env bash
echo "$*" >"$FAKE/cancelled"
until [ -s "$FAKE/tasks" ]; do sleep 0.05; done
for task in $(cat "$FAKE/tasks"); do kill -TERM "$task" 2>/dev/null; done
"""
# Stands in for the interpreter: worker 1 ends with $CODE, the others with $OTHERS.
PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$TF_CONFIG" >"$FAKE/config-$SLURM_NODEID"
printf '%s\\n' "$@" >"$FAKE/arguments-$SLURM_NODEID"
trap 'exit 143' TERM
[ "$SLURM_NODEID" = 1 ] && end="$CODE" || end="${OTHERS:-0}"
if [ "$CODE" = wait ] || [ "$end" = wait ]; then while :; do sleep 0.05; done; fi
exit "$end"
"""


class Slurm:
    def __init__(self, folder):
        self.folder = folder
        texts = {"srun": SRUN, "scontrol": SCONTROL, "scancel": SCANCEL, "python": PYTHON}
        for name, text in texts.items():
            program = folder / name
            program.write_text(text)
            program.chmod(0o755)

    def start(self, code, **variables):
        environment = {
            "FAKE": str(self.folder),
            "CODE": str(code),
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "123456",
            "SLURM_JOB_NODELIST": "node[1-3]",
            "SLURM_NNODES": "3",
            "SLURM_GPUS_ON_NODE": "8",
            **variables,
        }
        return subprocess.Popen(
            ["bash", SBATCH, *ARGUMENTS],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, code, **variables):
        process = self.start(code, **variables)
        out, err = process.communicate(timeout=120)
        return process.returncode, out + err

    def requeued(self):
        path = self.folder / "requeued"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def slurm(tmp_path):
    return Slurm(tmp_path)


def test_slurm_gives_each_machine_its_tf_config(slurm):
    code, text = slurm.run(0)
    assert code == 0, text
    assert slurm.requeued() == []
    for index in range(3):
        config = (slurm.folder / f"config-{index}").read_text()
        assert devices.count_workers(config) == 3
        assert json.loads(config) == {
            "cluster": {"worker": ["node1:23456", "node2:23456", "node3:23456"]},
            "task": {"type": "worker", "index": index},
        }
        words = (slurm.folder / f"arguments-{index}").read_text().splitlines()
        assert words[:2] == ["-m", "sp_transformer.train"]
        assert words[2 : 2 + len(ARGUMENTS)] == ARGUMENTS
        assert words[-4:] == ["--num_gpus", "8", "--max_restarts", "10"]


def test_slurm_without_gpus_leaves_the_flag_out(slurm):
    assert slurm.run(0, SLURM_GPUS_ON_NODE="")[0] == 0
    assert "--num_gpus" not in (slurm.folder / "arguments-0").read_text()


@pytest.mark.parametrize("code", [exit_codes.USAGE, exit_codes.NOT_FINITE, exit_codes.CANNOT_WRITE])
def test_slurm_does_not_requeue_what_would_fail_again(slurm, code):
    assert slurm.run(code)[0] == code
    assert slurm.requeued() == []


@pytest.mark.parametrize("others", [str(exit_codes.LOST_PEER), str(exit_codes.TERMINATED), "wait"])
@pytest.mark.parametrize(
    "code", [exit_codes.USAGE, exit_codes.CANNOT_WRITE, exit_codes.INTERRUPTED]
)
def test_slurm_tells_a_failure_for_good_from_what_the_others_lost_by_it(slurm, code, others):
    ended, text = slurm.run(code, OTHERS=others)
    assert ended == code, text
    assert f"ended with code {code}" in text
    assert slurm.requeued() == []
    # Others that wait for the one that failed are not waited for.
    assert (slurm.folder / "cancelled").read_text() == "--signal=TERM 123456.0\n"


@pytest.mark.parametrize("code", [exit_codes.FAILED, exit_codes.LOST_PEER, 137])
def test_slurm_requeues_what_died(slurm, code):
    ended, text = slurm.run(code)
    assert slurm.requeued() == ["requeue 123456"], text
    assert ended == 0


def test_slurm_gives_up_at_last(slurm):
    ended, text = slurm.run(1, SLURM_RESTART_COUNT="50")
    assert ended == 1 and "given up after 50" in text
    assert slurm.requeued() == []


def test_slurm_passes_sigterm_on_and_requeues(slurm):
    process = slurm.start("wait")
    deadline = time.monotonic() + 30
    while len(list(slurm.folder.glob("arguments-*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert f"ended with code {exit_codes.TERMINATED}" in out, out + err
    assert slurm.requeued() == ["requeue 123456"]


def test_slurm_says_that_the_machines_are_unknown(slurm):
    code, text = slurm.run(0, SLURM_JOB_NODELIST="other")
    assert code == 1 and "cannot tell the machines of other" in text


def final_codes_of(script):
    line = next(line for line in script.read_text().splitlines() if line.startswith("final_codes="))
    return sorted(map(int, line.split("=")[1].strip('"').split()))


def test_final_codes_are_the_supervisors():
    assert final_codes_of(SBATCH) == sorted(supervisor._FINAL)
    job = manifest()["Job"]
    rules = job["spec"]["podFailurePolicy"]["rules"]
    failing = next(rule for rule in rules if rule["action"] == "FailJob")["onExitCodes"]["values"]
    assert sorted([0, *failing]) == sorted(supervisor._FINAL)
    ignored = [rule["onExitCodes"]["values"] for rule in rules[1:] if "onExitCodes" in rule]
    assert ignored == [[exit_codes.LOST_PEER, exit_codes.TERMINATED]]


def manifest():
    documents = yaml.safe_load_all((CLUSTERS / "train.yaml").read_text())
    return {document["kind"]: document for document in documents}


def test_kubernetes_accepts_the_manifest():
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for version in ("1.31", "1.35"):
        for document in manifest().values():
            kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_check_finds_faults():
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    job = manifest()["Job"]
    job["spec"]["completion"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.31", strict=True)


def test_parts_of_the_manifest_fit():
    service, job = manifest()["Service"], manifest()["Job"]
    pod = job["spec"]["template"]
    container = pod["spec"]["containers"][0]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert pod["spec"]["subdomain"] == variables["SERVICE"] == service["metadata"]["name"]
    assert variables["JOB"] == job["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    workers = job["spec"]["completions"]
    assert job["spec"]["parallelism"] == workers == int(variables["WORKERS"])
    assert pod["spec"]["restartPolicy"] == "Never"
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["containerName"] == container["name"]
            assert 0 not in rule["onExitCodes"]["values"]
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.mark.parametrize("index", range(2))
def test_kubernetes_gives_each_pod_its_tf_config(index, tmp_path):
    container = manifest()["Job"]["spec"]["template"]["spec"]["containers"][0]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$TF_CONFIG"\nprintf "%s\\n" "$@"\nexit 3\n')
    python.chmod(0o755)
    result = subprocess.run(
        [*container["command"], *container["args"]],
        env={
            **variables,
            "JOB_COMPLETION_INDEX": str(index),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
    )
    # The program takes the shell's place, so that signals reach it and its code is the pod's.
    assert result.returncode == 3, result.stderr
    config, *words = result.stdout.splitlines()
    assert devices.count_workers(config) == 2
    addresses = [f"sp-transformer-{i}.sp-transformer:2222" for i in range(2)]
    assert json.loads(config)["cluster"] == {"worker": addresses}
    assert json.loads(config)["task"] == {"type": "worker", "index": index}
    assert words[:2] == ["-m", "sp_transformer.train"]
    assert [word.split("=")[0] for word in words[2:]] == [
        *["--config_file", "--data_dir", "--model_dir", "--num_gpus"],
    ]
