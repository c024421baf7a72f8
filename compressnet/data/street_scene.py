"""One scene of a street that never was, and the class of each of its pixels.

    sky, ground -> pavements, road -> rows of houses -> trees, poles, cars, people, far ones first
         each shape is drawn twice: in its colour, and as the number of its class
    -> grain of each class -> light, haze, noise, blur -> uint8 (H, W, 3), uint8 (H, W)

Places are in metres (x to the right, z ahead, heights above ground) before a camera 1.5 m high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFilter

from compressnet.data.sampler import generator

CLASSES = ("sky", "building", "road", "pavement", "tree", "car", "person", "pole")
SKY, BUILDING, ROAD, PAVEMENT, TREE, CAR, PERSON, POLE = range(len(CLASSES))
_EYE = 1.5
_NEAR, _FAR = 2.0, 70.0
MOST = 1024  # pixels of a side
_STOCK = MOST  # side of the noise that grain is cut from
# Of each class: how strong its fine and its coarse grain are.
_FINE = np.array([0.01, 0.06, 0.07, 0.06, 0.25, 0.03, 0.06, 0.04], np.float32)
_COARSE = np.array([0.08, 0.10, 0.08, 0.10, 0.25, 0.08, 0.12, 0.06], np.float32)

Colour = tuple[float, float, float]
Point = tuple[float, float]


class Street(NamedTuple):
    """Where everything stands.

    Attributes:
        road: from the middle to the kerb.
        pavement: width, from kerb to houses.
        haze: colour that things fade to.
        fade: metres at which two thirds are faded.
    """

    road: float
    pavement: float
    haze: list[float]
    fade: float


class _Canvas:
    """A picture and its classes, drawn together."""

    def __init__(self, height: int, width: int, street: Street, random: np.random.Generator) -> None:
        self.height, self.width, self.street = height, width, street
        self.focal = width * random.uniform(0.65, 0.95)
        self.horizon = height * random.uniform(0.32, 0.55)
        self.middle = width * random.uniform(0.35, 0.65)
        self.picture = PILImage.new("RGB", (width, height))
        self.classes = PILImage.new("L", (width, height), SKY)
        self._brushes = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.classes)

    def at(self, x: float, up: float, z: float) -> Point:
        """Where a place is seen."""
        return self.middle + self.focal * x / z, self.horizon + self.focal * (_EYE - up) / z

    def polygon(self, points: Sequence[Point], colour: np.ndarray, label: int, z: float = 0) -> None:
        brush, marker = self._brushes
        brush.polygon(points, fill=self._ink(colour, z))
        marker.polygon(points, fill=label)

    def box(
        self, x: float, up: float, wide: float, high: float, z: float, colour: np.ndarray, label: int
    ) -> None:
        """An upright rectangle: `x` its middle, `up` its lower edge."""
        left, bottom = self.at(x - wide / 2, up, z)
        right, top = self.at(x + wide / 2, up + high, z)
        if self._seen(left, top, right, bottom):
            brush, marker = self._brushes
            brush.rectangle((left, top, right, bottom), fill=self._ink(colour, z))
            marker.rectangle((left, top, right, bottom), fill=label)

    def ellipse(
        self, x: float, up: float, wide: float, high: float, z: float, colour: np.ndarray, label: int
    ) -> None:
        """One that fills such a rectangle."""
        left, bottom = self.at(x - wide / 2, up, z)
        right, top = self.at(x + wide / 2, up + high, z)
        if self._seen(left, top, right, bottom):
            brush, marker = self._brushes
            brush.ellipse((left, top, right, bottom), fill=self._ink(colour, z))
            marker.ellipse((left, top, right, bottom), fill=label)

    def _seen(self, left: float, top: float, right: float, bottom: float) -> bool:
        return right >= 0 and bottom >= 0 and left < self.width and top < self.height

    def panes(self, corners: Sequence[Sequence[Point]], colour: np.ndarray, z: float) -> None:
        """Polygons within one that is drawn already: in the picture alone."""
        ink = self._ink(colour, z)
        for points in corners:
            self._brushes[0].polygon(points, fill=ink)

    def _ink(self, colour: np.ndarray, z: float) -> tuple[int, int, int]:
        kept = math.exp(-z / self.street.fade)
        red, green, blue = (
            min(max(int(own * kept + far * (1 - kept)), 0), 255)
            for own, far in zip(colour.tolist(), self.street.haze, strict=True)
        )
        return red, green, blue


def scene(height: int, width: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A scene.

    Returns:
        uint8 (height, width, 3) and the classes, uint8 (height, width).
    """
    sky = _mixed((90, 140, 215), (205, 210, 215), random) * random.uniform(0.75, 1.1)
    street = Street(
        road=random.uniform(2.6, 4.2),
        pavement=random.uniform(3.0, 6.0),
        haze=sky.tolist(),
        fade=math.exp(random.uniform(math.log(40), math.log(400))),
    )
    canvas = _Canvas(height, width, street, random)
    _ground(canvas, sky, random)
    for side in (-1, 1):
        _houses(canvas, side, random)
    _things(canvas, random)
    labels = np.array(canvas.classes)
    return _lit(canvas.picture, labels, random), labels


def _ground(canvas: _Canvas, sky: np.ndarray, random: np.random.Generator) -> None:
    """Sky, pavements and the road with what is painted and what falls on it."""
    street, (width, height) = canvas.street, canvas.picture.size
    canvas.polygon([(0, 0), (width, 0), (width, height), (0, height)], sky, SKY)
    horizon = canvas.horizon
    stone = np.full(3, random.uniform(90, 190)) + random.uniform(-12, 18, 3)
    canvas.polygon([(0, horizon), (width, horizon), (width, height), (0, height)], stone, PAVEMENT)
    tar = np.full(3, random.uniform(55, 140)) + random.uniform(-8, 8, 3)
    _strip(canvas, -street.road, street.road, 1, 300, tar, ROAD)
    for edge in (-1, 1):  # the kerb
        _strip(
            canvas,
            edge * street.road,
            edge * (street.road + 0.2),
            1,
            300,
            stone * random.uniform(0.6, 1.3),
            PAVEMENT,
        )
    paint = np.full(3, random.uniform(170, 255))
    gap = random.uniform(4, 9)
    for begin in np.arange(random.uniform(1, gap), 60, gap):
        _strip(canvas, -0.08, 0.08, begin, begin + gap * 0.45, paint, ROAD)
    if random.random() < 0.3:  # a crossing
        begin = random.uniform(4, 20)
        for x in np.arange(-street.road + 0.3, street.road - 0.4, 1.0):
            _strip(canvas, x, x + 0.5, begin, begin + 2.5, paint, ROAD)
    if random.random() < 0.6:  # a shadow across the road
        begin = random.uniform(3, 15)
        _strip(
            canvas,
            -street.road,
            random.uniform(-1, 1) * street.road,
            begin,
            begin * random.uniform(1.3, 3),
            tar * 0.55,
            ROAD,
        )


def _strip(
    canvas: _Canvas, left: float, right: float, near: float, far: float, colour: np.ndarray, label: int
) -> None:
    """Part of the ground."""
    corners = [(left, near), (right, near), (right, far), (left, far)]
    canvas.polygon([canvas.at(x, 0, z) for x, z in corners], colour, label, near)


def _houses(canvas: _Canvas, side: int, random: np.random.Generator) -> None:
    """A row along one pavement, from afar, with gaps."""
    x = side * (canvas.street.road + canvas.street.pavement)
    ends = [_NEAR]
    while ends[-1] < _FAR:
        ends.append(ends[-1] + random.uniform(4, 14))
    light = random.uniform(0.5, 1.1)
    for near, far in list(pairwise(ends))[::-1]:
        if random.random() < 0.2:
            continue
        wall = _mixed((70, 65, 65), (215, 190, 160), random) + random.uniform(-25, 25, 3)
        wall = wall * light
        height = random.uniform(4, 16)
        _facade(canvas, x, 0, height, near, far, wall)
        depth = side * random.uniform(4, 10)  # the side that faces the camera
        corners = [
            canvas.at(x, 0, near),
            canvas.at(x + depth, 0, near),
            canvas.at(x + depth, height, near),
            canvas.at(x, height, near),
        ]
        canvas.polygon(corners, wall * random.uniform(0.7, 1.2), BUILDING, near)
        _windows(canvas, x, height, near, far, random)


def _facade(
    canvas: _Canvas, x: float, low: float, high: float, near: float, far: float, colour: np.ndarray
) -> None:
    corners = [(low, near), (low, far), (high, far), (high, near)]
    canvas.polygon([canvas.at(x, up, z) for up, z in corners], colour, BUILDING, near)


def _windows(
    canvas: _Canvas, x: float, height: float, near: float, far: float, random: np.random.Generator
) -> None:
    glass = _mixed((25, 30, 40), (190, 205, 220), random)
    across, up = random.uniform(1.6, 3.2), random.uniform(2.4, 3.4)
    begins = [near + (column + 0.25) * across for column in range(int((far - near) / across))]
    floors = [(floor * up + 0.9, floor * up + up - 0.5) for floor in range(int(height / up))]
    corners = [
        [
            canvas.at(x, low, z),
            canvas.at(x, low, z + across / 2),
            canvas.at(x, high, z + across / 2),
            canvas.at(x, high, z),
        ]
        for z in begins
        if 0 <= canvas.at(x, 0, z + across / 2)[0] < canvas.width
        for low, high in floors
    ]
    canvas.panes(corners, glass, near)


def _things(canvas: _Canvas, random: np.random.Generator) -> None:
    """All that stands in the street, far ones first."""
    street = canvas.street
    walk = street.road + 0.4, street.road + street.pavement - 0.2
    things = []
    for draw, count, bounds in (
        (_tree, random.integers(0, 4), walk),
        (_pole, random.integers(1, 4), (walk[0], walk[0] + 0.5)),
        (_car, random.integers(1, 4), (0.9, max(1.0, street.road - 0.9))),
        (_person, random.integers(2, 6), walk),
    ):
        for _ in range(int(count)):
            z = math.exp(random.uniform(math.log(4), math.log(10)))
            things.append((z, draw, random.choice((-1, 1)) * random.uniform(*bounds)))
    if random.random() < 0.5:  # one who crosses
        z = random.uniform(4, 8)
        things.append((z, _person, random.uniform(-street.road, street.road)))
    for z, draw, x in sorted(things, key=lambda thing: -thing[0]):
        draw(canvas, x, z, random)


def _tree(canvas: _Canvas, x: float, z: float, random: np.random.Generator) -> None:
    bark = _mixed((60, 45, 35), (115, 100, 85), random)
    leaves = _mixed((35, 70, 25), (125, 135, 45), random) + random.uniform(-15, 35) * np.array([1, 0.5, 0])
    trunk, crown = random.uniform(1.5, 3), random.uniform(1.2, 2.6)
    canvas.box(x, 0, random.uniform(0.3, 0.6), trunk + crown / 2, z, bark, TREE)
    for _ in range(int(random.integers(5, 10))):
        across, up = random.normal(0, crown * 0.35, 2)
        size = crown * random.uniform(0.5, 1.1)
        canvas.ellipse(
            x + across,
            trunk + crown / 2 + up - size / 4,
            size,
            size,
            z,
            leaves * random.uniform(0.6, 1.2),
            TREE,
        )


def _pole(canvas: _Canvas, x: float, z: float, random: np.random.Generator) -> None:
    metal = np.full(3, random.uniform(40, 170)) + random.uniform(-10, 10, 3)
    high = random.uniform(2.5, 6)
    canvas.box(x, 0, random.uniform(0.5, 0.8), high, z, metal, POLE)
    if random.random() < 0.5:
        canvas.box(x - math.copysign(0.6, x), high - 0.3, 1.8, 0.6, z, metal * 1.1, POLE)
    elif random.random() < 0.5:
        sign = random.uniform(30, 255, 3)
        canvas.ellipse(x, high - 1.1, 1.1, 1.1, z, sign, POLE)


def _car(canvas: _Canvas, x: float, z: float, random: np.random.Generator) -> None:
    paint = random.uniform(20, 235, 3) if random.random() < 0.5 else np.full(3, random.uniform(25, 235))
    glass = _mixed((20, 25, 30), (120, 135, 150), random)
    black = np.full(3, random.uniform(15, 40))
    high = random.uniform(1.35, 1.9)
    if random.random() < 0.75:  # from behind or ahead
        wide = random.uniform(1.6, 1.95)
        for wheel in (-1, 1):
            canvas.box(x + wheel * wide * 0.38, 0, 0.24, 0.4, z, black, CAR)
        canvas.box(x, 0.22, wide, high * 0.42, z, paint, CAR)
        _cabin(canvas, x, wide, high, z, paint, glass)
        lamp = np.array([200.0, 30, 25]) if random.random() < 0.5 else np.array([235.0, 230, 200])
        for light in (-1, 1):
            canvas.box(x + light * wide * 0.4, 0.55, 0.26, 0.16, z, lamp, CAR)
        return
    long = random.uniform(3.6, 4.6)
    for wheel in (-1, 1):
        canvas.ellipse(x + wheel * long * 0.32, 0, 0.62, 0.62, z, black, CAR)
    canvas.box(x, 0.3, long, high * 0.4, z, paint, CAR)
    _cabin(canvas, x, long * 0.72, high, z, paint, glass)


def _cabin(
    canvas: _Canvas, x: float, wide: float, high: float, z: float, paint: np.ndarray, glass: np.ndarray
) -> None:
    """Roof and windows: a trapezium in a trapezium."""
    low = 0.22 + high * 0.4
    for inset, colour in ((0.0, paint * 0.95), (0.1, glass)):
        below, above, top = wide * (0.48 - inset / 2), wide * (0.38 - inset / 2), high - inset
        corners = [(-below, low + inset / 3), (below, low + inset / 3), (above, top), (-above, top)]
        canvas.polygon([canvas.at(x + across, up, z) for across, up in corners], colour, CAR, z)


def _person(canvas: _Canvas, x: float, z: float, random: np.random.Generator) -> None:
    tall = random.uniform(1.5, 1.95)
    skin = _mixed((90, 60, 45), (235, 195, 165), random)
    coat, trousers = random.uniform(15, 230, 3), random.uniform(15, 140, 3)
    step = random.uniform(0.0, 0.15)
    for leg in (-1, 1):
        canvas.box(x + leg * (0.13 + step / 2), 0, 0.27, tall * 0.5, z, trousers, PERSON)
    canvas.ellipse(x, tall * 0.42, random.uniform(0.65, 0.9), tall * 0.46, z, coat, PERSON)
    canvas.ellipse(x, tall * 0.82, 0.34, tall * 0.18, z, skin, PERSON)


def _lit(picture: PILImage.Image, labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Grain, light, noise and blur."""
    height, width = labels.shape
    fine, coarse = _noise()
    pixels = np.asarray(picture.filter(ImageFilter.BoxBlur(random.uniform(0, 0.8)))).astype(np.float32)
    grain = (
        1
        + _FINE[labels] * _cut(fine, height, width, random)
        + _COARSE[labels] * _cut(coarse, height, width, random)
    )
    fall = np.linspace(random.uniform(0.8, 1.2), random.uniform(0.8, 1.2), width, dtype=np.float32)
    gain = math.exp(random.uniform(math.log(0.55), math.log(1.15)))
    tint = (gain * random.uniform(0.9, 1.1, 3)).astype(np.float32)
    pixels *= (grain * fall)[..., None]
    pixels *= tint
    noise = random.uniform(1, 7)
    pixels += np.stack([_cut(fine, height, width, random) for _ in range(3)], 2) * np.float32(noise)
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


def _cut(noise: np.ndarray, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """A piece of noise, float32 (height, width)."""
    top, left = (int(random.integers(_STOCK - side + 1)) for side in (height, width))
    return noise[top : top + height, left : left + width]


@cache
def _noise() -> tuple[np.ndarray, np.ndarray]:
    """Fine and coarse noise of deviation 1."""
    random = generator(1967)
    fine = random.standard_normal((_STOCK, _STOCK), np.float32)
    small = PILImage.fromarray(random.standard_normal((_STOCK // 8, _STOCK // 8), np.float32))
    coarse = np.asarray(small.resize((_STOCK, _STOCK), PILImage.Resampling.BICUBIC))
    return fine, coarse / coarse.std()


def _mixed(one: Colour, other: Colour, random: np.random.Generator) -> np.ndarray:
    """A colour between two."""
    share = random.random()
    return np.array(one) * (1 - share) + np.array(other) * share
