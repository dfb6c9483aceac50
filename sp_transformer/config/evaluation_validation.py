"""What `evaluation` must satisfy."""

from sp_transformer.config import checks

# The name under which predictions of elsewhere are scored.
STORED_MODE = "stored"


def check_evaluation_options(faults, config):
    """All rules of EvaluationOptions; the other parts of `config` are looked at where they matter."""
    evaluation = config.evaluation
    checks.positive(faults, "evaluation.batch_size", evaluation.batch_size)
    checks.not_negative(faults, "evaluation.max_images", evaluation.max_images, "all images")
    checks.not_negative(faults, "evaluation.pictures", evaluation.pictures, "no pictures")
    interval = evaluation.poll_interval_seconds
    checks.positive(faults, "evaluation.poll_interval_seconds", interval)
    path = "evaluation.boundary_iou_width"
    checks.in_range(faults, path, evaluation.boundary_iou_width, 0, 1, open_high=True)
    if evaluation.averaged_weights and not config.training.ema_decay:
        faults.append(
            "evaluation.averaged_weights (--averaged_weights) is true and training.ema_decay 0, so that there is no "
            "average; set training.ema_decay before training, or evaluation.averaged_weights to false"
        )
    _check_modes(faults, evaluation.modes)
    for field, smallest in (("distance_bounds", 0), ("size_bounds", 1)):
        path = f"evaluation.failure_analysis.{field}"
        _check_growing(faults, path, getattr(evaluation.failure_analysis, field), smallest)
    _check_superpixels(faults, evaluation.superpixels)
    for field, limit in (("examples", 10), ("thumbnails", 200)):
        path = f"evaluation.report.{field}"
        checks.in_range(faults, path, getattr(evaluation.report, field), 0, limit)
    _check_static_size(faults, config)
    _check_counting(faults, evaluation)


def _check_counting(faults, evaluation):
    """What needs the predictions themselves does not go with counting where the model runs."""
    if not evaluation.count_on_device:
        return
    if not evaluation.static_height:
        faults.append(
            "evaluation.count_on_device needs images of one size; set evaluation.static_height and static_width"
        )
    others = {
        "boundary_iou_width": evaluation.boundary_iou_width,
        "failure_analysis.enabled": evaluation.failure_analysis.enabled,
        "superpixels.enabled": evaluation.superpixels.enabled,
        "report.enabled": evaluation.report.enabled,
    }
    for field, value in others.items():
        if value:
            faults.append(
                f"evaluation.{field} {value} needs the predictions, which evaluation.count_on_device leaves on the "
                f"device; set evaluation.{field} to {type(value)(0)}, or count_on_device to false"
            )


def _check_modes(faults, modes):
    names = [mode.name for mode in modes]
    for index, mode in enumerate(modes):
        path = f"evaluation.modes[{index}]"
        if not mode.name:
            faults.append(f'{path}.name is not set; name the mode, for example "multi_scale"')
        elif mode.name == STORED_MODE:
            faults.append(
                f'{path}.name "{STORED_MODE}" is that of predictions read from files; choose '
                "another one"
            )
        elif names.index(mode.name) < index:
            faults.append(
                f'{path}.name "{mode.name}" is already that of modes[{names.index(mode.name)}]; '
                "names must differ"
            )
        for number, scale in enumerate(mode.scales):
            checks.positive(faults, f"{path}.scales[{number}]", scale)
        for axis in ("height", "width"):
            _check_window(faults, path, mode, axis)
        if (mode.window_height > 0) != (mode.window_width > 0):
            faults.append(
                f"{path} has window_height {mode.window_height} and window_width "
                f"{mode.window_width}; set both, or none for the whole image"
            )


def _check_window(faults, path, mode, axis):
    window, stride = getattr(mode, f"window_{axis}"), getattr(mode, f"stride_{axis}")
    checks.not_negative(faults, f"{path}.window_{axis}", window, "the whole image")
    checks.not_negative(faults, f"{path}.stride_{axis}", stride, "two thirds of the window")
    if stride > 0 and window == 0:
        faults.append(
            f"{path}.stride_{axis} {stride} has no effect without a window; set window_{axis}, or "
            "remove it"
        )
    elif stride > window > 0:
        faults.append(
            f"{path}.stride_{axis} {stride} exceeds window_{axis} {window}, so that pixels would be "
            f"left out; set it to at most {window}"
        )


def _check_growing(faults, path, bounds, smallest):
    for index, bound in enumerate(bounds):
        below = bounds[index - 1] if index else smallest - 1
        if bound <= below:
            faults.append(
                f"{path}[{index}] {bound} is not above {below}; list growing numbers from "
                f"{smallest} on"
            )


def _check_superpixels(faults, options):
    path = "evaluation.superpixels"
    tolerance = options.boundary_tolerance
    checks.in_range(faults, f"{path}.boundary_tolerance", tolerance, 0, 1, open_high=True)
    checks.positive(faults, f"{path}.slic_compactness", options.slic_compactness)
    for index, factor in enumerate(options.slic_factors):
        if factor != 0 or len(options.slic_factors) > 1:
            checks.positive(faults, f"{path}.slic_factors[{index}]", factor)


def _check_static_size(faults, config):
    evaluation, data = config.evaluation, config.data
    height, width = evaluation.static_height, evaluation.static_width
    for field, value in (("static_height", height), ("static_width", width)):
        checks.not_negative(faults, f"evaluation.{field}", value, "no padding")
    if (height > 0) != (width > 0):
        faults.append(
            f"evaluation has static_height {height} and static_width {width}; set both, or none for "
            "batches of the images' own sizes"
        )
    resizing = [
        f"data.{field} {getattr(data, field)}"
        for field in ("resize_height", "resize_width", "resize_longer_side")
        if getattr(data, field) > 0
    ]
    if height > 0 and width > 0 and resizing:
        faults.append(
            f"evaluation.static_height {height} and static_width {width} pad images in front of "
            f"{' and '.join(resizing)}, which would resize the padding too; use either"
        )
