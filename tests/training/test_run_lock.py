"""Who may hold a model_dir, and when a lock counts as dead."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
import uuid

import pytest
import tensorflow as tf

from sp_transformer.data import storage
from sp_transformer.training import run_lock

FAST = {"renewal_seconds": 0.05, "stale_seconds": 0.4, "settling_seconds": 0.05}


@pytest.fixture(params=["disk", "ram"])
def folder(request, tmp_path):
    """A folder on a disk, and one of a file system without links and without times of change."""
    if request.param == "disk":
        return str(tmp_path)
    path = f"ram://{uuid.uuid4().hex}/run"
    tf.io.gfile.makedirs(path)
    return path


def lock(folder, **options):
    return run_lock.RunLock(folder, "trains", lambda _: None, **{**FAST, **options})


def read(folder):
    with tf.io.gfile.GFile(os.path.join(folder, run_lock.LOCK_FILE)) as file:
        return json.loads(file.read())


def write(folder, text):
    path = os.path.join(folder, run_lock.LOCK_FILE)
    if tf.io.gfile.exists(path):
        # ram:// does not shorten a file that is written anew.
        tf.io.gfile.remove(path)
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(text)


def plant(folder, **changes):
    """Writes a lock as another process would, alive or dead according to `changes`."""
    held = lock(folder)
    holder = read(folder)
    held.release()
    holder |= {"token": "another", **changes}
    write(folder, json.dumps(holder))
    return holder


def test_names_the_holder_and_is_free_again_after_release(folder):
    parent = os.getppid()
    plant(folder, process=[parent, run_lock._start_of(parent)])
    with pytest.raises(run_lock.RunLockedError) as error:
        lock(folder)
    assert f"process {parent} on host " in str(error.value)
    assert "another model_dir" in str(error.value) and "run.lock" in str(error.value)
    tf.io.gfile.remove(os.path.join(folder, run_lock.LOCK_FILE))
    held = lock(folder)
    assert read(folder)["process"][0] == os.getpid()
    held.release()
    held.release()
    assert tf.io.gfile.listdir(folder) == []


def test_a_dead_process_of_this_machine_holds_nothing(folder):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    plant(folder, process=[dead.pid, "12"])
    # An id that lives, but that another process had when it took the lock.
    lock(folder).release()
    plant(folder, process=[os.getppid(), "12"])
    lock(folder).release()
    assert tf.io.gfile.listdir(folder) == []


def test_a_process_that_nobody_has_waited_for_is_dead(folder):
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    while run_lock._start_of(zombie.pid) is not None:
        time.sleep(0.01)
    zombie.wait()


def test_a_holder_elsewhere_is_watched(folder):
    holder = plant(folder, machine="elsewhere", host="node-7")
    said = []
    begun = time.monotonic()
    held = run_lock.RunLock(folder, "trains", said.append, **FAST)
    assert time.monotonic() - begun >= FAST["stale_seconds"]
    assert "node-7" in said[0] and "watching" in said[0]
    held.release()
    plant(folder, machine="elsewhere", host="node-7")
    stop = threading.Event()

    def renew():
        for number in range(1000):
            if stop.wait(0.05):
                return
            write(folder, json.dumps({**holder, "renewals": number}))

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        with pytest.raises(run_lock.RunLockedError, match="on host node-7 trains in"):
            lock(folder)
    finally:
        stop.set()
        renewing.join()


def test_is_renewed_so_that_others_see_it(folder):
    held = lock(folder)
    deadline = time.monotonic() + 60
    while read(folder)["renewals"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    held.check()
    held.release()


def test_one_who_was_stopped_for_long_notices_that_another_took_over(folder):
    slept = lock(folder, renewal_seconds=1000)
    plant_over = {**read(folder), "token": "another", "machine": "elsewhere", "host": "node-7"}
    write(folder, json.dumps(plant_over))
    with pytest.raises(run_lock.RunLockedError, match=r"node-7(.|\n)*has taken over"):
        slept.check()
    slept.release()
    assert read(folder)["token"] == "another"


def test_a_lock_that_was_removed_by_hand_comes_back(folder):
    held = lock(folder)
    tf.io.gfile.remove(os.path.join(folder, run_lock.LOCK_FILE))
    held.check()
    assert read(folder)["process"][0] == os.getpid()
    held.release()


class Away:
    """Stands in for storage.read_file; fails so many times as storage that is away does."""

    def __init__(self, times):
        self.left, self._read_file = times, storage.read_file

    def __call__(self, path):
        self.left -= 1
        if self.left >= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return self._read_file(path)


def test_an_unreadable_lock_is_read_again(folder, monkeypatch):
    held = lock(folder, renewal_seconds=1000, retry_seconds=(0.01, 0.01))
    before = read(folder)
    with monkeypatch.context() as patched:
        patched.setattr(storage, "read_file", Away(2))
        held.check()
        # One more is more than a moment, and still no lock that somebody has removed.
        patched.setattr(storage, "read_file", Away(3))
        with pytest.raises(OSError, match="Input/output error"):
            held.check()
    assert read(folder) == before
    held.release()


def test_a_torn_lock_is_none(folder):
    for text in ("", '{"host": "a', "[]", "{}"):
        write(folder, text)
        lock(folder).release()


def test_a_later_run_of_the_same_process_takes_over_at_once(folder):
    first, second = lock(folder), lock(folder)
    second.check()
    with pytest.raises(run_lock.RunLockedError):
        first.check()
    first.release()
    second.check()
    second.release()


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_who_come_at_once_one_gets_it(tmp_path, dead):
    if dead:
        plant(str(tmp_path), process=[os.getppid(), "12"])
    read_end, write_end = os.pipe()
    start = time.monotonic() + 0.3
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            # Nothing of TensorFlow's, which does not survive a fork: a lock on a disk needs none.
            time.sleep(max(0.0, start - time.monotonic()))
            try:
                run_lock.RunLock(str(tmp_path), "trains")
                os.write(write_end, b"+")
            except BaseException as error:
                os.write(write_end, b"-" if isinstance(error, run_lock.RunLockedError) else b"!")
            # The one who has it stays, so that nobody takes it for dead.
            time.sleep(1.0)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert sorted(os.read(read_end, 100)) == sorted(b"+---")
