"""The runs of docs/camvid.md: each a model, and what is changed about configs/camvid/recipe.textproto.

All share its data, augmentation, loss, optimiser and evaluation.
"""

import dataclasses

CONFIG = "configs/camvid/recipe.textproto"
OURS = "ours"
PEERS = ("deeplab_v3_plus", "segformer_b0")

# Pictures in TensorBoard show superpixels, which peers do not have.
_ALL = "training { picture_interval_steps: 0 }"
# What tuning sees: parts of the training split. The validation split is for results alone.
_TUNING = (
    'data { train_split: "fit" eval_split: "dev" } training { steps: 800 save_interval_steps: 400 }'
)
# About half the sides of a frame, 0.53 s a step in place of 1.14.
_HALF_SIZE = (
    "data { resize_height: 192 resize_width: 256 crop_height: 192 crop_width: 256 } "
    "training { steps: 1600 warmup_steps: 100 save_interval_steps: 800 }"
)
# What tuning and remedies started from: the model as the paper and DeepLab2 have it. The recipe is what came of them.
_BASELINE = (
    "model { backbone { stem_max_pool: false zero_init_residual: true } tokenizer { queries: LEARNED } } "
    "training { learning_rate: 1e-3 }"
)
_RATES = ("5e-4", "1e-3", "2e-3")
# SegFormer was best at the lowest of these, and gets one more below.
_MORE_RATES = {"segformer_b0": ("2.5e-4",)}
_EQUAL_WEIGHTS = "training { " + "class_weights: 1 " * 11 + "}"

_CELL_MEAN = "model { tokenizer { queries: CELL_MEAN } }"
_ALL_ENDPOINTS = "model { hypercolumn { endpoint_strides: [4, 8, 16, 32] } }"
# What DeepLabV3Plus has, initial values too: a max-pool in the stem, no branch that starts at zero.
_KERAS_CV_BACKBONE = 'model { backbone { name: "keras_cv/resnet18" batch_norm_momentum: 0.99 } }'
# The recipe's options of DeepLab2's ResNet, which keras_cv's has not.
_PLAIN_RESNET = "model { backbone { stem_max_pool: false zero_init_residual: true } }"
# Two of the differences between that backbone and ours of the same name.
_FROM_ONE = "model { backbone { zero_init_residual: false } }"
_LIKE_KERAS_CV = "model { backbone { stem_max_pool: true zero_init_residual: false } }"
_PIXEL_STRIDE_8 = "model { hypercolumn { stride: 8 endpoint_strides: [4, 8, 32] } }"
_SUPERPIXEL_LOSS = "training { superpixel_loss_weight: 0.4 }"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run, once for each seed.

    Attributes:
      name: of its files, with the seed.
      group: which table it stands in.
      model: OURS or a name that peer_segmenter.build knows.
      changes: textproto overrides of CONFIG, in order.
    """

    name: str
    group: str
    model: str = OURS
    changes: tuple[str, ...] = ()

    def overrides(self, seed: int) -> list[str]:
        """All overrides, the seed of weights and data order among them."""
        return [_ALL, *self.changes, f"training {{ seed: {seed} }} data {{ seed: {seed} }}"]


def _tuning(model):
    """The same budget for each model, three learning rates and equal class weights; and what lies beyond an edge."""
    half = (_BASELINE, _HALF_SIZE, _TUNING)
    for rate in (*_MORE_RATES.get(model, ()), *_RATES):
        change = f"training {{ learning_rate: {rate} }}"
        yield Experiment(f"tuning_{model}_rate_{rate}", "tuning", model, (*half, change))
    yield Experiment(f"tuning_{model}_equal_weights", "tuning", model, (*half, _EQUAL_WEIGHTS))


def _remedy(name, *changes):
    """What may help ours, at the baseline's rate; chosen as a rate is, and compared with that rate's tuning run."""
    changes = (_BASELINE, _HALF_SIZE, _TUNING, *changes)
    return Experiment(f"remedy_{name}", "remedy", OURS, changes)


def _ablation(name, change):
    return Experiment(
        f"ablation_{name}", "ablation", OURS, (_HALF_SIZE, *([change] if change else []))
    )


# Each at the rate that its tuning found, but for the baseline: its best, 2e-3, was 0.005 better than its 1e-3.
_SEGFORMER_RATE = "training { learning_rate: 5e-4 }"
_HEADLINE = (
    Experiment(OURS, "headline"),
    # Lost nothing in the short runs, and is cheaper.
    Experiment("ours_pixel_stride_8", "headline", OURS, (_PIXEL_STRIDE_8,)),
    Experiment("ours_baseline", "headline", OURS, (_BASELINE,)),
    # The very layers and BatchNorm that DeepLabV3+ has.
    Experiment("ours_keras_cv_backbone", "headline", OURS, (_PLAIN_RESNET, _KERAS_CV_BACKBONE)),
    Experiment("deeplab_v3_plus", "headline", "deeplab_v3_plus"),
    # BatchNorm's statistics as fast as the recipe's.
    Experiment("deeplab_v3_plus_our_momentum", "headline", "deeplab_v3_plus_our_momentum"),
    Experiment("segformer_b0", "headline", "segformer_b0", (_SEGFORMER_RATE,)),
    # As many steps as fit into the time of ours; DeepLabV3+ takes 1.01 times as long a step, and has no run of its own.
    # compare_models.py --mode training says so: docs/results/2026-11-28-camvid-step-times.json.
    Experiment(
        "segformer_b0_equal_time",
        "headline",
        "segformer_b0",
        (_SEGFORMER_RATE, "training { steps: 3300 }"),
    ),
)

_ABLATIONS = (
    _ablation("none", ""),
    # The paper's Table III.
    _ablation("1_cross_attention", "model { tokenizer { layers: 1 } }"),
    _ablation("3_cross_attention", "model { tokenizer { layers: 3 } }"),
    _ablation("half_grid", "model { tokenizer { superpixel_stride: 32 } }"),
    _ablation("double_grid", "model { tokenizer { superpixel_stride: 8 } }"),
    # What docs/model.md chose, or took from the counts, where the paper is silent.
    _ablation("relative", "model { association { alignment: RELATIVE } }"),
    _ablation("scale_1", "model { association { scale: 1 } }"),
    _ablation("1_self_attention", "model { classifier { layers: 1 } }"),
    _ablation("2_self_attention", "model { classifier { layers: 2 } }"),
    _ablation("learned_queries", "model { tokenizer { queries: LEARNED } }"),
    _ablation("no_position_embedding", "model { tokenizer { position_embedding: false } }"),
    _ablation("linear", "model { tokenizer { projection: LINEAR } }"),
    _ablation("linear_ffn", "model { tokenizer { projection: LINEAR feed_forward_width: 256 } }"),
)

_REMEDIES = (
    _remedy("all_endpoints", _ALL_ENDPOINTS),
    _remedy("cell_mean", _CELL_MEAN),
    _remedy("zero_branches", "model { zero_initialized_branches: true }"),
    _remedy("superpixel_loss", _SUPERPIXEL_LOSS),
    # With what helped most by itself.
    *(
        _remedy(f"cell_mean_{name}", _CELL_MEAN, *changes)
        for name, *changes in (
            ("rate_2e-3", "training { learning_rate: 2e-3 }"),
            ("scale_1", "model { association { scale: 1 } }"),
            ("all_endpoints", _ALL_ENDPOINTS),
            ("superpixel_loss", _SUPERPIXEL_LOSS),
            ("keras_cv_backbone", _KERAS_CV_BACKBONE),
            ("stem_max_pool", "model { backbone { stem_max_pool: true } }"),
            ("residual_from_one", _FROM_ONE),
            ("stem_max_pool_residual_from_one", _LIKE_KERAS_CV),
            # The time that fewer pixel features save, spent on wider ones.
            ("wide", "model { channels: 256 }", _PIXEL_STRIDE_8),
        )
    ),
    _remedy(
        "cell_mean_keras_cv_backbone_rate_2e-3",
        _CELL_MEAN,
        _KERAS_CV_BACKBONE,
        "training { learning_rate: 2e-3 }",
    ),
    # With what was kept: cell means on a backbone like that one.
    *(
        _remedy(f"kept_{name}", _CELL_MEAN, _LIKE_KERAS_CV, change)
        for name, change in (
            ("rate_5e-4", "training { learning_rate: 5e-4 }"),
            ("drop_path", "model { backbone { drop_path_rate: 0.1 } }"),
            ("deep_tokenizer", "model { tokenizer { layers: 4 } }"),
            ("double_grid", "model { tokenizer { superpixel_stride: 8 } }"),
            ("pixel_stride_8", _PIXEL_STRIDE_8),
        )
    ),
)

EXPERIMENTS = (
    *_HEADLINE,
    *(experiment for model in (OURS, *PEERS) for experiment in _tuning(model)),
    *_REMEDIES,
    *_ABLATIONS,
)
