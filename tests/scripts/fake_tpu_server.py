#!/usr/bin/env python3
"""Stands in for start_grpc_tpu_worker of tensorflow-tpu: answers on its worker's address, or ends where it may not."""

import os
import pathlib
import socketserver
import sys

fake, worker = pathlib.Path(os.environ["FAKE"]), os.environ["FAKE_WORKER"]
faulty = fake / "faulty_server"
if faulty.exists() and faulty.read_text() == worker:
    sys.exit("no chips here")
(fake / f"server{worker}").write_text(str(os.getpid()))
address = (fake / "hosts").read_text().strip().split(";")[int(worker)]
socketserver.TCPServer.allow_reuse_address = True
socketserver.TCPServer(
    (address, int(os.environ["TPU_TASK_PORT"])), socketserver.BaseRequestHandler
).serve_forever()
