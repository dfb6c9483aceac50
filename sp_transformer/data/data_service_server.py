"""The servers of a tf.data service that knows how to read for a config."""

from __future__ import annotations

import tensorflow as tf

from sp_transformer.data import pipeline, skipping, sources


def dispatch(port: int) -> None:
    """Runs a dispatcher until it is stopped; prints its address once it listens."""
    options = tf.data.experimental.service.DispatcherConfig(port=port)
    server = tf.data.experimental.service.DispatchServer(options)
    print(f"dispatcher at {server.target}", flush=True)
    server.join()


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
    server = tf.data.experimental.service.WorkerServer(options)
    print(f"worker of {dispatcher} is ready", flush=True)
    try:
        server.join()
    finally:
        if skipped.message():
            print(skipped.message(), flush=True)
