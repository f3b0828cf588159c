"""What frozen features say about a competition's data: how much there is, how unlike ImageNet, which nets, which views.

Everything here is a closed-form head on cached features, judged out-of-fold; nothing is trained.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from foldcraft import backbones, calibration, probe, shift, startingpoint
from foldcraft.audience import Audience
from foldcraft.backbones import Blueprint
from foldcraft.config import Config, ProbeConfig
from foldcraft.featurestore import FrozenNet, Wanted, gather
from foldcraft.finetune import is_transformer
from foldcraft.fingerprint import seed_from
from foldcraft.heads import Scaling
from foldcraft.images import ImageStore
from foldcraft.intervals import bootstrap_interval
from foldcraft.loader import PlainImages
from foldcraft.metrics import paired_difference
from foldcraft.predictions import log_mean
from foldcraft.probe import Probe, Rows
from foldcraft.rundir import features_folder
from foldcraft.workspace import Workspace

VIEWS = ("hflip", "vflip", "rot90", "rot180", "scale0.8", "scale1.25")
SHARES = (0.25, 0.5, 1.0)
REPEATS = 3  # draws of a share of the groups
TRIES = 30  # at a draw that leaves every fold something to learn from
NEIGHBOURS = 10
FEWEST = 3  # probes in a blend
MOST_FOR_STATISTICS = 512  # images that BatchNorm's statistics are measured on


@dataclass(frozen=True)
class Gap:
    """A difference of two OOF scores on the same rows, and its standard error; positive is better."""

    value: float
    error: float

    @property
    def is_real(self) -> bool:
        """Is it more than two standard errors above nought?"""
        return self.value > 2 * self.error

    @property
    def is_small(self) -> bool:
        """Can it hardly be more than one hundredth?"""
        return self.value + 2 * self.error < 0.01


@dataclass(frozen=True)
class NetScore:
    """How well one backbone's frozen features do, all scores OOF.

    Attributes:
        score, low, high: of the probe on all stages, with its 95 % interval.
        last: of the probe on what the classifier sees.
        neighbours: of a k-NN vote on all stages.
        gap: all stages over the last.
        transformer: does it attend?
        stages: score of a probe on each stage alone.
        batchnorm: distance of the images' statistics to the kept ones, in nats; None without BatchNorm.
    """

    name: str
    score: float
    low: float
    high: float
    last: float
    neighbours: float
    gap: Gap
    transformer: bool
    stages: dict[str, float]
    batchnorm: float | None
    log_probs: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class ViewEffect:
    """What a view of the images does to the probe of the best backbone.

    Attributes:
        plain: change of the score on plain images when the view is learned from as well.
        seen: score on images in that view, by a probe that has learned from it.
        keeps_label: nothing is lost on plain images, and images in the view are recognised as well as plain ones.
    """

    view: str
    plain: Gap
    seen: float
    keeps_label: bool


@dataclass(frozen=True)
class Diagnosis:
    """All measurements.

    Attributes:
        nets: best first.
        pool: names of the backbones whose probes are worth blending, in the order in which they were taken.
        pool_scores: of the blend after each of them.
        curve: for each share of the groups, mean and standard deviation of the best backbone's score over draws; shares
            that are too few groups for folds are left out.
        more_data: what the second half of the groups adds to it.
    """

    metric: str
    rows: int
    groups: int
    images_per_class: dict[str, int]
    groups_per_class: dict[str, int]
    nets: list[NetScore]
    pool: list[str]
    pool_scores: list[float]
    curve: dict[float, tuple[float, float]]
    more_data: Gap
    views: list[ViewEffect]

    @property
    def best(self) -> NetScore:
        """The backbone with the best probe."""
        return self.nets[0]


def measure(works: Sequence[Workspace], audience: Audience) -> Diagnosis:
    """Diagnose one competition by several backbones.

    Args:
        works: the same competition, with a config for each backbone.
    """
    nets = [_open(work) for work in works]
    for work, (_, blueprint) in zip(works, nets, strict=True):
        audience.note(backbones.describe_weights(work.config.backbone, blueprint))
    specs = [work.image_spec(blueprint) for work, (_, blueprint) in zip(works, nets, strict=True)]
    stores = [train for train, _ in works[0].open_images(specs, audience)]
    table = _Table(works[0], [net for net, _ in nets], stores, audience)
    scores = [table.net_score(k) for k in range(len(nets))]
    data = works[0].competition
    order = sorted(range(len(nets)), key=lambda k: scores[k].score, reverse=data.metric.greater_is_better)
    ranked = [scores[k] for k in order]
    pool, pool_scores = _pool(table, ranked)
    audience.note("learning curve")
    curve, more_data = table.curve(order[0], ranked[0].log_probs)
    return Diagnosis(
        metric=data.metric.name,
        rows=len(data.targets),
        groups=len(set(data.units.tolist())),
        images_per_class=_per_class(data.targets, np.arange(len(data.targets)), data.classes.names),
        groups_per_class=_per_class(data.targets, data.units, data.classes.names),
        nets=ranked,
        pool=pool,
        pool_scores=pool_scores,
        curve=curve,
        more_data=more_data,
        views=table.views(order[0], ranked[0].log_probs),
    )


def _open(work: Workspace) -> tuple[FrozenNet, Blueprint]:
    model, blueprint = startingpoint.fresh_net(work.config, len(work.competition.classes))
    return FrozenNet.of(model, blueprint, work.config), blueprint


def _per_class(targets: np.ndarray, units: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    return {name: len(set(units[targets == k].tolist())) for k, name in enumerate(names)}


class _Table:
    """Features of all backbones with the labels they belong to."""

    def __init__(
        self, work: Workspace, nets: Sequence[FrozenNet], stores: Sequence[ImageStore], audience: Audience
    ) -> None:
        self.work, self.nets, self.stores, self.audience = work, nets, stores, audience
        self.truth, self.fold = work.competition.targets, work.folds.fold
        self.units, self.metric = work.competition.units, work.competition.metric
        wanted = [Wanted(net, "train", store, "identity") for net, store in zip(nets, stores, strict=True)]
        self.plain = gather(wanted, features_folder(work.config), audience)

    def solve(
        self, k: int, learned: Sequence[np.ndarray] = (), usable: np.ndarray | None = None, **settings: object
    ) -> Probe:
        """A solved probe on the features of one backbone."""
        features = self.plain[k]
        classes = len(self.work.competition.classes)
        rows = Rows(self.nets[k].stages, [features, *learned], features, self.truth, self.fold, classes, usable)
        return probe.solve(rows, ProbeConfig(**settings))

    def score(self, log_probs: np.ndarray) -> float:
        return self.metric(self.truth, np.exp(log_probs))

    def better(self, a: np.ndarray, b: np.ndarray) -> Gap:
        return Gap(*paired_difference(self.metric, self.truth, np.exp(a), np.exp(b), self.units))

    def net_score(self, k: int) -> NetScore:
        net = self.nets[k]
        with self.audience.progress(f"probes on {net.name}", 2 + len(net.stages)) as advance:
            every = self.solve(k).log_probs
            advance(1)
            last = self.solve(k, stages="last").log_probs
            advance(1)
            stages = {}
            for stage in net.stages:
                stages[stage.name] = self.score(self.solve(k, stages=[stage.name]).log_probs)
                advance(1)
        low, high = bootstrap_interval(self.metric, self.truth, np.exp(every), self.units, repeats=200)
        return NetScore(
            name=net.name,
            score=self.score(every),
            low=low,
            high=high,
            last=self.score(last),
            neighbours=self.score(neighbour_log_probs(self.plain[k], net, self.truth, self.fold)),
            gap=self.better(every, last),
            transformer=is_transformer(net.features.net),
            stages=stages,
            batchnorm=shift.batchnorm_distance(net.features.net, self._some_images(k)),
            log_probs=every,
        )

    def _some_images(self, k: int) -> Iterator:
        net, store = self.nets[k], self.stores[k]
        images = PlainImages(store, net.config.images)
        count = min(MOST_FOR_STATISTICS, len(store))
        rows = np.sort(np.random.default_rng(0).choice(len(store), count, replace=False))
        for some in np.array_split(rows, max(1, count // 64)):
            yield net.preparation(images.__getitems__(some))

    def curve(self, k: int, full: np.ndarray) -> tuple[dict[float, tuple[float, float]], Gap]:
        scores: dict[float, list[float]] = {}
        halves = []
        for share in SHARES[:-1]:
            for kept in draws(self.units, self.truth, self.fold, share):
                log_probs = self.solve(k, usable=kept).log_probs
                scores.setdefault(share, []).append(self.score(log_probs))
                halves += [log_probs] if share == 0.5 else []
        scores[1.0] = [self.score(full)]
        means = {share: (float(np.mean(found)), float(np.std(found))) for share, found in scores.items()}
        return means, self._mean_gap(full, halves)

    def _mean_gap(self, full: np.ndarray, others: Sequence[np.ndarray]) -> Gap:
        """What one has over the mean of several; wholly uncertain where there are fewer than two."""
        if len(others) < 2:
            return Gap(0.0, math.inf)
        gaps = [self.better(full, other) for other in others]
        spread = float(np.std([gap.value for gap in gaps], ddof=1))
        error = float(np.hypot(np.mean([gap.error for gap in gaps]), spread / len(gaps) ** 0.5))
        return Gap(float(np.mean([gap.value for gap in gaps])), error)

    def views(self, k: int, before: np.ndarray) -> list[ViewEffect]:
        net, store = self.nets[k], self.stores[k]
        wanted = [Wanted(net, "train", store, view) for view in VIEWS]
        seen = gather(wanted, features_folder(self.work.config), self.audience)
        effects = []
        for view, features in zip(VIEWS, seen, strict=True):
            solved = self.solve(k, learned=[features])
            judged = each_fold(solved, features, self.fold)
            plain, looked_at = self.better(solved.log_probs, before), self.better(judged, solved.log_probs)
            keeps = plain.value >= -max(0.005, 2 * plain.error) and looked_at.value >= -max(0.02, 2 * looked_at.error)
            effects.append(ViewEffect(view, plain, self.score(judged), keeps))
        return effects


def each_fold(solved: Probe, features: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Log-probabilities (N, K) of every row by the head of its own fold."""
    parts = {k: solved.predict(k, [features[fold == k]])[0] for k in range(len(solved.folds))}
    log_probs = np.empty((len(fold), parts[0].shape[1]), np.float32)
    for k, part in parts.items():
        log_probs[fold == k] = part
    return log_probs


def draws(units: np.ndarray, targets: np.ndarray, fold: np.ndarray, share: float) -> Iterator[np.ndarray]:
    """Masks (N,) of a share of the groups, three where so many are found that leave every fold rows to learn from."""
    tried = (some_groups(units, targets, share, seed) for seed in range(TRIES))
    usable = (kept for kept in tried if all(kept[fold != k].any() for k in np.unique(fold)))
    return itertools.islice(usable, REPEATS)


def some_groups(units: np.ndarray, targets: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A mask (N,) of the rows of a share of the groups; the same share of each class's groups, one at the least."""
    chosen: set[str] = set()
    for label in np.unique(targets):
        there = np.unique(units[targets == label])
        drawn = sorted(there.tolist(), key=lambda unit: seed_from("share", seed, str(unit)))
        chosen |= set(drawn[: max(1, round(share * len(drawn)))])
    return np.isin(units, list(chosen))


def neighbour_log_probs(features: np.ndarray, net: FrozenNet, targets: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Log of the smoothed share of each class among the ten nearest rows of the other folds, by cosine (N, K)."""
    raw = torch.from_numpy(features.astype(np.float32))
    scaled = Scaling.of(raw, [stage.width for stage in net.stages], [1.0] * len(net.stages))(raw)
    scaled = torch.nn.functional.normalize(scaled, dim=1)
    classes = int(targets.max()) + 1
    votes = np.zeros((len(targets), classes))
    for k in range(fold.max() + 1):
        valid, train = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        near = (scaled[valid] @ scaled[train].T).topk(min(NEIGHBOURS, len(train)), dim=1).indices.numpy()
        for column in range(near.shape[1]):
            votes[valid, targets[train[near[:, column]]]] += 1 - column * 1e-3  # the nearer wins a draw
    return np.log((votes + 0.1) / (votes + 0.1).sum(1, keepdims=True))


def _pool(table: _Table, ranked: Sequence[NetScore]) -> tuple[list[str], list[float]]:
    """Backbones taken one by one, each time the one whose probe lowers the blend's log-loss most, while one does.

    Three at the least: the best of several by its OOF score is partly the luckiest, and a mean is not.
    """
    calibrated = {net.name: calibration.calibrated(net.log_probs, table.truth) for net in ranked}
    chosen: list[str] = []
    scores: list[float] = []
    best = np.inf
    while len(chosen) < len(calibrated):
        left = [name for name in calibrated if name not in chosen]
        blends = {name: log_mean(np.stack([calibrated[one] for one in [*chosen, name]])) for name in left}
        losses = {name: calibration.log_loss(blend, table.truth) for name, blend in blends.items()}
        name = min(losses, key=lambda one: losses[one])
        if losses[name] >= best and len(chosen) >= FEWEST:
            break
        best = min(best, losses[name])
        chosen.append(name)
        scores.append(table.score(blends[name]))
    return chosen, scores


def config_for(config: Config, name: str) -> Config:
    """The config with another backbone, as its weights come."""
    backbone = type(config.backbone)(name=name)
    return config.model_copy(update={"backbone": backbone})
