"""Cars, lorries, buses and trams of the synthetic streets.

Each function draws one vehicle onto a `Painter`, x metres to the right of the camera and with its
near end z metres ahead. Sizes are those of the real things in metres, varied.
"""

from sp_transformer.data.street_painter import (
    BUS,
    CAR,
    FLAT,
    METAL,
    TRAIN,
    TRUCK,
    Color,
    Painter,
    any_color,
    shade,
)

_GLASS = ((40, 50, 60), (70, 85, 100), (20, 22, 26), (110, 125, 135))
_RUBBER = (24, 24, 26)


def _shadow(p: Painter, x0: float, x1: float, z0: float, z1: float) -> None:
    p.detail(p.ground_quad(x0 - 0.15, x1 + 0.15, max(1.5, z0 - 0.2), z1), (32, 32, 36))


def _inset(quad, u0: float, u1: float, v0: float, v1: float):
    """Part of a face given as left-bottom, left-top, right-top, right-bottom; u right, v up."""

    def at(u, v):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = quad
        left = (ax + (bx - ax) * v, ay + (by - ay) * v)
        right = (dx + (cx - dx) * v, dy + (cy - dy) * v)
        return (left[0] + (right[0] - left[0]) * u, left[1] + (right[1] - left[1]) * u)

    return [at(u0, v0), at(u0, v1), at(u1, v1), at(u1, v0)]


def _wheel(p: Painter, x: float, z: float, radius: float, label: int) -> None:
    """A wheel on the side of a vehicle that points along the road: an upright ellipse."""
    cx, cy = p.project(x, radius, z)
    ry = p.pixels(radius, z)
    far = p.project(x, radius, z + radius)[0]
    rx = max(abs(far - cx), 0.4 * p.unit)
    p.disc((cx - rx, cy - ry, cx + rx, cy + ry), label, _RUBBER, FLAT, z)
    if ry > 4:
        p.disc_detail((cx - rx / 2, cy - ry / 2, cx + rx / 2, cy + ry / 2), (120, 120, 124))


def _side_x(faces, x0: float, x1: float) -> float | None:
    """The x of the long side that the camera sees, None where it sees neither."""
    if "left" in faces:
        return x0
    return x1 if "right" in faces else None


def _ends(p: Painter, near, label: int, front: bool, heights: tuple[float, float]) -> None:
    """Lamps, plate and tyres on the end of a vehicle; `heights` of lamps as shares of the face."""
    lamp = (245, 240, 215) if front else (190, 25, 25)
    low, high = heights
    p.detail(_inset(near, 0.03, 0.17, low, high), lamp)
    p.detail(_inset(near, 0.83, 0.97, low, high), lamp)
    p.detail(_inset(near, 0.36, 0.64, low - 0.25, low - 0.05), (225, 225, 215))


def car(p: Painter, x: float, z: float, front: bool, color: Color | None = None) -> None:
    """A car along the road; `front`: it faces the camera."""
    rnd = p.rnd
    color = color or any_color(rnd)
    glass = rnd.choice(_GLASS)
    half = rnd.uniform(0.82, 0.95)
    length = rnd.uniform(3.6, 4.8)
    roof = rnd.uniform(1.4, 1.85)
    waist = roof * rnd.uniform(0.52, 0.6)
    x0, x1, z1 = x - half, x + half, z + length
    _shadow(p, x0, x1, z, z1)
    close = p.pixels(half, z) > 6 * p.unit
    tyres = (x0 + 0.14, x1 - 0.14) if close else ()
    for side in tyres:
        p.region(p.front_quad(side - 0.12, side + 0.12, 0, 0.4, z + 0.1), CAR, _RUBBER, FLAT, z)
    faces = p.prism((x0, x1, z, z1, 0.26), (x0, x1, z, z1, waist), CAR, color, METAL)
    start, end = (0.28, 0.92) if front else (0.06, 0.7)
    near_slope, far_slope = (0.5, 0.25) if front else (0.25, 0.5)
    zc0, zc1 = z + start * length, z + end * length
    base = (x0 + 0.04, x1 - 0.04, zc0, zc1, waist)
    top = (x0 + 0.2, x1 - 0.2, zc0 + near_slope, zc1 - far_slope, roof)
    cabin = p.prism(base, top, CAR, color, METAL)
    if "near" in cabin:
        p.detail(_inset(cabin["near"], 0.09, 0.91, 0.12, 0.86), glass)
    if not close:
        return  # Too small for more.
    side = _side_x(faces, x0, x1)
    if side is not None:
        _wheel(p, side, z + 0.8, 0.33, CAR)
        _wheel(p, side, z + length - 0.8, 0.33, CAR)
    for name in ("left", "right"):
        if name in cabin:
            p.detail(_inset(cabin[name], 0.1, 0.47, 0.12, 0.85), glass)
            p.detail(_inset(cabin[name], 0.53, 0.9, 0.12, 0.85), glass)
    if "near" in faces:
        _ends(p, faces["near"], CAR, front, (0.55, 0.8))


def crossing_car(p: Painter, x: float, z: float) -> None:
    """A car across the road, seen from its side."""
    rnd = p.rnd
    color, glass = any_color(rnd), rnd.choice(_GLASS)
    way = rnd.choice((-1, 1))
    scale = rnd.uniform(0.9, 1.15)

    def at(points):
        return [p.project(x + way * scale * px, scale * py, z) for px, py in points]

    _shadow(p, x - 2.1 * scale, x + 2.1 * scale, z, z + 1.7)
    outline = [(-2.1, 0.25), (-2.15, 0.85), (-1.9, 1.0), (-1.5, 1.45), (0.3, 1.5), (1.0, 0.95)]
    outline += [(2.0, 0.8), (2.15, 0.5), (2.1, 0.25)]
    p.region(at(outline), CAR, color, METAL, z)
    p.detail(at([(-1.65, 0.97), (-1.35, 1.36), (-0.5, 1.4), (-0.5, 0.95)]), glass)
    p.detail(at([(-0.38, 0.95), (-0.38, 1.4), (0.25, 1.4), (0.75, 0.95)]), glass)
    p.detail(at([(-2.1, 0.25), (-2.1, 0.4), (2.1, 0.4), (2.1, 0.25)]), shade(color, 0.6))
    r = p.pixels(0.34 * scale, z)
    for offset in (-1.3, 1.3):
        cx, cy = p.project(x + way * scale * offset, 0.34 * scale, z)
        p.disc((cx - r, cy - r, cx + r, cy + r), CAR, _RUBBER, FLAT, z)
        p.disc_detail((cx - r / 2, cy - r / 2, cx + r / 2, cy + r / 2), (130, 130, 134))


def truck(p: Painter, x: float, z: float, front: bool) -> None:
    """A lorry: a tall box without windows and a cab."""
    rnd = p.rnd
    body, cab = any_color(rnd), any_color(rnd)
    half, height = 1.22, rnd.uniform(3.1, 3.9)
    length = rnd.uniform(5.5, 9.5)
    x0, x1, z1 = x - half, x + half, z + length
    _shadow(p, x0, x1, z, z1)
    cab_near, cab_far = (z, z + 1.9) if front else (z + length - 1.9, z1)
    box_near, box_far = (z + 2.2, z1) if front else (z, z + length - 2.2)
    cab_top = rnd.uniform(2.3, 2.9)
    cab_base = (x0 + 0.05, x1 - 0.05, cab_near, cab_far, 0.5)
    cab_roof = (x0 + 0.1, x1 - 0.1, cab_near + 0.2, cab_far, cab_top)
    box = ((x0, x1, box_near, box_far, 1.0), (x0, x1, box_near, box_far, height))
    if not front:
        p.prism(cab_base, cab_roof, TRUCK, cab, METAL)
    chassis = (x0 + 0.1, x1 - 0.1, z + 0.3, z1)
    p.prism((*chassis, 0.45), (*chassis, 1.0), TRUCK, (45, 45, 48), FLAT)
    faces = p.prism(*box, TRUCK, body, METAL)
    side = _side_x(faces, x0, x1)
    if side is not None:
        for share in (0.12, 0.24, 0.85):
            along = 1 - share if front else share
            _wheel(p, side, z + along * length, 0.48, TRUCK)
        name = "left" if side == x0 else "right"
        if rnd.random() < 0.6:  # A painted panel: advertising.
            p.detail(_inset(faces[name], 0.15, 0.85, 0.3, 0.7), any_color(rnd))
    for edge in (x0 + 0.35, x1 - 0.35):
        p.region(p.front_quad(edge - 0.28, edge + 0.28, 0, 0.9, z + 0.25), TRUCK, _RUBBER, FLAT, z)
    if front:
        near = p.prism(cab_base, cab_roof, TRUCK, cab, METAL).get("near")
        if near:
            p.detail(_inset(near, 0.08, 0.92, 0.5, 0.9), rnd.choice(_GLASS))
            p.detail(_inset(near, 0.25, 0.75, 0.12, 0.36), shade(cab, 0.55))
            _ends(p, near, TRUCK, True, (0.1, 0.22))
    elif "near" in faces:
        near = faces["near"]
        p.detail(_inset(near, 0.485, 0.515, 0.03, 0.97), shade(body, 0.5))
        p.detail(_inset(near, 0.0, 1.0, 0.0, 0.05), shade(body, 0.4))
        _ends(p, near, TRUCK, False, (0.04, 0.11))


def bus(p: Painter, x: float, z: float, front: bool, label: int = BUS) -> None:
    """A bus, or with label TRAIN a tram: long, low over the ground, a row of windows."""
    rnd = p.rnd
    tram = label == TRAIN
    color, glass = any_color(rnd), rnd.choice(_GLASS)
    half, height = (1.2, rnd.uniform(3.2, 3.7)) if tram else (1.26, rnd.uniform(2.8, 3.3))
    length = rnd.uniform(18, 30) if tram else rnd.uniform(9, 13)
    floor = 0.16 if tram else 0.32
    x0, x1 = x - half, x + half
    _shadow(p, x0, x1, z, z + length)
    pieces = 3 if tram else 1
    step = length / pieces
    for piece in reversed(range(pieces)):
        za, zb = z + piece * step + (0.5 if piece else 0), z + (piece + 1) * step
        # A tram's nose narrows; a bus is a plain box.
        nose = 0.7 if tram and piece == 0 else 0.0
        pinch = 0.22 if nose else 0.0
        top = (x0 + pinch / 2, x1 - pinch / 2, za + nose, zb, height)
        if tram and piece:  # The dark bellows to the next section.
            seam = (x0 + 0.1, x1 - 0.1, za - 0.5, za)
            p.prism((*seam, 0.3), (*seam, height - 0.2), label, (50, 50, 52), FLAT)
        faces = p.prism((x0, x1, za, zb, floor), top, label, color, METAL)
        side = _side_x(faces, x0, x1)
        if side is not None:
            skirt = p.side_quad(side, floor, floor + 0.35, za, zb)
            p.detail(skirt, shade(color, 0.55))
            pane = 1.5
            count = int((zb - za - 0.5) / pane)
            for i in range(count):
                z0 = za + nose + 0.3 + i * pane
                low = 0.55 if i % 3 == 1 else 1.25  # Doors reach down.
                if z0 + pane < zb:
                    p.detail(p.side_quad(side, low, height - 0.55, z0, z0 + pane - 0.25), glass)
            if not tram:
                _wheel(p, side, za + 2.2, 0.46, label)
                _wheel(p, side, zb - 2.6, 0.46, label)
    near = faces.get("near")
    if near is None:
        return
    if front or tram:
        p.detail(_inset(near, 0.06, 0.94, 0.38, 0.84), glass)
        p.detail(_inset(near, 0.25, 0.75, 0.88, 0.97), (20, 20, 18))
        p.detail(_inset(near, 0.3, 0.7, 0.9, 0.95), (230, 160, 40))
    else:
        p.detail(_inset(near, 0.12, 0.88, 0.55, 0.84), glass)
        p.detail(_inset(near, 0.2, 0.8, 0.12, 0.35), shade(color, 0.6))
    _ends(p, near, label, front, (0.22 if tram else 0.16, 0.3 if tram else 0.26))
    if tram:
        mid, wire = p.project(x, height, z + 4), p.project(x, height + 1.6, z + 4)
        arm = p.project(x + 0.9, height + 0.8, z + 4)
        p.line([mid, arm, wire], (40, 40, 42), p.unit)
    else:
        for edge in (x0 + 0.3, x1 - 0.3):
            tyre = p.front_quad(edge - 0.2, edge + 0.2, 0, floor + 0.02, z + 0.1)
            p.region(tyre, label, _RUBBER, FLAT, z)
