"""Runs of the tiny model in processes that can be killed, started by fork from one that has TensorFlow imported.

As a program it takes a JSON list a line: ["start", function, arguments] answers with the new process's id, ["wait", id]
with its exit code, negative for a signal. `Driver` talks to it. TensorFlow itself, which does not survive a fork, is
first used in the new processes.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import traceback


def train(
    model_dir,
    steps=60,
    save_interval=5,
    keep=3,
    replicas=1,
    task=None,
    ports=(),
    width=256,
    dropout=0.3,
    sigterm_at=None,
):
    """Trains the tiny model.

    Args:
      model_dir: directory of the run.
      steps: number of steps.
      save_interval: steps between two saves.
      keep: number of checkpoints.
      replicas: virtual devices; of one worker.
      task: number of this worker, where there are several.
      ports: of all workers, on loopback.
      width: of the model: 256 makes checkpoints of 1 MB.
      dropout: of the model.
      sigterm_at: step after which the process sends itself SIGTERM.
    """
    if task is not None:
        workers = [f"127.0.0.1:{port}" for port in ports]
        os.environ["TF_CONFIG"] = json.dumps(
            {"cluster": {"worker": workers}, "task": {"type": "worker", "index": task}}
        )
    import tensorflow as tf

    strategy = None
    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(cpu, devices)
    if task is not None:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    elif replicas > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    import conftest

    config = conftest.make_config()
    options = config.training
    options.batch_size, options.steps = 4, steps
    options.save_interval_steps, options.log_interval_steps = save_interval, 1
    options.checkpoints_to_keep = keep
    run = conftest.make_run_of(config)(model_dir, strategy=strategy, width=width, dropout=dropout)
    if sigterm_at is not None:
        advance = run._advance

        def advance_and_signal(*arguments):
            loss = advance(*arguments)
            if run.step == sigterm_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return loss

        run._advance = advance_and_signal
    run.train()


def train_and_eval(model_dir, task, ports, killed_at=None):
    """Trains and scores the tiny model as the training program does, as one of two workers.

    Args:
      model_dir: directory of the run.
      task: number of this worker.
      ports: of both, on loopback.
      killed_at: step at whose evaluation the process that scores gets SIGTERM.
    """
    workers = [f"127.0.0.1:{port}" for port in ports]
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": task}}
    )
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    import conftest

    from sp_transformer.model import builder
    from sp_transformer.training import modes

    builder.build_model = conftest.build_tiny_model
    evaluate = modes.evaluator.evaluate

    def evaluate_or_die(*arguments, step, **options):
        if step == killed_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments, step=step, **options)

    modes.evaluator.evaluate = evaluate_or_die
    # The smallest streets that can be drawn.
    conftest.HEIGHT = conftest.WIDTH = 32
    config = conftest.make_config()
    streets = config.data.synthetic_streets
    streets.height, streets.width = conftest.HEIGHT, conftest.WIDTH
    streets.train_images = streets.val_images = 2
    config.evaluation.pictures = config.evaluation.batch_size = 1
    config.training.batch_size, config.training.steps = 2, 4
    config.training.save_interval_steps = 2
    modes.run("train_and_eval", config, model_dir, strategy=strategy)


def drop_rights():
    """Lets permissions count also where the tests run as root."""
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


def mount_small_disk(folder, size):
    """Mounts a file system of `size` bytes, which this process alone sees, at a folder."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private = 0x00020000, 0x4000 | 0x40000
    for code in (
        libc.unshare(new_namespace),
        libc.mount(b"none", b"/", None, private, None),
        libc.mount(b"none", str(folder).encode(), b"tmpfs", 0, f"size={size}".encode()),
    ):
        if code:
            raise OSError(ctypes.get_errno(), "no file system of its own can be mounted")


class Driver:
    """The program's other end."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._running = set()
        self.output = {}

    def start(self, function, output, **arguments):
        """Starts a process that writes its stdout and stderr to the file `output`; gives its id."""
        pid = self._ask(["start", function, str(output), arguments])
        self._running.add(pid)
        self.output[pid] = pathlib.Path(output)
        return pid

    def wait(self, pid):
        """Waits for the end of a process and gives its exit code."""
        self._running.discard(pid)
        return self._ask(["wait", pid])

    def run(self, function, output, **arguments):
        return self.wait(self.start(function, output, **arguments))

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    def text(self, pid):
        return self.output[pid].read_text()

    @staticmethod
    def free_ports(count):
        """Numbers of ports on loopback that nobody listens on."""
        sockets = [socket.socket() for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        return ports

    def close(self):
        for pid in list(self._running):
            self.kill(pid)
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, message):
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _child(function, output, arguments):
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = 0
    try:
        FUNCTIONS[function](**arguments)
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve():
    for line in sys.stdin:
        request, *rest = json.loads(line)
        if request == "start":
            pid = os.fork()
            if pid == 0:
                _child(*rest)
            answer = pid
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(rest[0], 0)[1])
        print(json.dumps(answer), flush=True)


def _supervised(arguments):
    """Trains as the training program does under --max_restarts, in processes of their own."""
    from sp_transformer import exit_codes
    from sp_transformer.data import transient
    from sp_transformer.training import supervisor

    if not supervisor.is_supervised():
        command = [sys.executable, __file__, json.dumps(arguments)]
        sys.exit(supervisor.supervise(command, max_restarts=3, pause=1.0))
    print("worker process", os.getpid(), flush=True)
    try:
        train(**arguments)
    except Exception as error:
        if not transient.is_transient(error):
            raise
        print(type(error).__name__, str(error).splitlines()[0], flush=True)
        sys.exit(exit_codes.LOST_PEER)


def train_on_small_disk(model_dir, size, copied_to, **arguments):
    """Trains in a directory of `size` bytes, and copies what is there in the end."""
    import shutil

    pathlib.Path(model_dir).mkdir(parents=True)
    mount_small_disk(model_dir, size)
    try:
        train(model_dir, **arguments)
    finally:
        shutil.copytree(model_dir, copied_to)


def train_with_small_files(model_dir, size, **arguments):
    """Trains where no file may become larger than `size` bytes."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    train(model_dir, **arguments)


def train_without_rights(model_dir, **arguments):
    """Trains as a user who owns nothing."""
    drop_rights()
    train(model_dir, **arguments)


def measure_replicas(**arguments):
    """replica_driver.measure."""
    import replica_driver

    replica_driver.measure(**arguments)


FUNCTIONS = {
    function.__name__: function
    for function in (
        train,
        train_and_eval,
        train_on_small_disk,
        train_with_small_files,
        train_without_rights,
        measure_replicas,
    )
}

if __name__ == "__main__":
    sys.path[:0] = [str(pathlib.Path(__file__).parent)]
    import conftest  # noqa: F401 - imported once, before any fork
    import tensorflow  # noqa: F401

    from sp_transformer.training import loop  # noqa: F401

    if len(sys.argv) > 1:
        _supervised(json.loads(sys.argv[1]))
    else:
        _serve()
