"""The rules that numbers are taken by, in words: printed and stored with the numbers.

Importing this imports no TensorFlow, so that a dry run can print them.
"""

from sp_transformer.benchmarking.settings import Settings

# V100, 1024x2048, batch 1, in milliseconds (paper, Table IV).
PAPER_STAGES_MS = {
    "backbone": 28.0,
    "hypercolumn": 7.1,
    "superpixel tokenization": 25.4,
    "self-attention": 4.0,
    "association": 1.0,
}
PAPER_WHOLE_MS = sum(PAPER_STAGES_MS.values())


def timing_rules(settings: Settings) -> list[str]:
    """How anything is timed."""
    return [
        f"Timed by the wall clock: {settings.rounds} rounds after {settings.warmup} of warm-up "
        "(tracing and compilation among them), Python's garbage collector off.",
        "Interleaved in one process: each round runs everything once, beginning with another one each time.",
        "The clock stops when the device has finished and, where results go to the host, they are there.",
        "Given are the median and [first, third quartile]; ratios are those of the quotients of the same round.",
        "Threads: TensorFlow's own choice unless the environment below says otherwise.",
    ]


def model_rules(settings: Settings) -> list[str]:
    """What the model report times and counts."""
    rules = [*_mode_rules(settings), *timing_rules(settings), *_weights_rules()]
    rules += [
        'Parameters: trainable ones. Multiply-adds of one image\'s inference at this size: "paper rule" counts the '
        'published operations (gather, RELATIVE association, resizes nothing), "as configured" those that run.',
    ]
    if settings.peak_memory:
        rules.append(
            "Peak memory: the largest amount in use during one run above what was in use before it "
            "(program, weights, inputs), on the CPU the resident set, on a GPU TensorFlow's allocator; "
            "each in a process of its own, after one unmeasured run."
        )
    return rules


def stage_rules(settings: Settings) -> list[str]:
    """What the stage report times."""
    rules = [
        "Each stage is a function of its own, fed with finished outputs of the stage before.",
        "Backbone: from uint8 images, normalisation included. Association: LayerNorms, Eqs. 5 and 6, upsampling and "
        "class projection; in inference the argmax, in training the loss.",
    ]
    if "inference" in settings.modes:
        rules.append(
            "Backbone alone: ours with BatchNorm folded; and keras.applications' ResNet-50 "
            "(include_top=False, BatchNorm as it comes) where the config's backbone is resnet50, on the same "
            "normalised images."
        )
    if "training" in settings.modes:
        rules.append(
            "Training: each stage is its forward pass and its gradients with respect to inputs and weights, "
            "from a random gradient of its outputs. Backbone alone: ours, and keras.applications' ResNet-50 "
            "where the config's backbone is resnet50."
        )
    rules += [
        "Whole over backbone alone: the quotient with the faster of the backbones of that mode.",
        "Rest: whole less the sum of the stages, round by round; in training it holds the optimizer. It is negative "
        "where stages gain from running together.",
        "Paper: the shares of its Table IV (V100; ms: "
        + ", ".join(f"{ms:.1f}" for ms in PAPER_STAGES_MS.values())
        + "; inference).",
    ]
    return [*rules, *_mode_rules(settings), *timing_rules(settings), *_weights_rules()]


def input_rules(settings: Settings) -> list[str]:
    """What the input report times."""
    return [
        f"Timed: {settings.images} training examples, the same ones in each round, prepared from records (or whatever "
        "data.dataset names) in the file system's cache by as many parallel calls as there are cores.",
        "Each line of the table is a tf.data pipeline of its own that ends after that step; a step's time is the "
        "difference to the line above, in seconds of one core an example (wall clock times cores over examples).",
        "Read: bytes of the region under the crop, image and label. Decode: that region as arrays. Scale and crop: "
        "resize_* of the config first, where it has it; labels too. Colour stands last, whatever its place in the "
        "pipeline: it is the difference of the whole pipeline with and without. Batches are of training.batch_size, or "
        "of the largest number below it that divides the examples timed.",
        *timing_rules(settings),
    ]


def _mode_rules(settings):
    rules = []
    if "inference" in settings.modes:
        rules.append(
            "Inference: uint8 images already on the device -> int32 labels of the images' size on the host; "
            "included are normalisation, upsampling, argmax and the transfer of the labels. Image size and batch "
            "are static; a config's resize of its data is left out."
        )
        rules.append(
            "Inference form, where not said otherwise: BatchNorm folded into the convolutions and, on a CPU without "
            "XLA, LayerNorm by TensorFlow's CPU kernel. Labels equal up to rounding; `export --inference_form` has it."
        )
    if "training" in settings.modes:
        rules.append(
            "Training: one whole step (forward, loss at full size, backward, AdamW) on images (float32, 0..255) "
            "and labels (int32) as the data pipeline hands them over, already made; the loss goes to the host."
        )
    return rules


def _weights_rules():
    return [
        "Weights: random, from the config's training.seed; images and labels are random too. The time does not "
        "depend on their values.",
    ]
