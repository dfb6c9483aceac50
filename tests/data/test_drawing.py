import numpy as np
import pytest
from PIL import Image

from sp_transformer.data import drawing


def test_colorize_paints_classes_and_leaves_the_rest_black(label_map):
    labels = np.array([[0, 1, 2], [255, 3, -1]])
    expected = [[[10, 20, 30], [40, 50, 60], [70, 80, 90]], [[0, 0, 0]] * 3]
    for dtype in (np.int32, np.int64, np.int16):
        picture = drawing.colorize(labels.astype(dtype), label_map())
        assert picture.dtype == np.uint8 and picture.tolist() == expected
    assert drawing.colorize(np.array([[255]], np.uint8), label_map()).tolist() == [[[0, 0, 0]]]


def test_blend_ends_and_middle():
    image = np.full((2, 3, 3), 100, np.uint8)
    color = np.full((2, 3, 3), 255, np.uint8)
    assert np.array_equal(drawing.blend(image, color, 0), image)
    assert np.array_equal(drawing.blend(image, color, 1), color)
    half = drawing.blend(image, color, 0.5)
    assert half.dtype == np.uint8 and (half == 178).all()  # 177.5 to the even integer.
    assert (drawing.blend(image, (0, 0, 0), 0.25) == 75).all()
    with pytest.raises(ValueError, match=r"alpha 1\.5"):
        drawing.blend(image, color, 1.5)


def test_boundaries_match_a_slow_reference():
    ids = np.random.default_rng(0).integers(0, 3, (7, 9))
    expected = np.zeros((7, 9), bool)
    for y in range(7):
        for x in range(9):
            below = y < 6 and ids[y, x] != ids[y + 1, x]
            expected[y, x] = below or (x < 8 and ids[y, x] != ids[y, x + 1])
    assert np.array_equal(drawing.superpixel_boundaries(ids), expected)
    assert not drawing.superpixel_boundaries(np.full((4, 4), 5)).any()
    assert not drawing.superpixel_boundaries(np.zeros((1, 1), int)).any()


@pytest.mark.parametrize(
    ("width", "lines"), [(100, [49]), (1000, [499]), (1500, [749, 750]), (2048, [1023, 1024, 1022])]
)
def test_lines_grow_with_the_image(width, lines):
    image = np.full((6, width, 3), 9, np.uint8)
    ids = np.zeros((6, width), int)
    ids[:, width // 2 :] = 1
    drawn = drawing.draw_boundaries(image, ids, (1, 2, 3))
    marked = (drawn == (1, 2, 3)).all(-1)
    assert marked.all(0).nonzero()[0].tolist() == sorted(lines)
    assert marked.sum() == 6 * len(lines)
    dark = (drawn == 0).all(-1)
    # A dark line of half the width, at least one pixel, on either side.
    beside = max(1, len(lines) // 2)
    assert dark.all(0).nonzero()[0].tolist() == [
        *range(min(lines) - beside, min(lines)),
        *range(max(lines) + 1, max(lines) + 1 + beside),
    ]
    assert (image == 9).all() and (drawn[~(marked | dark)] == 9).all()
    bare = drawing.draw_boundaries(image, ids, (1, 2, 3), outline=None)
    assert np.array_equal((bare != 9).any(-1), marked)


@pytest.mark.parametrize("ground", [(0, 0, 0), (255, 255, 255), (255, 255, 0), (128, 128, 128)])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_boundaries_are_seen_on_any_ground_and_after_downscaling(ground, factor):
    image = np.full((1024, 2048, 3), ground, np.uint8)
    ids = np.arange(2048)[None] // 64 + np.zeros((1024, 1), int)
    drawn = Image.fromarray(drawing.draw_boundaries(image, ids))
    small = np.asarray(drawn.resize((2048 // factor, 1024 // factor), Image.Resampling.BOX))
    contrast = np.abs(small.astype(int) - ground).max(-1).max(0)
    for line in range(64, 2048, 64):
        around = slice((line - 4) // factor, (line + 4) // factor + 1)
        assert contrast[around].max() >= 60, (line, ground, factor)


def test_boundaries_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\[4, 4\] do not fit an image \[4, 5, 3\]"):
        drawing.draw_boundaries(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4), int), (0, 0, 0))


def test_side_by_side_keeps_every_picture():
    pictures = [np.full((2, 3, 3), 10, np.uint8), np.full((5, 2, 3), 20, np.uint8)]
    canvas = drawing.side_by_side(pictures)
    assert canvas.shape == (5, 3 + 4 + 2, 3) and canvas.dtype == np.uint8
    assert (canvas[:2, :3] == 10).all() and (canvas[:, -2:] == 20).all()
    assert (canvas[2:, :3] == 255).all() and (canvas[:, 3:7] == 255).all()
    with pytest.raises(ValueError, match="at least one"):
        drawing.side_by_side([])


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_legend_shows_every_colour_and_some_text(label_map, columns):
    picture = drawing.legend(label_map(), columns)
    assert picture.dtype == np.uint8
    for color in label_map().colors:
        assert (picture == color).all(-1).sum() == 14 * 14
    assert (picture.astype(int).sum(-1) < 100).sum() > 20 + 14 * 14  # Letters, near black.


def test_color_key_grows_with_its_letters():
    small, large = (
        drawing.color_key(("a", "bb"), ((9, 9, 9), (90, 0, 0)), text_size=size) for size in (12, 36)
    )
    assert (large == (90, 0, 0)).all(-1).sum() == 42 * 42
    assert large.shape[0] == 3 * small.shape[0]
    assert drawing.font_size((40, 30, 3)) == 12 and drawing.font_size((1024, 2048, 3)) == 46


def test_evenly_spaced_positions():
    assert drawing.evenly_spaced(7, 3) == [0, 2, 4]
    assert drawing.evenly_spaced(3, 7) == [0, 1, 2]
    assert drawing.evenly_spaced(500, 4) == [0, 125, 250, 375]
    assert drawing.evenly_spaced(5, 0) == drawing.evenly_spaced(0, 4) == []
