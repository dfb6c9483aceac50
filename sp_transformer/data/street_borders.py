"""What closes a synthetic street to its sides: houses, walls and fences, at x metres from the camera."""

from sp_transformer.data.street_painter import (
    BRICK,
    BUILDING,
    FENCE,
    FLAT,
    PLASTER,
    STONE,
    WALL,
    Painter,
    any_color,
    grey,
    shade,
)


def building(p: Painter, side: int, x: float, z0: float, z1: float, height: float) -> None:
    """A house whose front runs along the street from depth z0 to z1, `side` -1 left or 1 right."""
    rnd = p.rnd
    color, texture = any_color(rnd), rnd.choice((PLASTER, PLASTER, BRICK, STONE, FLAT))
    deep = x + side * 14
    ends = (min(x, deep), max(x, deep))
    box = (*ends, z0, z1)
    faces = p.prism((*box, 0), (*box, height), BUILDING, color, texture)
    street = "right" if side < 0 else "left"
    if rnd.random() < 0.4 and height < 12:  # A ridged roof over the gable.
        roof = shade(
            rnd.choice(((140, 70, 55), (90, 85, 85), (110, 95, 80))), rnd.uniform(0.6, 1.2)
        )
        ridge = (x + side * 4, height + 3.5)
        slope = [p.project(x, height, z0), p.project(*ridge, z0), p.project(*ridge, z1)]
        p.region([*slope, p.project(x, height, z1)], BUILDING, roof, BRICK, z0)
        gable = [p.project(x, height, z0), p.project(*ridge, z0)]
        p.region([*gable, p.project(x + side * 8, height, z0)], BUILDING, color, texture, z0)
    if street not in faces:
        return
    pane = rnd.choice(
        ((45, 55, 65), (75, 90, 110), (25, 27, 30), (160, 175, 185), shade(color, 0.5))
    )
    frame = shade(color, rnd.choice((0.7, 1.3)))
    storey, pitch = rnd.uniform(2.8, 3.6), rnd.uniform(2.2, 3.6)
    tall, broad = rnd.uniform(1.3, 2.0), rnd.uniform(0.45, 0.75) * pitch
    shop = rnd.random() < 0.5
    if shop:
        p.detail(p.side_quad(x, 0.4, 2.6, z0 + 0.4, z1 - 0.4), pane)
        p.detail(p.side_quad(x, 2.7, 3.3, z0 + 0.4, z1 - 0.4), any_color(rnd))
    else:
        door = rnd.uniform(z0, max(z0, z1 - 1.4))
        p.detail(p.side_quad(x, 0, 2.2, door, door + 1.2), any_color(rnd))
    for level in range(1 if shop else 0, int((height - 0.6) / storey)):
        low = level * storey + 1.0
        if (
            p.project(x, low, max(z0, p.camera.focal * 0.012))[1] < 0
            and p.project(x, low, z1)[1] < 0
        ):
            break
        z = z0 + 0.4
        while z + broad < z1:
            if p.pixels(1, z) < 4.5 * p.unit:  # Too far for single windows: one band.
                p.detail(p.side_quad(x, low, low + tall, z, z1 - 0.4), shade(pane, 1.15))
                break
            quad = p.side_quad(x, low, low + tall, z, z + broad)
            if max(quad[0][0], quad[2][0]) > 0 and min(quad[0][0], quad[2][0]) < p.width:
                if p.pixels(1, z) > 8 * p.unit:
                    sill = p.side_quad(x, low - 0.25, low, z - 0.1, z + broad + 0.1)
                    p.detail(sill, frame)
                p.detail(quad, pane)
            z += pitch


def wall(p: Painter, side: int, x: float, z0: float, z1: float) -> None:
    """A garden or retaining wall with a coping, from depth z0 to z1."""
    rnd = p.rnd
    color = grey(rnd, 60, 190) if rnd.random() < 0.6 else any_color(rnd)
    texture = rnd.choice((BRICK, STONE, STONE, PLASTER))
    height = rnd.uniform(1.3, 3.2)
    box = (*sorted((x, x + side * 0.35)), z0, z1)
    p.prism((*box, 0), (*box, height), WALL, color, texture)
    cope = p.side_quad(x, height - 0.2, height, z0, z1)
    p.detail(cope, shade(color, rnd.choice((0.7, 1.3))))


def fence(p: Painter, x: float, z0: float, z1: float) -> None:
    """Bars or pickets before whatever is behind; the whole panel is labelled."""
    rnd = p.rnd
    color, height = any_color(rnd), rnd.uniform(1.0, 2.1)
    p.mark(p.side_quad(x, 0, height, z0, z1), FENCE, z0)
    picket = rnd.choice((0.06, 0.12))
    step = rnd.uniform(0.3, 0.55)
    z = z0
    while z < z1:
        # Bars stay apart by pixels where they would merge in the distance.
        p.detail(p.side_quad(x, 0, height, z, z + picket), color)
        z += max(step, 3.5 * p.unit * z * z / (p.camera.focal * max(abs(x), 1.0)))
    for rail in (0.12, height - 0.1):
        p.detail(p.side_quad(x, rail - 0.05, rail + 0.05, z0, z1), shade(color, 0.85))
