"""People, cycles, trees, poles, signs and lights of the synthetic streets.

Each function draws one thing onto a `Painter`, standing at x metres to the right of the camera and
z metres ahead. Sizes are those of the real things in metres, varied.
"""

from sp_transformer.data.street_painter import (
    BICYCLE,
    CLOTH,
    FLAT,
    IGNORE,
    LEAVES,
    LIGHT,
    METAL,
    MOTORCYCLE,
    PERSON,
    PLASTER,
    POLE,
    RIDER,
    SIGN,
    VEGETATION,
    Color,
    Painter,
    any_color,
    grey,
    plant_color,
    shade,
)

_RUBBER = (24, 24, 26)


def person(p: Painter, x: float, z: float, ground: float = 0.0) -> None:
    """Someone on foot."""
    rnd = p.rnd
    size = rnd.uniform(1.5, 1.9) / 1.75
    coat, trousers = any_color(rnd), shade(any_color(rnd), 0.7)
    skin = rnd.choice(((225, 180, 150), (170, 120, 90), (100, 70, 55), (60, 45, 38)))
    stride = rnd.uniform(0.05, 0.36)
    lean = rnd.uniform(-0.04, 0.04)

    def at(points):
        return [p.project(x + size * px, ground + size * py, z) for px, py in points]

    legs = [(-0.14, 0.92), (0.14, 0.92), (stride + 0.1, 0.0), (stride - 0.1, 0.0), (0.0, 0.72)]
    legs += [(0.1 - stride, 0.0), (-0.1 - stride, 0.0)]
    p.region(at(legs), PERSON, trousers, CLOTH, z)
    hem = rnd.choice((0.85, 0.85, 0.5))
    left, right = 0.24 + rnd.uniform(0.05, 0.2), 0.24 + rnd.uniform(0.05, 0.2)
    coat_outline = [(-0.18, hem), (-0.18, 1.2), (0.1 - left, 0.83), (-left, 0.85)]
    coat_outline += [(-0.27 + lean, 1.42), (-0.12, 1.5), (0.12, 1.5), (0.27 + lean, 1.42)]
    coat_outline += [(right, 0.85), (right - 0.1, 0.83), (0.18, 1.2), (0.18, hem)]
    p.region(at(coat_outline), PERSON, coat, CLOTH, z)
    p.detail(at([(-0.05, hem), (-0.05, 1.45), (0.05, 1.45), (0.05, hem)]), shade(coat, 0.75))
    cx, cy = p.project(x + size * lean, ground + size * 1.63, z)
    r = p.pixels(0.13 * size, z)
    p.disc((cx - r, cy - 1.15 * r, cx + r, cy + 1.15 * r), PERSON, skin, FLAT, z)
    p.disc_detail((cx - r, cy - 1.3 * r, cx + r, cy - 0.2 * r), shade(any_color(rnd), 0.5))


def cycle(p: Painter, x: float, z: float, motor: bool, ridden: bool, ground: float = 0.0) -> None:
    """A bicycle or motorcycle, with its rider where `ridden`, turned by a random angle."""
    rnd = p.rnd
    turn = rnd.choice((-1, 1)) * rnd.choice((0.25, 0.6, 0.85, 1.0))
    label = MOTORCYCLE if motor else BICYCLE
    paint = any_color(rnd)
    radius, base = (0.32, 0.68) if motor else (0.35, 0.54)

    def at(points):
        return [p.project(x + turn * px, ground + py, z) for px, py in points]

    rim = max(1.0, 0.9 * p.unit, p.pixels(0.11 if motor else 0.05, z))
    rx, ry = max(p.pixels(radius * abs(turn), z), p.unit), p.pixels(radius, z)
    for offset in (-base, base):
        ((cx, cy),) = at([(offset, radius)])
        box = (cx - rx, cy - ry, cx + rx, cy + ry)
        if motor:
            p.disc(box, label, _RUBBER, FLAT, z)
            p.disc_detail((cx - rx / 2, cy - ry / 2, cx + rx / 2, cy + ry / 2), (120, 120, 120))
        else:  # Seen through, as in the data set: the disc is labelled, the tyre drawn.
            p.map_draw.ellipse(box, (label, min(255, int(z * 1.6)), FLAT))
            p.color_draw.ellipse(box, None, _RUBBER, round(rim))
    if motor:
        tank = [(-0.9, 0.78), (-0.2, 0.72), (0.1, 0.95), (0.5, 0.98), (0.72, 0.62), (0.25, 0.28)]
        p.region(at([*tank, (-0.4, 0.3), (-0.5, 0.6)]), label, paint, METAL, z)
        p.region(
            at([(-0.75, 0.74), (-0.75, 0.86), (0.05, 0.86), (0.05, 0.74)]), label, _RUBBER, 0, z
        )
        p.region(
            at([(0.42, 0.9), (0.5, 1.15), (0.6, 1.15), (0.8, 0.4), (0.66, 0.4)]), label, paint, 0, z
        )
        p.detail(at([(-0.3, 0.32), (-0.2, 0.55), (0.25, 0.55), (0.25, 0.32)]), (130, 130, 132))
    else:
        frame = [(-base, radius), (-0.1, 0.32), (0.4, 0.82), (-0.22, 0.85), (-base, radius)]
        p.mark(at([(-base, 0.38), (-0.28, 0.92), (0.46, 0.98), (base, 0.38), (0, 0.25)]), label, z)
        p.line(at(frame), paint, rim)
        p.line(at([(-0.1, 0.32), (-0.25, 0.95)]), paint, rim)
        p.line(at([(base, radius), (0.38, 1.0), (0.25, 1.05)]), paint, rim)
        p.region(at([(-0.4, 0.93), (-0.4, 1.0), (-0.12, 1.0), (-0.12, 0.93)]), label, _RUBBER, 0, z)
    if ridden:
        _rider(p, at, z, seat=0.84 if motor else 0.98)


def _rider(p: Painter, at, z: float, seat: float) -> None:
    """The body of someone who sits at height `seat`; `at` places points of the cycle's plane."""
    rnd = p.rnd
    coat, trousers = any_color(rnd), shade(any_color(rnd), 0.7)
    legs = [(-0.34, seat), (-0.3, seat + 0.16), (0.14, seat - 0.05), (0.12, 0.3), (-0.06, 0.28)]
    p.region(at([*legs, (-0.04, seat - 0.22)]), RIDER, trousers, CLOTH, z)
    torso = [(-0.4, seat), (-0.24, seat + 0.58), (0.12, seat + 0.62), (0.1, seat + 0.1)]
    p.region(at([*torso, (0.0, seat)]), RIDER, coat, CLOTH, z)
    arm = [(-0.02, seat + 0.55), (0.14, seat + 0.52), (0.42, seat + 0.16), (0.36, seat + 0.06)]
    p.region(at(arm), RIDER, shade(coat, 0.8), CLOTH, z)
    # A turned rider still has the breadth of a body.
    (left, _), (right, _) = at([(-0.15, seat), (0.1, seat)])
    middle, least = (left + right) / 2, p.pixels(0.19, z)
    top, bottom = at([(0, seat + 0.6)])[0][1], at([(0, seat - 0.02)])[0][1]
    corners = [(middle - least, bottom), (middle - least, top), (middle + least, top)]
    p.region([*corners, (middle + least, bottom)], RIDER, coat, CLOTH, z)
    ((cx, cy),) = at([(0.0, seat + 0.76)])
    r = p.pixels(0.15, z)
    p.disc((cx - r, cy - 1.2 * r, cx + r, cy + 1.2 * r), RIDER, (200, 160, 130), FLAT, z)
    p.disc_detail((cx - r, cy - 1.3 * r, cx + r, cy + 0.1 * r), any_color(rnd))


def tree(p: Painter, x: float, z: float, height: float | None = None) -> None:
    """A trunk and a crown of leaves."""
    rnd = p.rnd
    height = height or rnd.uniform(4.5, 10.0)
    spread = height * rnd.uniform(0.22, 0.36)
    bare = height * rnd.uniform(0.2, 0.35)
    leaf = plant_color(rnd)
    bark = shade(rnd.choice(((90, 75, 60), (110, 105, 95), (60, 50, 42))), rnd.uniform(0.7, 1.2))
    half = max(0.12, 0.9 * p.unit * z / p.camera.focal)
    p.region(p.front_quad(x - half, x + half, 0, bare * 1.4, z), VEGETATION, bark, LEAVES, z)
    cx, _ = p.project(x, 0, z)
    scale = p.pixels(1, z)
    base_y = p.project(x, 0, z)[1]
    # The farther a tree, the fewer clumps of leaves can be told apart.
    clumps = (4, 3, 3) if height * scale > 35 * p.unit else (2, 1, 1)
    for layer, count in zip((0.72, 1.0, 1.25), clumps, strict=True):
        color = shade(leaf, layer)
        for _ in range(count):
            shift = (layer - 0.72) * spread * 0.5
            ox = rnd.uniform(-0.7, 0.7) * spread + shift * p.sun
            oy = rnd.uniform(bare, height - spread * 0.4) + shift * 0.8
            r = spread * rnd.uniform(0.38, 0.65) * scale
            px, py = cx + ox * scale, base_y - oy * scale
            p.disc((px - r, py - 0.85 * r, px + r, py + 0.85 * r), VEGETATION, color, LEAVES, z)


def bushes(p: Painter, x: float, z: float, height: float) -> None:
    """A few low shrubs."""
    leaf = plant_color(p.rnd)
    for _ in range(3):
        cx, cy = p.project(x + p.rnd.uniform(-0.8, 0.8), height * 0.4, z)
        r = p.pixels(height, z) * p.rnd.uniform(0.45, 0.8)
        tone = shade(leaf, p.rnd.uniform(0.75, 1.2))
        p.disc((cx - r, cy - 0.8 * r, cx + r, cy + 0.7 * r), VEGETATION, tone, LEAVES, z)


def _shaft(p: Painter, x: float, z: float, top: float, color: Color, breadth: float = 0.13):
    """An upright pole, at least two pixels wide; returns its half width in metres."""
    half = max(breadth / 2, 0.8 * p.unit * z / p.camera.focal)
    p.region(p.front_quad(x - half, x + half, 0, top, z), POLE, color, PLASTER, z)
    left, y_top = p.project(x - half, top, z)
    right, y_bottom = p.project(x - half * 0.3, 0, z)
    p.detail(
        [(left, y_top), (right, y_top), (right, y_bottom), (left, y_bottom)], shade(color, 1.3)
    )
    return half


def lamp(p: Painter, x: float, z: float) -> None:
    """A street lamp whose arm reaches over the road."""
    rnd = p.rnd
    color = grey(rnd, 40, 200)
    top = rnd.uniform(5.5, 9.0)
    half = _shaft(p, x, z, top, color, 0.18)
    reach = rnd.uniform(0.8, 2.2) * (-1 if x > 0 else 1)
    ends = [p.project(x, top + 0.0, z), p.project(x + reach, top + 0.35, z)]
    thick = max(1.6 * p.unit, p.pixels(0.1, z)) / 2
    (ax, ay), (bx, by) = ends
    arm = [(ax, ay - thick), (bx, by - thick), (bx, by + thick), (ax, ay + thick)]
    p.region(arm, POLE, color, PLASTER, z)
    head = p.front_quad(x + reach - 0.35, x + reach + 0.35, top + 0.2, top + 0.2 + 2 * half, z)
    p.region(head, POLE, shade(color, 1.2), PLASTER, z)


def traffic_light(p: Painter, x: float, z: float) -> None:
    """A signal head on a pole, at times a second one on an arm over the road."""
    rnd = p.rnd
    color = grey(rnd, 40, 190)
    case = rnd.choice(((25, 27, 26), (45, 50, 48), (60, 75, 55), (190, 160, 50), (90, 90, 92)))
    low = rnd.uniform(2.1, 2.7)
    tall, half = 1.25, 0.26
    arm_high = rnd.uniform(4.6, 5.4)
    reach = rnd.uniform(2.0, 4.5) * (-1 if x > 0 else 1)
    over = rnd.random() < 0.45
    _shaft(p, x, z, arm_high if over else low + tall, color)
    heads = [(x, low)]
    if over:
        thick = max(0.07, 0.8 * p.unit * z / p.camera.focal)
        ends = sorted((x, x + reach))
        beam = p.front_quad(ends[0], ends[1], arm_high - thick, arm_high + thick, z)
        p.region(beam, POLE, color, PLASTER, z)
        heads.append((x + reach * 0.9, arm_high - 0.75))
    state = rnd.randrange(3)
    away = rnd.random() < 0.2  # Seen from behind: no lamps.
    for hx, hy in heads:
        p.region(p.front_quad(hx - half, hx + half, hy, hy + tall, z), LIGHT, case, FLAT, z)
        for i, glow in enumerate(((235, 45, 35), (245, 180, 40), (60, 225, 140))):
            if away:
                break
            cx, cy = p.project(hx, hy + tall * (0.82 - 0.32 * i), z)
            r = p.pixels(0.17, z)
            p.disc_detail(
                (cx - r, cy - r, cx + r, cy + r), glow if i == state else shade(glow, 0.25)
            )


def sign(p: Painter, x: float, z: float) -> None:
    """A traffic sign: round, triangular, square, or a larger direction board."""
    rnd = p.rnd
    color = grey(rnd, 60, 200)
    board = rnd.random() < 0.2
    half = rnd.uniform(0.6, 1.0) if board else rnd.uniform(0.33, 0.48)
    tall = rnd.uniform(0.35, 0.6) if board else half
    low = rnd.uniform(1.7, 2.5)
    middle = low + tall
    _shaft(p, x, z, middle, color, 0.09)
    face = rnd.choice(
        ((230, 230, 225), (40, 80, 170), (200, 35, 35), (235, 200, 60), any_color(rnd))
    )
    rim = rnd.choice(((200, 35, 35), (230, 230, 225), (40, 80, 170), (30, 30, 32)))
    kind = 3 if board else rnd.randrange(4)
    if rnd.random() < 0.15:  # The back of a sign.
        face = rim = grey(rnd, 90, 170)

    def at(points):
        return [p.project(x + half * px, middle + tall * py, z) for px, py in points]

    if kind == 0:
        (cx, cy), (rx, ry) = p.project(x, middle, z), (p.pixels(half, z), p.pixels(tall, z))
        p.disc((cx - rx, cy - ry, cx + rx, cy + ry), SIGN, rim, FLAT, z)
        rx, ry = rx * 0.7, ry * 0.7
        p.disc_detail((cx - rx, cy - ry, cx + rx, cy + ry), face)
    else:
        outline = {
            1: [(-1, -0.85), (1, -0.85), (0, 1)],
            2: [(-1, 0.85), (1, 0.85), (0, -1)],
            3: [(-1, -1), (-1, 1), (1, 1), (1, -1)],
        }[kind]
        p.region(at(outline), SIGN, rim, FLAT, z)
        inner = 0.85 if kind == 3 else 0.6
        p.detail(
            at([(inner * px, inner * py - (0.08 if kind == 1 else 0)) for px, py in outline]), face
        )
    wide, tall_bar = rnd.choice(((0.5, 0.13), (0.13, 0.4), (0.35, 0.3), (0.0, 0.0)))
    if wide:
        bar = [(-wide, -tall_bar), (-wide, tall_bar), (wide, tall_bar), (wide, -tall_bar)]
        p.detail(at(bar), rim)


def bin_or_bollard(p: Painter, x: float, z: float) -> None:
    """Street furniture outside the 19 classes: ignored, as Cityscapes' void."""
    high = p.rnd.uniform(0.7, 1.2)
    half = p.rnd.uniform(0.18, 0.45)
    box = (x - half, x + half, z, z + 2 * half)
    p.prism((*box, 0), (*box, high), IGNORE, any_color(p.rnd), FLAT)


def bonnet(p: Painter) -> None:
    """The camera's own car at the lower edge: ignored, as in Cityscapes."""
    rnd = p.rnd
    high = rnd.uniform(0.04, 0.11) * p.height
    wide, base = p.width, p.height
    outline = [(0, base), (0, base - high * 0.4), (wide * 0.2, base - high * 0.9)]
    outline += [(wide * 0.5, base - high), (wide * 0.8, base - high * 0.9)]
    p.region([*outline, (wide, base - high * 0.4), (wide, base)], IGNORE, any_color(rnd), METAL, 1)
