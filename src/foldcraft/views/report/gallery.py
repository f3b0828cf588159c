"""The worst mistakes as pictures, with what the net looked at."""

import base64
import io
from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from PIL import Image

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import ImagesConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.paths import hardware_file
from foldcraft.data.images import image_cache, image_reading
from foldcraft.data.images.sources import Source, is_there
from foldcraft.data.plain_images import PlainImages
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
    title = "Mistakes" if seen.target.is_right_or_wrong else "Worst rows"
    chosen = [case for case in choose(seen.cases) if is_there(_source(seen, case))]
    heats, about = heat_maps(seen, chosen, callback)
    cards = [_card(seen, case, heat) for case, heat in zip(chosen, heats, strict=True)]
    question = "Where does it fail, and is it the model that is wrong or the label?"
    if not seen.cases:
        return PageSection("mistakes", title, question, [Words("No answer is wrong.", "note")])
    if not cards:
        gone = Words("The images are not on this machine, and cannot be shown.", "note")
        return PageSection("mistakes", title, question, [Words(_how_sorted(seen)), gone, _table(seen)])
    used = sorted({label for card in cards for label in (card.label, card.said)}) if _has_one_label(seen) else []
    return PageSection(
        "mistakes", title, question, [Words(f"{_how_sorted(seen)} {about}"), Gallery(cards, used), _table(seen)]
    )


def _has_one_label(seen: Evidence) -> bool:
    return seen.combined.truth.targets.ndim == 1


def _how_sorted(seen: Evidence) -> str:
    if _has_one_label(seen):
        return (
            "The less probable the label was held to be, the further to the front. “Doubtful label”: the answer is at"
            " least as sure as answers of that class usually are, and the label is not (confident learning), so look "
            "whether the label is wrong."
        )
    which = f"rows with a wrong {seen.target.part}" if seen.target.is_right_or_wrong else "rows"
    return f"The {which}, those with the greatest {seen.target.loss_name} in front."


def choose(cases: Sequence[Mistake]) -> list[Mistake]:
    """The worst ones, and behind them the next doubtful labels."""
    rest = (case for case in cases[WORST:] if case.doubtful)
    return [*cases[:WORST], *islice(rest, DOUBTFUL)]


def _table(seen: Evidence) -> Block:
    single, shown = _has_one_label(seen), seen.cases[:MOST_ROWS]
    labels, said = _in_words(seen, shown)
    agrees = bool(shown) and shown[0].agree is not None
    rows = [
        [
            Cell(str(seen.ids[case.row]), link=_image_link(seen, case)),
            *texts(label, answer),
            *([number(case.sure, ".3f"), number(case.own, ".3f")] if single else [number(case.loss)]),
            *([number(case.agree, "d")] if agrees else []),
            number(int(seen.combined.truth.fold[case.row]), "d"),
            *([Cell("yes" if case.doubtful else "no")] if single else []),
        ]
        for case, label, answer in zip(shown, labels, said, strict=True)
    ]
    heads = columns(
        "image",
        "label" if single else "truth",
        "answer",
        *(["# p(answer)|probability of the answer", "# p(label)|probability of the label"] if single else []),
        *([] if single else [f"# {seen.target.loss_name}"]),
        *([f"# agree|experiments of {len(seen.members)} that answer so by themselves"] if agrees else []),
        "# fold",
        *(["doubtful label"] if single else []),
    )
    title = "Wrong answers, the worst first" if seen.target.is_right_or_wrong else "Rows, the worst first"
    return Table(title, heads, rows, of=len(seen.cases) if len(seen.cases) > MOST_ROWS else 0)


def _in_words(seen: Evidence, cases: Sequence[Mistake]) -> tuple[list[str], list[str]]:
    """Truth and answer of each."""
    rows = [case.row for case in cases]
    return tuple(seen.target.in_words(values[rows]) for values in (seen.combined.truth.targets, seen.answers))


def _source(seen: Evidence, case: Mistake) -> Source:
    return seen.members[0].experiment.competition.train_paths[seen.image_rows[case.row]]


def _image_link(seen: Evidence, case: Mistake) -> str:
    return seen.link(_source(seen, case))


def _card(seen: Evidence, case: Mistake, heat: np.ndarray | None) -> Card:
    config, truth = seen.members[0].experiment.config, seen.combined.truth
    (label,), (said,) = _in_words(seen, [case])
    picture = small(_source(seen, case), config.images)
    return Card(
        name=str(seen.ids[case.row]),
        picture=data_uri(picture),
        heat=None if heat is None else data_uri(overlaid(picture, heat)),
        pixelated=max(picture.size) < SMALL,
        link=_image_link(seen, case),
        label=label,
        said=said,
        sure=case.sure,
        own=case.own,
        loss=None if _has_one_label(seen) else (seen.target.loss_name, f"{case.loss:.3g}"),
        fold=int(truth.fold[case.row]),
        agree="" if case.agree is None else f"{case.agree} of {len(seen.members)}",
        doubtful=case.doubtful,
    )


def small(path: Source, settings: ImagesConfig) -> Image.Image:
    """What the net sees of an image, at most `SIDE` pixels a side; what it sees squashed keeps its own shape."""
    black, white = settings.bounds
    image = image_reading.decode(path, white, SIDE, black)
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
                maps = gradcam.grad_cam(model.model, prepared, _asked(seen, own))
                found |= {case.row: one for case, one in zip(own, maps, strict=True)}
                advance(len(own))
    except FoldcraftError as error:
        return [None] * len(cases), f"There is no Grad-CAM: {error}."
    spoke = "spoke for the answer"
    if not _has_one_label(seen):
        part = f"the {seen.target.part} that costs most"
        spoke = f"spoke for what is said of {part}" if seen.target.is_right_or_wrong else f"drove the error of {part}"
    words = (
        f"Point at a picture or press it to see what made {member.name} give its answer (Grad-CAM of the model "
        f"that never saw the image; red {spoke})."
    )
    return [found[case.row] for case in cases], words


def _asked(seen: Evidence, cases: Sequence[Mistake]) -> np.ndarray:
    """How much each output of the net counts in what is asked of each case (B, outputs)."""
    rows = [case.row for case in cases]
    columns = seen.target.space.spoke(seen.chosen.nested[rows], seen.combined.truth.targets[rows])
    return seen.target.outputs_behind(columns)


def _prepared(seen: Evidence, model: FoldModel, cases: Sequence[Mistake], callback: Callback) -> torch.Tensor:
    store, _ = model.experiment.open_images([model.experiment.image_spec(model.blueprint)], callback)[0]
    pixels = PlainImages(store, model.experiment.config.images).at(seen.image_rows[[case.row for case in cases]])
    return Preparation.of(model.blueprint, model.hardware)(pixels)
