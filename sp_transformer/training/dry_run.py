"""What a run would train, and what it would start from, without training."""

import math

from sp_transformer.model import builder, summary, weights
from sp_transformer.training import freezing, initialization


def report(config) -> str:
    """The dry run's text for a validated ExperimentOptions.

    The file of `training.initialization` is read and matched as in training.

    Raises:
      InitializationError: if a new run could not start from it.
    """
    initialization.check(config)
    model = builder.build_model(config)
    freezing.freeze(model, config.training)
    lines = [summary.dry_run_report(config, model)]
    if initialization.is_wanted(config):
        lines += ["", initialization.initialize(config, model).text().rstrip()]
    if config.training.freeze_backbone or config.training.freeze_batch_norm:
        trained = sum(math.prod(v.shape) for v in model.trainable_variables)
        stored = sum(math.prod(v.shape) for v in weights.named_variables(model).values())
        lines += [
            "",
            f"trained: {trained:,} of {stored:,} stored parameters; the others are frozen",
        ]
    return "\n".join(lines)
