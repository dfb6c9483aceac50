"""What a training session did, for its caller and for people."""

import dataclasses
import math

from sp_transformer.training import progress


@dataclasses.dataclass(frozen=True)
class TrainSummary:
    """What a training session did.

    Attributes:
      steps: step that the run is at.
      loss: mean loss since the last log interval's end; NaN if the session took no step.
      seconds: wall-clock time of the session.
      images_per_second: training speed, without saving, evaluation and compilation.
      checkpoint: prefix of the last checkpoint.
    """

    steps: int
    loss: float
    seconds: float
    images_per_second: float
    checkpoint: str


def describe(summary, steps) -> str:
    """The line that a session ends with.

    Args:
      summary: a TrainSummary.
      steps: number of steps that the run is to take.
    """
    if math.isnan(summary.loss):
        return (
            f"nothing to do: the run is at step {summary.steps} of {steps}; "
            "raise training.steps to go on\n"
        )
    return (
        f"trained to step {summary.steps} in {progress.format_seconds(summary.seconds)}: "
        f"loss {summary.loss:.4f}, {summary.images_per_second:.3g} images/s, "
        f"checkpoint {summary.checkpoint}\n"
    )
