"""A picture of what the model will be trained on: augmented examples with their labels, and the classes' colours.

Shapes: h, w are the size of a crop in pixels, Y, X that of an image.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sp_transformer.config import derived
from sp_transformer.data import drawing, pipeline, resize, sources
from sp_transformer.data.source import Source

_WIDTH = 1480  # Of the whole sheet, in pixels.
_MARGIN, _GAP = 16, 10
_COLUMNS = 3
_TEXT, _TITLE = 13, 17  # Sizes of letters in pixels.
_TRAIN_EXAMPLES, _EVAL_EXAMPLES = 12, 6
_ALPHA = 0.6  # Of the labels laid over an image.
# Panels of wide crops stand one above the other, those of others side by side.
_WIDE = 1.4
_HATCH_PERIOD = 8


@dataclasses.dataclass(frozen=True)
class Cell:
    """One example: caption, image uint8 [h, w, 3] and label int32 [h, w]."""

    caption: str
    image: np.ndarray
    label: np.ndarray


class _Subset(Source):
    """Some examples of a source, in its order."""

    def __init__(self, source, indices):
        self._source, self._indices, self.has_labels = source, list(indices), source.has_labels

    def __len__(self):
        return len(self._indices)

    def name(self, index):
        return self._source.name(self._indices[index])

    def read(self, index):
        return self._source.read(self._indices[index])


def draw(config, found) -> Image.Image | None:
    """Draws the sheet.

    Args:
      config: a validated ExperimentOptions.
      found: an Inspection; of its splits train_split is shown as training sees it, others as they
        are. Only examples without a fault are shown.

    Returns:
      The picture, or None if no split has a usable example with a label.
    """
    data = type(config.data)()
    data.CopyFrom(config.data)
    data.skip_corrupt = (
        True  # The indices of the reports are those of a source without unpaired files.
    )
    label_map = derived.label_map(config)
    parts, counts = [], 0
    for report in found.splits:
        usable = [one.index for one in report.usable]
        if not usable or not report.has_labels:
            continue
        counts = counts + report.train_counts()
        source = _Subset(sources.create_source(data, report.split), usable)
        if report.split == config.data.train_split:
            title = f"{report.split}, as the model sees it: {_augmentation_text(config.data)}"
            cells = training_cells(config, source, _TRAIN_EXAMPLES)
        else:
            title = f"{report.split}, as it is evaluated"
            cells = _plain_cells(config, source, _EVAL_EXAMPLES)
        parts += [_title(title), *_rows(cells, label_map)]
    if not parts:
        return None
    parts += [_title("classes, with their share of the pixels"), _legend(label_map, counts)]
    return _stacked(parts)


def training_cells(config, source, count) -> list[Cell]:
    """Returns the first `count` examples of the training stream over `source`, at most one epoch.

    They come out of `pipeline.train_dataset`, the one that training reads.
    """
    one_by_one = type(config)()
    one_by_one.CopyFrom(config)
    one_by_one.training.batch_size = 1
    # The sheet is drawn here and now, and in the stream's order.
    one_by_one.data.ClearField("data_service")
    one_by_one.data.deterministic = True
    one_by_one.data.skip_corrupt = False
    one_by_one.data.cache_in_memory = False
    count = min(count, len(source))
    cells = []
    dataset = pipeline.train_dataset(one_by_one, source).take(count)
    for number, batch in enumerate(pipeline.with_plain_errors(dataset)):
        index = pipeline.shuffled_index(np.int64(number), len(source), config.data.seed)
        image = np.clip(np.rint(batch["image"][0].numpy()), 0, 255).astype(np.uint8)
        cells.append(Cell(source.name(int(index)), image, batch["label"][0].numpy()))
    return cells


def _plain_cells(config, source, count):
    indices = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).round())
    cells = []
    for index in indices.astype(int):
        image, label = source.read(int(index))
        size = resize.target_size(*image.shape[:2], config.data)
        cells.append(
            Cell(
                source.name(int(index)),
                resize.resize_image(image, size),
                resize.resize_label(label, size).astype(np.int32),
            )
        )
    return cells


def _augmentation_text(data):
    options = data.augmentation
    parts = [f"crop {data.crop_height}x{data.crop_width}"]
    if options.min_scale != 1 or options.max_scale != 1:
        parts.append(f"scale {options.min_scale:g} to {options.max_scale:g}")
    if options.horizontal_flip:
        parts.append("flip")
    if options.color_policy != "none":
        parts.append(f"{options.color_policy} {options.color_strength:g}")
    return ", ".join(parts)


def overlay(image, label, label_map) -> np.ndarray:
    """Lays the classes' colours over an image; what is ignored is hatched in grey instead.

    Args:
      image: uint8 [Y, X, 3].
      label: int32 [Y, X], train ids.
      label_map: a LabelMap.

    Returns:
      uint8 [Y, X, 3].
    """
    blended = drawing.blend(image, drawing.colorize(label, label_map), _ALPHA)
    y, x = np.indices(label.shape)
    stripe = (y + x) % _HATCH_PERIOD < _HATCH_PERIOD // 2
    hatched = np.where(stripe[..., None], image // 2, image // 2 + 112).astype(np.uint8)
    is_class = (label >= 0) & (label < len(label_map.colors))
    return np.where(is_class[..., None], blended, hatched)


def _rows(cells, label_map):
    cell_width = (_WIDTH - 2 * _MARGIN - (_COLUMNS - 1) * 2 * _GAP) // _COLUMNS
    drawn = [_draw_cell(cell, cell_width, label_map) for cell in cells]
    rows = []
    for first in range(0, len(drawn), _COLUMNS):
        row = drawn[first : first + _COLUMNS]
        canvas = _canvas(_WIDTH, max(cell.height for cell in row))
        for column, cell in enumerate(row):
            canvas.paste(cell, (_MARGIN + column * (cell_width + 2 * _GAP), 0))
        rows.append(canvas)
    return rows


def _draw_cell(cell, width, label_map):
    """Image and overlay, with a caption below."""
    height, cell_width = cell.label.shape
    stacked = cell_width >= _WIDE * height
    panel_width = width if stacked else (width - 4) // 2
    # Neither very flat nor very tall pictures may make a sheet of their own.
    factor = min(panel_width / cell_width, 1.5 * panel_width / height)
    size = (max(1, round(cell_width * factor)), max(1, round(height * factor)))
    image = np.asarray(Image.fromarray(cell.image).resize(size, Image.Resampling.BILINEAR))
    label = np.asarray(
        Image.fromarray(cell.label.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    )
    panels = [Image.fromarray(p) for p in (image, overlay(image, label, label_map))]
    canvas = _canvas(width, size[1] * (2 if stacked else 1) + (4 if stacked else 0) + _TEXT + 6)
    canvas.paste(panels[0], (0, 0))
    canvas.paste(panels[1], (0, size[1] + 4) if stacked else (panel_width + 4, 0))
    is_class = (cell.label >= 0) & (cell.label < len(label_map.names))
    ignored = 100 * (1 - is_class.mean())
    suffix = f"  ({ignored:.0f}% ignored)" if ignored >= 0.5 else ""
    font = ImageFont.load_default(_TEXT)
    caption = _shortened(cell.caption, suffix, font, width)
    ImageDraw.Draw(canvas).text((0, canvas.height - _TEXT - 4), caption, (60, 60, 60), font=font)
    return canvas


def _shortened(name, suffix, font, width):
    """The end of a name is what tells it from others."""
    text = name + suffix
    while font.getlength(text) > width and len(name) > 4:
        name = name[1:]
        text = f"...{name}{suffix}"
    return text


def _title(text):
    canvas = _canvas(_WIDTH, _TITLE + 14)
    font = ImageFont.load_default(_TITLE)
    ImageDraw.Draw(canvas).text((_MARGIN, 8), text, (0, 0, 0), font=font)
    return canvas


def _legend(label_map, counts):
    total = max(1, counts.sum())
    names = [
        f"{i} {name}  {100 * counts[i] / total:.1f}%" for i, name in enumerate(label_map.names)
    ]
    names.append(f"hatched: ignored  {100 * counts[-1] / total:.1f}%")
    colors = np.concatenate([label_map.colors, np.full((1, 3), 255, np.uint8)])
    shown = dataclasses.replace(label_map, names=tuple(names), colors=colors)
    width = drawing.legend(shown).shape[1]
    columns = max(1, min(len(names) // 4, (_WIDTH - 2 * _MARGIN) // width))
    picture = Image.fromarray(drawing.legend(shown, columns))
    canvas = _canvas(_WIDTH, picture.height)
    canvas.paste(picture, (_MARGIN, 0))
    return canvas


def _canvas(width, height):
    return Image.new("RGB", (width, height), (255, 255, 255))


def _stacked(parts):
    canvas = _canvas(_WIDTH, sum(part.height + _GAP for part in parts) + _MARGIN)
    top = _GAP
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height + _GAP
    return canvas
