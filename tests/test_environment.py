"""What is recorded about a machine."""

import json
import subprocess

import pytest
import tensorflow as tf

from sp_transformer import environment


@pytest.fixture
def described(monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_max_cluster_size=7")
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", "/somewhere/private")
    return environment.describe()


def test_versions_machine_and_threads(described):
    json.dumps(described, allow_nan=False)
    assert described["versions"]["tensorflow"] == tf.__version__
    assert described["machine"]["cores"] >= 1
    assert set(described["threads"]) == {"intra_op", "inter_op"}
    assert described["date"].endswith("+00:00")


def test_only_variables_of_tensorflow_are_recorded(described):
    assert described["variables"]["TF_XLA_FLAGS"] == "--tf_xla_max_cluster_size=7"
    assert "TF_CLI_CONFIG_FILE" not in described["variables"]
    assert "HOME" not in described["variables"]


def _git(root, *arguments):
    command = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def test_git_revision_and_what_is_not_in_it(tmp_path, monkeypatch):
    package = tmp_path / "sp_transformer" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    monkeypatch.setattr(environment.sp_transformer, "__file__", str(package))
    assert environment.describe()["git"] is None
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    state = environment.describe()["git"]
    assert len(state["revision"]) == 40 and state["dirty"] is False
    package.write_text("changed = True\n")
    assert environment.describe()["git"] == {"revision": state["revision"], "dirty": True}
