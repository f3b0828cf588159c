"""What gives the label or the test set away although it should not: files, their order, the look of whole images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from foldcraft.common.callbacks import Callback
from foldcraft.data.targets.target import Target
from foldcraft.metrics import scores as score_functions
from foldcraft.metrics.intervals import bootstrap_interval
from foldcraft.study.audit.image_hash import Stack, reduced

FIELDS = {
    "order": ["place", "id number", "id length"],
    "file": ["bytes", "width", "height", "aspect", "mode", "format", "exif_orientation", "has_exif", "frames"],
    "look": ["mean_r", "mean_g", "mean_b", "std", "sharpness"],
}
TEXT = ("mode", "format")
EVERYTHING, FILES, FEATURES = "all metadata", "order and file", "frozen features"
LABEL, TEST = "label", "train or test"
MOST = 5000  # rows that are looked at
FOLDS = 5
RARE = 2 * FOLDS  # rows of a set of labels that is not looked at by itself
REPEATS = 6  # of what chance would give
TREES = 20
SHOWN = 12  # ids that give it away most
EXACT = 7  # digits of a number that 32-bit floats, which trees compare, hold
AUC = score_functions.get("roc_auc")
COLUMNS = ["question", "by", "kind", "auc", "low", "high", "chance", "found", "ids"]


@dataclass(frozen=True)
class Rows:
    """What is known of N rows, and what is to be guessed.

    Attributes:
        values: (N, D) float, NaN where a value is missing.
        truth: class indices (N,).
        units: what may be drawn independently (N,).
    """

    ids: np.ndarray
    values: np.ndarray
    truth: np.ndarray
    units: np.ndarray

    def some(self, most: int = MOST) -> "Rows":
        """At most so many, drawn by whole units."""
        if len(self.truth) <= most:
            return self
        units = np.random.default_rng(0).permutation(np.unique(self.units))
        order = pd.Series(np.arange(len(units)), units)[self.units].to_numpy()
        chosen = np.sort(np.argsort(order, kind="stable")[:most])
        return Rows(self.ids[chosen], self.values[chosen], self.truth[chosen], self.units[chosen])


def of_metadata(
    facts: pd.DataFrame,
    labels: Sequence[object],
    groups: Sequence[object] | None = None,
    callback: Callback | None = None,
) -> pd.DataFrame:
    """Can the label be told from what a file is like, or whether it is a test image?

    Cross-validated by whole groups with small ensembles of trees. A row for each field, one for all, one for all but
    the look. Fields of kind "look" are content and may predict the label rightly: a defect that is bright. Those of the
    other kinds may not, but for `bytes` where a format packs plain images smaller.

    Args:
        facts: one row an image file: `part` (train or test), `id`, and any of `FIELDS` of kind file and look; training
            rows in the order of `labels` and `groups`.

    Returns:
        Columns `question` (label; train or test), `by` (a field, or several), `kind` (order, file, look or all), `auc`
        (mean over the classes, each against the rest) with its 95 % interval `low` to `high`, `chance` (mean and two
        standard deviations of what answers drawn by lot reach), `found` (is `low` above it?), and `ids` of the images
        that give it away most, space-separated.
    """
    callback = callback or Callback()
    table = _fields(facts)
    trains = (facts["part"] == "train").to_numpy()
    ids = facts["id"].to_numpy(dtype=str)
    units = _units(ids, trains, groups)
    truth = pd.factorize(np.asarray(labels), sort=True)[0]
    about_label = Rows(ids[trains], table[trains].to_numpy(), truth, units[trains]).some()
    about_test = Rows(ids, table.to_numpy(), (~trains).astype(int), units)
    kinds = {name: kind for kind, names in FIELDS.items() for name in names}
    found = []
    with callback.progress("looking for leaks in metadata", 2 * (len(table.columns) + 1)) as advance:
        for question, rows, drawn in (
            (LABEL, about_label, _shuffled),
            (TEST, about_test.some(), _pretended),
        ):
            if len(np.unique(rows.truth)) < 2:
                continue
            columns = [name for name in table if question == LABEL or name != "place"]
            places = [table.columns.get_loc(name) for name in columns]
            everything = Rows(rows.ids, rows.values[:, places], rows.truth, rows.units)
            chance = _chance(everything, _forest, drawn)
            found.append(_row(question, EVERYTHING, "all", everything, _forest, chance))
            advance(1)
            plain = [place for place in places if kinds[table.columns[place]] != "look"]
            if 1 < len(plain) < len(places):
                files = Rows(rows.ids, rows.values[:, plain], rows.truth, rows.units)
                found.append(_row(question, FILES, "all", files, _forest, chance))
            for name in columns:
                one = Rows(rows.ids, rows.values[:, [table.columns.get_loc(name)]], rows.truth, rows.units)
                found.append(_row(question, name, kinds[name], one, _tree, chance))
                advance(1)
    return pd.DataFrame(found, columns=COLUMNS)


def question(target: Target) -> np.ndarray:
    """What is to be told of a row (N,): its class, the bin of its values, or its set of labels, rare sets as one."""
    if target.truth.ndim == 1:
        return np.array(target.written)
    stratum = target.stratum
    if target.strata.ndim == 1:
        return stratum
    names, inverse, count = np.unique(stratum, return_inverse=True, return_counts=True)
    return np.where(count[inverse] < RARE, len(names), stratum)


def of_features(
    train_features: np.ndarray,
    test_features: np.ndarray,
    train_ids: Sequence[str],
    test_ids: Sequence[str],
    groups: Sequence[object] | None = None,
) -> pd.DataFrame:
    """Adversarial validation: can test images be told from training images by their frozen features?

    Where whole groups were set apart for the test set, its images resemble each other for that reason alone. So chance
    is what comes of pretending that some of the training groups were test images.

    Args:
        train_features, test_features: (N, D) and (M, D).

    Returns:
        One row, as `of_metadata` has them.
    """
    ids = np.array([*train_ids, *test_ids], dtype=str)
    trains = np.arange(len(ids)) < len(train_ids)
    units = _units(ids, trains, groups)
    chosen = Rows(ids, np.arange(len(ids))[:, None], (~trains).astype(int), units).some()
    values = reduced(Stack([train_features, test_features]), chosen.values[:, 0])
    rows = Rows(chosen.ids, values, chosen.truth, chosen.units)
    chance = _chance(rows, _linear, _pretended)
    return pd.DataFrame([_row(TEST, FEATURES, "all", rows, _linear, chance)], columns=COLUMNS)


def _fields(facts: pd.DataFrame) -> pd.DataFrame:
    """The fields as numbers, those left out that are the same everywhere."""
    table = pd.DataFrame(index=facts.index)
    table["place"] = facts.groupby("part").cumcount()
    table["id number"] = _numbers(facts["id"].astype(str).str.extract(r"([0-9]+)\D*$")[0])
    table["id length"] = facts["id"].astype(str).str.len()
    for name in [*FIELDS["file"], *FIELDS["look"]]:
        if name in facts:
            table[name] = pd.factorize(facts[name])[0] if name in TEXT else pd.to_numeric(facts[name], errors="coerce")
    if {"width", "height"} <= set(facts):
        table["aspect"] = facts["width"] / facts["height"].where(facts["height"] > 0)
    table = table.astype(float)
    return table[[name for name in table if table[name].nunique() > 1]].reset_index(drop=True)


def _numbers(digits: pd.Series) -> pd.Series:
    """Numbers (N,), NaN where there are none; their ranks where some are too large to be told apart as floats."""
    stripped = digits.str.lstrip("0")
    longest = int(stripped.str.len().max()) if digits.notna().any() else 0
    if longest <= EXACT:
        return pd.to_numeric(digits)
    return stripped.str.zfill(longest).rank(method="dense")


def _units(ids: np.ndarray, trains: np.ndarray, groups: Sequence[object] | None) -> np.ndarray:
    """The group of each training row, and each test row by itself."""
    units = np.array(
        [f"{'train' if train else 'test'} {name}" for name, train in zip(ids, trains, strict=True)], object
    )
    if groups is not None:
        units[trains] = [f"group {group}" for group in groups]
    return pd.factorize(units)[0]


def _forest() -> ClassifierMixin:
    return ExtraTreesClassifier(TREES, min_samples_leaf=5, class_weight="balanced", random_state=0)


def _tree() -> ClassifierMixin:
    return DecisionTreeClassifier(min_samples_leaf=0.02, class_weight="balanced", random_state=0)


def _linear() -> ClassifierMixin:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced"))


def _guesses(rows: Rows, make: Callable[[], ClassifierMixin]) -> np.ndarray:
    """Probabilities (N, K) of each row by a model that has not seen its unit."""
    guesses = np.full((len(rows.truth), rows.truth.max() + 1), 1 / (rows.truth.max() + 1))
    values = np.where(np.isfinite(rows.values), rows.values, -1)
    smallest = np.bincount(rows.truth)[np.unique(rows.truth)].min()
    units = len(np.unique(rows.units))
    if smallest < FOLDS or units < FOLDS:
        return guesses
    for seen, unseen in _splits(*(of.astype(np.int64).tobytes() for of in (rows.truth, rows.units))):
        model = make().fit(values[seen], rows.truth[seen])
        guesses[np.ix_(unseen, model.classes_)] = model.predict_proba(values[unseen])
    return guesses


@lru_cache(maxsize=1)  # one field after the other is asked the same of the same rows
def _splits(truth: bytes, units: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and rows to guess, by whole units; of integers (N,) as bytes."""
    truth, units = np.frombuffer(truth, np.int64), np.frombuffer(units, np.int64)
    alone = len(np.unique(units)) == len(units)
    splitter = (StratifiedKFold if alone else StratifiedGroupKFold)(FOLDS, shuffle=True, random_state=0)
    return list(splitter.split(truth, truth, None if alone else units))


def _shuffled(rows: Rows, number: int) -> Rows:
    """The labels moved in blocks as long as the groups are: rows of a group mostly share theirs."""
    rng = np.random.default_rng(number)
    order = np.argsort(rows.units, kind="stable")
    place = rng.permutation(rows.units.max() + 1)[rows.units]
    truth = np.empty_like(rows.truth)
    truth[order] = rows.truth[np.argsort(place, kind="stable")]
    return Rows(rows.ids, rows.values, truth, rows.units)


def _pretended(rows: Rows, number: int) -> Rows:
    """Training rows, of which whole units are called test rows, as many as in truth; these lose their units."""
    trains = np.flatnonzero(rows.truth == 0)
    units = np.unique(rows.units[trains])
    tests = np.random.default_rng(number).permutation(units)[: max(1, round(rows.truth.mean() * len(units)))]
    truth = np.isin(rows.units[trains], tests).astype(int)
    apart = np.where(truth == 1, rows.units.max() + 1 + np.arange(len(trains)), rows.units[trains])
    return Rows(rows.ids[trains], rows.values[trains], truth, pd.factorize(apart)[0])


def _chance(rows: Rows, make: Callable[[], ClassifierMixin], drawn: Callable[[Rows, int], Rows]) -> float:
    scores = []
    for number in range(REPEATS):
        other = drawn(rows, number)
        scores.append(AUC(other.truth, _guesses(other, make)))
    return float(np.mean(scores) + 2 * np.std(scores, ddof=1))


def _row(
    question: str, by: str, kind: str, rows: Rows, make: Callable[[], ClassifierMixin], chance: float
) -> dict[str, object]:
    guesses = _guesses(rows, make)
    auc = AUC(rows.truth, guesses)
    low, high = bootstrap_interval(AUC, rows.truth, guesses, rows.units, repeats=200)
    own = guesses[np.arange(len(rows.truth)), rows.truth]
    telling = rows.ids[np.argsort(-own, kind="stable")[:SHOWN]]
    found = low > max(chance, 0.5)
    numbers = {"auc": round(auc, 4), "low": round(low, 4), "high": round(high, 4), "chance": round(chance, 4)}
    return {"question": question, "by": by, "kind": kind, **numbers, "found": found, "ids": " ".join(telling)}
