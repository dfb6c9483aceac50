"""The runs of docs/camvid.md: each a config, what is changed about it, and how many steps it takes.

All share the data, augmentation, loss, optimiser and evaluation of configs/camvid/recipe.textproto.
"""

import dataclasses

CONFIG = "configs/camvid/recipe.textproto"
OURS = "ours"
# What tuning sees: parts of the training split. The validation split is for results alone.
TUNING = 'data { train_split: "fit" eval_split: "dev" }'


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run.

    Attributes:
      name: of its files, with the seed.
      model: OURS or one of peers.NAMES.
      changes: textproto overrides of CONFIG, in order.
    """

    name: str
    model: str = OURS
    changes: tuple[str, ...] = ()

    def overrides(self, seed: int) -> list[str]:
        """All overrides, the seed of weights and data order among them."""
        return [*self.changes, f"training {{ seed: {seed} }} data {{ seed: {seed} }}"]


EXPERIMENTS = (
    Experiment("ours"),
    Experiment("deeplab_v3_plus", "deeplab_v3_plus"),
    Experiment("segformer_b0", "segformer_b0"),
    Experiment("ours_on_dev", changes=(TUNING,)),
)
