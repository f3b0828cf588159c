"""Contact sheets of what enters the net."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from foldcraft import backbones
from foldcraft.audience import Audience
from foldcraft.augment import Augment
from foldcraft.files import write_atomic
from foldcraft.fingerprint import seed_from
from foldcraft.forward import Preparation
from foldcraft.images import ImageStore
from foldcraft.loader import Draw, PlainImages, TrainImages
from foldcraft.mixing import mix_of
from foldcraft.workspace import Workspace

CAPTION = 14  # pixels below each row for its label
GAP = 4
SIDE = 96  # images are shown at least this large


def draw(work: Workspace, images: int, draws: int, audience: Audience) -> Image.Image:
    """A row an image: as inference sees it, then `draws` augmented draws, mixed if the config mixes.

    The tensors are those that training makes, brought back from normalised floats to pixels.
    """
    config = work.config
    _, blueprint = backbones.build(config.backbone, len(work.competition.classes), config.images.size)
    store, _ = work.open_images([work.image_spec(blueprint)], audience)[0]
    preparation = Preparation(blueprint.mean, blueprint.std, "cpu", "contiguous")
    rows = _spread(work.competition.targets, images)
    plain = preparation(PlainImages(store, config.images).__getitems__(rows))
    columns = [plain, *(_augmented(work, store, preparation, rows, number) for number in range(draws))]
    pixels = [_to_pixels(column, preparation) for column in columns]
    labels = work.competition.classes.decode(work.competition.targets[rows])
    captions = [f"{work.competition.train_ids[row]}: {label}" for row, label in zip(rows, labels, strict=True)]
    return contact_sheet(np.stack(pixels, axis=1), captions)


def _spread(targets: np.ndarray, count: int) -> np.ndarray:
    """`count` rows, as many classes as possible, the same each time."""
    order = np.random.default_rng(0).permutation(len(targets))
    place = np.zeros(len(targets), dtype=int)
    for k in np.unique(targets):
        of_class = order[targets[order] == k]
        place[of_class] = np.arange(len(of_class))
    return np.array(sorted(order, key=lambda row: (place[row], targets[row]))[:count])


def _augmented(
    work: Workspace, store: ImageStore, preparation: Preparation, rows: np.ndarray, number: int
) -> torch.Tensor:
    config = work.config
    augment = Augment(config.augment, config.images, store.pixels.shape[1])
    draws = [Draw(int(row), seed_from(config.seed, "preview", number, place)) for place, row in enumerate(rows)]
    batch = TrainImages(store, work.competition.targets, augment).__getitems__(draws)
    images = preparation(batch.images)
    mix = mix_of(config.augment, len(work.competition.classes), config.seed)
    return mix(images, batch.targets, number)[0] if mix else images


def _to_pixels(images: torch.Tensor, preparation: Preparation) -> np.ndarray:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (preparation.mean, preparation.std))
    return ((images * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def contact_sheet(grid: np.ndarray, captions: Sequence[str]) -> Image.Image:
    """One picture of uint8 (rows, columns, side, side, 3), with a caption below each row."""
    rows, columns, side = grid.shape[:3]
    shown = side * max(1, -(-SIDE // side))
    sheet = Image.new("RGB", (columns * (shown + GAP) + GAP, rows * (shown + CAPTION + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for row in range(rows):
        top = GAP + row * (shown + CAPTION + GAP)
        for column in range(columns):
            image = Image.fromarray(grid[row, column]).resize((shown, shown), Image.Resampling.NEAREST)
            sheet.paste(image, (GAP + column * (shown + GAP), top))
        pen.text((GAP, top + shown + 1), captions[row], fill="black")
    return sheet


def save(sheet: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    write_atomic(path, stream.getvalue())
