import numpy as np
import pytest

from sp_transformer.config import label_map as label_maps
from sp_transformer.data import drawing
from sp_transformer.pictures import color_scales, panels

SIZES = [(1, 1), (1, 9), (37, 53), (64, 320), (300, 200)]
LABEL_MAP = label_maps.LabelMap(
    ("road", "sky", "tree"), np.array([(10, 20, 30), (200, 60, 70), (70, 180, 90)], np.uint8)
)


def example(size, seed=0):
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (*size, 3), np.uint8)
    label = generator.choice([0, 1, 2, 255], size)
    prediction = generator.integers(0, 3, size)
    rows, columns = np.indices(size) // 8
    return image, label, prediction, rows * 100 + columns


@pytest.mark.parametrize("size", SIZES)
def test_panel_shows_image_prediction_and_truth(size):
    image, label, prediction, superpixels = example(size)
    panel = panels.segmentation_panel(
        image, prediction, superpixels, LABEL_MAP, label, captions=False
    )
    height, width = panel.shape[0], (panel.shape[1] - 8) // 3
    factor = height // size[0]
    assert (height, width) == (size[0] * factor, size[1] * factor)
    # Small images are magnified until the lines leave something of them to be seen.
    assert max(height, width) >= panels.MIN_SIDE
    parts = [panel[:, left : left + width] for left in (0, width + 4, 2 * width + 8)]
    for part, labels in zip(parts[1:], (prediction, label), strict=True):
        expected = np.zeros((*size, 3), np.uint8)
        for index, color in enumerate(LABEL_MAP.colors):
            expected[labels == index] = color
        np.testing.assert_array_equal(part[::factor, ::factor], expected)
    assert ((parts[0] == (255, 255, 0)).all(-1)).any() == (max(size) > 8)
    without = panels.segmentation_panel(image, prediction, superpixels, LABEL_MAP, captions=False)
    np.testing.assert_array_equal(without, panel[:, : 2 * width + 4])


def test_panel_outlines_after_reducing():
    superpixels = np.arange(1000)[None] // 100 + np.zeros((400, 1), int)
    image = np.full((400, 1000, 3), 250, np.uint8)
    panel = panels.segmentation_panel(
        image, superpixels % 3, superpixels, LABEL_MAP, max_side=200, captions=False
    )
    assert panel.shape == (80, 2 * 200 + 4, 3)
    lines = (panel[:, :200] == (255, 255, 0)).all(-1)
    assert lines.all(0).sum() == 9
    tiny = panels.segmentation_panel(
        image[:3, :5],
        superpixels[:3, :5],
        superpixels[:3, :5],
        LABEL_MAP,
        max_side=12,
        captions=False,
    )
    assert tiny.shape == (6, 24, 3)


def test_captions_are_left_out_where_they_do_not_fit():
    picture = np.full((300, 200, 3), 9, np.uint8)
    named = panels.captioned(picture, "prediction")
    np.testing.assert_array_equal(named[:300], picture)
    assert named[300:].min() < 100
    narrow = panels.captioned(picture[:, :20], "prediction")
    assert narrow.shape == named[:, :20].shape and narrow[300:].min() == 255


@pytest.mark.parametrize("size", SIZES)
def test_mean_colors_match_a_loop(size):
    image, _, _, superpixels = example(size)
    expected = np.zeros(image.shape)
    for index in np.unique(superpixels):
        expected[superpixels == index] = image[superpixels == index].mean(0)
    shown = panels.mean_colors(image, superpixels)
    assert shown.dtype == np.uint8
    assert np.abs(shown - expected).max() <= 0.5


def test_error_map_tells_three_cases_apart():
    label = np.array([[0, 1, 255, 255], [2, 2, 255, 255]])
    prediction = np.array([[0, 2, 0, 1], [2, 0, 1, 2]])
    picture = panels.error_map(label, prediction, 255)
    assert (picture[0, 0] == panels.CORRECT).all() and (picture[1, 0] == panels.CORRECT).all()
    assert (picture[0, 1] == panels.WRONG).all() and (picture[1, 1] == panels.WRONG).all()
    # Hatched: grey without a hue, in two strengths.
    ignored = picture[:, 2:].reshape(-1, 3)
    assert (ignored == ignored[:, :1]).all()
    wide = panels.error_map(np.full((9, 9), 255), np.zeros((9, 9), int), 255)
    assert len(np.unique(wide)) == 2
    # Apart in lightness too, whatever lies below: black and white images and the colour-blind.
    luminance = np.array([0.299, 0.587, 0.114])
    for ground in (0, 255):
        image = np.full((*label.shape, 3), ground, np.uint8)
        shown = panels.error_map(label, prediction, 255, image) @ luminance
        assert shown[0, 1] - shown[0, 0] > 50
    legend = panels.error_legend()
    for color in (panels.CORRECT, panels.WRONG):
        assert (legend == color).all(-1).any()


def test_scale_grows_in_lightness_and_has_a_grey_for_nothing():
    colors = color_scales.colors_of(np.linspace(0, 1, 64)[None])[0]
    lightness = colors @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(lightness) > 0).all()
    shown = color_scales.colors_of(np.array([[-1.0, 0, 2, np.nan, 1]]))
    np.testing.assert_array_equal(shown[0, 0], shown[0, 1])
    np.testing.assert_array_equal(shown[0, 2], shown[0, 4])
    assert shown[0, 3].tolist() == [128, 128, 128]
    with pytest.raises(ValueError, match="from 1 to 1 has no extent"):
        color_scales.colors_of(np.zeros((1, 1)), 1, 1)


@pytest.mark.parametrize("size", SIZES)
def test_confidence_and_heat_have_a_bar(size):
    image = example(size)[0]
    values = np.linspace(0, 1, size[0] * size[1]).reshape(size)
    bare = panels.confidence_map(values, bar=False)
    np.testing.assert_array_equal(bare, color_scales.colors_of(values))
    with_bar = panels.confidence_map(values)
    np.testing.assert_array_equal(with_bar[: size[0], : size[1]], bare)
    rest = with_bar[:, size[1] :].reshape(-1, 3)
    for end in (0.0, 1.0):
        assert (rest == color_scales.colors_of(np.full((1, 1), end))[0, 0]).all(-1).any()
    nothing = panels.heat(image, np.full(size, np.nan), bar=False)
    assert (nothing == nothing[..., :1]).all()  # The image in grey.
    for flat in (0.0, 0.3):
        assert panels.heat(image, np.full(size, flat)).shape[1] > size[1]


def test_overlay_leaves_pixels_of_no_class_alone():
    image, label, _, _ = example((20, 30))
    shown = panels.segmentation_overlay(image, label, LABEL_MAP, 0.5)
    np.testing.assert_array_equal(shown[label == 255], image[label == 255])
    colored = drawing.blend(image, drawing.colorize(label, LABEL_MAP), 0.5)
    np.testing.assert_array_equal(shown[label == 1], colored[label == 1])


@pytest.mark.parametrize("size", SIZES)
def test_pictures_of_association_assignment_and_attention_at_any_size(size):
    image, _, _, superpixels = example(size)
    ids = np.array([[-1, -1, -1], [-1, 0, 1], [-1, 100, 101]], np.int32)
    probabilities = np.where(ids < 0, 0, 0.25).astype(np.float32)
    association = panels.PixelAssociation((0, 0), ids, probabilities)
    shown = panels.association_picture(image, superpixels, association)
    assignment = panels.assignment_picture(image, np.full(size, 0.5))
    grid = [-(-side // 8) for side in size]
    attention = panels.attention_picture(image, np.full(grid, 0.1), (0, 0), 8)
    for picture in (shown, assignment, attention):
        assert picture.dtype == np.uint8
        assert max(picture.shape) >= panels.MIN_SIDE and picture.std() > 0
    # The pixel, or the chosen cell, is marked.
    assert (shown == (0, 255, 255)).all(-1).any() and (attention == (0, 255, 255)).all(-1).any()


def test_association_picture_shows_the_part_around_the_pixel():
    image = np.full((1024, 2048, 3), 90, np.uint8)
    rows, columns = np.indices((1024, 2048)) // 32
    ids = (np.arange(14, 17)[:, None] * 64 + np.arange(29, 32)).astype(np.int32)
    probabilities = np.array([[0, 0, 0], [0, 0.75, 0.25], [0, 0, 0]], np.float32)
    association = panels.PixelAssociation((490, 970), ids, probabilities)
    picture = panels.association_picture(image, rows * 64 + columns, association)
    # Three cells of 32 pixels and half as much on either side, three times as large.
    assert picture.shape[0] == 2 * 96 * 3
    for probability in (0.75, 0.25):
        values = np.full((1024, 2048), probability)
        expected = panels.heat(image[:1, :1], values[:1, :1], 1, bar=False)[0, 0]
        cell = (picture == expected).all(-1).sum()
        assert 0.7 * 96**2 < cell <= 96**2


def test_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"map \[4, 4\] does not fit an image \[4, 5, 3\]"):
        panels.fitted(np.zeros((4, 5, 3), np.uint8), [np.zeros((4, 4), int)])


@pytest.mark.parametrize("size", SIZES)
def test_detail_panel_holds_its_three_pictures(size):
    image, label, prediction, superpixels = example(size)
    confidence = np.full(size, 0.5)
    panel = panels.detail_panel(image, prediction, superpixels, confidence, label, 255)
    shown, (ids, truth, found) = panels.fitted(image, [superpixels, label, prediction])
    height, width = shown.shape[:2]
    parts = [panel[:height, left : left + width] for left in (0, width + 4, 2 * width + 8)]
    np.testing.assert_array_equal(parts[0], panels.mean_colors(shown, ids))
    np.testing.assert_array_equal(parts[1], panels.error_map(truth, found, 255, shown))
    assert (parts[2] == color_scales.colors_of(np.full((1, 1), 0.5))).all()
