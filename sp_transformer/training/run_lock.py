"""A lock on a model_dir, so that two processes do not write into one run.

A file and no flock: it works on NFS and on object stores as well. It names its holder. Whether that
one still lives is asked of the system where holder and asker see the same processes; elsewhere the
file is watched, as a holder that lives renews it.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid

from sp_transformer.data import storage, transient
from sp_transformer.training import files

LOCK_FILE = "run.lock"

_RENEWAL_SECONDS = 15.0
# A holder elsewhere that has not renewed its lock for so long is dead: four renewals.
_STALE_SECONDS = 60.0
# How long another process may take between looking for a lock and writing its own, on a disk and elsewhere.
_SETTLING_SECONDS = 0.2
_REMOTE_SETTLING_SECONDS = 2.0
# Pauses before an unreadable lock is read again: storage that is away for moments must not cost a save.
_RETRY_SECONDS = (0.5, 2.0, 5.0, 10.0)


class RunLockedError(ValueError):
    """Another process is at work in the directory."""


class RunLock:
    """Holds a directory until `release`.

    Args:
      folder: the directory; it exists.
      purpose: what the holder does, for messages: "trains".
      say: called with a line of text when another's lock has to be watched for a while.

    Raises:
      RunLockedError: if another process holds it.
      WriteError: if the directory cannot be written.
    """

    def __init__(
        self,
        folder,
        purpose,
        say=print,
        *,
        renewal_seconds=_RENEWAL_SECONDS,
        stale_seconds=_STALE_SECONDS,
        settling_seconds=None,
        retry_seconds=_RETRY_SECONDS,
    ):
        self._folder = os.fspath(folder)
        self._path = os.path.join(self._folder, LOCK_FILE)
        self._say = say
        self._stale_seconds = stale_seconds
        self._retry_seconds = retry_seconds
        if settling_seconds is None:
            remote = storage.is_remote(self._path)
            settling_seconds = _REMOTE_SETTLING_SECONDS if remote else _SETTLING_SECONDS
        self._settling_seconds = settling_seconds
        self._own = {**_identity(), "purpose": purpose, "token": uuid.uuid4().hex}
        self._renewals = 0
        self._released = threading.Event()
        self._mutex = threading.Lock()
        self._acquire()
        self._thread = threading.Thread(target=self._renew, args=(renewal_seconds,), daemon=True)
        self._thread.start()

    def check(self):
        """Makes sure that the directory is still this process's, before something is written.

        Raises:
          RunLockedError: if another process has taken it over, because this one was stopped or cut
            off for long, or somebody removed the lock.
          OSError, tf.errors.OpError: if the storage is away for longer than some retries take.
        """
        for seconds in self._retry_seconds:
            try:
                holder = self._look()
                break
            except files.STORAGE_ERRORS as error:
                if not transient.is_transient(error):
                    raise
                logging.warning(
                    "%s cannot be read: %s; trying again in %g s", self._path, error, seconds
                )
                time.sleep(seconds)
        else:
            holder = self._look()
        if holder is not None and holder.get("token") != self._own["token"]:
            raise RunLockedError(
                f"{_who(holder)} has taken over {self._folder} from this process, which stops "
                "without saving; let one of the two go on"
            )

    def _look(self):
        """Who holds the directory; a lock that is gone is written again, and None returned."""
        with self._mutex:
            holder = _read(self._path)
            if holder is None and not self._released.is_set():
                # Removed by hand: nobody else is there, or it will notice.
                self._write()
        return holder

    def release(self):
        """Gives the directory free; may be called twice."""
        if self._released.is_set():
            return
        self._released.set()
        with self._mutex, contextlib.suppress(*files.STORAGE_ERRORS):
            holder = _read(self._path)
            if holder is not None and holder.get("token") == self._own["token"]:
                files.remove(self._path)

    def _acquire(self):
        if self._create():
            return
        holder = _read(self._path)
        if holder is not None and self._lives(holder):
            raise RunLockedError(
                f"{_describe(holder, self._folder)}; wait for it, stop it, or give another "
                f"model_dir. If you know that it is gone, remove {self._path}"
            )
        self._write()
        # Nothing keeps two processes from finding the same dead lock; the later one has it.
        time.sleep(self._settling_seconds)
        holder = _read(self._path)
        if holder is None or holder.get("token") != self._own["token"]:
            raise RunLockedError(
                f"{_describe(holder or {}, self._folder)}, since this moment; give another model_dir"
            )

    def _create(self):
        """Makes the lock if there is none, in one step; False where that cannot be done."""
        if storage.is_remote(self._path):
            return False
        temporary = self._temporary()
        try:
            with files.writing(self._path), open(temporary, "x", encoding="utf-8") as file:
                file.write(self._text())
            # As atomic on NFS as on a local disk, unlike opening with O_EXCL.
            os.link(temporary, self._path)
        except files.WriteError:
            raise
        except OSError:
            # There is one already, or the file system has no links.
            return False
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return True

    def _lives(self, holder):
        """Whether the process that holds the lock is at work."""
        if holder.get("token") is None:
            # Cut off by a full disk: its writer got no further.
            return False
        if holder["machine"] == self._own["machine"]:
            if holder["process"] == self._own["process"]:
                # An earlier run of this very process, which finds out at its next save.
                return False
            return _start_of(holder["process"][0]) == holder["process"][1]
        self._say(
            f"{_describe(holder, self._folder)}, or did; watching for up to {self._stale_seconds:.0f} "
            "seconds whether it is still there"
        )
        deadline = time.monotonic() + self._stale_seconds
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._stale_seconds / 20))
            now = _read(self._path)
            if now is None:
                return False
            if now != holder:
                return True
        return False

    def _renew(self, seconds):
        while not self._released.wait(seconds):
            # A disk that is full or a storage that is away for a while must not end the run here.
            with self._mutex, contextlib.suppress(*files.STORAGE_ERRORS):
                holder = _read(self._path)
                if self._released.is_set():
                    return
                if holder is not None and holder.get("token") == self._own["token"]:
                    self._renewals += 1
                    self._write()

    def _write(self):
        files.write_text(self._path, self._text(), temporary=self._temporary())

    def _text(self):
        return json.dumps({**self._own, "renewals": self._renewals}) + "\n"

    def _temporary(self):
        return f"{self._path}.{self._own['token']}"


def _read(path):
    """The holder of a lock as a dict, {} for what is none, or None if there is no lock."""
    text = files.read_text(path)
    if text is None:
        return None
    try:
        holder = json.loads(text)
        complete = isinstance(holder, dict) and {"host", "machine", "process", "token"} <= set(
            holder
        )
    except ValueError:
        complete = False
    return holder if complete else {}


def _who(holder):
    if not holder:
        return "another process"
    return f"process {holder['process'][0]} on host {holder['host']}"


def _describe(holder, folder):
    if not holder:
        return f"another process is at work in {folder}"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.get("since", 0)))
    return f"{_who(holder)} {holder.get('purpose', 'works')} in {folder} since {since}"


def _identity():
    """Who this process is: the host for people; machine and process for comparison."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "process": [pid, _start_of(pid)],
        "since": int(time.time()),
    }


def _machine():
    """Equal for two processes exactly if they see each other's process ids.

    A host's name does not tell: containers may share it, and then have processes of their own.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            boot = file.read().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def _start_of(pid):
    """When a process started, as text; "" where the system does not tell, None if there is none.

    Process ids come again: only with its start does one name a process.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        # A killed process is a zombie until its parent looks at it.
        return None if fields[0] == "Z" else fields[19]
    except FileNotFoundError:
        if os.path.exists("/proc/self/stat"):
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
