"""Pictures of one image and of what a model makes of it, with NumPy and Pillow only.

Shapes: Y, X are the height and width of one image in pixels; R, C the superpixel grid. All pictures are uint8
[height, width, 3] at the size of the image, unless said otherwise.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw

from sp_transformer.data import drawing
from sp_transformer.pictures import color_scales

MIN_SIDE = 512  # Longer sides below this are magnified where superpixels are outlined.
# Blue and orange are told apart by every kind of colour vision, and in grey.
CORRECT, WRONG, IGNORED = (38, 84, 138), (255, 158, 36), (120, 120, 120)
ERROR_NAMES = ("correct", "wrong", "ignored")
_HATCH_PERIOD = 6
_HEAT_ALPHA = 0.72
_MARK = (0, 255, 255)


@dataclasses.dataclass(frozen=True)
class PixelAssociation:
    """How one pixel is associated with the superpixels around it (Eq. 5).

    Attributes:
      pixel: (y, x).
      superpixels: int32 [3, 3], ids r*C + c of the neighbours, -1 outside the grid.
      probabilities: float32 [3, 3], their softmax; 0 outside the grid.
    """

    pixel: tuple[int, int]
    superpixels: np.ndarray
    probabilities: np.ndarray


def segmentation_panel(
    image, prediction, superpixels, label_map, label=None, *, max_side=None, captions=True
) -> np.ndarray:
    """The paper's Fig. 4: image with the outlines of its superpixels, prediction, and truth, side by side.

    Panels are brought to their size first and outlined then, so that outlines are seen at any size: images whose longer
    side is below MIN_SIDE are magnified by a whole number.

    Args:
      image: uint8 [Y, X, 3].
      prediction: integer [Y, X] train ids.
      superpixels: integer [Y, X] superpixel ids.
      label_map: a LabelMap.
      label: integer [Y, X] train ids; None for no truth.
      max_side: longer side of a panel in pixels at most; None for the image's own.
      captions: whether each panel is named, where the name fits.

    Returns:
      uint8 [panel height, 2 or 3 panels, 3].
    """
    maps = [prediction, superpixels, *([] if label is None else [label])]
    image, (prediction, superpixels, *rest) = fitted(image, maps, max_side)
    panels = [drawing.draw_boundaries(image, superpixels), drawing.colorize(prediction, label_map)]
    names = ["superpixels", "prediction"]
    if label is not None:
        panels.append(drawing.colorize(rest[0], label_map))
        names.append("ground truth")
    if captions:
        panels = [captioned(panel, name) for panel, name in zip(panels, names, strict=True)]
    return drawing.side_by_side(panels)


def detail_panel(
    image, prediction, superpixels, confidence, label, ignore_label, *, max_side=None
) -> np.ndarray:
    """What Fig. 4 does not show, side by side: mean colours of the superpixels, errors, and confidence.

    Args:
      image: uint8 [Y, X, 3].
      prediction: integer [Y, X] train ids.
      superpixels: integer [Y, X] superpixel ids.
      confidence: float [Y, X] from 0 to 1.
      label: integer [Y, X] train ids.
      ignore_label: pixels of this label count nowhere.
      max_side: longer side of a panel in pixels at most; None for the image's own.

    Returns:
      uint8 [panel height, about 3 panels, 3].
    """
    maps = [prediction, superpixels, confidence, label]
    image, (prediction, superpixels, confidence, label) = fitted(image, maps, max_side)
    means, errors, confidence = (
        captioned(picture, name)
        for picture, name in (
            (mean_colors(image, superpixels), "mean colours"),
            (error_map(label, prediction, ignore_label, image), "errors"),
            (confidence_map(confidence, bar=False), "confidence"),
        )
    )
    return drawing.side_by_side([means, errors, color_scales.with_bar(confidence, 0, 1)])


def segmentation_overlay(image, labels, label_map, alpha=0.5) -> np.ndarray:
    """The colours of classes over an image; pixels of no class keep theirs.

    Args:
      image: uint8 [Y, X, 3].
      labels: integer [Y, X] train ids.
      label_map: a LabelMap.
      alpha: weight of the classes' colours, 0 to 1.
    """
    labels = np.asarray(labels)
    is_class = (labels >= 0) & (labels < len(label_map.colors))
    blended = drawing.blend(image, drawing.colorize(labels, label_map), alpha)
    return np.where(is_class[..., None], blended, image)


def mean_colors(image, superpixels) -> np.ndarray:
    """Each superpixel of uint8 [Y, X, 3] in the mean colour of its pixels; ids integer [Y, X]."""
    image = np.asarray(image)
    _, ids = np.unique(superpixels, return_inverse=True)
    ids = ids.reshape(-1)
    counts = np.bincount(ids)
    means = [np.bincount(ids, channel.reshape(-1)) / counts for channel in np.moveaxis(image, 2, 0)]
    return np.rint(np.stack(means, axis=1)).astype(np.uint8)[ids].reshape(image.shape)


def error_map(label, prediction, ignore_label, image=None) -> np.ndarray:
    """Where a prediction is right (blue), wrong (orange) and not counted (hatched grey).

    Args:
      label: integer [Y, X] train ids.
      prediction: integer [Y, X] train ids.
      ignore_label: pixels of this label count nowhere.
      image: uint8 [Y, X, 3] that shines through in grey; None for flat colours.
    """
    label, prediction = np.asarray(label), np.asarray(prediction)
    ignored = label == ignore_label
    colors = np.where((label == prediction)[..., None], CORRECT, WRONG).astype(np.uint8)
    if image is not None:
        colors = drawing.blend(_grey(image), colors, 0.7)
    y, x = np.indices(label.shape)
    stripe = (y + x) % _HATCH_PERIOD < _HATCH_PERIOD // 2
    hatched = np.where(stripe[..., None], IGNORED, np.array(IGNORED) // 2)
    return np.where(ignored[..., None], hatched, colors).astype(np.uint8)


def error_legend(columns=3) -> np.ndarray:
    """What the colours of `error_map` mean."""
    return drawing.color_key(ERROR_NAMES, (CORRECT, WRONG, IGNORED), columns)


def confidence_map(confidence, bar=True) -> np.ndarray:
    """Confidence, float [Y, X] from 0 to 1, in colours, light where it is high.

    Args:
      confidence: float [Y, X].
      bar: whether the scale stands beside it (which makes the picture wider).
    """
    picture = color_scales.colors_of(confidence)
    return color_scales.with_bar(picture, 0, 1, "confidence") if bar else picture


def heat(image, values, high=None, bar=True, title="") -> np.ndarray:
    """Numbers over an image in grey.

    Args:
      image: uint8 [Y, X, 3].
      values: float [Y, X] from 0 on; where NaN, the image alone is seen.
      high: the upper end of the scale; None for the largest value.
      bar: whether the scale stands beside it (which makes the picture wider).
      title: of the bar.
    """
    values = np.asarray(values, np.float64)
    if high is None:
        high = np.nanmax(values) if not np.isnan(values).all() else 1.0
    high = float(high) if high > 0 else 1.0
    grey = _grey(image)
    blended = drawing.blend(grey, color_scales.colors_of(values, 0, high), _HEAT_ALPHA)
    picture = np.where(np.isnan(values)[..., None], grey, blended)
    return color_scales.with_bar(picture, 0, high, title) if bar else picture


def association_picture(image, superpixels, association: PixelAssociation) -> np.ndarray:
    """The superpixels around a pixel, each as light as the pixel's association with it is high.

    Args:
      image: uint8 [Y, X, 3].
      superpixels: integer [Y, X] superpixel ids.
      association: of `model_views.association_of_pixel`.

    Returns:
      uint8; the part of the image around these superpixels, magnified if it is small, and a colour bar.
    """
    superpixels = np.asarray(superpixels)
    values = np.full(superpixels.shape, np.nan)
    for index, probability in zip(
        association.superpixels.flat, association.probabilities.flat, strict=True
    ):
        if index >= 0:
            values[superpixels == index] = probability
    around = ~np.isnan(values)
    around[association.pixel] = True
    part = _part_around(around)
    shown, (ids, values) = fitted(np.asarray(image)[part], [superpixels[part], values[part]])
    picture = drawing.draw_boundaries(heat(shown, values, 1, bar=False), ids)
    factor = picture.shape[0] / superpixels[part].shape[0]
    place = (side - span.start for side, span in zip(association.pixel, part, strict=True))
    picture = _marked(picture, [(side + 0.5) * factor for side in place])
    return color_scales.with_bar(picture, 0, 1, "association")


def assignment_picture(image, assignment) -> np.ndarray:
    """How much of each pixel one superpixel takes (Eq. 5), over the part of the image that it may take any of.

    Args:
      image: uint8 [Y, X, 3].
      assignment: float [Y, X], of `model_views.assignment_of_superpixel`.

    Returns:
      uint8; that part, magnified if it is small, and a colour bar.
    """
    assignment = np.asarray(assignment)
    part = _part_around(assignment > 0)
    shown, (values,) = fitted(np.asarray(image)[part], [assignment[part]])
    return heat(shown, values, 1, title="assignment")


def attention_picture(image, attention, cell, stride) -> np.ndarray:
    """What one superpixel attends to: its weights over the grid, each on its cell of the image.

    Args:
      image: uint8 [Y, X, 3].
      attention: float [R, C], of `model_views.attention_of_superpixel`.
      cell: (row, column) of the superpixel that attends; it is framed.
      stride: side in pixels of a cell, `model.superpixel_stride`.
    """
    height, width = np.shape(image)[:2]
    values = np.kron(attention, np.ones((stride, stride)))[:height, :width]
    shown, (values,) = fitted(image, [values])
    factor = shown.shape[0] / height
    row, column = cell
    box = (row * stride, column * stride, (row + 1) * stride, (column + 1) * stride)
    picture = heat(shown, values, attention.max(), bar=False)
    picture = _framed(picture, box, factor)
    return color_scales.with_bar(picture, 0, float(attention.max()), "attention")


def fitted(image, maps, max_side=None):
    """An image and maps of its size, reduced to `max_side` or, if small, magnified to MIN_SIDE by a whole factor.

    Args:
      image: uint8 [Y, X, 3].
      maps: arrays [Y, X], integer or float; they are not interpolated.
      max_side: longer side in pixels at most; None for the image's own.

    Returns:
      uint8 [y, x, 3] and a list of arrays [y, x].
    """
    image, maps = np.asarray(image), [np.asarray(values) for values in maps]
    for values in maps:
        if values.shape != image.shape[:2]:
            raise ValueError(
                f"a map {list(values.shape)} does not fit an image {list(image.shape)}; both must "
                "have one height and width"
            )
    longer = max(image.shape[:2])
    limit = longer if max_side is None else min(longer, max_side)
    if limit < longer:
        size = [max(1, round(side * limit / longer)) for side in image.shape[:2]]
        rows, columns = (
            np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.intp)
            for new, old in zip(size, image.shape[:2], strict=True)
        )
        image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BOX))
        return image, [values[rows[:, None], columns] for values in maps]
    factor = max(1, math.ceil(MIN_SIDE / longer))
    if max_side is not None:
        factor = max(1, min(factor, max_side // longer))
    enlarged = [values.repeat(factor, 0).repeat(factor, 1) for values in (image, *maps)]
    return enlarged[0], enlarged[1:]


def captioned(picture, text) -> np.ndarray:
    """Adds a white strip with a caption below a picture; an empty strip if the caption does not fit."""
    size = drawing.font_size(picture.shape)
    font = drawing.font(size)
    canvas = Image.new("RGB", (picture.shape[1], picture.shape[0] + 2 * size), (255, 255, 255))
    canvas.paste(Image.fromarray(picture), (0, 0))
    if font.getlength(text) <= picture.shape[1]:
        place = (picture.shape[1] // 2, picture.shape[0] + size)
        ImageDraw.Draw(canvas).text(place, text, (40, 40, 40), font=font, anchor="mm")
    return np.array(canvas)


def _part_around(mask):
    """Slices of the rows and columns of a mask's pixels, and half as much around them."""
    if not mask.any():
        return slice(None), slice(None)
    spans = []
    for axis in (1, 0):
        places = np.flatnonzero(mask.any(axis))
        margin = (places[-1] - places[0] + 1) // 2
        spans.append(slice(max(0, places[0] - margin), places[-1] + 1 + margin))
    return tuple(spans)


def _grey(image):
    """The image's luminance (Rec. 601), uint8 [Y, X, 3]."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L").convert("RGB"))


def _marked(picture, place):
    """A ring around (y, x), dark and light, so that it is seen on any colour."""
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    y, x = place
    radius = max(4, max(picture.shape) // 100)
    width = max(2, radius // 3)
    for extent, color in ((radius + width, (0, 0, 0)), (radius, _MARK)):
        box = (x - extent, y - extent, x + extent, y + extent)
        draw.ellipse(box, outline=color, width=width)
    return np.array(canvas)


def _framed(picture, box, factor):
    """A frame around (top, left, bottom, right), dark and light."""
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    top, left, bottom, right = (side * factor for side in box)
    bottom, right = min(bottom, picture.shape[0]) - 1, min(right, picture.shape[1]) - 1
    width = max(1, max(picture.shape) // 400)
    for extent, color in ((width, (0, 0, 0)), (0, _MARK)):
        frame = (left - extent, top - extent, right + extent, bottom + extent)
        draw.rectangle(frame, outline=color, width=width)
    return np.array(canvas)
