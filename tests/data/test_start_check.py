"""The first examples of a run: each fault is refused by the file's name, or skipped."""

import contextlib
import errno
import itertools
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from sp_transformer.data import pipeline, skipping, sources, start_check, storage, transient
from sp_transformer.data.faults import FileFault
from sp_transformer.protos import experiment_pb2


@pytest.fixture
def make(faulty_data, tmp_path):
    """Returns a function of names of faults and of fields of data that gives a config."""

    def config(faults, **data):
        root = faulty_data.write(tmp_path / "data", faults)
        message = text_format.Parse(faulty_data.CONFIG, experiment_pb2.ExperimentOptions())
        message.data.data_dir = str(root)
        for field, value in data.items():
            setattr(message.data, field, value)
        return message

    return config


def _source(config):
    return sources.create_source(config.data, config.data.train_split)


def test_each_fault_is_refused_by_name_and_skipped_on_request(faulty_data, make):
    for name, (kind, _, _, file) in faulty_data.FAULTS.items():
        config = make([name])
        with pytest.raises(ValueError, match=file):
            start_check.check(config, _source(config))
        config.data.skip_corrupt = True
        source = _source(config)
        start_check.check(config, source)
        faults = list(source.left_out)
        for index in range(len(source)):
            # Without the check, reading meets it.
            with contextlib.suppress(FileFault):
                source.read(index)
                continue
            with pytest.raises(FileFault, match=file) as error:
                source.read(index)
            faults.append(error.value)
        assert [fault.kind for fault in faults] == [kind]
        assert faults[0].file.endswith(f"train/{file}")
        for folder in ("images", "labels"):
            for path in pathlib.Path(config.data.data_dir, "train", folder).glob(f"{name}.*"):
                path.unlink()


@pytest.mark.parametrize("skip_corrupt", [False, True])
def test_a_lost_storage_is_neither_refused_nor_skipped(make, monkeypatch, skip_corrupt):
    config = make([], skip_corrupt=skip_corrupt)
    source = _source(config)

    def away(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)

    monkeypatch.setattr(storage, "read_file", away)
    with pytest.raises(transient.LostStorageError, match=r"Stale.*\.png"):
        start_check.check(config, source)


def test_training_stream_skips_all_of_them(faulty_data, make):
    config = make(faulty_data.FAULTS, skip_corrupt=True)
    source = _source(config)
    skipped = skipping.SkippedFiles(source.left_out)
    dataset = pipeline.with_plain_errors(pipeline.train_dataset(config, source, skipped=skipped))
    list(itertools.islice(dataset, len(source) // 2 + 1))
    text = " ".join(skipped.reasons().values())
    assert len(skipped.reasons()) == len(faulty_data.FAULTS)
    assert all(file in text for _, _, _, file in faulty_data.FAULTS.values())


def test_all_faults_are_listed_at_once(faulty_data, make):
    names = [name for name in faulty_data.FAULTS if not name.startswith("no_")]
    config = make(names)
    with pytest.raises(ValueError, match="9 of the first 13 training examples") as error:
        start_check.check(config, _source(config))
    for name in names:
        assert faulty_data.FAULTS[name][-1] in str(error.value)
    assert "inspect_data" in str(error.value) and "skip_corrupt" in str(error.value)


def test_only_the_first_examples_are_read(make, faulty_data):
    config = make(["unknown"])
    source = _source(config)
    faulty = next(i for i in range(len(source)) if "unknown" in source.name(i))
    order = [int(pipeline.shuffled_index(np.int64(n), len(source), 0)) for n in range(5)]
    place = order.index(faulty)
    config.data.start_check_images = place
    start_check.check(config, source)
    config.data.start_check_images = place + 1
    with pytest.raises(ValueError, match="unknown"):
        start_check.check(config, source)
    config.data.start_check_images = 0
    start_check.check(config, source)
    # A resumed run checks what it will see first.
    config.data.start_check_images, config.training.batch_size = 1, 1
    with pytest.raises(ValueError, match="unknown"):
        start_check.check(config, source, first_step=place)


def test_a_wrong_id_map_is_refused_although_each_file_is_valid(make):
    config = make([])
    config.data.label_map.id_map.add(**{"from": 77, "to": 0})
    config.data.label_map.ignore_unlisted_ids = True
    with pytest.raises(ValueError, match="no pixel of the first 4 labels counts"):
        start_check.check(config, _source(config))


def test_systematic_faults_are_not_skipped(make):
    config = make([], skip_corrupt=True)
    del config.data.label_map.classes[1:]
    config.data.label_map.ignore_label = 254
    with pytest.raises(ValueError, match="nothing left to train on"):
        start_check.check(config, _source(config))


def test_drawn_streets_are_not_checked(make_config):
    config = make_config()
    config.data.synthetic_streets.train_images = 3
    start_check.check(config, sources.create_source(config.data, "train"))


def test_message_reaches_training_as_plain_text(make):
    config = make(["unknown"])
    dataset = pipeline.train_dataset(config, _source(config))
    with pytest.raises(tf.errors.OpError) as error:
        list(dataset.take(3))
    assert str(pipeline.plain_error(error.value)).startswith("label ")
