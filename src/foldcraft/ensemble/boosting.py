"""Members of the blend that boost trees: on metadata, and on metadata with what the other members say.

They are fitted on out-of-fold predictions, so they are nested as all else that is: what one says of a fold was learned
from the others, and where a fold is judged, nothing that the blend is fitted on has seen that fold's labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from foldcraft.common.errors import listing
from foldcraft.data import metadata as metadata_columns
from foldcraft.data.metadata import Metadata
from foldcraft.ensemble import nested
from foldcraft.ensemble.methods import Method
from foldcraft.ensemble.nested import BlendMember, BlendSelection, Labels
from foldcraft.metrics.spaces import ClassSpace, LabelSpace, Space

ALONE, STACKED, VIEWS = "boosted", "boosted with members", ("identity",)
TREES, MOST_TREES = 80, 2400  # of a class; of all classes together
SETTINGS = {"learning_rate": 0.06, "max_leaf_nodes": 8, "min_samples_leaf": 10, "l2_regularization": 1.0}
FEWEST_FOLDS, MOST_COLUMNS = 3, 200

Predictor = Callable[[np.ndarray], np.ndarray]  # from what is known of rows (n, F) to predictions (n, W)


@dataclass(frozen=True)
class Boosted(BlendMember):
    """Predictions of each fold by what was learned from the others.

    Attributes:
        without: by fold, the same of all rows where nothing has seen the labels of that fold.
    """

    without: dict[int, np.ndarray] = field(default_factory=dict)

    def left_out(self, fold: int) -> BlendMember:
        """What may be fitted on, and judged, where that fold is judged."""
        return BlendMember(self.name, self.views, self.without[fold][None])


@dataclass(frozen=True)
class Booster:
    """Trees on metadata and on the members' predictions.

    Attributes:
        metadata: of the rows that are judged (N).
        predicted: what the members say of them (N, F); of trees on metadata alone nothing (N, 0).
        weights: how much each row counts in training (N,); None: all alike.
    """

    name: str
    metadata: Metadata
    predicted: np.ndarray
    truth: Labels
    weights: np.ndarray | None = None

    @classmethod
    def both(
        cls, metadata: Metadata, members: Sequence[BlendMember], truth: Labels, weights: np.ndarray | None = None
    ) -> tuple["Booster", "Booster"]:
        """On metadata alone, which is better where members know little; and with what the members say."""
        nothing = np.empty((len(metadata), 0))
        alone = cls(ALONE, metadata, nothing, truth, weights)
        return alone, replace(alone, name=STACKED, predicted=said_by(members, truth.space))

    def lack(self) -> str:
        """Why it cannot be fitted; "" where it can."""
        space, folds = self.truth.space, len(np.unique(self.truth.fold))
        if isinstance(space, ClassSpace) and not space.widths and self.truth.targets.ndim > 1:
            return "trees are not boosted for shares of classes"
        return "" if folds >= FEWEST_FOLDS else f"that takes {FEWEST_FOLDS} finished folds, and there are {folds}"

    @cached_property
    def member(self) -> Boosted:
        """Its out-of-fold predictions; each pair of folds is left out once."""
        fold, shape = self.truth.fold, (len(self.truth.fold), self.truth.space.width)
        names = np.unique(fold).tolist()
        alone, without = np.empty(shape), {name: np.empty(shape) for name in names}
        for name in names:
            alone[fold == name] = without[name][fold == name] = self._said_without([name], fold == name)
        for one, other in combinations(names, 2):
            held = np.isin(fold, [one, other])
            said = np.empty(shape)
            said[held] = self._said_without([one, other], held)
            without[one][fold == other], without[other][fold == one] = said[fold == other], said[fold == one]
        return Boosted(self.name, VIEWS, alone[None], without=without)

    def _said_without(self, folds: Sequence[int], asked: np.ndarray) -> np.ndarray:
        learned = np.flatnonzero(~np.isin(self.truth.fold, folds))
        return self.fitted(learned)(self.metadata.only(asked), self.predicted[asked])

    def of_tests(self, metadata: Metadata, members: Sequence[BlendMember]) -> BlendMember:
        """What it says of other rows, learned from all."""
        seen = said_by(members, self.truth.space) if self.name == STACKED else np.empty((len(metadata), 0))
        return BlendMember(self.name, VIEWS, self._of_all(metadata, seen)[None])

    @cached_property
    def _of_all(self) -> Predictor:
        return self.fitted(np.arange(len(self.truth.fold)))

    def fitted(self, rows: np.ndarray) -> Callable[[Metadata, np.ndarray], np.ndarray]:
        """From metadata and what the members say of some rows to predictions (n, W), learned from `rows`."""
        own, count = self.metadata.at(rows), len(self.metadata.numeric)

        def known(metadata: Metadata, predicted: np.ndarray) -> np.ndarray:
            return np.concatenate([metadata_columns.codes(metadata, own), predicted], axis=1)

        columns = known(own, self.predicted[rows])
        categorical = np.isin(np.arange(columns.shape[1]), np.arange(count, count + len(self.metadata.category)))
        weights = None if self.weights is None else self.weights[rows]
        predict = _fit(columns, self.truth.targets[rows], self.truth.space, categorical, weights)
        return lambda metadata, predicted: predict(known(metadata, predicted))


def said_by(members: Sequence[BlendMember], space: Space) -> np.ndarray:
    """What members say of rows, the mean over their views, in numbers (N, F); of very many columns the mean of all."""
    means = [space.pooled(member.predicted) for member in members]
    if sum(mean.shape[1] for mean in means) > MOST_COLUMNS:
        means = [space.pooled(np.stack(means))]
    return np.concatenate([space.natural(mean) for mean in means], axis=1)


def _fit(
    columns: np.ndarray, truth: np.ndarray, space: Space, categorical: np.ndarray, weights: np.ndarray | None
) -> Predictor:
    if isinstance(space, ClassSpace):
        heads = truth.T if space.widths else [truth]
        parts = [
            _classifier(columns, head, own.stop - own.start, categorical, weights)
            for head, own in zip(heads, space.slices, strict=True)
        ]
        return lambda asked: np.concatenate([np.log(part(asked)) for part in parts], axis=1)
    if isinstance(space, LabelSpace):
        labels = [np.where(np.isnan(label), -1, label).astype(int) for label in truth.T]
        parts = [_classifier(columns, label, 2, categorical, weights) for label in labels]
        return lambda asked: np.stack([np.log(p[:, 1]) - np.log(p[:, 0]) for p in (part(asked) for part in parts)], 1)
    parts = [_regressor(columns, values, categorical, weights) for values in space.matrix(truth).T]
    return lambda asked: np.stack([part(asked) for part in parts], axis=1) * space.scale + space.centre


def _classifier(
    columns: np.ndarray, truth: np.ndarray, classes: int, categorical: np.ndarray, weights: np.ndarray | None
) -> Predictor:
    """Probabilities (n, K), none of them 0, from class indices (N,), -1 where not known."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # seconds, which a mistake need not wait for

    rows = np.flatnonzero(truth >= 0)
    present = np.unique(truth[rows])
    spread = classes / (len(rows) + classes)
    model = None
    if len(present) > 1:
        trees = max(10, min(TREES, MOST_TREES // (1 if len(present) == 2 else len(present))))
        model = HistGradientBoostingClassifier(**SETTINGS, **_about(trees, categorical))
        model.fit(columns[rows], truth[rows], None if weights is None else weights[rows])

    def predict(asked: np.ndarray) -> np.ndarray:
        found = np.zeros((len(asked), classes))
        if len(present):
            found[:, present] = 1.0 if model is None else model.predict_proba(asked)
        return (1 - spread) * found + spread / classes

    return predict


def _regressor(
    columns: np.ndarray, values: np.ndarray, categorical: np.ndarray, weights: np.ndarray | None
) -> Predictor:
    from sklearn.ensemble import HistGradientBoostingRegressor  # as above

    rows = np.flatnonzero(~np.isnan(values))
    if not len(rows):
        return lambda asked: np.zeros(len(asked))
    model = HistGradientBoostingRegressor(**SETTINGS, **_about(TREES, categorical))
    model.fit(columns[rows], values[rows], None if weights is None else weights[rows])
    return model.predict


def _about(trees: int, categorical: np.ndarray) -> dict[str, object]:
    more = {"categorical_features": categorical} if categorical.any() else {"categorical_features": None}
    return {"max_iter": trees, "early_stopping": False, "random_state": 0, **more}


@dataclass(frozen=True)
class Judged:
    """What is used, and the boosted members, which come last, if they are among that."""

    selection: BlendSelection
    boosters: tuple[Booster, ...] = ()


def judge(
    members: Sequence[BlendMember],
    truth: Labels,
    methods: Sequence[Method] | None,
    boosters: tuple[Booster, ...],
) -> Judged:
    """The blend with boosted members where its nested answers are better than without; for each fold the others say.

    Args:
        boosters: none where there are no metadata.
    """
    plain = nested.judge(members, truth, methods)
    if not boosters:
        return Judged(plain)
    about = f"boosted trees on {listing(list(boosters[0].metadata.names), 4)}"
    if why := boosters[0].lack():
        return Judged(replace(plain, words=[*plain.words, f"{about} are not tried: {why}"]))
    more = nested.judge([*members, *(booster.member for booster in boosters)], truth, methods)
    value, error = nested.gain(more.chosen.nested, plain.chosen.nested, truth)
    is_used, answers = nested.better_of(more, plain, truth)
    said = f"{about} gain {value:+.4f} ± {error:.4f}, and are {'used' if is_used else 'not used'}"
    kept = more if is_used else plain
    chosen = replace(kept.chosen, nested=answers, score=nested.score_of(answers, truth))
    found = replace(kept, chosen=chosen, words=[*kept.words, said])
    return Judged(found, boosters if is_used else ())
