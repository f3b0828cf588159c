"""What W&B shows of out-of-fold predictions: the worst mistakes, the confusion matrix, precision against recall."""

from typing import Any

import numpy as np

from foldcraft.data import image_cache
from foldcraft.predictions.oof import OOF

SIDE = 160  # pixels of the longer side of an image in a table; about 8 KB as JPEG
MOST_CLASSES = 50  # in a confusion matrix, which W&B keeps as a table of K x K rows
MOST_CURVES = 10
OTHERS = "other classes"
COLUMNS = ["image", "id", "truth", "predicted", "P(truth)", "P(predicted)"]


def panels(wandb: Any, card: OOF, mistakes: int, bounds: tuple[float, float]) -> dict[str, Any]:
    """All of them, by the names they have in W&B.

    Args:
        mistakes: how many are shown; 0: none, and no image is read.
        bounds: what becomes black and what white in images of more than 8 bits.
    """
    truth, predicted, names = few_classes(card, MOST_CLASSES)
    made = {
        "confusion_matrix": wandb.plot.confusion_matrix(
            y_true=truth.tolist(), preds=predicted.tolist(), class_names=names, title="Out-of-fold rows"
        ),
        "precision_recall": _curves(wandb, card),
    }
    if mistakes:
        made["mistakes"] = _mistakes(wandb, card, mistakes, bounds)
    return made


def few_classes(card: OOF, most: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """True and predicted class indices (N,) and the names of the classes, of which there are at most `most`.

    Where there are more, those with the fewest mistakes become one, so that a confusion matrix stays small.
    """
    names = list(card.competition.classes.names)
    if len(names) <= most:
        return card.targets, card.predicted, names
    wrong = card.predicted != card.targets
    mistakes = np.bincount(card.targets[wrong], minlength=len(names))
    mistakes += np.bincount(card.predicted[wrong], minlength=len(names))
    kept = np.sort(np.argsort(-mistakes, kind="stable")[: most - 1])
    new = np.full(len(names), most - 1)
    new[kept] = np.arange(most - 1)
    return new[card.targets], new[card.predicted], [*(names[k] for k in kept), OTHERS]


def _curves(wandb: Any, card: OOF) -> Any:
    """Each class against all others; of many classes those with the most mistakes."""
    present = np.unique(card.targets)
    missed = np.bincount(card.targets[card.predicted != card.targets], minlength=card.probabilities.shape[1])
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
    table, names = wandb.Table(columns=COLUMNS), card.competition.classes.names
    for place in card.worst(most):
        row, truth, said = card.rows[place], card.targets[place], card.predicted[place]
        picture = image_cache.decode(card.competition.train_paths[row], bounds[1], None, bounds[0])
        picture.thumbnail((SIDE, SIDE))
        table.add_data(
            wandb.Image(picture, file_type="jpg"),
            str(card.competition.train_ids[row]),
            names[truth],
            names[said],
            round(float(card.probabilities[place, truth]), 4),
            round(float(card.probabilities[place, said]), 4),
        )
    return table
