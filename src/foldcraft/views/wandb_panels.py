"""What W&B shows of out-of-fold predictions: the worst rows, and by kind of target what else makes sense."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from foldcraft.data.images import image_reading
from foldcraft.metrics.parts import Part, parts_of
from foldcraft.predictions.oof import OOF

SIDE = 160  # pixels of the longer side of an image in a table; about 8 KB as JPEG
MOST_CLASSES = 50  # in a confusion matrix, which W&B keeps as a table of K x K rows
MOST_CURVES = 10
MOST_HEADS = 5  # with a confusion matrix
MOST_SCATTERS = 5  # columns
MOST_DOTS = 500  # rows in a scatter
OTHERS = "other classes"
COLUMNS = ["image", "id", "truth", "predicted", "P(truth)", "P(predicted)"]


def panels(wandb: Any, card: OOF, mistakes: int, bounds: tuple[float, float]) -> dict[str, Any]:
    """All of them, by the names they have in W&B.

    Args:
        mistakes: how many are shown; 0: none, and no image is read.
        bounds: what becomes black and what white in images of more than 8 bits.
    """
    made = _of_classes(wandb, card) if card.targets.ndim == 1 else _of_parts(wandb, card)
    if mistakes:
        made["mistakes"] = _mistakes(wandb, card, mistakes, bounds)
    return made


def _of_classes(wandb: Any, card: OOF) -> dict[str, Any]:
    """Of one label a row: the confusion matrix, precision against recall."""
    truth, predicted, names = few_classes(card, MOST_CLASSES)
    return {
        "confusion_matrix": wandb.plot.confusion_matrix(
            y_true=truth.tolist(), preds=predicted.tolist(), class_names=names, title="Out-of-fold rows"
        ),
        "precision_recall": _curves(wandb, card),
    }


def _of_parts(wandb: Any, card: OOF) -> dict[str, Any]:
    """Of labels, heads and columns: a table of their scores; matrices of heads, scatters of values."""
    target = card.competition.target
    parts = parts_of(target.space, card.targets, target.heads, card.competition.metric)
    made = {"parts": _scores(wandb, card, parts)}
    if target.space.form == "values":
        made |= {f"scatter/{part.name}": _scatter(wandb, card, part) for part in parts[:MOST_SCATTERS]}
    elif target.space.form == "classes" and target.is_right_or_wrong:
        small = [part for part in parts if part.columns.stop - part.columns.start <= MOST_CLASSES]
        made |= {f"confusion_matrix/{part.name}": _matrix(wandb, card, part) for part in small[:MOST_HEADS]}
    return made


def _scores(wandb: Any, card: OOF, parts: Sequence[Part]) -> Any:
    """A row a label, head or column; None where a measure says nothing."""
    names = [measure.name for measure in parts[0].measures]
    table = wandb.Table(columns=[card.competition.target.part, "rows", *names])
    for part in parts:
        found = [part.score(measure, card.probabilities) for measure in part.measures]
        table.add_data(part.name, len(part.rows), *(None if value != value else round(value, 4) for value in found))
    return table


def _scatter(wandb: Any, card: OOF, part: Part) -> Any:
    """Predictions over the truth of a column, of some rows evenly spread."""
    some = slice(None, None, max(1, -(-len(part.rows) // MOST_DOTS)))
    true, said = part.truth[some, 0].tolist(), part.given(card.answered)[some, 0].tolist()
    rows = [list(row) for row in zip(card.ids[part.rows[some]].tolist(), true, said, strict=True)]
    table = wandb.Table(columns=["id", "truth", "predicted"], data=rows)
    return wandb.plot.scatter(table, "truth", "predicted", title=f"{part.name}, out-of-fold rows")


def _matrix(wandb: Any, card: OOF, part: Part) -> Any:
    names = [name.removeprefix(f"{part.name}=") for name in card.competition.space.names[part.columns]]
    head = card.competition.target.heads.index(part.name)
    said = card.answered[part.rows, head]
    return wandb.plot.confusion_matrix(
        y_true=part.truth.tolist(), preds=said.tolist(), class_names=names, title=f"{part.name}, out-of-fold rows"
    )


def few_classes(card: OOF, most: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """True and predicted class indices (N,) and the names of the classes, of which there are at most `most`.

    Where there are more, those with the fewest mistakes become one, so that a confusion matrix stays small.
    """
    names = list(card.competition.classes.names)
    if len(names) <= most:
        return card.targets, card.answered, names
    wrong = card.answered != card.targets
    mistakes = np.bincount(card.targets[wrong], minlength=len(names))
    mistakes += np.bincount(card.answered[wrong], minlength=len(names))
    kept = np.sort(np.argsort(-mistakes, kind="stable")[: most - 1])
    new = np.full(len(names), most - 1)
    new[kept] = np.arange(most - 1)
    return new[card.targets], new[card.answered], [*(names[k] for k in kept), OTHERS]


def _curves(wandb: Any, card: OOF) -> Any:
    """Each class against all others; of many classes those with the most mistakes."""
    present = np.unique(card.targets)
    missed = np.bincount(card.targets[card.answered != card.targets], minlength=card.probabilities.shape[1])
    shown = sorted(present, key=lambda k: -missed[k])[:MOST_CURVES]
    # W&B takes the columns to be of the classes that occur: left in, an absent one would shift all after it.
    return wandb.plot.pr_curve(
        card.targets,
        card.probabilities[:, present],
        labels=list(card.competition.classes.names),
        classes_to_plot=shown,
        title="Precision and recall, out-of-fold rows",
    )


def _mistakes(wandb: Any, card: OOF, most: int, bounds: tuple[float, float]) -> Any:
    target, places = card.competition.target, card.worst(most)
    single = card.targets.ndim == 1
    table = wandb.Table(columns=COLUMNS if single else [*COLUMNS[:4], target.loss_name])
    words = (target.in_words(values[places]) for values in (card.targets, card.answered))
    for place, truth, said in zip(places, *words, strict=True):
        row = card.rows[place]
        picture = image_reading.decode(card.competition.train_paths[row], bounds[1], None, bounds[0])
        picture.thumbnail((SIDE, SIDE))
        numbers = [card.losses[place]]
        if single:
            numbers = [card.probabilities[place, k] for k in (card.targets[place], card.answered[place])]
        table.add_data(
            wandb.Image(picture, file_type="jpg"),
            str(card.competition.train_ids[row]),
            truth,
            said,
            *(round(float(number), 4) for number in numbers),
        )
    return table
