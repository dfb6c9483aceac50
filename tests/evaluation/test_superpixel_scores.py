"""Averages of superpixel measures over images, and SLIC beside the model's."""

import importlib.util
from xml.etree import ElementTree

import numpy as np
import pytest

from sp_transformer.config import label_map as label_maps
from sp_transformer.evaluation import curves, superpixel_metrics, superpixel_scores
from sp_transformer.protos import evaluation_pb2

LABEL_MAP = label_maps.LabelMap(("a", "b", "c"), np.zeros((3, 3), np.uint8))

SVG = "{http://www.w3.org/2000/svg}"


def scene(seed, size=(48, 64)):
    """Rectangles of three classes, in colours of their own, and a grid of cells."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    label = (y * 3 // size[0] + (x + seed * 5) // 20) % 3
    image = (label[..., None] * 80 + generator.integers(0, 6, (*size, 3))).astype(np.uint8)
    ids = y // 16 * 4 + x // 16
    return f"image {seed}", image, label, ids


def options(**values):
    return evaluation_pb2.SuperpixelEvaluationOptions(**values)


def test_means_of_images_and_curves_by_count():
    scores = superpixel_scores.SuperpixelScores(LABEL_MAP, options(slic_factors=[1, 4]))
    scenes = [scene(seed) for seed in range(3)]
    for each in scenes:
        name, image, _, ids = each
        compared = scores.update(*each)
        np.testing.assert_array_equal(
            compared, superpixel_scores.slic(image, np.unique(ids).size, options()), name
        )
    results = scores.results()
    measured = []
    for _, image, label, ids in scenes:
        truth = superpixel_metrics.SuperpixelTruth(image, label, 3, 255)
        measured.append(truth.measure(ids))
    kinds = {(kind["kind"], kind["factor"]): kind for kind in results["kinds"]}
    model = kinds["model", None]
    for name in superpixel_metrics.MEASURES:
        assert model[name] == pytest.approx(np.mean([values[name] for values, _ in measured]))
    confusion = sum(confusion for _, confusion in measured)
    iou = np.diag(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diag(confusion))
    assert model["achievable_miou"] == pytest.approx(iou.mean())
    assert [entry["name"] for entry in results["per_image"]] == [each[0] for each in scenes]
    assert len(kinds) == 5 and all(kind["images"] == 3 for kind in results["kinds"])
    # Finer superpixels of SLIC follow these plain colours, which the grid's cells cannot.
    fine = kinds["SLIC", 4.0]
    assert kinds["grid", 1.0]["superpixels"] == model["superpixels"] == 12
    assert fine["superpixels"] > kinds["SLIC", 1.0]["superpixels"] > 4
    assert fine["achievable_accuracy"] > 0.97 > model["achievable_accuracy"]
    curve = results["curves"]["boundary_recall"]["SLIC"]
    assert [point[0] for point in curve] == sorted(point[0] for point in curve)
    assert curve[1] == [fine["superpixels"], fine["boundary_recall"]]
    picture = ElementTree.fromstring(curves.superpixel_curves(results["curves"]))
    texts = [element.text for element in picture.iter(SVG + "text")]
    assert "boundary recall, %" in texts and "model, connected components" in texts
    # Seven measures: two points of SLIC joined by a line, one of each of the others; and a legend.
    assert len(list(picture.iter(SVG + "polyline"))) == 7
    assert len(list(picture.iter(SVG + "circle"))) == 7 * 5 + 4
    table = superpixel_scores.format_table(results)
    assert "SLIC, 4 x count" in table and "3 images" in table


@pytest.mark.parametrize(
    ("shape", "count", "rows", "columns"),
    [
        ((360, 480), 432, 18, 24),
        ((360, 480), 403, 17, 24),
        ((48, 64), 1, 1, 1),
        ((7, 100), 14, 1, 14),
        ((100, 7), 14, 14, 1),
        ((2, 3), 50, 2, 3),
    ],
)
def test_grid_has_as_many_cells_of_nearly_equal_sides(shape, count, rows, columns):
    ids = superpixel_scores.grid(shape, count)
    assert ids.shape == shape and ids[0, 0] == 0 and ids[-1, -1] == rows * columns - 1
    sizes = [np.unique(ids[:, 0], return_counts=True), np.unique(ids[0], return_counts=True)]
    assert [len(values) for values, _ in sizes] == [rows, columns]
    # Sides differ by a pixel at most; each cell is a rectangle.
    assert all(np.ptp(counts) <= 1 for _, counts in sizes)
    for (y, x), cell in np.ndenumerate(ids):
        assert cell == ids[y, 0] + ids[0, x]


def test_slic_is_that_of_scikit_image_and_has_no_unused_or_torn_superpixel():
    _, image, *_ = scene(0)
    ids = superpixel_scores.slic(image, 24, options())
    assert ids.shape == image.shape[:2] and ids.min() == 0
    truth = superpixel_metrics.SuperpixelTruth(image, np.zeros(ids.shape, int), 1, 255)
    values, _ = truth.measure(ids)
    assert values["superpixels"] == values["components"] == ids.max() + 1
    assert 20 <= values["superpixels"] <= 28


def test_slic_can_be_left_out_and_is_asked_for_by_name(monkeypatch):
    assert superpixel_scores.slic_factors(options()) == superpixel_scores.SLIC_FACTORS
    assert superpixel_scores.slic_factors(options(slic_factors=[0])) == ()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    scores = superpixel_scores.SuperpixelScores(LABEL_MAP, options(slic_factors=[0]))
    assert scores.update(*scene(0)) is None
    with pytest.raises(ValueError, match=r"scikit-image.*sp-transformer\[superpixels\]"):
        superpixel_scores.SuperpixelScores(LABEL_MAP, options())


def test_curves_without_a_value_or_of_one_point_are_drawn():
    text = curves.superpixel_curves(
        {"compactness": {"a < b": [[4, None]]}, "x": {"a < b": [[4, 0.5]]}}
    )
    picture = ElementTree.fromstring(text)
    assert len(list(picture.iter(SVG + "circle"))) == 2 and "nan" not in text
