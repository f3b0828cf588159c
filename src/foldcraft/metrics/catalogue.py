"""All metrics, one entry for each name and the kinds of target it has that meaning for; `scores.get` finds them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from foldcraft.metrics import class_scores, head_scores, label_scores, rank_scores, value_scores
from foldcraft.metrics.metric import Wants

KINDS = ("single", "ordinal", "soft", "multilabel", "regression", "multioutput")
REQUIRED = "required"

CLASSES, SOFT, LABELS, VALUES, HEADS = (
    ("single", "ordinal"),
    ("soft",),
    ("multilabel",),
    ("regression",),
    ("multioutput",),
)
WEIGHTS, POOLED, K = {"weights": None}, {"pooled": False}, {"k": REQUIRED}
ZERO_DIVISION = {"zero_division": 0}
UNIT, SIGNED, LOSS, UPWARD = (0.0, 1.0), (-1.0, 1.0), (0.0, math.inf), (-math.inf, 1.0)


@dataclass(frozen=True)
class Entry:
    """A metric before its options are chosen.

    Attributes:
        judges: what it is, for docs/metrics.md.
        used_in: a competition that used it.
        options: their names and defaults; a default of None: none is handed to `score`.
        score: the function of either form; it takes the options by their names, `weights` as `importance`.
        of_confusion: is that a function of counts?
    """

    name: str
    kinds: tuple[str, ...]
    wants: Wants
    score: Callable
    judges: str
    used_in: str = "–"
    greater_is_better: bool = True
    of_confusion: bool = False
    options: dict[str, object] | None = None
    classes: int | None = None
    bounds: tuple[float, float] = UNIT
    by_order: bool = False


def _of_labels(name: str, score: Callable, judges: str, used_in: str = "–", **more: object) -> Entry:
    return Entry(name, CLASSES, "labels", score, judges, used_in, of_confusion=True, **more)


def _loss(name: str, kinds: tuple[str, ...], wants: Wants, score: Callable, judges: str, **more: object) -> Entry:
    return Entry(name, kinds, wants, score, judges, greater_is_better=False, **{"bounds": LOSS, **more})


ENTRIES = (
    _of_labels("macro_f1", class_scores.macro_f1, "mean F1 of the classes that are met", "iWildCam 2019"),
    _of_labels(
        "weighted_f1",
        class_scores.weighted_f1,
        "the classes' F1, weighted by how frequent they are",
        "Game of Deep Learning (ships) 2019",
    ),
    _of_labels("f1", class_scores.f1, "F1 of the second of two classes", "Quora Insincere Questions 2018", classes=2),
    _of_labels("accuracy", class_scores.accuracy, "share of rows that are right", "Cassava Leaf Disease 2020"),
    _of_labels(
        "balanced_accuracy",
        class_scores.balanced_accuracy,
        "mean recall of the classes that are met in truth",
        "ISIC 2019",
    ),
    _of_labels(
        "qwk", class_scores.qwk, "kappa with squared distances of the classes in order", "APTOS 2019", bounds=SIGNED
    ),
    _loss(
        "log_loss",
        CLASSES,
        "probabilities",
        class_scores.log_loss,
        "mean negative log-probability of the true class",
        used_in="State Farm Distracted Driver 2016",
    ),
    Entry(
        "roc_auc",
        CLASSES,
        "probabilities",
        rank_scores.roc_auc,
        "mean area under the curve of one class against the rest",
        "Histopathologic Cancer Detection 2018",
        by_order=True,
    ),
    _of_labels(
        "mcc", class_scores.mcc, "Matthews correlation coefficient", "Bosch Production Line 2016", bounds=SIGNED
    ),
    _of_labels("cohen_kappa", class_scores.cohen_kappa, "kappa, all mistakes alike", bounds=SIGNED),
    _of_labels(
        "macro_recall",
        class_scores.macro_recall,
        "mean recall of the classes that are met in truth or answer",
        options=WEIGHTS,
    ),
    _of_labels(
        "ordinal_mae",
        class_scores.ordinal_mae,
        "mean distance of the classes in order",
        greater_is_better=False,
        bounds=LOSS,
    ),
    Entry(
        "top_k_accuracy",
        CLASSES,
        "ranks",
        class_scores.top_k_accuracy,
        "share of rows whose class is among the k likeliest",
        "iNaturalist 2018",
        options=K,
    ),
    Entry(
        "map_at_k",
        CLASSES,
        "ranks",
        class_scores.map_at_k,
        "mean of 1 / place of the class among the k likeliest",
        "Humpback Whale Identification 2018, `k: 5`",
        options=K,
    ),
    Entry(
        "pf1",
        CLASSES,
        "probabilities",
        class_scores.pf1,
        "F1 of the second of two classes, with probabilities for answers",
        "RSNA Breast Cancer Detection 2022",
        classes=2,
    ),
    Entry(
        "partial_auc",
        CLASSES,
        "probabilities",
        rank_scores.partial_auc,
        "area under the curve of the second of two classes and above a true positive rate, 1 - min_tpr at the best",
        "ISIC 2024",
        options={"min_tpr": 0.8},
        classes=2,
        by_order=True,
    ),
    _loss(
        "weighted_log_loss",
        CLASSES,
        "probabilities",
        class_scores.weighted_log_loss,
        "mean log-loss of each class, and their weighted mean",
        used_in="PLAsTiCC 2018",
        options=WEIGHTS,
    ),
    _loss(
        "kl",
        SOFT,
        "probabilities",
        class_scores.kl,
        "mean Kullback-Leibler divergence from the prediction to the truth, KL(truth, prediction)",
        used_in="HMS Harmful Brain Activity 2024",
    ),
    _loss("log_loss", SOFT, "probabilities", class_scores.soft_log_loss, "mean cross-entropy"),
    Entry(
        "macro_f1",
        LABELS,
        "labels",
        label_scores.macro_f1,
        "mean of the labels' F1",
        "Human Protein Atlas 2018",
        options=WEIGHTS | ZERO_DIVISION,
    ),
    Entry(
        "micro_f1",
        LABELS,
        "labels",
        label_scores.micro_f1,
        "F1 of all cells together",
        "iMaterialist Fashion 2018",
        options=ZERO_DIVISION,
    ),
    Entry(
        "sample_f1",
        LABELS,
        "labels",
        label_scores.sample_f1,
        "mean of the rows' F1",
        "Plant Pathology 2021",
        options=ZERO_DIVISION,
    ),
    Entry("accuracy", LABELS, "labels", label_scores.accuracy, "share of rows with all known labels right"),
    Entry(
        "mean_auc",
        LABELS,
        "probabilities",
        rank_scores.mean_auc,
        "mean area under the curve of the labels that have both kinds of rows",
        "RANZCR CLiP 2020",
        options=WEIGHTS,
        by_order=True,
    ),
    Entry(
        "mean_average_precision",
        LABELS,
        "probabilities",
        rank_scores.mean_average_precision,
        "mean of average precision of the labels that any row has",
        "BirdCLEF 2023, where rows were added",
        options=WEIGHTS,
        by_order=True,
    ),
    Entry(
        "lwlrap",
        LABELS,
        "probabilities",
        label_scores.lwlrap,
        "precision at the rank of each true label within its row, mean over all true labels",
        "Freesound 2019",
    ),
    _loss(
        "log_loss",
        LABELS,
        "probabilities",
        label_scores.log_loss,
        "mean of the labels' log-loss",
        used_in="RSNA Intracranial Hemorrhage 2019, `weights: {any: 2}`",
        options=WEIGHTS,
    ),
    _loss(
        "rmse",
        VALUES,
        "values",
        value_scores.rmse,
        "mean of the columns' root mean squared error; pooled: of all cells together",
        used_in="PetFinder Pawpularity 2021",
        options=WEIGHTS | POOLED,
    ),
    _loss(
        "mae",
        VALUES,
        "values",
        value_scores.mae,
        "mean of the columns' mean absolute error",
        used_in="RSNA Bone Age 2017",
        options=WEIGHTS,
    ),
    Entry(
        "r2",
        VALUES,
        "values",
        value_scores.r2,
        "mean of the columns' coefficient of determination; pooled: one of all cells around the mean of all",
        "PlantTraits 2024; CSIRO Biomass 2025, `pooled: true` and weights",
        options=WEIGHTS | POOLED,
        bounds=UPWARD,
    ),
    _loss(
        "rmsle",
        VALUES,
        "values",
        value_scores.rmsle,
        "mean of the columns' root mean squared error of log(1 + value)",
        used_in="ASHRAE Energy Prediction 2019",
        options=WEIGHTS,
    ),
    Entry(
        "pearson",
        VALUES,
        "values",
        value_scores.pearson,
        "mean of the columns' correlation",
        options=WEIGHTS,
        bounds=SIGNED,
    ),
    Entry(
        "spearman",
        VALUES,
        "values",
        rank_scores.spearman,
        "mean of the columns' rank correlation",
        "Google QUEST 2019",
        options=WEIGHTS,
        bounds=SIGNED,
        by_order=True,
    ),
    _loss(
        "rmse_over_std",
        VALUES,
        "values",
        value_scores.rmse_over_std,
        "mean of the columns' root mean squared error / standard deviation of the truth",
        options=WEIGHTS,
    ),
    Entry(
        "mean_accuracy", HEADS, "labels", head_scores.mean_accuracy, "mean of the targets' accuracy", options=WEIGHTS
    ),
    Entry(
        "macro_recall",
        HEADS,
        "labels",
        head_scores.macro_recall,
        "mean of the targets' macro recall",
        "Bengali.AI 2019, `weights: {grapheme_root: 2}`",
        options=WEIGHTS,
    ),
    Entry("macro_f1", HEADS, "labels", head_scores.macro_f1, "mean of the targets' macro F1", options=WEIGHTS),
    _loss(
        "log_loss",
        HEADS,
        "probabilities",
        head_scores.log_loss,
        "mean of the targets' log-loss",
        options=WEIGHTS,
    ),
)


def of_kind(kind: str) -> dict[str, Entry]:
    """The metrics of a kind of target by their names."""
    return {entry.name: entry for entry in ENTRIES if kind in entry.kinds}


def known(name: str) -> Entry | None:
    """The first entry of a name; its direction and its bounds are those of all of that name."""
    return next((entry for entry in ENTRIES if entry.name == name), None)
