"""The servers of a tf.data service that knows how to read for a config."""

from __future__ import annotations

import os
import signal
import socket

import tensorflow as tf

from sp_transformer.data import pipeline, skipping, sources


def dispatch(port: int) -> None:
    """Runs a dispatcher until it is stopped; prints its address once it listens."""
    options = tf.data.experimental.service.DispatcherConfig(port=port)
    server = tf.data.experimental.service.DispatchServer(options)
    print(f"dispatcher at {server.target}", flush=True)
    _wait_for_signal()


def work(config, dispatcher: str, host: str, port: int) -> None:
    """Runs a worker until it is stopped; says when it has registered.

    Args:
      config: a validated ExperimentOptions, that of the training run.
      dispatcher: "grpc://HOST:PORT".
      host: name by which the training hosts reach this machine.
      port: port to listen at; 0 for a free one.

    Raises:
      ValueError: if `dispatcher` is no such address, or the source finds a fault in its files.
    """
    scheme, _, address = dispatcher.partition("://")
    if scheme != "grpc" or ":" not in address:
        raise ValueError(f"--dispatcher {dispatcher!r} is no address; write it as grpc://HOST:PORT")
    config.data.data_service = dispatcher
    source = sources.create_source(config.data, config.data.train_split)
    skipped = skipping.SkippedFiles(source.left_out)
    pipeline.register_reader(config, source, skipped)
    options = tf.data.experimental.service.WorkerConfig(
        dispatcher_address=address,
        # The service puts the port in, also one that it chose itself.
        worker_address=f"{host}:%port%",
        port=port,
    )
    # Named, because the server lives as long as this object.
    server = tf.data.experimental.service.WorkerServer(options)  # noqa: F841
    print(f"worker of {dispatcher} is ready", flush=True)
    _wait_for_signal()
    if skipped.message():
        print(skipped.message(), flush=True)
    # Taking the server down waits for its threads, and these may wait for Python: for ever.
    os._exit(0)


def _wait_for_signal():
    """Waits for SIGTERM or Ctrl-C. Not `join` of the server: it ends without what is left to be said."""
    # Read from a socket, not waited for with threading.Event: the kernel may hand the signal to one of TensorFlow's
    # threads, and then nothing would wake this one.
    awaited, written = socket.socketpair()
    written.setblocking(False)
    signal.set_wakeup_fd(written.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    awaited.recv(1)
