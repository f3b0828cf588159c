"""Contact sheets: many small pictures on one PNG, each with what there is to say of it below."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from foldcraft.common.files import write_atomic
from foldcraft.data.images.image_reading import decode
from foldcraft.data.images.sources import Source

LINE = 13  # height of a line of a caption in pixels
GAP = 4
SIDE = 96  # images are shown at least this large
THUMBNAIL = 128


@dataclass(frozen=True)
class SheetTile:
    """A picture with its caption, one string a line."""

    image: Image.Image
    caption: Sequence[str] = ()


def sheet(rows: Sequence[Sequence[SheetTile]]) -> Image.Image:
    """One picture of rows of tiles; each row is as high as its highest tile, a tile as wide as the widest of all.

    A caption may run on over what is empty right of it, and is cut where the next tile that has one begins.
    """
    width = max(tile.image.width for row in rows for tile in row)
    heights = [max(tile.image.height + LINE * len(tile.caption) for tile in row) for row in rows]
    columns = max(len(row) for row in rows)
    made = Image.new("RGB", (columns * (width + GAP) + GAP, sum(heights) + GAP * (len(rows) + 1)), "white")
    pen, font, top = ImageDraw.Draw(made), ImageFont.load_default(10), GAP
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            left = GAP + column * (width + GAP)
            made.paste(tile.image, (left, top))
            speaking = [k for k in range(column + 1, len(row)) if row[k].caption]
            room = GAP + speaking[0] * (width + GAP) - left - GAP if speaking else made.width - left - GAP
            for number, line in enumerate(tile.caption):
                text = _cut(line, room, font)
                pen.text((left, top + tile.image.height + LINE * number), text, fill="black", font=font)
        top += height + GAP
    return made


def in_rows(tiles: Sequence[SheetTile], columns: int = 8) -> list[list[SheetTile]]:
    """Tiles, one after another, `columns` a row."""
    return [list(tiles[first : first + columns]) for first in range(0, len(tiles), columns)]


def enlarged(image: Image.Image) -> Image.Image:
    """An image of a few pixels, each a square of its own, `SIDE` large or more."""
    times = max(1, -(-SIDE // max(image.size)))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def thumbnail(path: Source, bounds: tuple[float, float], side: int = THUMBNAIL) -> Image.Image:
    """A row's image, whole, in a square of grey; a crossed square where it cannot be read."""
    square = Image.new("RGB", (side, side), "lightgrey")
    try:
        image = decode(path, bounds[1], 2 * side, bounds[0])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        pen = ImageDraw.Draw(square)
        pen.line((0, 0, side, side), fill="grey")
        pen.line((0, side, side, 0), fill="grey")
        return square
    small = ImageOps.contain(enlarged(image), (side, side))
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return square


def save(picture: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    write_atomic(path, stream.getvalue())


def _cut(line: str, room: int, font: ImageFont.FreeTypeFont) -> str:
    line = " ".join(line.split())
    if font.getlength(line) <= room:
        return line
    while line and font.getlength(line + "…") > room:
        line = line[:-1]
    return line + "…"
