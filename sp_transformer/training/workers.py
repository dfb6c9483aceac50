"""What the workers of one run settle among themselves: who writes, and when all of them stop.

Without several workers (one process, on any number of devices) all of this is free.
"""

import os

import tensorflow as tf


class WorkerMismatchError(ValueError):
    """The workers of a run do not see the same model_dir."""


class Workers:
    """The workers that train together under a strategy.

    Args:
      strategy: the `tf.distribute.Strategy`.
    """

    def __init__(self, strategy):
        self._strategy = strategy
        resolver = getattr(strategy, "cluster_resolver", None)
        # TPU hosts are driven by one process, whose resolver names no tasks of training.
        cluster = {}
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and resolver:
            cluster = resolver.cluster_spec().as_dict()
        jobs = {job: cluster[job] for job in ("chief", "worker") if cluster.get(job)}
        self.count = sum(map(len, jobs.values())) or 1
        task = (resolver.task_type, resolver.task_id) if jobs else None
        self.is_chief = task in (None, ("chief", 0) if "chief" in jobs else ("worker", 0))
        self.name = "the only worker" if self.count == 1 else f"{task[0]} {task[1]}"
        if self.count > 1:
            self._sum = tf.function(self._sum_over_workers)

    def any(self, flag):
        """Whether `flag` holds on any worker. All of them have to ask, at the same point."""
        if self.count == 1:
            return flag
        return self._total(float(flag)) > 0

    def check_same_step(self, step, model_dir):
        """Makes sure that all workers resume at one step; all of them have to ask.

        Raises:
          WorkerMismatchError: if they do not.
        """
        if self.count == 1:
            return
        replicas = self._strategy.num_replicas_in_sync
        # Steps are exact in float64; their squares are not wanted, so two sums tell equality.
        mean = self._total(float(step)) / replicas
        if self._total(abs(float(step) - mean)) > 0:
            raise WorkerMismatchError(
                f"{self.name} finds step {step} in {os.fspath(model_dir)} and other workers find "
                "another: model_dir has to lie on storage that all workers share, such as NFS or "
                "gs://"
            )

    def _total(self, value):
        """Sum over all replicas of the value that each worker gives for its own."""
        return float(self._sum(tf.constant(value, tf.float64)))

    def _sum_over_workers(self, value):
        per_replica = self._strategy.run(tf.identity, args=(value,))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)
