"""Camera, canvas and finish of the synthetic streets: from metres to pixels, labels and light.

Legend: Y, X image height and width in pixels. World coordinates are metres: x to the right of the
camera, y up from the ground, z forward along the road (a bent road bends the z axis with it).
Every shape is drawn twice with the same polygon: once into the colours, once into a map that holds
(train id, depth, texture), so image and labels agree to the pixel.
"""

import functools
import random

import numpy as np
from PIL import Image, ImageDraw

# Cityscapes' train ids.
(ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN) = range(10)
(SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE) = range(10, 19)
IGNORE = 255

# Surfaces: rows of `_texture_tiles`.
FLAT, ASPHALT, PLASTER, BRICK, LEAVES, GRASS, METAL, CLOUD, CLOTH, STONE = range(10)
_TILE_SIZE = 256
# Metres of depth are kept in steps of 1/_DEPTH_SCALE m in eight bits.
_DEPTH_SCALE = 1.6

# Rows between the noise of one colour channel and of the next.
_GRAIN_STEP = 7

Color = tuple[int, int, int]
Points = list[tuple[float, float]]


def shade(color: Color, factor: float) -> Color:
    """Multiplies a colour by a factor, clipped to 0..255."""
    r, g, b = color
    return (
        min(255, int(r * factor)),
        min(255, int(g * factor)),
        min(255, int(b * factor)),
    )


def any_color(rnd: random.Random) -> Color:
    """A colour of the one palette that buildings, vehicles, signs, clothes and walls all share."""
    kind = rnd.random()
    value = rnd.uniform(35, 235)
    if kind < 0.42:
        spread = 12
        return tuple(int(min(255, max(0, value + rnd.uniform(-spread, spread)))) for _ in "rgb")
    if kind < 0.62:
        return shade(rnd.choice(((200, 120, 90), (215, 190, 150), (150, 110, 80))), value / 180)
    if kind < 0.78:
        return shade(rnd.choice(((90, 120, 190), (120, 160, 200), (60, 80, 120))), value / 180)
    if kind < 0.88:
        return shade(rnd.choice(((90, 140, 80), (130, 140, 70), (70, 120, 100))), value / 180)
    return rnd.choice(((190, 40, 40), (220, 180, 50), (40, 70, 170), (235, 235, 230), (25, 25, 30)))


def plant_color(rnd: random.Random) -> Color:
    """A colour that leaves and ground cover share: greens, yellows and browns."""
    base = rnd.choice(((70, 105, 50), (105, 120, 60), (60, 85, 60), (130, 110, 70), (95, 80, 60)))
    return shade(base, rnd.uniform(0.6, 1.35))


def grey(rnd: random.Random, low: int = 60, high: int = 190) -> Color:
    """A grey or a faintly tinted grey that roads, pavements, walls and masonry share."""
    value = rnd.uniform(low, high)
    warm = rnd.uniform(-10, 18)
    return (int(value + warm), int(value + warm * 0.3), int(value - warm))


class Camera:
    """Pinhole camera over a road that may bend and climb.

    Args:
      focal: focal length in pixels.
      center_x: column of the vanishing point of the straight-on direction, in pixels.
      horizon_y: row of the horizon of level ground, in pixels.
      height: height of the camera over the ground in metres.
      bend: sideways shift of the road in metres per square metre of depth.
      climb: rise of the ground in metres per square metre of depth.
    """

    def __init__(self, focal, center_x, horizon_y, height, bend, climb):
        self.focal = focal
        self.center_x = center_x
        self.horizon_y = horizon_y
        self.height = height
        self.bend = bend
        self.climb = climb

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Column and row in pixels of a point in metres; z must be positive."""
        scale = self.focal / z
        return (
            self.center_x + scale * x + self.focal * self.bend * z,
            self.horizon_y + scale * (self.height - y) - self.focal * self.climb * z,
        )

    def at_depth(self, z: float) -> tuple[float, float, float]:
        """Pixels per metre at depth z, and column and row of the ground point with x = 0."""
        scale = self.focal / z
        shift = self.focal * z
        return (
            scale,
            self.center_x + shift * self.bend,
            self.horizon_y + scale * self.height - shift * self.climb,
        )


class Painter:
    """Draws shapes in metres, far ones first, into colours and (train id, depth, texture).

    Args:
      camera: the camera.
      height: image height Y in pixels.
      width: image width X in pixels.
      rnd: source of the scene's random numbers.
    """

    def __init__(self, camera: Camera, height: int, width: int, rnd: random.Random):
        self.camera = camera
        self.project = camera.project
        self.height = height
        self.width = width
        self.rnd = rnd
        self.unit = min(height / 128, width / 256)  # Pixels that one pixel at 128x256 has become.
        self.sun = rnd.choice((-1, 1))
        self._colors = Image.new("RGB", (width, height))
        self._maps = Image.new("RGB", (width, height), (IGNORE, 0, 0))
        self.color_draw = ImageDraw.Draw(self._colors)
        self.map_draw = ImageDraw.Draw(self._maps)

    def region(self, points: Points, label: int, color: Color, texture: int, z: float) -> None:
        """Fills a polygon of pixels and gives it a label, a texture and a depth of z metres."""
        self.color_draw.polygon(points, color)
        self.map_draw.polygon(points, (label, min(255, int(z * _DEPTH_SCALE)), texture))

    def mark(self, points: Points, label: int, z: float, texture: int = FLAT) -> None:
        """Labels a polygon whose colours stay: what is seen through bars or spokes."""
        self.map_draw.polygon(points, (label, min(255, int(z * _DEPTH_SCALE)), texture))

    def detail(self, points: Points, color: Color) -> None:
        """Fills a polygon with a colour; its label stays."""
        self.color_draw.polygon(points, color)

    def line(self, points: Points, color: Color, width: float) -> None:
        """Draws a line in the colours only; width in pixels, at least one."""
        self.color_draw.line(points, color, max(1, round(width)))

    def disc(self, box, label: int, color: Color, texture: int, z: float) -> None:
        """Like `region`, for the ellipse inside box = (left, top, right, bottom)."""
        if box[2] >= box[0] and box[3] >= box[1]:
            self.color_draw.ellipse(box, color)
            self.map_draw.ellipse(box, (label, min(255, int(z * _DEPTH_SCALE)), texture))

    def disc_detail(self, box, color: Color) -> None:
        """Like `detail`, for the ellipse inside box."""
        if box[2] >= box[0] and box[3] >= box[1]:
            self.color_draw.ellipse(box, color)

    def pixels(self, meters: float, z: float) -> float:
        """Length in pixels of a length in metres at depth z."""
        return meters * self.camera.focal / z

    def reach(self, meters: float, share: float) -> float:
        """Depth in metres at which a thing of that height fills `share` of the image's height."""
        return self.camera.focal * meters / (share * self.height)

    def sees(self, x: float, z: float, breadth: float) -> bool:
        """Whether a thing of that breadth in metres can be in the picture."""
        column, margin = self.project(x, 0, z)[0], self.pixels(breadth, z)
        return -margin < column < self.width + margin

    def side_quad(self, x: float, y0: float, y1: float, z0: float, z1: float) -> Points:
        """Upright rectangle along the road, at x metres, from depth z0 to z1."""
        near, left, level = self.camera.at_depth(z0)
        far, right, far_level = self.camera.at_depth(z1)
        left += near * x
        right += far * x
        return [
            (left, level - near * y0),
            (left, level - near * y1),
            (right, far_level - far * y1),
            (right, far_level - far * y0),
        ]

    def front_quad(self, x0: float, x1: float, y0: float, y1: float, z: float) -> Points:
        """Upright rectangle across the road at depth z."""
        scale, column, level = self.camera.at_depth(z)
        left, right = column + scale * x0, column + scale * x1
        bottom, top = level - scale * y0, level - scale * y1
        return [(left, top), (right, top), (right, bottom), (left, bottom)]

    def ground_quad(self, x0: float, x1: float, z0: float, z1: float) -> Points:
        """Rectangle on the ground between depths z0 and z1."""
        near, near_x, near_y = self.camera.at_depth(z0)
        far, far_x, far_y = self.camera.at_depth(z1)
        return [
            (near_x + near * x0, near_y),
            (far_x + far * x0, far_y),
            (far_x + far * x1, far_y),
            (near_x + near * x1, near_y),
        ]

    def strip(self, x0: float, x1: float, z0: float = 0.8, z1: float = 140.0) -> Points:
        """Outline of a band along the road on the ground, following its bend and climb."""
        bent = self.camera.bend or self.camera.climb
        steps = (4 if z1 < 3 * z0 else 12) if bent else 1
        depths = [z0 * (z1 / z0) ** (i / steps) for i in range(steps + 1)]
        near_to_far = [self.project(x0, 0, z) for z in depths]
        return near_to_far + [self.project(x1, 0, z) for z in reversed(depths)]

    def prism(self, base, top, label: int, color: Color, texture: int) -> dict[str, Points]:
        """Draws the visible faces of a box whose top may be smaller than its base.

        Args:
          base, top: (x0, x1, z0, z1, y) of the lower and the upper face in metres.
          label, color, texture: as in `region`; faces are shaded by where the sun is.

        Returns:
          The outlines of the visible faces by name: "top", "left", "right", "near".
        """
        corners = []
        for x0, x1, z0, z1, y in (base, top):
            near, near_x, near_y = self.camera.at_depth(z0)
            far, far_x, far_y = self.camera.at_depth(z1)
            near_y -= near * y
            far_y -= far * y
            close = (near_x + near * x0, near_y), (near_x + near * x1, near_y)
            corners.append((*close, (far_x + far * x1, far_y), (far_x + far * x0, far_y)))
        a, b = corners
        faces = {
            "top": [b[0], b[3], b[2], b[1]],
            "left": [a[3], b[3], b[0], a[0]],
            "right": [a[1], b[1], b[2], a[2]],
            "near": [a[0], b[0], b[1], a[1]],
        }
        light = {"top": 1.15, "near": 0.95, "left": 0.85 - 0.2 * self.sun}
        light["right"] = 0.85 + 0.2 * self.sun
        visible = {}
        for name, quad in faces.items():
            (x0, y0), (x1, y1), (x2, y2), (x3, y3) = quad
            # Twice the signed area: faces turned away from the camera run the other way round.
            if (x2 - x0) * (y3 - y1) - (x3 - x1) * (y2 - y0) > 0:
                visible[name] = quad
                self.region(quad, label, shade(color, light[name]), texture, base[2])
        return visible

    def finish(self, generator: np.random.Generator, sky: Color) -> tuple[np.ndarray, np.ndarray]:
        """Adds texture, haze, light, blur and sensor noise.

        Args:
          generator: source of the random numbers.
          sky: colour that distance fades into.

        Returns:
          image uint8 [Y,X,3] and train ids uint8 [Y,X].
        """
        rnd, y, x = self.rnd, self.height, self.width
        maps = self._maps.split()
        labels, depth, texture = (np.asarray(band) for band in maps)
        # Texture grows with the image, so that a larger image is the same street in more detail.
        rows = (np.arange(y) / max(1.0, self.unit)).astype(np.intp)
        columns = (np.arange(x) / max(1.0, self.unit)).astype(np.intp)
        tiles = _texture_tiles()
        origin = _wrap(rows, generator)[:, None] * _TILE_SIZE + _wrap(columns, generator)
        gain = tiles.ravel().take(origin + texture * np.int64(_TILE_SIZE**2))
        gain = 1 + rnd.uniform(0.7, 1.3) * gain
        # Blotches of light far larger than any texture.
        light = tiles[CLOUD].ravel().take(origin[::-1, ::-1])
        gain *= rnd.uniform(0.75, 1.2) * (1 + rnd.uniform(0.3, 1.5) * light)
        density = rnd.choice((0.0015, 0.003, 0.006, 0.012)) / _DEPTH_SCALE
        veil = (1 - np.exp(-density * np.arange(256))).astype(np.float32).take(depth)
        gain *= 1 - veil

        warmth, gamma = rnd.uniform(-0.13, 0.13), rnd.uniform(0.7, 1.4)
        tints = (1 + warmth, 1 + rnd.uniform(-0.05, 0.05), 1 - warmth)
        softness = rnd.uniform(0.02, 0.13)
        noise_rows = _wrap(np.arange(y + 2 * _GRAIN_STEP), generator)
        grain = _noise_tile()[noise_rows][:, _wrap(np.arange(x), generator)]
        grain *= rnd.uniform(1.0, 7.0)
        image = np.empty((y, x, 3), np.uint8)
        planes = zip(self._colors.split(), tints, sky, strict=True)
        for channel, (band, tint, far) in enumerate(planes):
            plane = np.asarray(band) * gain
            plane += far * veil
            for _ in range(max(1, round(self.unit))):
                plane = _soften(plane, softness)
            response = 255 * np.minimum(1, tint * np.arange(256) / 255) ** gamma
            np.clip(plane, 0, 255, out=plane)
            plane = response.astype(np.float32).take(plane.astype(np.uint8))
            # One draw of noise, shifted, is independent enough between the channels.
            plane += grain[channel * _GRAIN_STEP : channel * _GRAIN_STEP + y]
            image[..., channel] = np.clip(plane, 0, 255, out=plane)
        return image, labels.copy()


def _soften(plane: np.ndarray, weight: float) -> np.ndarray:
    """Gives each pixel's four neighbours `weight` of it; the border repeats. float32 [Y,X]."""
    part = plane * weight
    result = plane - 4 * part
    result[1:] += part[:-1]
    result[:-1] += part[1:]
    result[:, 1:] += part[:, :-1]
    result[:, :-1] += part[:, 1:]
    result[0] += part[0]
    result[-1] += part[-1]
    result[:, 0] += part[:, 0]
    result[:, -1] += part[:, -1]
    return result


def _wrap(indices: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Indices into a periodic tile, from a random origin."""
    return (indices + int(generator.integers(_TILE_SIZE))) % _TILE_SIZE


@functools.cache
def _noise_tile() -> np.ndarray:
    """Unit normal noise, float32 [tile, tile]."""
    generator = np.random.default_rng(7)
    return generator.standard_normal((_TILE_SIZE, _TILE_SIZE), np.float32)


@functools.cache
def _texture_tiles() -> np.ndarray:
    """Relative brightness of each surface around 0, periodic; float32 [surfaces, tile, tile]."""
    generator = np.random.default_rng(11)
    fy = np.fft.fftfreq(_TILE_SIZE)[:, None]
    fx = np.fft.rfftfreq(_TILE_SIZE)[None]

    def band(size_y, size_x):
        """Noise whose grains are about size_y x size_x pixels, unit deviation."""
        spectrum = np.fft.rfft2(generator.standard_normal((_TILE_SIZE, _TILE_SIZE)))
        radius = (fy * size_y) ** 2 + (fx * size_x) ** 2
        grain = np.fft.irfft2(spectrum * np.exp(-4 * radius) * radius, (_TILE_SIZE, _TILE_SIZE))
        return grain / grain.std()

    rows = np.arange(_TILE_SIZE)[:, None]
    columns = np.arange(_TILE_SIZE)[None]
    course = rows // 4
    joints = (rows % 4 == 0) | ((columns + 4 * (course % 2)) % 8 == 0)
    slabs = (rows % 8 == 0) | ((columns + 5 * (rows // 8)) % 16 == 0)
    tiles = np.zeros((10, _TILE_SIZE, _TILE_SIZE))
    tiles[FLAT] = 0.01 * band(2, 2)
    tiles[ASPHALT] = 0.05 * band(1.5, 2.5) + 0.04 * band(10, 40)
    tiles[PLASTER] = 0.02 * band(2, 2) + 0.04 * band(30, 12)
    tiles[BRICK] = 0.04 * band(3, 6) - 0.16 * joints + 0.06
    tiles[LEAVES] = 0.17 * band(4, 4) + 0.12 * band(9, 11)
    tiles[GRASS] = 0.08 * band(4, 1.5) + 0.06 * band(6, 24)
    tiles[METAL] = 0.03 * band(20, 30)
    tiles[CLOUD] = 0.05 * band(60, 90) + 0.03 * band(25, 50)
    tiles[CLOTH] = 0.05 * band(3, 3)
    tiles[STONE] = 0.06 * band(3, 4) - 0.14 * slabs + 0.03
    return tiles.astype(np.float32)
