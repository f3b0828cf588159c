"""A contact sheet of what enters the net, and the steps of the augmentation as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from foldcraft.common.callbacks import Callback
from foldcraft.common.fingerprint import seed_from
from foldcraft.common.paths import experiment_folder
from foldcraft.data.augment import Augment
from foldcraft.data.images import contact_sheet
from foldcraft.data.images.contact_sheet import SheetTile, enlarged
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.loader import Sample, TrainImages
from foldcraft.data.mixup import mix_of
from foldcraft.data.plain_images import PlainImages
from foldcraft.models import backbones
from foldcraft.models.preprocessing import Preparation
from foldcraft.predictions.experiment import Experiment
from foldcraft.views.terminal import Terminal


@dataclass(frozen=True)
class Preview:
    """What enters the net.

    Attributes:
        sheet: a row an image: as inference sees it, then augmented draws, mixed if the config mixes.
        steps: of the augmentation, each with its chance.
    """

    sheet: Image.Image
    steps: list[tuple[str, float]]


def show(experiment: Experiment, images: int, draws: int, out: Path | None, terminal: Terminal) -> None:
    """Write the contact sheet, and show the steps.

    Args:
        out: the PNG; None: preview.png in the experiment's run folder.
    """
    config = experiment.config
    out = out or experiment_folder(config) / "preview.png"
    preview = draw(experiment, images, draws, terminal)
    contact_sheet.save(preview.sheet, out)
    terminal.say(f"wrote {out}: left as inference sees it, then {draws} draws of {config.experiment}'s augmentation")
    steps = [[number, step, f"{chance:.0%}"] for number, (step, chance) in enumerate(preview.steps, start=1)]
    terminal.table("what augmentation does to an image", ["", "step", "chance"], steps)


def draw(experiment: Experiment, images: int, draws: int, callback: Callback) -> Preview:
    """So many images, and so many augmented draws of each.

    The tensors are those that training makes, brought back from normalised floats to pixels.
    """
    config = experiment.config
    outputs, bands = experiment.competition.target.outputs, config.images.bands
    _, blueprint = backbones.build(config.backbone, outputs, config.images.size, channels=bands)
    store, _ = experiment.open_images([experiment.image_spec(blueprint)], callback)[0]
    preparation = Preparation(blueprint.mean, blueprint.std, "cpu", "contiguous")
    target = experiment.competition.target
    rows = _spread(target.stratum, images)
    plain = preparation(PlainImages(store, config.images).at(rows))
    augment = Augment(config.augment, config.images, store.pixels.shape[1])
    columns = [plain, *(_augmented(experiment, store, augment, preparation, rows, number) for number in range(draws))]
    pixels = [_to_pixels(column, preparation) for column in columns]
    labels = target.in_words(target.truth[rows])
    captions = [f"{experiment.competition.train_ids[row]}: {label}" for row, label in zip(rows, labels, strict=True)]
    lines = [_row(images, caption) for images, caption in zip(zip(*pixels, strict=True), captions, strict=True)]
    mixed = [name for name in ("mixup", "cutmix") if getattr(config.augment, name)]
    of_batches = [(f"{' or '.join(mixed)}, of whole batches", config.augment.mix_prob)] if mixed else []
    return Preview(contact_sheet.sheet(lines), augment.steps + of_batches)


def _row(images: Sequence[np.ndarray], caption: str) -> list[SheetTile]:
    first, *others = [enlarged(Image.fromarray(image)) for image in images]
    return [SheetTile(first, [caption]), *map(SheetTile, others)]


def _spread(strata: np.ndarray, count: int) -> np.ndarray:
    """`count` rows, of as many strata as possible, the same each time."""
    order = np.random.default_rng(0).permutation(len(strata))
    place = np.zeros(len(strata), dtype=int)
    for k in np.unique(strata):
        of_class = order[strata[order] == k]
        place[of_class] = np.arange(len(of_class))
    return np.array(sorted(order, key=lambda row: (place[row], strata[row]))[:count])


def _augmented(
    experiment: Experiment, store: ImageStore, augment: Augment, preparation: Preparation, rows: np.ndarray, number: int
) -> torch.Tensor:
    config = experiment.config
    draws = [Sample(int(row), seed_from(config.seed, "preview", number, place)) for place, row in enumerate(rows)]
    batch = TrainImages(store, np.zeros((len(store), 1)), augment).at(draws)  # what is learned is not shown
    images = preparation(batch.images)
    mix = mix_of(config.augment, 1, config.seed)
    return mix(images, batch.targets, number)[0] if mix else images


def _to_pixels(images: torch.Tensor, preparation: Preparation) -> np.ndarray:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (preparation.mean, preparation.std))
    pixels = ((images * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return pixels[..., :3] if pixels.shape[3] >= 3 else pixels[..., :1].repeat(3, axis=3)  # as far as people see
