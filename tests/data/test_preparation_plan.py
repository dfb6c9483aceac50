"""Runs go on where earlier ones stopped, and never mix with something else."""

import pytest

from sp_transformer.data import preparation, sources, verification
from sp_transformer.protos import data_pb2

from . import record_folders


class _Killed(Exception):
    pass


def test_a_killed_run_goes_on_where_it_stopped(prepared, cityscapes, tmp_path):
    output = tmp_path / "out"

    def kill(done, total):
        if done == 5:
            raise _Killed

    with pytest.raises(_Killed):
        preparation.prepare(cityscapes, str(output), num_shards=3, progress=kill)
    finished = {path: path.stat().st_mtime_ns for path in output.glob("*.tfrecord-*-of-00003")}
    assert len(finished) == 2
    with pytest.raises(ValueError, match=r"not finished; run the same prepare_data command again"):
        sources.create_source(record_folders.moved(cityscapes, output), "train")
    # What a kill leaves half-written is no obstacle.
    (output / "cityscapes-train.tfrecord-00002-of-00003.partial").write_bytes(b"half")
    reports = []
    preparation.prepare(
        cityscapes, str(output), num_shards=3, progress=lambda done, total: reports.append(done)
    )
    assert reports[0] == 5 and reports[-1] == 12
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    assert verification.verify(cityscapes, str(output)) == []


def test_finished_records_are_left_alone_and_get_missing_splits(cityscapes, tmp_path):
    output = tmp_path / "out"
    preparation.prepare(cityscapes, str(output), ["val"])
    before = (output / "records.json").read_bytes()
    reports = []
    preparation.prepare(
        cityscapes, str(output), ["val"], progress=lambda *args: reports.append(args)
    )
    assert reports == [] and (output / "records.json").read_bytes() == before
    with pytest.raises(ValueError, match=r"split 'train' is unknown; the records in .* have val"):
        sources.create_source(record_folders.moved(cityscapes, output), "train")
    manifest = preparation.prepare(cityscapes, str(output), ["train"])
    assert list(manifest["splits"]) == ["val", "train"]
    assert verification.verify(cityscapes, str(output)) == []


def test_what_is_there_is_never_mixed_with_something_else(prepared, cityscapes, ade20k, tmp_path):
    output = record_folders.copied(prepared, tmp_path / "out")
    with pytest.raises(ValueError, match=r"another encoding: .*tiles|another encoding: .*png"):
        preparation.prepare(cityscapes, output, encoding="png")
    with pytest.raises(ValueError, match=r"another name: .*cityscapes.*ade20k"):
        preparation.prepare(ade20k, output)
    other = record_folders.moved(cityscapes, cityscapes.data_dir)
    other.label_map.classes.add(name="all", color="#102030")
    other.label_map.id_map.add(**{"from": 7, "to": 0})
    other.label_map.ignore_unlisted_ids = True
    with pytest.raises(ValueError, match="another label map"):
        preparation.prepare(other, output)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="is not empty and holds no records"):
        preparation.prepare(cityscapes, str(foreign))
    with pytest.raises(ValueError, match='"records" is prepared already'):
        preparation.prepare(
            record_folders.moved(data_pb2.DataOptions(dataset="records"), prepared),
            str(tmp_path / "x"),
        )
