"""What frozen features say about a competition's data: how much there is, how unlike ImageNet, which nets, which views.

Everything here is a closed-form head on cached features, judged out-of-fold; nothing is trained.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config, ProbeConfig
from foldcraft.common.fingerprint import seed_from
from foldcraft.common.paths import features_folder
from foldcraft.data.plain_images import PlainImages
from foldcraft.data.targets.target import Target
from foldcraft.metrics.gain import Gain, gain_in_loss, gain_in_score
from foldcraft.metrics.intervals import bootstrap_interval
from foldcraft.models import backbones, batchnorm_shift
from foldcraft.models.finetune import is_transformer
from foldcraft.models.inputs import Inputs
from foldcraft.models.stage_features import reduced
from foldcraft.predictions import answers, linear_probe
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.feature_cache import FeatureRequest, load_or_compute
from foldcraft.predictions.linear_probe import Prepared, Probe, Rows
from foldcraft.training import initialization
from foldcraft.training.initialization import SourceNet

VIEWS = ("hflip", "vflip", "scale1.25")
TURNS = ("rot90",)  # tried where both flips keep the label; a half turn is the two of them
SHARES = (0.25, 0.5, 1.0)
REPEATS = 3  # draws of a share of the groups
TRIES = 30  # at a draw that leaves every fold something to learn from
NEIGHBOURS = 10
FEWEST = 3  # probes in a blend
STAGE_STRENGTHS = [1e-4, 1e-3, 1e-2]  # enough to see which stage is good
MOST_FOR_VIEWS = 1500  # rows that views are judged on; whole groups
MOST_FOR_STATISTICS = 64  # images that BatchNorm's statistics are measured on


@dataclass(frozen=True)
class NetScore:
    """How well one backbone's frozen features do, all scores OOF.

    Attributes:
        score, low, high: of the probe on all blocks, with its 95 % interval.
        last: of the probe on what the classifier sees.
        neighbours: of a k-NN vote on all blocks.
        gap: all blocks over the last.
        transformer: does it attend?
        stages: score of a probe on each stage alone, of the best net only.
        batchnorm: distance of the images' statistics to the kept ones, in nats; None without BatchNorm.
    """

    name: str
    score: float
    low: float
    high: float
    last: float
    neighbours: float
    gap: Gain
    transformer: bool
    stages: dict[str, float]
    batchnorm: float | None
    predicted: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class ViewEffect:
    """What a view of the images does to the probe of the best backbone.

    Attributes:
        plain: change of the score on plain images when the view is learned from as well.
        seen: score on images in that view, by a probe that has learned from it.
        keeps_label: nothing is lost on plain images, and images in the view are recognised as well as plain ones.
    """

    view: str
    plain: Gain
    seen: float
    keeps_label: bool


@dataclass(frozen=True)
class Diagnosis:
    """All measurements.

    Attributes:
        nets: best first.
        pool: names of the backbones whose probes are worth blending, in the order in which they were taken.
        pool_scores: of the blend after each of them.
        sizes: sides at which the pool's nets should see an image, in pixels.
        mirror: what averaging features with those of the mirror image takes off the loss of the best net; None
            where a mirrored image is another.
        curve: for each share of the groups, mean and standard deviation of the best backbone's score over draws; shares
            that are too few groups for folds are left out.
        more_data: what the second half of the groups adds to it.
        greater_is_better: of the metric.
        unit: that differences of the score are measured in (`Competition.score_unit`).
        loss_name: what the proper loss is called.
        part: what `images_per_class` counts: a class, label or column.
        counted: how many images there are, or answers of how many images, which scores are of.
    """

    metric: str
    rows: int
    groups: int
    images_per_class: dict[str, int]
    groups_per_class: dict[str, int]
    nets: list[NetScore]
    pool: list[str]
    pool_scores: list[float]
    sizes: list[int]
    mirror: Gain | None
    curve: dict[float, tuple[float, float]]
    more_data: Gain
    views: list[ViewEffect]
    greater_is_better: bool = True
    unit: float = 1.0
    loss_name: str = "log-loss"
    part: str = "class"
    counted: str = ""

    @property
    def best(self) -> NetScore:
        """The backbone with the best probe."""
        return self.nets[0]


def measure(experiments: Sequence[Experiment], callback: Callback) -> Diagnosis:
    """Diagnose one competition by several backbones.

    Args:
        experiments: the same competition, with a config for each backbone.
    """
    table = _Table(experiments, callback)
    for source in table.sources:
        callback.say(backbones.describe_weights(source.config.backbone, source.blueprint))
    data = experiments[0].competition
    scores = [table.net_score(k) for k in range(len(experiments))]
    order = sorted(range(len(experiments)), key=lambda k: scores[k].score, reverse=data.metric.greater_is_better)
    ranked = [scores[k] for k in order]
    pool, pool_scores = _pool(table, ranked)
    best = replace(ranked[0], stages=table.stages(order[0]))
    callback.note("learning curve")
    curve, more_data = table.curve(order[0], best.predicted)
    views, mirror = table.views(order[0])
    return Diagnosis(
        metric=data.metric.name,
        rows=len(data.targets),
        counted=data.counted(thing="image"),
        groups=len(set(data.units.tolist())),
        images_per_class=_per_class(data.target, np.arange(len(data.targets))),
        groups_per_class=_per_class(data.target, data.units),
        nets=[best, *ranked[1:]],
        pool=pool,
        pool_scores=pool_scores,
        sizes=table.sizes,
        mirror=mirror,
        curve=curve,
        more_data=more_data,
        views=views,
        greater_is_better=data.metric.greater_is_better,
        unit=data.score_unit,
        loss_name=data.space.loss_name,
        part="class" if data.space.form == "classes" else data.target.part,
    )


def look_at_views(
    experiment: Experiment, callback: Callback, most: int = MOST_FOR_VIEWS
) -> tuple[list[ViewEffect], Gain | None]:
    """What views do to the probe of an experiment's net, and what averaging in the mirror image takes off its loss.

    Args:
        most: rows to judge by, about: whole groups.
    """
    return _Table([experiment], callback).views(0, most)


def config_for(config: Config, name: str) -> Config:
    """The config with a backbone of that name, as its weights come; as it is where that is its own."""
    return config if name == config.backbone.name else initialization.config_for(config, name)


def gather(experiment: Experiment, callback: Callback) -> None:
    """Compute what `measure` needs of a net in any case: its features of the plain images, which are kept on disk."""
    _Table([experiment], callback)


def _per_class(target: Target, units: np.ndarray) -> dict[str, int]:
    """How many units have a class or label, or a value that is known."""
    there = target.space.there(target.truth)
    return {name: len(set(units[own].tolist())) for name, own in zip(target.space.names, there.T, strict=True)}


def _source(experiment: Experiment) -> SourceNet:
    """The net of a config, as a linear probe takes its features."""
    mode = experiment.config.finetune.model_copy(update={"mode": "linear_probe"})
    config = experiment.config.model_copy(update={"finetune": mode})
    return SourceNet(*initialization.fresh_net(config, experiment.competition.target.outputs), config)


class _Table:
    """Features of all backbones, as the pool will see images at its smallest size, with their labels."""

    def __init__(self, experiments: Sequence[Experiment], callback: Callback) -> None:
        self.experiment, self.callback = experiments[0], callback
        self.data, self.fold = self.experiment.competition, self.experiment.folds.fold
        self.target, self.units, self.stratum = self.data.target, self.data.units, self.data.target.stratum
        self.sources = sources = [_source(experiment) for experiment in experiments]
        self.sizes = sources[0].config.probe_sizes
        self.nets = [source.frozen(min(self.sizes)) for source in sources]
        probes = [
            replace(experiment, config=source.config) for experiment, source in zip(experiments, sources, strict=True)
        ]
        specs = [experiment.image_spec(source.blueprint) for experiment, source in zip(probes, sources, strict=True)]
        self.stores = [train for train, _ in probes[0].open_images(specs, callback)]
        requests = [
            FeatureRequest(net, "train", store, "identity") for net, store in zip(self.nets, self.stores, strict=True)
        ]
        self.plain = load_or_compute(requests, features_folder(self.experiment.config), callback)

    def rows(self, k: int, usable: np.ndarray | None = None) -> Rows:
        """What a probe on the features of one backbone learns from."""
        features, target = self.plain[k], self.target
        learned = (target.learned, self.fold, target.learned_space)
        return Rows(self.nets[k].stages, [features], features, *learned, usable, self.data.weights)

    def solve(
        self, k: int, usable: np.ndarray | None = None, prepared: Prepared | None = None, **settings: object
    ) -> np.ndarray:
        """Out-of-fold predictions (N, W) of a probe on the features of one backbone."""
        solved = linear_probe.solve(self.rows(k, usable), ProbeConfig(**settings), prepared=prepared)
        return self.target.from_learned(solved.predicted)

    def score(self, predicted: np.ndarray, rows: np.ndarray | None = None) -> float:
        """In the metric, of predictions (N, W) of all rows or of some."""
        return answers.score(self.data, predicted, rows)

    def better(self, a: np.ndarray, b: np.ndarray, rows: np.ndarray | None = None) -> Gain:
        """How much better predictions (N, W) of all rows, or of some, score."""
        data, (judged, a) = self.data.answers, self._scored(a, rows)
        weights = None if data.score_weights is None else data.score_weights[judged]
        both = (a, self._scored(b, rows)[1], data.units[judged])
        return gain_in_score(data.metric, data.targets[judged], *both, row_weights=weights)

    def _scored(self, predicted: np.ndarray, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """What is judged, places of rows or answers (A,), and what the metric is given of it (A, W)."""
        found = answers.of_rows(self.data, predicted[None], np.arange(len(self.fold)) if rows is None else rows)
        return found.answers, self.data.space.scored(found.by_way[0][0])

    def net_score(self, k: int) -> NetScore:
        net, rows = self.nets[k], self.rows(k)
        with self.callback.progress(f"probes on {net.name}", 3) as advance:
            prepared = linear_probe.prepare(rows, ProbeConfig())
            every = self.solve(k, prepared=prepared)
            advance(1)
            last = self.solve(k, stages="last")
            advance(1)
            neighbours = neighbour_predictions(prepared.products_of(rows), self.target, self.fold)
            advance(1)
        data, (judged, said) = self.data.answers, self._scored(every)
        weights = None if data.score_weights is None else data.score_weights[judged]
        about = (data.metric, data.targets[judged], said, data.units[judged])
        low, high = bootstrap_interval(*about, repeats=200, row_weights=weights)
        return NetScore(
            name=net.name,
            score=self.score(every),
            low=low,
            high=high,
            last=self.score(last),
            neighbours=self.score(neighbours),
            gap=self.better(every, last),
            transformer=is_transformer(net.features.net),
            stages={},
            batchnorm=batchnorm_shift.batchnorm_distance(self.sources[k].model, self._some_images(k)),
            predicted=every,
        )

    def stages(self, k: int) -> dict[str, float]:
        """Score of a probe on each stage alone."""
        names = [stage.name for stage in self.nets[k].stages]
        with self.callback.progress(f"each stage of {self.nets[k].name}", len(names)) as advance:
            scores = {}
            for name in names:
                scores[name] = self.score(self.solve(k, stages=[name], strengths=STAGE_STRENGTHS))
                advance(1)
        return scores

    def _some_images(self, k: int) -> Iterator[Inputs]:
        net, store = self.nets[k], self.stores[k]
        images = PlainImages(store, net.config.images)
        count = min(MOST_FOR_STATISTICS, len(store))
        rows = np.sort(np.random.default_rng(0).choice(len(store), count, replace=False))
        for some in np.array_split(rows, max(1, count // 32)):
            yield Inputs(reduced(net.preparation(images.at(some)), net.size))

    def curve(self, k: int, full: np.ndarray) -> tuple[dict[float, tuple[float, float]], Gain]:
        scores: dict[float, list[float]] = {}
        halves = []
        prepared = linear_probe.prepare(self.rows(k), ProbeConfig())
        for share in SHARES[:-1]:
            for kept in draws(self.units, self.stratum, self.fold, share):
                predicted = self.solve(k, kept, prepared)
                scores.setdefault(share, []).append(self.score(predicted))
                halves += [predicted] if share == 0.5 else []
        scores[1.0] = [self.score(full)]
        means = {share: (float(np.mean(values)), float(np.std(values))) for share, values in scores.items()}
        return means, self._mean_gap(full, halves)

    def _mean_gap(self, full: np.ndarray, others: Sequence[np.ndarray]) -> Gain:
        """What one has over the mean of several; wholly uncertain where there are fewer than two."""
        if len(others) < 2:
            return Gain(0.0, math.inf)
        gaps = [self.better(full, other) for other in others]
        spread = float(np.std([gap.value for gap in gaps], ddof=1))
        error = float(np.hypot(np.mean([gap.error for gap in gaps]), spread / len(gaps) ** 0.5))
        return Gain(float(np.mean([gap.value for gap in gaps])), error)

    def views(self, k: int, most: int = MOST_FOR_VIEWS) -> tuple[list[ViewEffect], Gain | None]:
        """What views do to the probe of one backbone, and what averaging in the mirror image gains in loss."""
        kept = self._some_rows(most)
        plain = self.plain[k][kept]
        before = self.target.from_learned(self._seen_also(k, kept, [plain]).predicted)
        effects: dict[str, ViewEffect] = {}
        for view, features in self._looks(k, kept, VIEWS):
            effects[view] = self._effect(k, view, kept, features, before)
            if view == "hflip":
                both = self._with_mirror(k, kept, features)
                mirror = gain_in_loss(self.data.space, self.data.targets[kept], both, before, self.units[kept])
        if effects["hflip"].keeps_label and effects["vflip"].keeps_label:
            for view, features in self._looks(k, kept, TURNS):
                effects[view] = self._effect(k, view, kept, features, before)
        return list(effects.values()), mirror if effects["hflip"].keeps_label else None

    def _looks(self, k: int, kept: np.ndarray, views: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        only = None if kept.all() else np.flatnonzero(kept)
        requests = [FeatureRequest(self.nets[k], "train", self.stores[k], view, only) for view in views]
        return zip(
            views, load_or_compute(requests, features_folder(self.experiment.config), self.callback), strict=True
        )

    def _some_rows(self, most: int) -> np.ndarray:
        """A mask of all rows, or of whole groups that come to about so many."""
        share, every = most / len(self.fold), np.ones(len(self.fold), bool)
        return every if share >= 1 else next(draws(self.units, self.stratum, self.fold, share), every)

    def _with_mirror(self, k: int, kept: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        """Predictions (n, W) of images and their mirror images, by the mean of both; of its features where it may."""
        if self.experiment.swaps.of_view("hflip") is not None:  # then a mirror image is of another label
            return self.data.space.pooled(np.stack(self._seen_in(k, "hflip", kept, mirrored)))
        mean = np.mean([self.plain[k][kept], mirrored], axis=0, dtype=np.float32).astype(np.float16)
        return self.target.from_learned(self._seen_also(k, kept, [mean]).predicted)

    def _seen_in(self, k: int, view: str, kept: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions (n, W) of plain images and of those in a view, by a probe that learned from both."""
        solved = self._seen_also(k, kept, [self.plain[k][kept], features], ["identity", view])
        judged = each_fold(solved, features, self._folds_of(kept), self.target)
        return self.target.from_learned(solved.predicted), self.experiment.swaps.restored(view, judged)

    def _seen_also(
        self, k: int, kept: np.ndarray, learned: Sequence[np.ndarray], views: Sequence[str] = ("identity",)
    ) -> Probe:
        """A probe on some rows; plain ones come first in what is learned."""
        target, about = self.target.at(kept), self.experiment
        shown = [initialization.target_of_view(about, view).at(kept).learned for view in views]
        judged = (learned[0], target.learned, self._folds_of(kept), target.learned_space)
        of_views = shown if about.swaps.orders else None
        return linear_probe.solve(Rows(self.nets[k].stages, learned, *judged, of_views=of_views), ProbeConfig())

    def _folds_of(self, kept: np.ndarray) -> np.ndarray:
        return np.unique(self.fold[kept], return_inverse=True)[1]

    def _effect(self, k: int, view: str, kept: np.ndarray, features: np.ndarray, before: np.ndarray) -> ViewEffect:
        rows = np.flatnonzero(kept)
        on_plain, judged = self._seen_in(k, view, kept, features)
        plain, looked_at = self.better(on_plain, before, rows), self.better(judged, on_plain, rows)
        unit = self.data.score_unit
        keeps = plain.value >= -max(0.005 * unit, 2 * plain.error)
        keeps = keeps and looked_at.value >= -max(0.02 * unit, 2 * looked_at.error)
        return ViewEffect(view, plain, self.score(judged, rows), keeps)


def each_fold(solved: Probe, features: np.ndarray, fold: np.ndarray, target: Target) -> np.ndarray:
    """Predictions (N, W) of every row by the head of its own fold."""
    outputs = {k: solved.outputs(k, [features[fold == k]])[0] for k in range(len(solved.folds))}
    parts = {k: target.predictions(one).numpy() for k, one in outputs.items()}
    predicted = np.empty((len(fold), parts[0].shape[1]), np.float32)
    for k, part in parts.items():
        predicted[fold == k] = part
    return predicted


def draws(units: np.ndarray, stratum: np.ndarray, fold: np.ndarray, share: float) -> Iterator[np.ndarray]:
    """Masks (N,) of a share of the groups, three where so many are found that leave every fold rows to learn from."""
    masks = (some_groups(units, stratum, share, seed) for seed in range(TRIES))
    usable = (kept for kept in masks if all(kept[fold != k].any() for k in np.unique(fold)))
    return itertools.islice(usable, REPEATS)


def some_groups(units: np.ndarray, stratum: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A mask (N,) of the rows of a share of the groups; the same share of each class's groups, one at the least.

    Args:
        stratum: of each row (N,), as `Target.stratum` has it.
    """
    units_kept: set[str] = set()
    for label in np.unique(stratum):
        there = np.unique(units[stratum == label])
        drawn = sorted(there.tolist(), key=lambda unit: seed_from("share", seed, str(unit)))
        units_kept |= set(drawn[: max(1, round(share * len(drawn)))])
    return np.isin(units, list(units_kept))


def neighbour_predictions(products: np.ndarray, target: Target, fold: np.ndarray) -> np.ndarray:
    """Predictions (N, W) from the ten nearest rows of the other folds, by cosine: smoothed shares, or mean values.

    Args:
        products: of standardised rows with each other (N, N).
    """
    length = np.sqrt(products.diagonal().clip(1e-12))
    cosine = torch.from_numpy(products / length / length[:, None])
    space, matrix = target.space, np.nan_to_num(target.space.matrix(target.truth))
    votes, count = np.zeros(matrix.shape), 0.0
    for k in range(fold.max() + 1):
        valid, train = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        near = cosine[np.ix_(valid, train)].topk(min(NEIGHBOURS, len(train)), dim=1).indices.numpy()
        for column in range(near.shape[1]):
            votes[valid] += matrix[train[near[:, column]]] * (1 - column * 1e-3)  # the nearer wins a draw
        count = sum(1 - column * 1e-3 for column in range(near.shape[1]))
    if space.form == "values":
        return votes / count * space.scale + space.centre
    return space.of_shares((votes + 0.1) / (count + 0.1 * (matrix.shape[1] if space.form == "classes" else 2)))


def _pool(table: _Table, ranked: Sequence[NetScore]) -> tuple[list[str], list[float]]:
    """Backbones taken one by one, each time the one whose probe lowers the blend's loss most, while one does.

    Three at the least: the best of several by its OOF score is partly the luckiest, and a mean is not.
    """
    space, truth = table.data.space, table.data.targets
    calibrated = {net.name: space.calibrated(net.predicted, truth) for net in ranked}
    pool: list[str] = []
    scores: list[float] = []
    best = np.inf
    while len(pool) < len(calibrated):
        left = [name for name in calibrated if name not in pool]
        blends = {name: space.pooled(np.stack([calibrated[one] for one in [*pool, name]])) for name in left}
        losses = {name: space.loss(blend, truth) for name, blend in blends.items()}
        name = min(losses, key=lambda one: losses[one])
        if losses[name] >= best and len(pool) >= FEWEST:
            break
        best = min(best, losses[name])
        pool.append(name)
        scores.append(table.score(blends[name]))
    return pool, scores
