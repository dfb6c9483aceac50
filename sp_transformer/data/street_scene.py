"""Composes one synthetic street: what lies, stands and moves where, and in which order it is drawn.

Legend: Y, X image height and width in pixels. World coordinates as in `street_painter`.
"""

import random

import numpy as np

from sp_transformer.data import street_borders as borders
from sp_transformer.data import street_objects as things
from sp_transformer.data import street_vehicles as vehicles
from sp_transformer.data.street_painter import (
    ASPHALT,
    BUILDING,
    CLOUD,
    GRASS,
    LEAVES,
    PLASTER,
    ROAD,
    SIDEWALK,
    SKY,
    STONE,
    TERRAIN,
    TRAIN,
    VEGETATION,
    Camera,
    Painter,
    any_color,
    grey,
    plant_color,
    shade,
)

_FAR = 90.0

# Shares of what borders the street, by the character of the quarter.
_QUARTERS = {
    "centre": {"building": 0.86, "wall": 0.05, "fence": 0.05, "open": 0.04},
    "avenue": {"building": 0.55, "wall": 0.15, "fence": 0.15, "open": 0.15},
    "suburb": {"building": 0.22, "wall": 0.28, "fence": 0.28, "open": 0.22},
    "outskirts": {"building": 0.06, "wall": 0.3, "fence": 0.3, "open": 0.34},
}


class Scene:
    """One street: its plan, then its parts from far to near.

    Args:
      height, width: size Y, X of the image in pixels.
      rnd: source of the scene's single random numbers.
    """

    def __init__(self, height: int, width: int, rnd: random.Random):
        self.rnd = rnd
        size = min(height, width / 2)
        camera = Camera(
            focal=rnd.uniform(1.35, 2.1) * size,
            center_x=rnd.uniform(0.28, 0.72) * width,
            horizon_y=rnd.uniform(0.27, 0.57) * height,
            height=rnd.uniform(1.2, 2.2),
            bend=rnd.choice((0, 1)) * rnd.uniform(-0.006, 0.006),
            climb=rnd.choice((0, 1)) * rnd.uniform(-0.0003, 0.0004),
        )
        self.p = Painter(camera, height, width, rnd)
        quarter = rnd.choice(tuple(_QUARTERS))
        self.quarter = quarter
        self.lanes = rnd.choice((1, 2, 2, 2, 3, 4))
        self.lane_width = rnd.uniform(2.9, 3.6)
        road_width = self.lanes * self.lane_width
        # The camera drives in one of the lanes, at times on the left of the road.
        lane = rnd.randrange(self.lanes)
        self.left = -(lane + 0.5) * self.lane_width + rnd.uniform(-0.4, 0.4)
        self.right = self.left + road_width
        self.crossing = rnd.uniform(11, 34) if rnd.random() < 0.6 else None
        self.crossing_width = rnd.uniform(6, 10)
        self.road_color = grey(rnd, 50, 150)
        self.pavement_color = (
            grey(rnd, 60, 185)
            if rnd.random() < 0.75
            else shade((165, 120, 100), rnd.uniform(0.6, 1.2))
        )
        self.ground_color = plant_color(rnd)
        hazy = rnd.uniform(120, 235)
        self.sky_color = rnd.choice(
            (
                (int(hazy), int(hazy), int(hazy)),
                (int(hazy * 0.95), int(hazy), min(255, int(hazy * 1.05))),
                (int(hazy * 0.55), int(hazy * 0.78), min(255, int(hazy * 1.1))),
                (min(255, int(hazy * 1.1)), int(hazy * 0.9), int(hazy * 0.72)),
            )
        )
        self.queue = []  # (depth in metres, drawing function without arguments)

    def draw(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws everything; image uint8 [Y,X,3] and train ids uint8 [Y,X]."""
        self._sky_and_skyline()
        self._ground()
        for side in (-1, 1):
            self._side(side)
        self._traffic()
        if self.crossing:
            self._junction_users()
        for _, paint in sorted(self.queue, key=lambda item: -item[0]):
            paint()
        if self.rnd.random() < 0.35:
            things.bonnet(self.p)
        return self.p.finish(generator, self.sky_color)

    def _add(self, z: float, paint, *arguments) -> None:
        """Queues paint(*arguments) at depth z."""
        self.queue.append((z, lambda: paint(*arguments)))

    def _put(self, paint, x: float, z: float, *arguments) -> None:
        """Queues a thing that stands at (x, z), unless it is beside the picture."""
        # Trams reach far back into the picture from a near end outside it.
        if self.p.sees(x, z, 5.0) or (paint is vehicles.bus and self.p.sees(x, z + 12, 3.0)):
            self._add(z, paint, self.p, x, z, *arguments)

    def _sky_and_skyline(self) -> None:
        p, rnd = self.p, self.rnd
        far_y = p.project(0, 0, 160)[1] + 2 * p.unit
        wide, rim = p.width, p.height
        zenith = shade(self.sky_color, rnd.uniform(0.6, 1.15))
        bands = 4
        for i in range(bands):
            t = i / (bands - 1)
            tone = tuple(int(a + (b - a) * t) for a, b in zip(zenith, self.sky_color, strict=True))
            top, bottom = far_y * i / bands, far_y * (i + 1) / bands
            outline = [(0, top), (wide, top), (wide, bottom), (0, bottom)]
            p.region(outline, SKY, tone, CLOUD, 0)
        for _ in range(rnd.choice((0, 0, 5, 10))):
            cx, cy = rnd.uniform(0, wide), rnd.uniform(0, max(1, far_y))
            rx, ry = rnd.uniform(0.03, 0.14) * wide, rnd.uniform(0.01, 0.05) * rim
            p.disc_detail(
                (cx - rx, cy - ry, cx + rx, cy + ry), shade(self.sky_color, rnd.uniform(0.9, 1.2))
            )
        base = (0, far_y), (wide, far_y), (wide, rim), (0, rim)
        p.region(list(base), TERRAIN, self.ground_color, GRASS, 40)
        x = 0.0
        wooded = rnd.random()
        while x < wide:
            step = rnd.uniform(0.03, 0.1) * wide
            tall = rnd.uniform(0.02, 0.13) * rim
            if rnd.random() < wooded:
                box = (x - step, far_y - tall, x + step, far_y + tall * 0.3)
                p.disc(box, VEGETATION, plant_color(rnd), LEAVES, 120)
            else:
                outline = [
                    (x, far_y),
                    (x, far_y - tall),
                    (x + step, far_y - tall),
                    (x + step, far_y),
                ]
                p.region(outline, BUILDING, any_color(rnd), PLASTER, 120)
            x += step

    def _ground(self) -> None:
        """Verges, pavements, kerbs, the road, its markings and its shadows."""
        p, rnd = self.p, self.rnd
        self.plans = {}
        for side in (-1, 1):
            kerb = self.left if side < 0 else self.right
            parking = rnd.random() < 0.55
            kerb += side * (2.2 if parking else 0)
            verge = rnd.uniform(0.8, 2.6) if rnd.random() < 0.4 else 0.0
            walk = rnd.uniform(1.6, 4.5) if rnd.random() < 0.92 else 0.0
            lawn = rnd.uniform(1.0, 5.0) if rnd.random() < 0.35 else 0.0
            if self.quarter == "centre":
                lawn = 0.0
            inner = kerb + side * verge
            outer = inner + side * walk
            border = outer + side * lawn
            self.plans[side] = (parking, kerb, inner, outer, border)
            if self.quarter in ("centre", "avenue"):  # Yards behind are paved.
                yard = p.strip(border, border + side * 60)
                p.region(yard, SIDEWALK, self.pavement_color, STONE, 20)
            if walk:
                p.region(p.strip(inner, outer), SIDEWALK, self.pavement_color, STONE, 12)
                joint = shade(self.pavement_color, 0.8)
                for z in (4, 5, 6, 7.5, 9, 11, 14, 18, 23):
                    p.line([p.project(inner, 0, z), p.project(outer, 0, z)], joint, 1)
            if verge:
                p.region(p.strip(kerb, inner), TERRAIN, self.ground_color, GRASS, 12)
        left, right = self.plans[-1][1], self.plans[1][1]
        p.region(p.strip(left, right), ROAD, self.road_color, ASPHALT, 12)
        if self.crossing:
            z0, z1 = self.crossing, self.crossing + self.crossing_width
            p.region(p.ground_quad(-70, 70, z0, z1), ROAD, self.road_color, ASPHALT, z0)
        edge = shade(self.pavement_color, rnd.uniform(0.65, 1.35))
        for side, kerb in ((-1, left), (1, right)):
            stops = [(0.8, _FAR)]
            if self.crossing:
                stops = [(0.8, self.crossing), (self.crossing + self.crossing_width, _FAR)]
            for z0, z1 in stops:  # Kerb stones belong to the pavement.
                p.region(p.strip(kerb, kerb + side * 0.22, z0, z1), SIDEWALK, edge, PLASTER, 12)
        self._markings()
        for _ in range(rnd.choice((0, 1, 3))):  # Shadows of what stands beside the road.
            z = rnd.uniform(3, 30)
            near = p.ground_quad(-12, rnd.uniform(left, right), z, z + rnd.uniform(1, 7))
            if rnd.random() < 0.5:
                near = p.ground_quad(rnd.uniform(left, right), 12, z, z + rnd.uniform(1, 7))
            p.detail(near, shade(self.road_color, 0.62))
        for _ in range(rnd.randrange(4)):  # Mended asphalt.
            z, x = rnd.uniform(4, 25), rnd.uniform(left, right)
            patch = p.ground_quad(
                x, min(right, x + rnd.uniform(0.5, 2)), z, z + rnd.uniform(0.5, 5)
            )
            p.detail(patch, shade(self.road_color, rnd.uniform(0.75, 1.25)))

    def _markings(self) -> None:
        p, rnd = self.p, self.rnd
        paint = rnd.choice(((225, 225, 220), (200, 200, 195), (225, 190, 80)))
        start, stop = self.crossing or 200, (self.crossing or 200) + self.crossing_width
        for i in range(self.lanes + 1):
            x = self.left + i * self.lane_width
            solid = i in (0, self.lanes) or rnd.random() < 0.25
            if solid and rnd.random() < 0.6:
                for z0, z1 in ((0.8, min(start - 3, 90)), (stop + 1, 90)):
                    if z0 < z1:
                        p.detail(p.strip(x - 0.07, x + 0.07, z0, z1), paint)
            elif 0 < i < self.lanes:
                z = rnd.uniform(1, 5)
                while z < 70:
                    if z + 3 < start - 2 or z > stop:
                        p.detail(p.ground_quad(x - 0.08, x + 0.08, z, z + 3), paint)
                    z += 7
        if self.crossing and rnd.random() < 0.7:
            z = self.crossing - 3.2
            x = self.left + 0.3
            while x < self.right:
                p.detail(p.ground_quad(x, x + 0.5, z, z + 2.4), paint)
                x += 1.0

    def _side(self, side: int) -> None:
        """Queues everything that stands on one side of the road."""
        rnd, add, p = self.rnd, self._add, self.p
        parking, kerb, inner, outer, border = self.plans[side]
        z = rnd.uniform(1.2, 4.0)
        shares = _QUARTERS[self.quarter]
        while z < _FAR:
            end = z + rnd.uniform(7, 20)
            if self.crossing and z < self.crossing + self.crossing_width and end > self.crossing:
                end = self.crossing - 0.5
                if end - z < 2:
                    z = self.crossing + self.crossing_width + 0.5
                    continue
            kind = rnd.choices(tuple(shares), tuple(shares.values()))[0]
            self._border(kind, side, border, z, end)
            z = end if rnd.random() < 0.85 else end + rnd.uniform(1, 4)
        walk = abs(outer - inner)
        foot = (inner + outer) / 2 if walk else kerb + side * 0.8
        if parking:
            z = rnd.uniform(3.0, 10.0)
            while z < 55:
                if rnd.random() < 0.72 and not self._in_crossing(z, 6):
                    front = rnd.random() < 0.4
                    paint = vehicles.truck if rnd.random() < 0.07 else vehicles.car
                    self._put(paint, kerb - side * 1.1, z, front)
                z += rnd.uniform(5.8, 7.5)
        trees = {"centre": 0.25, "avenue": 0.8, "suburb": 0.5, "outskirts": 0.5}[self.quarter]
        if rnd.random() < trees:
            z, gap = rnd.uniform(5, 16), rnd.uniform(7, 15)
            line = rnd.choice((inner + side * 0.4, outer + side * 0.3))
            while z < 60:
                if not self._in_crossing(z, 1):
                    self._put(things.tree, line, z)
                z += gap * rnd.uniform(0.8, 1.3)
        if rnd.random() < 0.75:
            z, gap = rnd.uniform(5, 18), rnd.uniform(12, 26)
            while z < 60:
                self._put(things.lamp, kerb + side * 0.5, z)
                z += gap
        for _ in range(rnd.choice((1, 2, 2, 3, 4))):
            z = rnd.uniform(5.0, p.reach(0.9, 0.055))
            self._put(things.sign, kerb + side * rnd.uniform(0.3, 0.9), z)
        for _ in range(rnd.choice((0, 0, 1, 2))):
            z = rnd.uniform(5, 25)
            self._put(things.bin_or_bollard, kerb + side * 0.7, z)
        for _ in range(rnd.choice((0, 1, 2, 3, 4))):
            z = rnd.uniform(5.5, p.reach(1.7, 0.08))
            x = foot + rnd.uniform(-0.4, 0.4) * max(walk, 0.6)
            self._put(things.person, x, z)
            if rnd.random() < 0.35:
                add(z + 0.2, things.person, p, x + rnd.uniform(0.5, 0.8), z + 0.2)
        for motor, chance in ((False, 0.45), (True, 0.38)):
            if rnd.random() < chance:
                z = rnd.uniform(5.0, p.reach(1.1, 0.09))
                for i in range(rnd.choice((1, 1, 2, 3))):
                    spot = z + i * 0.9
                    self._put(things.cycle, kerb + side * rnd.uniform(0.3, 0.9), spot, motor, False)

    def _in_crossing(self, z: float, length: float) -> bool:
        start = self.crossing
        return start is not None and z + length > start - 3 and z < start + self.crossing_width

    def _border(self, kind: str, side: int, x: float, z0: float, z1: float) -> None:
        """Queues one stretch of what closes the street to the side, and what stands behind it."""
        rnd, p = self.rnd, self.p
        at_far_end, inward = p.project(x, 0, z1)[0], -side
        if (at_far_end < 0 and inward > 0) or (at_far_end > p.width and inward < 0):
            return  # Beside the picture.
        # A stretch counts by its far end: things that stand before it are drawn later.
        if kind == "building":
            self._add(z1, borders.building, p, side, x, z0, z1, rnd.uniform(4.5, 20))
            return
        behind = rnd.random()
        if behind < 0.4:
            self._add(
                z1 + 0.1,
                borders.building,
                p,
                side,
                x + side * rnd.uniform(4, 9),
                z0,
                z1,
                rnd.uniform(4, 11),
            )
        elif behind < 0.8:
            for _ in range(2):
                z = rnd.uniform(max(z0, 5), z1 + 1)
                self._add(z1 + 0.1, things.tree, p, x + side * rnd.uniform(2.5, 6), z)
        if kind == "wall":
            self._add(z1, borders.wall, p, side, x, z0, z1)
        elif kind == "fence":
            self._add(z1, borders.fence, p, x, z0, z1)
        elif rnd.random() < 0.6:
            tall = rnd.uniform(0.7, 2.0)
            z = max(z0, 3.0)
            while z < z1:
                self._put(things.bushes, x + side * 0.8, z, tall)
                z += 1.5 + z * 0.12

    def _traffic(self) -> None:
        """Queues what drives on the lanes; the tram has rails."""
        p, rnd = self.p, self.rnd
        rails = None
        if rnd.random() < 0.34:
            rails = rnd.randrange(self.lanes)
            x = self.left + (rails + 0.5) * self.lane_width
            for offset in (-0.72, 0.72):
                p.detail(p.strip(x + offset - 0.06, x + offset + 0.06, 0.8, 90), (70, 68, 66))
        for lane in range(self.lanes):
            x = self.left + (lane + 0.5) * self.lane_width
            own = abs(x) < self.lane_width / 2
            oncoming = not own and (rnd.random() < 0.6)
            z = rnd.uniform(7, 26) if own else rnd.uniform(3.5, 22)
            first = True
            while z < 65:
                kind = rnd.random()
                if first and lane == rails:
                    self._put(vehicles.bus, x, z, oncoming, TRAIN)
                    z += 36
                elif kind < 0.42:
                    self._put(vehicles.car, x + rnd.uniform(-0.3, 0.3), z, oncoming)
                    z += 6
                elif kind < 0.53:
                    self._put(vehicles.truck, x, z, oncoming)
                    z += 11
                elif kind < 0.62:
                    self._put(vehicles.bus, x, z, oncoming)
                    z += 14
                elif kind < 0.7 and z < p.reach(1.7, 0.11):
                    self._put(things.cycle, x + rnd.uniform(-1, 1), z, rnd.random() < 0.5, True)
                    z += 4
                first = False
                z += rnd.uniform(3, 26)
        for side in (-1, 1):
            if rnd.random() < 0.4:  # Riders keep to the edge of the road.
                z = rnd.uniform(5.5, p.reach(1.7, 0.12))
                edge = self.left if side < 0 else self.right
                self._put(things.cycle, edge - side * 0.5, z, rnd.random() < 0.25, True)

    def _junction_users(self) -> None:
        rnd, z = self.rnd, self.crossing
        left, right = self.plans[-1][1], self.plans[1][1]
        if rnd.random() < 0.85:
            for x in (left - 0.6, right + 0.6):
                if rnd.random() < 0.85:
                    near = z - rnd.uniform(0.3, 3.5)
                    self._put(things.traffic_light, x, near)
                if rnd.random() < 0.5:
                    far = z + self.crossing_width + 0.5
                    self._put(things.traffic_light, x, far)
        for _ in range(rnd.choice((0, 0, 1, 2))):
            x, near = rnd.uniform(left - 6, right + 6), z + rnd.uniform(0.5, 3.5)
            self._put(vehicles.crossing_car, x, near)
        for _ in range(rnd.choice((0, 1, 2, 3))):
            near = z - rnd.uniform(1.0, 3.0)
            self._put(things.person, rnd.uniform(left, right), near)
        if rnd.random() < 0.25:
            near = z + rnd.uniform(0.5, 3)
            self._put(things.cycle, rnd.uniform(left, right), near, rnd.random() < 0.4, True)
