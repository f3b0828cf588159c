"""The worst mistakes as pictures, with what the net looked at."""

import base64
import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import ImagesConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.paths import hardware_file
from foldcraft.data import image_cache
from foldcraft.data.loader import PlainImages
from foldcraft.models import gradcam, hardware
from foldcraft.models.preprocessing import Preparation
from foldcraft.predictions.fold_model import FoldModel
from foldcraft.views.report.blocks import Block, Card, Cell, Gallery, PageSection, Table, Words, columns, number, texts
from foldcraft.views.report.evidence import Evidence
from foldcraft.views.report.mistakes import Mistake

WORST, DOUBTFUL = 48, 24  # cards: the worst mistakes, and the most doubtful labels among the others
MOST_ROWS = 200  # of the table
SIDE = 160  # pixels of a picture
SMALL = 64  # pictures below are shown pixel by pixel


def mistakes(seen: Evidence, callback: Callback) -> PageSection:
    """Cards of the worst, and a table of more."""
    chosen = choose(seen.cases)
    heats, about = heat_maps(seen, chosen, callback)
    cards = [_card(seen, case, heat) for case, heat in zip(chosen, heats, strict=True)]
    question = "Where does it fail, and is it the model that is wrong or the label?"
    if not cards:
        return PageSection("mistakes", "Mistakes", question, [Words("No answer is wrong.", "note")])
    words = (
        "The less probable the label was held to be, the further to the front. “Doubtful label”: the answer is at"
        " least as sure as answers of that class usually are, and the label is not (confident learning), so look "
        f"whether the label is wrong. {about}"
    )
    used = sorted({label for card in cards for label in (card.label, card.said)})
    return PageSection("mistakes", "Mistakes", question, [Words(words), Gallery(cards, used), _table(seen)])


def choose(cases: Sequence[Mistake]) -> list[Mistake]:
    """The worst ones, and behind them the next doubtful labels."""
    rest = (case for case in cases[WORST:] if case.doubtful)
    return [*cases[:WORST], *islice(rest, DOUBTFUL)]


def _table(seen: Evidence) -> Block:
    names, truth = seen.classes.names, seen.combined.truth
    rows = [
        [
            Cell(str(seen.ids[case.row]), link=_image_link(seen, case)),
            *texts(names[truth.targets[case.row]], names[case.said]),
            number(case.sure, ".3f"),
            number(case.own, ".3f"),
            number(case.agree, "d"),
            number(int(truth.fold[case.row]), "d"),
            Cell("yes" if case.doubtful else "no"),
        ]
        for case in seen.cases[:MOST_ROWS]
    ]
    heads = columns(
        "image",
        "label",
        "answer",
        "# p(answer)|probability of the answer",
        "# p(label)|probability of the label",
        f"# agree|experiments of {len(seen.members)} that answer so by themselves",
        "# fold",
        "doubtful label",
    )
    return Table(
        "Wrong answers, the worst first", heads, rows, of=len(seen.cases) if len(seen.cases) > MOST_ROWS else 0
    )


def _image_link(seen: Evidence, case: Mistake) -> str:
    return seen.link(seen.members[0].experiment.competition.train_paths[seen.rows[case.row]])


def _card(seen: Evidence, case: Mistake, heat: np.ndarray | None) -> Card:
    config, names, truth = seen.members[0].experiment.config, seen.classes.names, seen.combined.truth
    path = seen.members[0].experiment.competition.train_paths[seen.rows[case.row]]
    picture = small(path, config.images)
    return Card(
        name=str(seen.ids[case.row]),
        picture=data_uri(picture),
        heat=None if heat is None else data_uri(overlaid(picture, heat)),
        pixelated=max(picture.size) < SMALL,
        link=_image_link(seen, case),
        label=names[truth.targets[case.row]],
        said=names[case.said],
        sure=case.sure,
        own=case.own,
        fold=int(truth.fold[case.row]),
        agree=f"{case.agree} of {len(seen.members)}",
        doubtful=case.doubtful,
    )


def small(path: Path, settings: ImagesConfig) -> Image.Image:
    """What the net sees of an image file, at most `SIDE` pixels a side; what it sees squashed keeps its own shape."""
    black, white = settings.bounds
    image = image_cache.decode(path, white, SIDE, black)
    if settings.resize == "squash":
        image.thumbnail((SIDE, SIDE))
        return image
    side = min(SIDE, max(image.size))
    return Image.fromarray(image_cache.make_square(image, image_cache.ImageSpec(side, settings.resize)))


def overlaid(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    """A picture under its map (H, W), the hotter the redder."""
    from pytorch_grad_cam.utils.image import show_cam_on_image

    size = tuple(max(2, round(SMALL / max(picture.size) * side), side) for side in picture.size)
    mask = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
    under = np.asarray(picture.resize(size, Image.Resampling.NEAREST), dtype=np.float32) / 255
    return Image.fromarray(show_cam_on_image(under, mask.clip(0, 1), use_rgb=True, image_weight=0.55))


def data_uri(picture: Image.Image) -> str:
    """A picture as part of the page; WebP, without loss where it is tiny."""
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=78, lossless=max(picture.size) < SMALL)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def heat_maps(seen: Evidence, cases: Sequence[Mistake], callback: Callback) -> tuple[list[np.ndarray | None], str]:
    """For each case, what the strongest member's model of its fold looked at; and a word on it for the reader."""
    member = seen.members[seen.strongest]
    found: dict[int, np.ndarray] = {}
    folds = sorted({int(seen.combined.truth.fold[case.row]) for case in cases})
    try:
        with callback.progress("Grad-CAM", len(cases)) as advance:
            for fold in folds:
                own = [case for case in cases if seen.combined.truth.fold[case.row] == fold]
                chosen = hardware.for_inference(
                    member.experiment.config.machine, hardware_file(member.experiment.config)
                )
                model = FoldModel.load(member.experiment, member.folder(fold), chosen)
                prepared = _prepared(seen, model, own, callback)
                maps = gradcam.grad_cam(model.model, prepared, [case.said for case in own])
                found |= {case.row: one for case, one in zip(own, maps, strict=True)}
                advance(len(own))
    except FoldcraftError as error:
        return [None] * len(cases), f"There is no Grad-CAM: {error}."
    words = (
        f"Point at a picture or press it to see what made {member.name} give its answer (Grad-CAM of the model "
        "that never saw the image; red spoke for the answer)."
    )
    return [found[case.row] for case in cases], words


def _prepared(seen: Evidence, model: FoldModel, cases: Sequence[Mistake], callback: Callback) -> torch.Tensor:
    store, _ = model.experiment.open_images([model.experiment.image_spec(model.blueprint)], callback)[0]
    pixels = PlainImages(store, model.experiment.config.images).at(seen.rows[[case.row for case in cases]])
    return Preparation.of(model.blueprint, model.hardware)(pixels)
