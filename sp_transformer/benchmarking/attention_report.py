"""Times both attention updates in every form: the paper's with its ninefold copies, and `fold` without them.

Shapes: B batch; H, W pixel grid; R, C superpixel grid; N heads, D channels of a head; M = B*N; G tiles of P pixels.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sp_transformer import environment
from sp_transformer.benchmarking import attention_forms, memory, programs, timing
from sp_transformer.benchmarking import rules as timing_rules
from sp_transformer.benchmarking.report import Report, format_spread
from sp_transformer.config import derived
from sp_transformer.model import builder, local_attention
from sp_transformer.model.superpixel_grid import SuperpixelGrid

FORMS = ("slices", "gather", "fold", "gather, plain layout", "fold, plain layout", "regroup")
REFERENCE = "fold"
PASSES = ("forward", "forward+backward")
_INPUT_NAMES = ("q_s", "k_s", "v_s", "q_p", "k_p", "v_p")
_SEED = 0
_MEBIBYTE = 2**20


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to be measured; JSON can hold all of it.

    Attributes:
      form: one of FORMS.
      direction: one of PASSES.
      batch_size: B.
      rows: R.
      columns: C.
      cell_size: pixels along each side of a cell.
      heads: N.
      channels: D.
      precision: dtype of all inputs, "float32" or "bfloat16".
      jit_compile: whether XLA compiles.
    """

    form: str
    direction: str
    batch_size: int
    rows: int
    columns: int
    cell_size: int
    heads: int
    channels: int
    precision: str
    jit_compile: bool


def run(config, settings, progress=None) -> Report:
    """Measures all forms at the shapes that a config leads to.

    Forms of the same size, batch, precision, compiler and direction are timed interleaved.

    Args:
      config: a validated ExperimentOptions.
      settings: Settings; of its axes sizes, batch_sizes, precisions and jit_compile count.
      progress: called with a line of text whenever something is done.

    Returns:
      The Report; the times in seconds of every round are in its rows as "seconds", for the JSON. Forms that cannot
      run are named in its notes.

    Raises:
      ValueError: if none can.
    """
    tell = progress or (lambda text: None)
    programs.prepare_devices()
    rows, failures = [], []
    for axes in groups(config, settings):
        cases = {form: Case(form=form, **axes) for form in FORMS}
        label = _describe(cases[REFERENCE])
        tell(f"measuring {', '.join(str(value) for value in label.values())}")
        functions, own_failures = _runnable(cases, label)
        for failure in own_failures:
            tell(failure)
        failures += own_failures
        if not functions:
            continue
        timings = timing.measure_interleaved(functions, settings.rounds, settings.warmup)
        # They hold the inputs, which the next group needs the memory of.
        del functions
        for form in timings:
            row = {
                "form": form,
                **label,
                "time (ms)": format_spread(timings[form], 1e3),
                "seconds": list(timings[form].seconds),
            }
            if REFERENCE in timings:
                ratio = timing.ratio(timings[form], timings[REFERENCE])
                row |= {"ratio to fold": format_spread(ratio), "ratio_median": ratio.median}
            if settings.peak_memory:
                row["peak (MiB)"] = _peak(cases[form], tell)
            rows.append(row)
    programs.check_any(rows, failures)
    columns = ["form", *label, "time (ms)", "ratio to fold"]
    if settings.peak_memory:
        columns.append("peak (MiB)")
    return Report(
        title=f"Both attention updates at the shapes of {config.experiment_name or 'the config'}",
        rules=rules(settings),
        columns=columns,
        rows=rows,
        notes=[*_notes(), *failures],
        environment=environment.describe(),
        settings=settings.as_dict(),
    )


def _runnable(cases, label):
    """Those that can run, as functions by form, and a line on each of the others."""
    functions, failures = {}, []
    for form, case in cases.items():
        # What does not fit in memory, as a 9x copy, is a result too, and no reason to lose the others.
        try:
            function = prepare(**dataclasses.asdict(case))
            timing.synchronize(function())
        except Exception as error:
            name = ", ".join(map(str, (form, *label.values())))
            failures.append(programs.failure(name, error))
        else:
            functions[form] = function
    return functions, failures


def groups(config, settings) -> list[dict]:
    """Everything of a Case but its form, for each group that is timed together.

    Images whose sides are no multiple of the model's are taken as padded, as inference does.
    """
    model = config.model
    stride, superpixel_stride = model.hypercolumn.stride, model.tokenizer.superpixel_stride
    multiple = derived.size_multiple(config)
    own_precision = (
        "float32"
        if builder.precision_policy(config.training.precision) == "float32"
        else "bfloat16"
    )
    return [
        {
            "direction": direction,
            "batch_size": batch_size,
            "rows": math.ceil(size[0] / multiple) * multiple // superpixel_stride,
            "columns": math.ceil(size[1] / multiple) * multiple // superpixel_stride,
            "cell_size": superpixel_stride // stride,
            "heads": model.tokenizer.heads,
            "channels": model.channels // model.tokenizer.heads,
            "precision": precision,
            "jit_compile": jit_compile,
        }
        for size, batch_size, precision, jit_compile, direction in itertools.product(
            settings.sizes or (derived.input_size(config),),
            settings.batch_sizes,
            settings.precisions or (own_precision,),
            settings.jit_compile,
            PASSES,
        )
    ]


def rules(settings) -> list[str]:
    """What is timed, in words."""
    lines = [
        "Timed: Eqs. 3 and 4, both on the same random queries, keys and values, which are on the device; their "
        "outputs stay there. forward+backward: outputs and the gradients of all six inputs, from random gradients "
        "of the outputs.",
        "slices: the paper's form as commonly written (pad, nine shifted slices, stack), in the plain layout "
        "[B, H, W, N, D], automatic differentiation. gather: the 9x copy written as well as it can be. fold: without "
        "it.",
        "gather and fold are timed in the layout that the model keeps (by tile, heads in the batch); plain layout: "
        "the public functions, which bring their inputs into that layout and back. regroup: that of one pixel "
        "tensor, to the layout of fold and back, on its own.",
        *timing_rules.timing_rules(settings),
    ]
    if settings.peak_memory:
        lines.append(
            "Peak memory: the largest amount in use during one run above what was in use before (program, inputs); "
            "outputs are in it. Each in a process of its own, after one unmeasured run."
        )
    return lines


def prepare(**case) -> Callable:
    """A function without arguments that runs a case once.

    Args:
      **case: the fields of a Case.

    Returns:
      A function that returns a list of tensors: the outputs, and with "forward+backward" the gradients too.

    Raises:
      ValueError: for an unknown form or direction.
    """
    case = Case(**case)
    if case.form not in FORMS or case.direction not in PASSES:
        raise ValueError(
            f"form {case.form!r} or direction {case.direction!r} is unknown; forms are {', '.join(FORMS)}, "
            f"directions {', '.join(PASSES)}"
        )
    grid = _grid(case)
    function = _functions(case.form, grid)
    plain = _plain_inputs(case)
    if case.form == "regroup":
        inputs = _regroup_inputs(plain["k_p"], grid)
    elif _is_plain(case.form):
        inputs = [plain[name] for name in _INPUT_NAMES]
    else:
        inputs = [_own_layout(name, plain[name], grid) for name in _INPUT_NAMES]
    forward = tf.function(function, jit_compile=case.jit_compile, autograph=False)
    if case.direction == "forward":
        return lambda: forward(*inputs)
    shapes = [output.shape for output in forward.get_concrete_function(*inputs).outputs]
    generator = np.random.default_rng(_SEED + 1)
    # Ones would let a compiler simplify.
    output_gradients = [_random(generator, shape, case.precision) for shape in shapes]

    @tf.function(jit_compile=case.jit_compile, autograph=False)
    def both(inputs, output_gradients):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function(*inputs)
        return [*outputs, *tape.gradient(outputs, inputs, output_gradients)]

    return lambda: both(inputs, output_gradients)


def _functions(form, grid):
    """Function of q_s, k_s, v_s, q_p, k_p, v_p (or of a tensor in either layout) that returns a list of outputs."""
    if form == "slices":
        superpixel_attention = attention_forms.slices_superpixel_attention
        pixel_attention = attention_forms.slices_pixel_attention
        return lambda q_s, k_s, v_s, q_p, k_p, v_p: [
            superpixel_attention(q_s, k_p, v_p),
            pixel_attention(q_p, k_s, v_s),
        ]
    if form == "regroup":
        return lambda plain, by_tile: [grid.regroup(plain), grid.ungroup(by_tile)]
    implementation = form.split(",")[0]
    if _is_plain(form):
        return lambda q_s, k_s, v_s, q_p, k_p, v_p: [
            local_attention.superpixel_attention(q_s, k_p, v_p, implementation),
            local_attention.pixel_attention(q_p, k_s, v_s, implementation),
        ]
    return lambda q_s, k_s, v_s, q_p, k_p, v_p: [
        local_attention.attend_to_pixels(q_s, k_p, v_p, grid=grid, implementation=implementation),
        local_attention.attend_to_superpixels(q_p, k_s, v_s, grid=grid),
    ]


def _is_plain(form):
    return form == "slices" or form.endswith("plain layout")


def _grid(case):
    # regroup is timed for the layout that the model has by default.
    implementation = case.form.split(",")[0]
    tile = local_attention.TILE.get(implementation, local_attention.TILE[REFERENCE])
    return SuperpixelGrid(case.rows, case.columns, case.cell_size, case.cell_size, tile)


def _plain_inputs(case):
    """{name: tensor} in the plain layout: q_s, k_s, v_s of the superpixels, q_p, k_p, v_p of the pixels."""
    generator = np.random.default_rng(_SEED)
    superpixels = (case.batch_size, case.rows, case.columns, case.heads, case.channels)
    pixels = (
        case.batch_size,
        case.rows * case.cell_size,
        case.columns * case.cell_size,
        case.heads,
        case.channels,
    )
    return {
        name: _random(generator, superpixels if name.endswith("_s") else pixels, case.precision)
        for name in _INPUT_NAMES
    }


def _random(generator, shape, precision):
    return tf.cast(tf.constant(generator.standard_normal(shape, np.float32)), precision)


def _own_layout(name, x, grid):
    """[B, R, C, N, D] -> [M, R*C, D], or [B, H, W, N, D] -> [M, G, P, D]; products are scaled here."""
    batch, height, width, heads, channels = x.shape
    if name in ("q_s", "k_s"):
        x = x * tf.cast(channels**-0.5, x.dtype)
    shape = [batch * heads, height * width, channels]
    if name.endswith("_p"):
        x = grid.regroup(tf.reshape(x, [batch, height, width, heads * channels]))
        shape = [batch * heads, grid.tiles, grid.pixels_per_tile, channels]
    x = tf.transpose(tf.reshape(x, [batch, -1, heads, channels]), (0, 2, 1, 3))
    return tf.reshape(x, shape)


def _regroup_inputs(pixels, grid):
    """A pixel tensor in both layouts: one way and back in a row would cancel when compiled."""
    batch, height, width, heads, channels = pixels.shape
    pixels = tf.reshape(pixels, [batch, height, width, heads * channels])
    return [pixels, grid.regroup(pixels)]


def _describe(case):
    height, width = case.rows * case.cell_size, case.columns * case.cell_size
    return {
        "pass": case.direction,
        "compiler": "XLA" if case.jit_compile else "graph",
        "precision": case.precision,
        "pixels": f"{case.batch_size}x{height}x{width}x{case.heads}x{case.channels}",
        "superpixels": f"{case.rows}x{case.columns}",
    }


def _peak(case, tell):
    """MiB above the inputs, or None where it cannot be measured."""
    tell(f"measuring the memory of {case.form}")
    try:
        peak = memory.peak_memory(f"{__name__}:prepare", dataclasses.asdict(case))
    except memory.MemoryMeasurementError as error:
        tell(str(error))
        return None
    return peak.above_bytes / _MEBIBYTE


def _notes():
    return [
        "Ratio to fold: time over that of fold in its own layout in the same round, same pass, compiler and "
        "precision.",
        "Pixels: B x H x W x N x D.",
    ]
