"""Closed-form heads of all folds on frozen features; the strength of each fold's is chosen on the other folds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from foldcraft.common.config import ProbeConfig
from foldcraft.common.errors import FoldcraftError, suggest
from foldcraft.metrics.spaces import ClassSpace, Link, Space
from foldcraft.models import kernel_ridge, linear_heads
from foldcraft.models.kernel_ridge import Fit, Products
from foldcraft.models.linear_heads import Heads, Scaling, shares
from foldcraft.models.stage_features import Stage, choose_stages, columns_of
from foldcraft.predictions import joined_probe
from foldcraft.predictions.joined_probe import SHARES, Beside

Features = np.ndarray | Sequence[np.ndarray]  # (N, D), or several of these side by side


@dataclass(frozen=True)
class Rows:
    """What a probe learns from and is judged on.

    Attributes:
        stages: of the features' columns.
        learned: features (N, D) of the training images, one a view or augmented copy.
        plain: features (N, D) of the same images as they are.
        targets: the truth (N,) or (N, ·), as `space` has it.
        fold: of each row (N,).
        space: the form of what is predicted.
        usable: rows that may be learned from (N,), a mask; left out: all. Every row is judged.
        weights: how much each row counts (N,); left out: all alike.
        of_views: `targets` of each view that is learned from, where some show another; left out: all the same.
        beside: of each fold, metadata of all rows encoded as its head sees them float32 (N, d); left out: none.
        shares: of a row's squared length that metadata may have; the best on rows not seen is used.
    """

    stages: tuple[Stage, ...]
    learned: Sequence[Features]
    plain: Features
    targets: np.ndarray
    fold: np.ndarray
    space: Space
    usable: np.ndarray | None = None
    weights: np.ndarray | None = None
    of_views: Sequence[np.ndarray] | None = None
    beside: Sequence[np.ndarray] | None = None
    shares: Sequence[float] = SHARES

    @property
    def learned_truth(self) -> np.ndarray:
        """The truth of all that is learned from (V * N,) or (V * N, ·), a view after the other."""
        return np.concatenate(self.of_views or [self.targets] * len(self.learned))

    def learns_from(self, fold: int) -> np.ndarray:
        """The rows that a fold's head may learn from, a mask."""
        return (self.fold != fold) if self.usable is None else (self.fold != fold) & self.usable

    def beside_of(self, fold: int, learned: np.ndarray) -> Beside | None:
        """Metadata as a fold's head sees them, which learns from some rows (n,)."""
        return None if self.beside is None else Beside.of(self.beside[fold], learned, self.shares)


MOST_ROWS = 6000  # that "auto" learns from with every block's features
MOST_COPIES = 2  # augmented ones of an image that "auto" adds


@dataclass(frozen=True)
class FoldHead:
    """The head of one fold.

    Attributes:
        head: for the columns of the chosen stages, and those of metadata after them.
        strength: of its regularisation.
        share: of a row that metadata are; 0: they are not used.
    """

    head: Heads
    strength: float
    share: float = 0.0


@dataclass(frozen=True)
class Probe:
    """A linear probe.

    Attributes:
        stages: names of the stages it sees.
        columns: of the features.
        folds: the head of each fold.
        predicted: predictions float32 (N, W) of every plain row by the head of its own fold, which never saw it.
    """

    stages: list[str]
    columns: np.ndarray
    folds: list[FoldHead]
    predicted: np.ndarray

    def outputs(self, fold: int, features: Sequence[Features], beside: np.ndarray | None = None) -> torch.Tensor:
        """What one fold's head puts out (V, N, W), of features (N, D) a view, and metadata (N, d)."""
        outputs = torch.stack([self._logits(fold, view) for view in features])
        if beside is None:
            return outputs
        return outputs + torch.from_numpy(beside) @ self.folds[fold].head.weight[0, :, len(self.columns) :].T

    def _logits(self, fold: int, features: Features) -> torch.Tensor:
        head, first = self.folds[fold].head, 0
        logits = head.bias[0]
        for part in _parts(features, self.columns):
            columns = part.of(features)
            logits = logits + columns @ head.weight[0, :, first : first + columns.shape[1]].T
            first += columns.shape[1]
        return logits


def solve(
    rows: Rows,
    config: ProbeConfig,
    imbalance: str = "none",
    smoothing: float | None = None,
    prepared: "Prepared | None" = None,
) -> Probe:
    """Solve all folds.

    Augmented copies and views of an image are rows of their own in training, in the fold of their image; a fold's rows
    are predicted by the head that saw none of them, and the strength of that head is chosen by the log-loss of the
    other folds' plain rows, each predicted by its own fold's head. Those heads have seen the fold's rows, so a label
    has that much say in how strong its own head is and how sure, never in which way it points.

    Args:
        smoothing: label smoothing of the loss that the size of the logits is fitted to; left out: very little, as
            `calibration.fit_temperature` has it.
        prepared: what `prepare` made of the same features; other `usable` rows, folds and targets may go with it.

    Raises:
        FoldcraftError: no such stage; a way of treating rare classes, or a solver, that has no closed form here.
    """
    _check(rows.space, config, imbalance)
    prepared = prepared or prepare(rows, config)
    every = prepared.solve(rows, config, imbalance)
    links, predicted = [], np.empty((len(rows.targets), rows.space.width), np.float32)
    for fold, scores in enumerate(every.scores):
        others = [other for other in range(len(every.scores)) if other != fold]
        truth = np.concatenate([rows.targets[rows.fold == other] for other in others])
        # Scores are scaled before their loss is taken: what a strength does to their size says nothing of their order.
        link = rows.space.fit_link(np.concatenate([every.scores[o] for o in others], axis=1), truth, smoothing)
        if imbalance == "logit_adjusted":
            link = replace(link, shift=link.shift - _log_prior(rows, fold))
        outputs = scores[link.strength, :, np.arange(rows.space.width)].T * link.factor + link.shift
        predicted[rows.fold == fold] = rows.space.of_outputs(torch.from_numpy(np.ascontiguousarray(outputs))).numpy()
        links.append(link)
    solved = every.heads([link.strength for link in links])
    shares = (0.0,) if rows.beside is None else rows.shares
    made = [_fold_head(head, link, config.strengths, shares) for head, link in zip(solved, links, strict=True)]
    return Probe(prepared.stages, prepared.columns, made, predicted)


def _check(space: Space, config: ProbeConfig, imbalance: str) -> None:
    one_label = isinstance(space, ClassSpace) and not space.widths
    if imbalance == "focal":
        raise FoldcraftError(
            "focal loss has no closed-form head", "train.imbalance", "use weighted or logit_adjusted, or none"
        )
    if config.solver == "logistic" and not one_label:
        raise FoldcraftError("is for a single label without heads", "probe.solver: logistic", "use probe.solver=ridge")


def _fold_head(head: Heads, link: Link, strengths: Sequence[float], shares: Sequence[float]) -> FoldHead:
    """The head with its link taken in; its strength, and the share of metadata, is that of most columns."""
    factor, shift = torch.from_numpy(link.factor), torch.from_numpy(link.shift)
    linked = Heads(head.weight * factor[:, None], head.bias * factor + shift)
    share, strength = divmod(int(np.bincount(link.strength).argmax()), len(strengths))
    return FoldHead(linked, strengths[strength], shares[share])


def _log_prior(rows: Rows, fold: int) -> np.ndarray:
    """Log of the share of each class in what a fold learns from; the intercept is free, so it can be taken out last."""
    learned = rows.targets[rows.learns_from(fold)]
    return np.log(np.bincount(learned, minlength=rows.space.width).clip(1) / len(learned)).astype(np.float32)


@dataclass(frozen=True)
class _Part:
    """Columns of one of the arrays that lie side by side.

    Attributes:
        place: of the array.
        columns: of it.
        factor: how strongly each counts once it is standardised (D,).
    """

    place: int
    columns: np.ndarray
    factor: torch.Tensor

    def of(self, features: Features, rows: np.ndarray | None = None) -> torch.Tensor:
        """These columns of some rows, or of all, as float32."""
        array = _arrays(features)[self.place]
        array = array if rows is None else array[rows]
        return torch.from_numpy(
            np.asarray(array if len(self.columns) == array.shape[1] else array[:, self.columns], np.float32)
        )

    def learned(self, rows: Rows) -> torch.Tensor:
        """These columns of all that is learned from (V * N, D)."""
        return torch.cat([self.of(view) for view in rows.learned])


@dataclass(frozen=True)
class _Solved:
    """Heads of every strength for all folds.

    Attributes:
        scores: of each fold's own rows (L, n, W); with metadata of every share, one after the other (S * L, n, W).
        heads: from a choice of one of these for each column (W,) of each fold to that head of each.
    """

    scores: list[np.ndarray]
    heads: Callable[[Sequence[np.ndarray]], list[Heads]]


@dataclass(frozen=True)
class Prepared:
    """Features made ready for any targets, folds and usable rows.

    Standardised by all training images: labels play no part in it, so the folds share it.

    Attributes:
        products: of the rows; None where there are fewer features than rows.
    """

    stages: list[str]
    columns: np.ndarray
    parts: list[_Part]
    scalings: list[Scaling]
    products: Products | None

    def solve(self, rows: Rows, config: ProbeConfig, imbalance: str) -> _Solved:
        """Heads of every strength for all folds."""
        return self._dual(rows, config, imbalance) if self.products else self._primal(rows, config, imbalance)

    def products_of(self, rows: Rows) -> np.ndarray:
        """Of all that is learned from with each other (R, R)."""
        if self.products:
            return self.products.learned.numpy()
        made = Products.none(len(rows.targets) * len(rows.learned), 0)
        for part, scaling in zip(self.parts, self.scalings, strict=True):
            standard = scaling(part.learned(rows))
            made.add(standard, standard[:0])
        return made.learned.numpy()

    def _dual(self, rows: Rows, config: ProbeConfig, imbalance: str) -> _Solved:
        copies = len(rows.learned)
        targets = torch.from_numpy(rows.space.matrix(rows.learned_truth))
        fits, scores = [], []
        for fold in _folds(rows):
            learned = np.flatnonzero(rows.learns_from(fold))
            weights = _row_weights(rows, learned, imbalance)
            places = torch.from_numpy(np.concatenate([learned + k * len(rows.targets) for k in range(copies)]))
            whole = None if weights is None else torch.from_numpy(weights)
            solve = partial(_fit_known, rows=places, targets=targets, strengths=config.strengths, weights=whole)
            judged = self.products.judged[torch.from_numpy(rows.fold == fold)]
            if beside := rows.beside_of(fold, learned):
                which = (np.tile(np.arange(len(rows.targets)), copies), np.flatnonzero(rows.fold == fold))
                joined, own = joined_probe.dual(beside, *which, self.products.learned, judged, solve)
                fits.append(joined)
                scores.append(own)
            else:
                fits.append(solve(self.products.learned))
                scores.append(fits[-1].scores(judged).numpy())

        def heads_of(chosen: Sequence[np.ndarray]) -> list[Heads]:
            whole = zip(self.parts, self.scalings, strict=True)
            standard = ((scaling(part.learned(rows)), scaling) for part, scaling in whole)
            pairs = list(zip(fits, chosen, strict=True))
            if rows.beside is None:
                return kernel_ridge.heads([fit.only(best) for fit, best in pairs], standard)
            found = kernel_ridge.heads([fit.of_images(best) for fit, best in pairs], standard)
            return [fit.with_beside(head, best) for head, (fit, best) in zip(found, pairs, strict=True)]

        return _Solved(scores, heads_of)

    def _primal(self, rows: Rows, config: ProbeConfig, imbalance: str) -> _Solved:
        scaling = Scaling(*(torch.cat([getattr(s, name) for s in self.scalings]) for name in ("mean", "scale")))
        copies = len(rows.learned)
        matrix, count = rows.space.matrix(rows.learned_truth), len(rows.targets)
        heads, scores = [], []
        for fold in _folds(rows):
            learned, judged = np.flatnonzero(rows.learns_from(fold)), rows.fold == fold
            weights = _row_weights(rows, learned, imbalance)
            beside = rows.beside_of(fold, learned)
            parts = []
            places = np.concatenate([learned + k * count for k in range(copies)])
            for columns, known in _patterns(matrix[places]):
                there = [places[known][places[known] // count == k] % count for k in range(copies)]
                features = torch.cat([self._of(view, some) for view, some in zip(rows.learned, there, strict=True)])
                targets = torch.from_numpy(matrix[np.ix_(places[known], columns)])
                whole = None if weights is None else torch.from_numpy(weights[known])
                how = (targets, config.strengths, config.solver, scaling)
                if beside:
                    own = beside.rows[torch.from_numpy(np.concatenate(there))]
                    solved = joined_probe.primal(features, own, *how, beside, whole)
                else:
                    solved = linear_heads.fit(features, *how, whole)
                parts.append((columns, solved))
            heads.append(_side_by_side(parts))
            plain = self._of(rows.plain, judged)
            plain = torch.cat([plain, beside.rows[torch.from_numpy(judged)]], dim=1) if beside else plain
            scores.append(heads[-1].logits(plain).numpy())

        def heads_of(chosen: Sequence[np.ndarray]) -> list[Heads]:
            return [head.only(best) for head, best in zip(heads, chosen, strict=True)]

        return _Solved(scores, heads_of)

    def _of(self, features: Features, rows: np.ndarray) -> torch.Tensor:
        return torch.cat([part.of(features, rows) for part in self.parts], dim=1)


def prepare(rows: Rows, config: ProbeConfig) -> Prepared:
    """Choose columns, standardise them and, where rows are fewer than features, take the products of rows.

    Raises:
        FoldcraftError: no such stage; none that counts.
    """
    stages = choose_stages(rows.stages, wanted_stages(config, rows))
    factor = _factor(rows.stages, stages, config)
    columns = columns_of(rows.stages, stages).numpy()
    parts, scalings = list(_parts(rows.plain, columns, factor)), []
    learned, judged = len(rows.targets) * len(rows.learned), len(rows.targets)
    few = config.solver == "ridge" and learned < len(columns)
    products = Products.none(learned, judged) if few else None
    for part in parts:
        features = part.learned(rows)
        scalings.append(Scaling.by(features, part.factor))
        if products:
            standard = scalings[-1](features)
            is_first = rows.plain is rows.learned[0]
            products.add(standard, standard[:judged] if is_first else scalings[-1](part.of(rows.plain)))
    return Prepared(stages, columns, parts, scalings, products)


def copies(config: ProbeConfig, rows: int, views: int) -> int:
    """How many augmented copies of each of so many images are learned from, beside their views."""
    if config.augmented != "auto":
        return config.augmented
    return max(0, min(MOST_COPIES, MOST_ROWS // rows - views))


def wanted_stages(config: ProbeConfig, rows: Rows) -> str | Sequence[str]:
    """What `probe.stages` means for so many rows."""
    if config.stages != "auto":
        return config.stages
    return "all" if len(rows.targets) * len(rows.learned) <= MOST_ROWS else "coarse"


def _factor(known: Sequence[Stage], chosen: Sequence[str], config: ProbeConfig) -> torch.Tensor:
    """How strongly each chosen column counts: every stage alike, or as `probe.stage_weights` has it; 1 in all."""
    names = list(dict.fromkeys(name for stage in known for name in (stage.name, str(stage))))
    for name in config.stage_weights:
        if name not in names:
            raise FoldcraftError(f"no stage {name!r}", "probe.stage_weights", suggest(name, names))
    picked = [stage for stage in known if str(stage) in chosen]
    weights = [config.stage_weights.get(str(s), config.stage_weights.get(s.name, 1.0)) for s in picked]
    if not any(weights):
        raise FoldcraftError("no stage counts", "probe.stage_weights", "give at least one a weight above 0")
    return shares([stage.width for stage in picked], weights)


def _parts(features: Features, columns: np.ndarray, factor: torch.Tensor | None = None) -> Iterator[_Part]:
    factor = torch.ones(len(columns)) if factor is None else factor
    first = 0
    for place, array in enumerate(_arrays(features)):
        last = first + array.shape[1]
        inside = (columns >= first) & (columns < last)
        if inside.any():
            yield _Part(place, columns[inside] - first, factor[torch.from_numpy(inside)])
        first = last


def _arrays(features: Features) -> Sequence[np.ndarray]:
    return [features] if isinstance(features, np.ndarray) else features


def _folds(rows: Rows) -> range:
    return range(int(rows.fold.max()) + 1)


def _patterns(matrix: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Columns that are known in the same rows, and these rows, of a matrix (N, W): mostly all columns in all rows."""
    known = ~np.isnan(matrix)
    if known.all():
        return [(np.arange(matrix.shape[1]), np.arange(len(matrix)))]
    patterns, which = np.unique(known, axis=1, return_inverse=True)
    return [(np.flatnonzero(which == k), np.flatnonzero(patterns[:, k])) for k in range(patterns.shape[1])]


def _fit_known(
    products: torch.Tensor,
    rows: torch.Tensor,
    targets: torch.Tensor,
    strengths: Sequence[float],
    weights: torch.Tensor | None,
) -> Fit:
    """`kernel_ridge.fit` with every column learned from the rows in which it is known."""
    parts = []
    for columns, known in _patterns(targets[rows].numpy()):
        some = None if weights is None else weights[known]
        parts.append((columns, kernel_ridge.fit(products, rows[known], targets[:, columns], strengths, some)))
    return parts[0][1] if len(parts) == 1 else kernel_ridge.side_by_side(parts)


def _side_by_side(parts: Sequence[tuple[np.ndarray, Heads]]) -> Heads:
    """Heads of all columns from heads of some each."""
    if len(parts) == 1:
        return parts[0][1]
    order = np.argsort(np.concatenate([columns for columns, _ in parts]))
    weight = torch.cat([head.weight for _, head in parts], dim=1)[:, order]
    return Heads(weight, torch.cat([head.bias for _, head in parts], dim=1)[:, order])


def _row_weights(rows: Rows, learned: np.ndarray, imbalance: str) -> np.ndarray | None:
    """How much each row counts in each view, float32 (V * n,): its own weight, and every class the same."""
    copies = len(rows.learned)
    weights = None if rows.weights is None else np.tile(rows.weights[learned].astype(np.float32), copies)
    if imbalance not in ("weighted", "sampler") or rows.targets.ndim > 1:
        return weights
    places = np.concatenate([learned + k * len(rows.targets) for k in range(copies)])
    targets = rows.learned_truth[places]
    counts = np.bincount(targets, minlength=rows.space.width)
    balanced = 1 / counts.clip(1).astype(np.float32)[targets]
    return balanced if weights is None else weights * balanced
