"""Devices -> a tf.distribute strategy."""

import logging

import tensorflow as tf

from sp_transformer.training import batch


def create_strategy(devices):
    """The strategy for `devices`; to be called before TensorFlow has used any device.

    Args:
      devices: a devices.Devices.

    Returns:
      A tf.distribute.Strategy: TPUStrategy for a master, MultiWorkerMirroredStrategy for several workers,
      MirroredStrategy for several devices of one process, or the default one, which is one device.

    Raises:
      ValueError: if there are fewer GPUs than asked for, or no TPU under that name.
    """
    if devices.master is not None:
        return _tpu_strategy(devices.master)
    gpus = _use_gpus(devices)
    if devices.num_workers > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if devices.num_virtual_devices > 1:
        return _virtual_strategy(devices.num_virtual_devices)
    if gpus > 1:
        return tf.distribute.MirroredStrategy([f"GPU:{index}" for index in range(gpus)])
    return tf.distribute.get_strategy()


def _use_gpus(devices):
    """Hides the GPUs that are not to be used; returns how many are left."""
    found = tf.config.list_physical_devices("GPU")
    wanted = devices.num_gpus
    if devices.num_virtual_devices:
        wanted = 0
    elif wanted is None:
        wanted = min(1, len(found))
        if len(found) > 1:
            logging.warning("one of %d GPUs is used; --num_gpus=%d uses all", *[len(found)] * 2)
    if wanted > len(found):
        raise ValueError(
            f"--num_gpus {wanted} exceeds the {len(found)} GPUs that TensorFlow sees; give at most that, or see "
            "whether nvidia-smi lists more, which TensorFlow then lacks libraries for (pip install "
            "'sp-transformer[gpu]') or CUDA_VISIBLE_DEVICES hides"
        )
    if wanted < len(found):
        tf.config.set_visible_devices(found[:wanted], "GPU")
    return wanted


def _virtual_strategy(count):
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(cpu, parts)
    # Collectives between parts of one CPU wait for each other in its one pool of threads.
    return tf.distribute.MirroredStrategy(
        [f"CPU:{index}" for index in range(count)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


def _tpu_strategy(master):
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=master)
        if master != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"--master {master!r}: no TPU can be had under that name ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}). 'local' needs a TPU VM with the packages of constraints-tpu.txt; see "
            "docs/tpu.md"
        ) from error


def check_strategy(options, strategy):
    """Raises ValueError if `strategy` cannot do what TrainingOptions ask."""
    replicas = strategy.num_replicas_in_sync
    batch.check_shares(options, replicas)
    if not is_tpu(strategy):
        batch.check_compilation(options, replicas)


def is_tpu(strategy):
    """Whether `strategy` runs on TPUs, where XLA compiles whatever it runs."""
    return isinstance(strategy, tf.distribute.TPUStrategy)
