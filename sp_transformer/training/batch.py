"""What the number of replicas decides about a run: its batch and its learning rate. Without TensorFlow."""

from sp_transformer.config import checks
from sp_transformer.protos import experiment_pb2


def settle(config, replicas):
    """What a run does on `replicas` replicas: the same config, its batch and learning rate worked out.

    Args:
      config: a validated ExperimentOptions.
      replicas: number of replicas over all workers.

    Returns:
      An ExperimentOptions in which batch_size is the global one and learning_rate the one that is used;
      batch_size_per_replica and learning_rate_reference_batch_size are unset.

    Raises:
      ValueError: if the batch cannot be shared evenly by replicas and accumulation steps.
    """
    settled = experiment_pb2.ExperimentOptions()
    settled.CopyFrom(config)
    training = settled.training
    if training.batch_size_per_replica:
        training.batch_size = training.batch_size_per_replica * replicas
        training.ClearField("batch_size_per_replica")
    check_shares(training, replicas)
    reference = training.learning_rate_reference_batch_size
    if reference:
        training.learning_rate *= training.batch_size / reference
        training.ClearField("learning_rate_reference_batch_size")
    return settled


def check_shares(options, replicas):
    """Raises ValueError unless the batch divides into replicas, and their shares into accumulation steps."""
    parts = options.gradient_accumulation_steps
    multiple = replicas * parts
    if options.batch_size % multiple == 0:
        return
    accumulated = f" times {parts} gradient_accumulation_steps" if parts > 1 else ""
    raise ValueError(
        f"training.batch_size {options.batch_size} does not divide by the {replicas} replicas{accumulated}; "
        f"{checks.nearest_multiples(options.batch_size, multiple)}"
    )


def check_compilation(options, replicas):
    """Raises ValueError if TrainingOptions ask XLA for what it cannot do: to compile a step of several replicas.

    On TPUs, where XLA compiles whatever runs, there is nothing to check.
    """
    if options.jit_compile and replicas > 1:
        raise ValueError(
            f"training.jit_compile works on one device, and this strategy has {replicas} replicas; "
            "set training.jit_compile to false"
        )


def describe(config, settled, replicas):
    """One line about what the batch is made of, for the start of a run."""
    options = settled.training
    share, parts = options.batch_size // replicas, options.gradient_accumulation_steps
    images = f"{options.batch_size} images a step on {replicas} replica{'s' * (replicas > 1)}"
    if replicas > 1:
        images += f", {share} on each"
    if parts > 1:
        images += f", in {parts} parts of {share // parts}"
    rate = f"learning rate {options.learning_rate:g}"
    if config.training.learning_rate_reference_batch_size:
        reference = config.training.learning_rate_reference_batch_size
        rate += f" ({config.training.learning_rate:g} x {options.batch_size} / {reference})"
    return f"{images}; {rate}"
