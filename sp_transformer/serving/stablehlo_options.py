"""What an export as StableHLO consists of, and whether that fits. Imports no TensorFlow.

Shapes: Y, X are the height and width of the images in pixels.
"""

import dataclasses

from sp_transformer.config import derived

MANIFEST = "manifest.json"
# The stages in front of the association, each with all stages before it: what a stage costs is the difference.
STAGES = ("backbone", "hypercolumn", "tokenizer", "classifier")
TRAIN_STEP = "train_step"
# Those that pad images of any size.
ANY_SIZE = ("forward", "logits", "superpixels")
PROGRAMS = (*ANY_SIZE, *STAGES, TRAIN_STEP)
WEIGHT_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class StableHLOOptions:
    """What is exported.

    Attributes:
      programs: some of PROGRAMS: "forward" (uint8 images -> labels), "logits" (-> full-size and superpixel logits),
        "superpixels" (-> labels, superpixels and what is known of each), one of STAGES (-> what the model holds after
        that stage), "train_step" (float images, labels -> loss, new weights).
      size: (Y, X) of the images; None for the config's.
      batch_size: number of images.
      weights_dtype: what float weights are stored as. They are rounded first, so that the outputs to be expected
        are those of the stored weights.
      fold_batch_norm: whether all programs but the train step run with BatchNorm folded into the convolutions.
      check_steps: training steps whose losses are computed and stored at export; 0 for none.
    """

    programs: tuple[str, ...] = ANY_SIZE
    size: tuple[int, int] | None = None
    batch_size: int = 1
    weights_dtype: str = "float32"
    fold_batch_norm: bool = True
    check_steps: int = 3

    @property
    def runs_alone(self) -> bool:
        """Whether a Runtime finds in it what all of its methods need."""
        return self.batch_size == 1 and set(ANY_SIZE) <= set(self.programs)


def parse_size(text: str) -> tuple[int, int]:
    """ "1024x2048" -> (1024, 2048), height first.

    Raises:
      ValueError: if it is not two positive numbers.
    """
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ValueError(f"size {text!r} is not HEIGHTxWIDTH in pixels, as 1024x2048")
    return int(sides[0]), int(sides[1])


def check(config, options: StableHLOOptions) -> None:
    """Refuses options that do not fit each other or the config.

    Raises:
      ValueError: with the value, the limit and what to do.
    """
    if not options.programs:
        raise ValueError(f"no program was named; choose from {', '.join(PROGRAMS)}")
    for name in options.programs:
        if name not in PROGRAMS:
            raise ValueError(f"unknown program {name!r}; choose from {', '.join(PROGRAMS)}")
        if options.programs.count(name) > 1:
            raise ValueError(f"program {name!r} is named more than once")
    if options.weights_dtype not in WEIGHT_DTYPES:
        raise ValueError(
            f"weights_dtype {options.weights_dtype!r} is unknown; use {' or '.join(WEIGHT_DTYPES)}"
        )
    if options.batch_size < 1 or options.check_steps < 0:
        raise ValueError(
            f"batch_size {options.batch_size} must be at least 1, and check_steps {options.check_steps} at "
            "least 0"
        )
    multiple = derived.size_multiple(config)
    padded = [name for name in options.programs if name not in ANY_SIZE]
    for side in options.size or derived.input_size(config):
        if padded and side % multiple:
            raise ValueError(
                f"images of side {side} are not a multiple of {multiple}, which {', '.join(padded)} need; the "
                f"nearest that fit are {side // multiple * multiple} and {-(-side // multiple) * multiple}"
            )
