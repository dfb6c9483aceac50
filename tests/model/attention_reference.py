"""Eqs. 3 to 7 of the paper, written out slowly in float64."""

import numpy as np


def neighbors(row, column, rows, columns):
    """(k, r, c) of the up to 9 cells around (row, column) that exist."""
    for k in range(9):
        r, c = row + k // 3 - 1, column + k % 3 - 1
        if 0 <= r < rows and 0 <= c < columns:
            yield k, r, c


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def superpixel_attention(queries, keys, values):
    queries, keys, values = (np.asarray(x, np.float64) for x in (queries, keys, values))
    batch, rows, columns, heads, size = queries.shape
    h, w = keys.shape[1] // rows, keys.shape[2] // columns
    result = np.zeros_like(queries)
    for b, r, c, n in np.ndindex(batch, rows, columns, heads):
        seen = [
            (y, x)
            for _, nr, nc in neighbors(r, c, rows, columns)
            for y in range(nr * h, nr * h + h)
            for x in range(nc * w, nc * w + w)
        ]
        logits = np.array([queries[b, r, c, n] @ keys[b, y, x, n] for y, x in seen])
        for weight, (y, x) in zip(softmax(logits * size**-0.5), seen, strict=True):
            result[b, r, c, n] += weight * values[b, y, x, n]
    return result


def pixel_attention(queries, keys, values):
    queries, keys, values = (np.asarray(x, np.float64) for x in (queries, keys, values))
    batch, height, width, heads, size = queries.shape
    rows, columns = keys.shape[1:3]
    h, w = height // rows, width // columns
    result = np.zeros_like(queries)
    for b, y, x, n in np.ndindex(batch, height, width, heads):
        seen = [(r, c) for _, r, c in neighbors(y // h, x // w, rows, columns)]
        logits = np.array([queries[b, y, x, n] @ keys[b, r, c, n] for r, c in seen])
        for weight, (r, c) in zip(softmax(logits * size**-0.5), seen, strict=True):
            result[b, y, x, n] += weight * values[b, r, c, n]
    return result


def bilinear_sources(side, image_side):
    """For each image position: [(source position, weight), ...] with half-pixel centres."""
    sources = []
    for position in range(image_side):
        source = (position + 0.5) * side / image_side - 0.5
        lower = int(np.floor(source))
        weight = source - lower
        clamped = [(min(max(lower, 0), side - 1), 1 - weight)]
        clamped.append((min(max(lower + 1, 0), side - 1), weight))
        sources.append(clamped)
    return sources


def association_logits(pixels, superpixels, output_size, alignment, scale, outside=-np.inf):
    pixels, superpixels = np.asarray(pixels, np.float64), np.asarray(superpixels, np.float64)
    batch, height, width, _ = pixels.shape
    rows, columns = superpixels.shape[1:3]
    v, u = output_size[0] // rows, output_size[1] // columns
    h, w = height // rows, width // columns
    result = np.full((batch, *output_size, 9), outside)
    by_row = bilinear_sources(height, output_size[0])
    by_column = bilinear_sources(width, output_size[1])
    for b, y, x in np.ndindex(batch, *output_size):
        for k, r, c in neighbors(y // v, x // u, rows, columns):
            total = 0.0
            for sy, row_weight in by_row[y]:
                for sx, column_weight in by_column[x]:
                    if alignment == "aligned":
                        target = superpixels[b, r, c]
                    else:
                        # Channel k of the source pixel: another superpixel where the source lies in another cell.
                        tr, tc = sy // h + k // 3 - 1, sx // w + k % 3 - 1
                        exists = 0 <= tr < rows and 0 <= tc < columns
                        target = superpixels[b, tr, tc] if exists else np.zeros(pixels.shape[-1])
                    total += row_weight * column_weight * (pixels[b, sy, sx] @ target)
            result[b, y, x, k] = total * scale
    return result


def project(logits, superpixel_logits):
    logits = np.asarray(logits, np.float64)
    batch, height, width, _ = logits.shape
    rows, columns, classes = superpixel_logits.shape[1:]
    v, u = height // rows, width // columns
    result = np.zeros((batch, height, width, classes))
    for b, y, x in np.ndindex(batch, height, width):
        seen = list(neighbors(y // v, x // u, rows, columns))
        weights = softmax(np.array([logits[b, y, x, k] for k, _, _ in seen]))
        for weight, (_, r, c) in zip(weights, seen, strict=True):
            result[b, y, x] += weight * superpixel_logits[b, r, c]
    return result


def hard_superpixels(logits, grid):
    logits = np.asarray(logits, np.float64)
    batch, height, width, _ = logits.shape
    rows, columns = grid
    v, u = height // rows, width // columns
    result = np.zeros((batch, height, width), np.int32)
    for b, y, x in np.ndindex(batch, height, width):
        seen = list(neighbors(y // v, x // u, rows, columns))
        _, r, c = max(seen, key=lambda s: logits[b, y, x, s[0]])
        result[b, y, x] = r * columns + c
    return result
