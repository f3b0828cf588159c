"""Drawn faces with a mask worn right, wrong or not at all: people of whom there are several pictures each.

Real faces are nobody's to hand on. These have what makes such a competition hard: groups, rare classes, pictures of one
person that are alike in all but the label, light and crops that vary, and a few wrong labels and copies.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 96
SCALE = 4  # drawn larger and shrunk, for smooth edges
CANVAS = SIZE * SCALE
SKINS = ((255, 224, 196), (241, 194, 155), (224, 172, 125), (198, 134, 86), (141, 85, 52), (92, 57, 38))
HAIRS = ((35, 25, 20), (80, 50, 30), (150, 105, 60), (205, 170, 110), (120, 60, 35), (170, 170, 170))
CLOTHS = ((235, 240, 245), (150, 190, 225), (40, 40, 45), (225, 170, 180), (200, 160, 130), (120, 160, 130))


@dataclass(frozen=True)
class Person:
    """What stays the same from picture to picture."""

    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    length: float  # of the hair, in heights of the head
    width: float  # of the head, in the usual width
    eyes: float  # distance from the middle, in widths of the head
    glasses: bool
    beard: bool
    shirt: tuple[int, int, int]


def person(rng: np.random.Generator) -> Person:
    return Person(
        skin=SKINS[rng.integers(len(SKINS))],
        hair=HAIRS[rng.integers(len(HAIRS))],
        length=float(rng.choice([0.0, 0.5, 1.0, 1.3])),
        width=float(rng.uniform(0.85, 1.12)),
        eyes=float(rng.uniform(0.36, 0.48)),
        glasses=bool(rng.random() < 0.3),
        beard=bool(rng.random() < 0.2),
        shirt=tuple(int(c) for c in rng.integers(30, 220, 3)),
    )


def draw(who: Person, mask: str, rng: np.random.Generator) -> Image.Image:
    """One picture, RGB of 96 x 96; `mask` is "right", "wrong" or "none"."""
    picture = Image.new("RGB", (CANVAS, CANVAS), tuple(int(c) for c in rng.integers(60, 230, 3)))
    pen = ImageDraw.Draw(picture)
    _background(pen, rng)
    _head(pen, who, smile=rng.uniform(-0.4, 1))
    if mask == "none" and rng.random() < 0.25:
        _scarf(pen, rng)
    if mask != "none":
        _mask(pen, who, mask, rng)
    if who.glasses:
        _glasses(pen, who)
    return _photograph(picture, rng)


def _background(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    for _ in range(4):
        x, y, w, h = rng.integers(-50, CANVAS, 2).tolist() + rng.integers(40, 250, 2).tolist()
        pen.rectangle((x, y, x + w, y + h), fill=tuple(int(c) for c in rng.integers(60, 230, 3)))


def _ellipse(pen: ImageDraw.ImageDraw, x: float, y: float, w: float, h: float, **how: object) -> None:
    pen.ellipse((x - w, y - h, x + w, y + h), **how)


def _shade(colour: tuple[int, int, int], by: float) -> tuple[int, ...]:
    return tuple(int(np.clip(c * by, 0, 255)) for c in colour)


def _head(pen: ImageDraw.ImageDraw, who: Person, smile: float) -> None:
    w = 92 * who.width
    if who.length:
        bottom = 120 + 190 * who.length
        pen.rounded_rectangle((192 - w - 18, 70, 192 + w + 18, bottom), 60, fill=who.hair)
    pen.rounded_rectangle((60, 330, 324, 460), 60, fill=who.shirt)
    pen.rectangle((160, 270, 224, 350), fill=_shade(who.skin, 0.85))
    for side in (-1, 1):
        _ellipse(pen, 192 + side * w, 195, 14, 26, fill=_shade(who.skin, 0.92))
    _ellipse(pen, 192, 190, w, 120, fill=who.skin)
    pen.chord((192 - w, 62, 192 + w, 200), 180, 360, fill=who.hair)
    if who.beard:
        pen.chord((192 - w * 0.95, 180, 192 + w * 0.95, 312), 10, 170, fill=who.hair)
    for side in (-1, 1):
        x = 192 + side * w * who.eyes
        _ellipse(pen, x, 175, 17, 10, fill="white")
        _ellipse(pen, x, 175, 8, 9, fill=(40, 30, 25))
        pen.line((x - 20, 152, x + 20, 150), fill=who.hair, width=8)
    pen.line((192, 180, 200, 218, 186, 222), fill=_shade(who.skin, 0.72), width=6, joint="curve")
    pen.arc((160, 240 - 14 * smile, 224, 252 + 14 * smile), 15, 165, fill=(170, 60, 60), width=9)


def _mask(pen: ImageDraw.ImageDraw, who: Person, how: str, rng: np.random.Generator) -> None:
    """Right: from the bridge of the nose to the chin. Wrong: below the nose, or below the mouth."""
    colour = CLOTHS[rng.integers(len(CLOTHS))]
    top = 196 if how == "right" else rng.choice([232, 268])
    w = 92 * who.width
    height = 312 - 196 if how == "right" else 90
    side = w * np.sqrt(max(0.1, 1 - ((top + 14 - 190) / 120) ** 2))
    outline = [
        (192 - side, top + 16),
        (192, top - 6),
        (192 + side, top + 16),
        (192 + side * 0.72, top + height * 0.85),
        (192, top + height),
        (192 - side * 0.72, top + height * 0.85),
    ]
    for sign in (-1, 1):
        pen.line((192 + sign * side, top + 20, 192 + sign * w, 190), fill=_shade(colour, 0.9), width=5)
    pen.polygon(outline, fill=colour, outline=_shade(colour, 0.75))
    for part in (0.35, 0.6):
        y = top + height * part
        pen.line((192 - side * 0.8, y, 192 + side * 0.8, y), fill=_shade(colour, 0.85), width=4)


def _scarf(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Cloth near the chin that is no mask."""
    pen.rounded_rectangle((100, 302, 284, 350), 22, fill=CLOTHS[rng.integers(len(CLOTHS))])


def _glasses(pen: ImageDraw.ImageDraw, who: Person) -> None:
    for side in (-1, 1):
        _ellipse(pen, 192 + side * 92 * who.width * who.eyes, 176, 30, 24, outline=(30, 30, 30), width=6)
    pen.line((182, 174, 202, 174), fill=(30, 30, 30), width=6)


def _photograph(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The same from another angle and distance, in other light, with a cheap camera."""
    turned = picture.rotate(rng.uniform(-14, 14), Image.Resampling.BILINEAR, fillcolor=picture.getpixel((0, 0)))
    half = CANVAS / 2 * rng.uniform(0.72, 1.0)
    x, y = CANVAS / 2 + rng.uniform(-24, 24, 2)
    frame = np.clip([x - half, y - half, x + half, y + half], 0, CANVAS)
    small = turned.resize((SIZE, SIZE), Image.Resampling.BOX, tuple(frame))
    small = small.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.9)))
    light = np.asarray(small, dtype=np.float32) * rng.uniform(0.55, 1.25) * rng.uniform(0.9, 1.1, 3)
    slope = np.linspace(-1, 1, SIZE)[None, :, None] * rng.uniform(-35, 35)
    return Image.fromarray(np.clip(light + slope + rng.normal(0, 7, light.shape), 0, 255).astype(np.uint8))
