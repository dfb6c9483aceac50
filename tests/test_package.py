"""The package as it is built and imported."""

import pathlib
import subprocess
import sys
import zipfile

import pytest

import sp_transformer

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_import_loads_no_tensorflow():
    code = (
        "import sys, sp_transformer; sp_transformer.load_config;"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_public_names_resolve():
    for name in sp_transformer.__all__:
        assert getattr(sp_transformer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'train_model'"):
        _ = sp_transformer.train_model


def test_generated_protos_are_those_of_the_proto_files(tmp_path):
    """An edited .proto does nothing until the package is installed again."""
    from sp_transformer import protos

    names = sorted(path.stem for path in (ROOT / "protos").glob("*.proto"))
    # In a process of its own: protoc and TensorFlow bring a protobuf library each.
    arguments = [sys.executable, "-m", "grpc_tools.protoc", f"--python_out={tmp_path}"]
    arguments += [f"-Isp_transformer/protos={ROOT / 'protos'}"]
    arguments += [f"sp_transformer/protos/{name}.proto" for name in names]
    subprocess.run(arguments, check=True)
    installed = pathlib.Path(protos.__file__).parent
    for name in names:
        fresh = (tmp_path / "sp_transformer" / "protos" / f"{name}_pb2.py").read_text()
        assert (installed / f"{name}_pb2.py").read_text() == fresh, (
            f"protos/{name}.proto has changed; run `pip install -e .` again"
        )


def test_wheel_carries_everything_its_commands_need(tmp_path):
    # Built from a copy, so that the source tree stays as it is.
    source = tmp_path / "source"
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("the source tree is no git checkout, so its files cannot be told from others")
    for name in listing.stdout.splitlines():
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    result = subprocess.run(
        [*command, "-q", "-w", str(tmp_path), str(source)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        carried = set(archive.namelist())
    for path in ROOT.joinpath("configs").rglob("*.textproto"):
        assert f"sp_transformer/{path.relative_to(ROOT).as_posix()}" in carried
    for path in ROOT.joinpath("protos").glob("*.proto"):
        assert f"sp_transformer/protos/{path.name}" in carried
        assert f"sp_transformer/protos/{path.stem}_pb2.py" in carried
    for path in ROOT.joinpath("sp_transformer").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in carried
    assert not [name for name in carried if name.startswith(("tests/", "scripts/"))]
