"""The dry run: what a config builds, what it costs, and how that compares with the paper's counts.

No data is read and nothing is executed: the model is built, and its graph is read.
"""

import contextlib
import math

import numpy as np
import tensorflow as tf

from sp_transformer.config import derived
from sp_transformer.model import flops
from sp_transformer.model.builder import build_model
from sp_transformer.protos import training_pb2

PARTS = ("backbone", "hypercolumn", "tokenizer", "classifier", "association")
_TABLES = ("query_table", "pixel_position_table", "superpixel_position_table")
# A trained parameter's, in float32 like itself.
_GRADIENT_AND_SLOTS = 3


@contextlib.contextmanager
def paper_form(model):
    """Switches a model to the operations that the published FLOPs count.

    They are: attention by `gather`, RELATIVE association, and no saving in the hypercolumn.
    """
    tokenizer, association = model.tokenizer, model.association
    layers = [tokenizer, *tokenizer.cross_attentions]
    before = [layer.implementation for layer in layers], association.alignment
    try:
        for layer in layers:
            layer.implementation = "gather"
        association.alignment = "relative"
        association.as_written = model.hypercolumn.as_written = True
        yield model
    finally:
        for layer, implementation in zip(layers, before[0], strict=True):
            layer.implementation = implementation
        association.alignment = before[1]
        association.as_written = model.hypercolumn.as_written = False


def count_parameters(model):
    """Counts parameters by part.

    Returns:
      {part: {"trainable": int, "total": int}}; the state of random generators counts nothing.
    """
    counts = {}
    for part in PARTS:
        layer = getattr(model, part)
        weights = [v for v in layer.variables if "seed_generator" not in v.path]
        counts[part] = {
            "trainable": sum(int(np.prod(v.shape)) for v in layer.trainable_variables),
            "total": sum(int(np.prod(v.shape)) for v in weights),
        }
    return counts


def trace_forward(model, size, training=False):
    """Traces images [1,Y,X,3] -> (semantic logits [1,Y,X,K], {stride: endpoint}); size = (Y, X)."""

    def forward(images):
        features = model.features(images, training=training, return_endpoints=True)
        return model.semantic_logits(features), features["endpoints"]

    return flops.trace(forward, tf.TensorSpec([1, *size, 3], tf.float32))


def model_multiply_adds(model, size):
    """Multiply-adds of one inference of size (Y, X), as the model stands."""
    return _count(model, trace_forward(model, size))


def _count(model, concrete):
    return flops.count_multiply_adds(
        concrete, PARTS, flops.batch_norm_names(model), trailing_part="association"
    )


def summarize(config, model=None):
    """Builds a config's model and measures it.

    Args:
      config: A validated ExperimentOptions.
      model: Its SPTransformer where it is built already; it is left as it was.

    Returns:
      A dict of plain Python values that JSON can hold: input_size, pixel_grid, superpixel_grid and
      cell as [height, width]; endpoints {stride: {channels, size}}; tables {name: shape};
      parameters (see `count_parameters`) with "sum"; multiply_adds {"paper_rule", "as_configured"},
      each {"parts", "total", "grouped"}; training_memory in bytes.
    """
    model = model or build_model(config)
    size = derived.input_size(config)
    with paper_form(model):
        paper = model_multiply_adds(model, size)
    forward = trace_forward(model, size)
    _, endpoints = forward.structured_outputs
    stride, superpixel = config.model.hypercolumn.stride, model.superpixel_stride
    parameters = count_parameters(model)
    parameters["sum"] = {
        kind: sum(counts[kind] for counts in parameters.values()) for kind in ("trainable", "total")
    }
    return {
        "name": config.experiment_name,
        "backbone": config.model.backbone.name,
        "input_size": list(size),
        "num_classes": model.num_classes,
        "endpoints": {
            int(s): {"channels": int(x.shape[-1]), "size": [int(n) for n in x.shape[1:3]]}
            for s, x in sorted(endpoints.items())
        },
        "pixel_grid": [side // stride for side in size],
        "superpixel_grid": [side // superpixel for side in size],
        "cell": [superpixel // stride] * 2,
        "tables": {
            name: list(getattr(model.tokenizer, name).shape)
            for name in _TABLES
            if getattr(model.tokenizer, name) is not None
        },
        "parameters": parameters,
        "multiply_adds": {
            "paper_rule": _plain(paper),
            "as_configured": _plain(_count(model, forward)),
        },
        "training_memory": _training_memory(config, model, size, parameters["sum"]),
    }


def _plain(count):
    return {"parts": dict(count.by_part), "total": count.total, "grouped": count.grouped}


def _training_memory(config, model, size, parameters):
    options = config.training
    trained = [variable.value for variable in model.trainable_variables]
    # The loss holds float32 logits and their softmax at full size.
    loss = 2 * 4 * size[0] * size[1] * model.num_classes
    forward = trace_forward(model, size, training=True)
    activations = flops.kept_activation_bytes(forward, trained, behind=loss)
    # How many replicas share a batch is known only once `training.batch.settle` has worked it out.
    batch = options.batch_size_per_replica or options.batch_size
    parts = options.gradient_accumulation_steps
    weights = 4 * (parameters["total"] + _GRADIENT_AND_SLOTS * parameters["trainable"])
    average = 4 * parameters["total"] if options.ema_decay else 0
    return {
        "weights_gradients_and_slots": weights,
        "average": average,
        "activations_per_image": activations,
        "rematerialized": options.rematerialize_backbone or options.rematerialize_tokenizer,
        "batch_size": batch,
        "batch_is_per_replica": bool(options.batch_size_per_replica),
        "accumulation_steps": parts,
        "total": weights + average + math.ceil(batch / parts) * activations,
    }


def format_summary(summary, precision="float32"):
    """The text of `summarize`'s dict."""
    side = "x".join
    grid = {
        key: side(map(str, summary[key]))
        for key in ("input_size", "pixel_grid", "superpixel_grid", "cell")
    }
    lines = [
        f"{summary['name'] or 'experiment'}: {summary['backbone']}, "
        f"{summary['num_classes']} classes",
        f"input             {grid['input_size']} pixels",
    ]
    for stride, endpoint in summary["endpoints"].items():
        size = side(map(str, endpoint["size"]))
        lines.append(f"endpoint stride {stride:<2} {size}, {endpoint['channels']} channels")
    lines += [
        f"pixel features    {grid['pixel_grid']}",
        f"superpixels       {grid['superpixel_grid']}, each owns {grid['cell']} pixel features",
    ]
    lines += [f"{name:<26}{side(map(str, s))}" for name, s in summary["tables"].items()]
    paper, ours = (summary["multiply_adds"][key] for key in ("paper_rule", "as_configured"))
    lines += [
        "",
        f"{'part':<12} {'trainable':>12} {'parameters':>12} {'paper rule':>12} {'configured':>12}",
    ]

    def row(name, counts, paper_count, our_count):
        return (
            f"{name:<12} {counts['trainable']:>12,} {counts['total']:>12,} "
            f"{paper_count / 1e9:>11.2f}G {our_count / 1e9:>11.2f}G"
        )

    for part in PARTS:
        counts = summary["parameters"][part]
        lines.append(row(part, counts, paper["parts"][part], ours["parts"][part]))
    lines += [
        row("sum", summary["parameters"]["sum"], paper["total"], ours["total"]),
        "Multiply-adds of one inference. Paper rule: float operations // 2 by TF1's profiler,",
        "gather, RELATIVE association, BatchNorm folded, resizes and grouped convolutions not",
        f"counted (grouped: {ours['grouped'] / 1e9:.2f}G). Configured: the same rule on what runs.",
    ]
    return "\n".join([*lines, "", *_memory_lines(summary["training_memory"], precision)])


def _memory_lines(memory, precision):
    gibibytes = {
        key: memory[key] / 2**30
        for key in ("total", "weights_gradients_and_slots", "average", "activations_per_image")
    }
    batch = f"batch {memory['batch_size']}"
    batch += " on each device" if memory["batch_is_per_replica"] else " over all devices"
    if memory["accumulation_steps"] > 1:
        batch += f", in {memory['accumulation_steps']} parts"
    lines = [
        f"training memory, estimated ({precision}, {batch}): {gibibytes['total']:.1f} GiB",
        f"  {gibibytes['weights_gradients_and_slots']:.2f} GiB on each device: float32 weights, "
        "gradients, two Adam slots",
    ]
    if memory["average"]:
        lines.append(f"  {gibibytes['average']:.2f} GiB on each device: the weights' average")
    lines += [
        f"  {gibibytes['activations_per_image']:.2f} GiB an image: forward tensors that gradients "
        "read, each once, and the",
        "  loss's float32 logits and softmax. Left out: temporaries, and savings by XLA.",
    ]
    if memory["rematerialized"]:
        lines.append(
            "  Of rematerialized layers: their inputs, and what one of them computes again at a time."
        )
    return lines


def dry_run_report(config, model=None):
    """The dry run's text for a validated ExperimentOptions; arguments and numbers as those of `summarize`."""
    precision = training_pb2.TrainingOptions.Precision.Name(config.training.precision).lower()
    return format_summary(summarize(config, model), precision)


__all__ = [
    "PARTS",
    "count_parameters",
    "dry_run_report",
    "format_summary",
    "model_multiply_adds",
    "paper_form",
    "summarize",
    "trace_forward",
]
