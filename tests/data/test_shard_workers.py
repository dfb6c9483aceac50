"""Processes write what one writes, and end with a fault of the source."""

import pathlib

import pytest

from sp_transformer.data import preparation
from sp_transformer.protos import data_pb2

from . import official


def test_processes_write_the_same_bytes_as_one(prepared, cityscapes, tmp_path):
    reports = []
    preparation.prepare(
        cityscapes,
        str(tmp_path / "out"),
        num_shards=2,
        num_workers=2,
        progress=lambda done, total: reports.append((done, total)),
    )
    files = sorted(path.name for path in pathlib.Path(prepared).glob("*.tfrecord*"))
    assert len(files) == 6
    for name in files:
        assert pathlib.Path(prepared, name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert reports[-1] == (12, 12) or reports[-1][0] <= 12
    assert all(total == 12 for _, total in reports)


def test_faults_of_the_source_end_the_run_and_name_the_file(tmp_path):
    files = official.cityscapes_files((3, 1, 0))
    path = next(p for p in files if p.startswith("leftImg8bit/train/ulm"))
    files[path] = files[path][:200]
    official.write_cityscapes_zips(tmp_path / "data", files)
    options = data_pb2.DataOptions(dataset="cityscapes", data_dir=str(tmp_path / "data"))
    for workers in (1, 2):
        with pytest.raises(ValueError, match=r"leftImg8bit/train/ulm/ulm_000001"):
            preparation.prepare(options, str(tmp_path / "out"), ["train"], num_workers=workers)
