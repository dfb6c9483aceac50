"""Training batches prepared by a tf.data service: dispatcher and workers as processes of their own, on loopback."""

import contextlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from sp_transformer.config import validation
from sp_transformer.data import data_service, pipeline, sources
from sp_transformer.protos import experiment_pb2


@contextlib.contextmanager
def _servers(*commands):
    """Starts servers at once, gives the first line that each prints, and stops them."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "sp_transformer.data_service", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments in commands
    ]
    try:
        lines = [process.stdout.readline().strip() for process in processes]
        for process, line in zip(processes, lines, strict=True):
            assert line, process.stderr.read()
        yield lines
    finally:
        for process in processes:
            process.terminate()
        # What they say at their end joins what they said at the start.
        lines += [process.communicate(timeout=120)[0].strip() for process in processes]


@pytest.fixture
def config_file(tmp_path, faulty_data):
    path = tmp_path / "run.textproto"
    path.write_text(faulty_data.CONFIG)
    return path


@pytest.fixture
def config(tmp_path, faulty_data):
    message = text_format.Parse(faulty_data.CONFIG, experiment_pb2.ExperimentOptions())
    message.data.data_dir = str(faulty_data.write(tmp_path / "data", faults=["torn_image"], good=7))
    message.data.skip_corrupt = True
    return message


def _images(dataset, count):
    batches = list(itertools.islice(pipeline.with_plain_errors(dataset), count))
    return [image.tobytes() for batch in batches for image in batch["image"].numpy()]


def test_workers_prepare_the_examples_of_the_local_stream(config_file, config):
    source = sources.create_source(config.data, "train")
    local = _images(pipeline.train_dataset(config, source), 60)
    with _servers(["--role", "dispatcher"]) as [line]:
        address = line.removeprefix("dispatcher at ")
        worker = ["--role", "worker", "--dispatcher", address, "--config_file", config_file]
        # Where the data lie is a matter of each machine.
        worker += ["--data_dir", config.data.data_dir, "--override", "data { skip_corrupt: true }"]
        with _servers(worker, worker) as said:
            config.data.data_service, config.data.deterministic = address, False
            served = _images(pipeline.train_dataset(config, source), 12)
            resumed = _images(pipeline.train_dataset(config, source, first_step=20), 4)
            # A worker that was started for other data says so.
            config.data.seed = 1
            with pytest.raises(ValueError, match=r"workers of .* read for another config"):
                _images(pipeline.train_dataset(config, source), 1)
    assert any("skipped 1 file" in text and "torn_image.jpg" in text for text in said[2:])
    assert len(set(served)) == len(served) == 24
    assert set(served) <= set(local)
    # Those of the stream's start, but for what was under way in the workers.
    assert len(set(served) & set(local[:24])) >= 12
    assert set(resumed) <= set(local[40:])


def test_token_follows_from_what_is_read():
    config = experiment_pb2.ExperimentOptions()
    config.data.dataset = "folder"
    token = data_service.reader_token(config)
    config.data.data_dir, config.data.data_service, config.data.parallel_calls = (
        "/a",
        "grpc://b:1",
        4,
    )
    assert data_service.reader_token(config) == token
    config.data.resize_longer_side = 512
    assert data_service.reader_token(config) != token


def test_registered_reader_runs_in_this_process(config):
    config.data.data_service = "grpc://localhost:1"
    read = data_service.python_op(config, None, [tf.uint8, tf.int32, tf.float64])
    source = sources.create_source(config.data, "train")
    pipeline.register_reader(config, source)
    image, label, _ = read(np.int64(3), 1.0, np.zeros(2))
    assert np.array_equal(image, source.read(3)[0]) and np.array_equal(label, source.read(3)[1])


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"data_service": "host:1"}, 'data_service "host:1" is not the address'),
        ({"data_service": "grpc://h:1", "deterministic": True}, "cannot keep data.deterministic"),
        ({"data_service": "grpc://h:1", "cache_in_memory": True}, "no use for data.cache_in_mem"),
        ({"start_check_images": -1}, "start_check_images -1 is below 0"),
        ({"data_service": "grpc://h:1"}, None),
    ],
)
def test_validation(config, fields, fault):
    for field, value in {"deterministic": False, **fields}.items():
        setattr(config.data, field, value)
    faults = validation.find_faults(config)
    assert [fault in text for text in faults] == [True] if fault else not faults


def test_a_signal_that_another_thread_gets_ends_a_server():
    # The kernel may give a process's signal to any of its threads; TensorFlow has many.
    script = """
import signal, threading
from sp_transformer.data import data_service_server
def hit():
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Timer(1, hit).start()
data_service_server._wait_for_signal()
print("ended")
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout == "ended\n", result.stderr


def test_usage_errors(config_file):
    for arguments, text in [
        (["--config_file", config_file], "--role must be given"),
        (["--role", "worker"], "--config_file and --dispatcher must be given"),
    ]:
        result = subprocess.run(
            [sys.executable, "-m", "sp_transformer.data_service", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 2 and text in result.stderr
