"""Faults of `evaluation`, each giving its one clear error, and what is right."""

import pytest

from sp_transformer.config import ConfigError, load_config


def mode(text, name="m"):
    return f'modes {{ name: "{name}" {text} }}'


BROKEN = {
    "modes { scales: 1 }": ["modes[0].name is not set", "multi_scale"],
    mode("", "stored"): ['modes[0].name "stored" is that of predictions read from files'],
    mode("") + mode("flip: true"): ['modes[1].name "m" is already that of modes[0]'],
    mode("scales: 1 scales: 0"): ["modes[0].scales[1] 0 is not above 0"],
    mode("scales: nan"): ["modes[0].scales[0] nan is not finite"],
    mode("window_height: 64"): ["window_height 64 and window_width 0; set both, or none"],
    mode("window_height: -1 window_width: -1"): ["modes[0].window_height -1 is below 0"],
    mode("stride_width: 32"): ["stride_width 32 has no effect without a window"],
    mode("window_height: 64 window_width: 64 stride_height: 65"): [
        "stride_height 65 exceeds window_height 64",
        "at most 64",
    ],
    mode("window_height: 64 window_width: 64 stride_width: -3"): ["stride_width -3 is below 0"],
    "boundary_iou_width: -0.1": ["boundary_iou_width -0.1 lies outside [0, 1)"],
    "boundary_iou_width: 1": ["boundary_iou_width 1 lies outside [0, 1)"],
    "failure_analysis { distance_bounds: 4 distance_bounds: 4 }": [
        "distance_bounds[1] 4 is not above 4; list growing numbers from 0 on"
    ],
    "failure_analysis { size_bounds: 0 }": ["size_bounds[0] 0 is not above 0", "from 1 on"],
    "superpixels { boundary_tolerance: 1.5 }": ["boundary_tolerance 1.5 lies outside [0, 1)"],
    "report { examples: 11 }": ["evaluation.report.examples 11 lies outside [0, 10]"],
    "report { thumbnails: -1 }": ["evaluation.report.thumbnails -1 lies outside [0, 200]"],
    "superpixels { slic_compactness: 0 }": ["slic_compactness 0 is not above 0"],
    "superpixels { slic_factors: 1 slic_factors: 0 }": ["slic_factors[1] 0 is not above 0"],
    "static_height: 64": ["static_height 64 and static_width 0; set both"],
    "count_on_device: true boundary_iou_width: 0": ["count_on_device needs images of one size"],
    "count_on_device: true static_height: 64 static_width: 64": [
        "boundary_iou_width 0.02 needs the predictions",
        "set evaluation.boundary_iou_width to 0.0",
    ],
    "static_height: -2": ["static_height -2 is below 0"],
}


@pytest.mark.parametrize(("text", "parts"), BROKEN.items(), ids=BROKEN)
def test_broken_evaluation_gives_clear_errors(folder_config, text, parts):
    with pytest.raises(ConfigError) as caught:
        load_config(folder_config, [f"evaluation {{ {text} }}"])
    fault = caught.value.faults[0]
    for part in parts:
        assert part in fault
    assert fault.startswith("evaluation")


def test_static_size_does_not_go_with_resizing(folder_config):
    overrides = ["data { resize_longer_side: 96 }"]
    load_config(folder_config, overrides)
    overrides.append("evaluation { static_height: 96 static_width: 96 }")
    with pytest.raises(ConfigError, match="resize_longer_side 96, which would resize the padding"):
        load_config(folder_config, overrides)


@pytest.mark.parametrize(
    "text",
    [
        mode("scales: 0.5 scales: 1 flip: true")
        + mode("window_height: 64 window_width: 96 stride_height: 64", "w"),
        "boundary_iou_width: 0",
        "report { enabled: true examples: 0 thumbnails: 200 }",
        "superpixels { slic_factors: 0 }",
        "superpixels { enabled: true boundary_tolerance: 0 slic_factors: 0.5 slic_factors: 3 }",
        "failure_analysis { enabled: true distance_bounds: 0 distance_bounds: 9 size_bounds: 1 }",
        "static_height: 64 static_width: 96",
    ],
)
def test_right_values_pass(folder_config, text):
    load_config(folder_config, [f"evaluation {{ {text} }}"])
