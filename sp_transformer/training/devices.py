"""Which devices a program is to use: its flags, and TF_CONFIG. Checked without TensorFlow, before time is spent."""

import dataclasses
import json
import os

from absl import flags

from sp_transformer import command_line

_JOBS = ("chief", "worker", "evaluator")
_TRAINING_JOBS = ("chief", "worker")


@dataclasses.dataclass(frozen=True)
class Devices:
    """What distribution.create_strategy makes a strategy of.

    Attributes:
      num_gpus: GPUs of this process; 0 for none though there are some; None for the first one there is.
      master: TPU that is asked for: a name, "local", or an address "grpc://..."; None for no TPU.
      num_virtual_devices: parts that the CPU is divided into, each of which acts as a device; 0 for none.
      num_workers: processes that train together, as TF_CONFIG tells; 1 without it.
    """

    num_gpus: int | None = None
    master: str | None = None
    num_virtual_devices: int = 0
    num_workers: int = 1

    @property
    def known_replicas(self) -> int | None:
        """How many replicas there will be, where that can be told before devices are looked for."""
        if self.master is not None:
            return None
        return self.num_workers * max(1, self.num_virtual_devices, self.num_gpus or 1)


def define_flags(values: flags.FlagValues) -> None:
    """--num_gpus, --master and --num_virtual_devices."""
    flags.DEFINE_integer(
        "num_gpus",
        None,
        "GPUs of this machine to use; 0 keeps to the CPU. Default: one if there is one.",
        flag_values=values,
        lower_bound=0,
    )
    flags.DEFINE_string(
        "master",
        None,
        "TPU to use: its name, 'local' on a TPU VM, or an address 'grpc://HOST:8470'.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_virtual_devices",
        0,
        "Divides the CPU into so many devices, to rehearse a distributed run on one machine.",
        flag_values=values,
        lower_bound=0,
    )


def from_flags(values: flags.FlagValues, trains: bool) -> Devices:
    """The devices that the flags, and for training TF_CONFIG, ask for.

    Args:
      values: the parsed flags.
      trains: whether the program trains; only then several processes work together. Evaluation is the work of one
        process, whatever TF_CONFIG says.

    Raises:
      UsageError: if flags exclude each other or TF_CONFIG is faulty.
    """
    given = [name for name in ("num_gpus", "master") if values[name].value is not None]
    given += ["num_virtual_devices"] if values.num_virtual_devices else []
    if len(given) > 1:
        raise command_line.UsageError(
            f"--{given[0]} and --{given[1]} exclude each other: GPUs, a TPU and a divided CPU do not train together; "
            "give one of them"
        )
    if values.master is not None and not values.master.strip():
        raise command_line.UsageError(
            "--master is empty; name a TPU, or 'local' on a TPU VM, or leave the flag out"
        )
    workers = count_workers(os.environ.get("TF_CONFIG", "")) if trains else 1
    if workers > 1 and given and given[0] != "num_gpus":
        raise command_line.UsageError(
            f"--{given[0]} does not go with the {workers} workers of TF_CONFIG, which train on CPUs or GPUs; unset "
            f"TF_CONFIG, or leave --{given[0]} out"
        )
    return Devices(values.num_gpus, values.master, values.num_virtual_devices, workers)


def count_workers(text: str) -> int:
    """How many processes a TF_CONFIG lets train together; 1 for an empty one.

    Args:
      text: JSON such as {"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]},
        "task": {"type": "worker", "index": 0}}.

    Raises:
      UsageError: if it is not such a thing; one fault is named.
    """
    if not text.strip():
        return 1
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _fault(f"is not JSON: {error}") from error
    cluster = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not cluster:
        raise _fault("has no object 'cluster' that maps 'worker' to a list of 'HOST:PORT'")
    for job, addresses in cluster.items():
        _check_job(job, addresses)
    listed = [address for addresses in cluster.values() for address in addresses]
    repeated = [address for address in listed if listed.count(address) > 1]
    if repeated:
        raise _fault(f"lists {repeated[0]} twice; every worker needs an address of its own")
    _check_task(config.get("task"), cluster)
    if len(cluster.get("chief", [])) > 1:
        raise _fault(f"has {len(cluster['chief'])} chiefs; list one, the others as 'worker'")
    if config["task"]["type"] not in _TRAINING_JOBS:
        raise _fault(
            f"gives this process the task {config['task']['type']!r}, which does not train; to follow the run from a "
            "process of its own, unset TF_CONFIG and use --mode=continuous_eval"
        )
    return sum(len(cluster.get(job, ())) for job in _TRAINING_JOBS)


def _check_job(job, addresses):
    if job not in _JOBS:
        raise _fault(
            f"has the job {job!r}, which this program has no use for; use {' and '.join(_TRAINING_JOBS)}"
        )
    if not isinstance(addresses, list) or not addresses:
        raise _fault(f"has no list of 'HOST:PORT' for the job {job!r}")
    for address in addresses:
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise _fault(f"has the address {address!r} for the job {job!r}; write HOST:PORT")


def _check_task(task, cluster):
    if not isinstance(task, dict) or not {"type", "index"} <= task.keys():
        raise _fault("has no object 'task' with 'type' and 'index', which say who this process is")
    job, index = task["type"], task["index"]
    if job not in cluster:
        raise _fault(f"has the task type {job!r}, and its cluster only {', '.join(cluster)}")
    count = len(cluster[job])
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
        raise _fault(
            f"has the task index {index!r}, and its cluster {count} of the job {job!r}: 0 to {count - 1}"
        )


def _fault(what):
    return command_line.UsageError(f"the environment variable TF_CONFIG {what}")
