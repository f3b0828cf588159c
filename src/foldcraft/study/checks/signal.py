"""Is there something to learn in the pixels, in the labels, and in what augmentation leaves? By closed-form probes."""

from dataclasses import dataclass, replace

import numpy as np

from foldcraft.common.config import ProbeConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.augment import Augment
from foldcraft.metrics.spaces import Part
from foldcraft.predictions import linear_probe
from foldcraft.predictions.feature_cache import FeatureRequest, FrozenNet
from foldcraft.predictions.inference import sweep
from foldcraft.predictions.linear_probe import Probe, Rows
from foldcraft.study.checks.result import FAIL, NOTE, PASS, CheckResult, not_applicable, verdict
from foldcraft.study.checks.subject import Subject
from foldcraft.study.diagnose import each_fold
from foldcraft.training.initialization import target_of_view

SURE = 3.0  # standard errors
BLACK = 8  # images without pixels that are looked at
KEPT = 0.7  # share of what is known beyond chance that augmented images must keep
CLASS_KEPT = 0.5  # the same for each class
WORTH_A_NOTE = 0.03
DRAWS = 32  # of one image, an epoch
LABELS_LOST = (
    "look at augmented images (src/check.py --show), weaken augment.preset, or drop the flip that changes the label"
)
FEWEST = 8  # rows of a class whose own loss is looked at


@dataclass(frozen=True)
class Features:
    """Frozen features (N, D) of the rows that are looked at: as they are, augmented twice, and of black images."""

    net: FrozenNet
    plain: np.ndarray
    draws: tuple[np.ndarray, np.ndarray]
    black: np.ndarray


def features(subject: Subject) -> Features:
    """Computed once for all checks, by inference's own sweep.

    Raises:
        FoldcraftError: the net gives no features of its stages.
    """
    if "features" not in subject.kept:
        start = subject.as_is.start
        net, rows = start.frozen, np.arange(len(start.train))
        wanted = [FeatureRequest(net, "train", start.train, view).member() for view in ("identity", "draw0", "draw1")]
        parts = [[part[0].numpy() for part in results] for _, results in sweep(wanted, rows)]
        plain, *draws = (np.concatenate([part[k] for part in parts]) for k in range(3))
        dark = replace(start.train, pixels=np.zeros_like(start.train.pixels[:BLACK]), rows=None)
        looked = sweep([FeatureRequest(net, "train", dark, "identity").member()], np.arange(BLACK))
        black = np.concatenate([results[0][0].numpy() for _, results in looked])
        subject.kept["features"] = Features(net, plain, tuple(draws), black)
    return subject.kept["features"]


def _solve(
    subject: Subject, learned: list[np.ndarray], targets: np.ndarray, of_views: list[np.ndarray] | None = None
) -> Probe:
    net, split = features(subject).net, subject.experiment.folds
    target = subject.competition.target.with_truth(targets)
    rows = Rows(net.stages, learned, learned[0], target.learned, split.fold, target.learned_space, of_views=of_views)
    return linear_probe.solve(rows, ProbeConfig())


def _losses(subject: Subject, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The proper loss of each row (N,), NaN where nothing is known of it."""
    return subject.competition.space.losses(predicted.astype(np.float64), truth)


def _known_without(subject: Subject, truth: np.ndarray) -> np.ndarray:
    """What is said of each row (N, W) without its image."""
    space = subject.competition.space
    return np.tile(space.baseline(truth), (len(truth), 1))


def _shuffled_in_folds(subject: Subject) -> np.ndarray:
    """The truth dealt out anew; each fold keeps its share of each class."""
    targets, fold = subject.competition.targets.copy(), subject.experiment.folds.fold
    rng = np.random.default_rng(0)
    for k in range(fold.max() + 1):
        targets[fold == k] = rng.permutation(targets[fold == k])
    return targets


def _gain(better: np.ndarray, worse: np.ndarray) -> tuple[float, float]:
    """Mean difference of two losses of each row of which something is known, and its standard error."""
    apart = worse - better
    apart = apart[~np.isnan(apart)]
    return float(apart.mean()), float(apart.std(ddof=1) / len(apart) ** 0.5)


def _no_features(subject: Subject) -> str:
    try:
        features(subject)
    except FoldcraftError as error:
        if error.where != "backbone.name":
            raise
        return error.what
    return ""


def pixels_matter(subject: Subject) -> CheckResult:
    """With the images, labels are known better than without: a probe on black images knows the prior alone."""
    if why := _no_features(subject):
        return not_applicable(why)
    truth, found = subject.competition.targets, features(subject)
    spread = float(np.ptp(found.black.astype(np.float32), axis=0).max())
    black = np.tile(found.black[:1], (len(truth), 1))
    target = subject.competition.target
    seen, unseen = (
        _losses(subject, target.from_learned(_solve(subject, [features], truth).predicted), truth)
        for features in (found.plain, black)
    )
    gain, error = _gain(seen, unseen)
    with_pixels, without = np.nanmean(seen), np.nanmean(unseen)
    number = f"{target.space.loss_name} {with_pixels:.3f} with the pixels, {without:.3f} without: "
    number += f"{gain:+.3f} ± {error:.3f}"
    if spread:
        number += f"; black images differ by {spread:.2g} in what the net makes of them"
    elif gain <= SURE * error and subject.experiment.config.backbone.weights == "none":
        return not_applicable(f"{number}; random features know nothing, train the net and see")
    hint = "look at what enters the net (src/check.py --show), and whether labels and images belong together"
    matters = gain > SURE * error and not spread
    return verdict(matters, number, hint, gain=gain, error=error, seen=float(with_pixels))


def shuffled_labels(subject: Subject) -> CheckResult:
    """Labels that were shuffled cannot be foretold: nothing of a row's label reaches the head that is judged on it."""
    if why := _no_features(subject):
        return not_applicable(why)
    targets = _shuffled_in_folds(subject)
    space = subject.competition.space
    predicted = subject.competition.target.from_learned(_solve(subject, [features(subject).plain], targets).predicted)
    prior = _losses(subject, _known_without(subject, targets), targets)
    gain, error = _gain(_losses(subject, predicted, targets), prior)
    hint = "see that no fold's head learns from rows that it is judged on (Folds.train_rows, probe.Rows)"
    number, values = f"{space.loss_name} {gain:+.3f} ± {error:.3f} over the prior's", {}
    if _is_one_label(targets):
        right = float(_right(predicted, targets).mean())
        chance = float(np.bincount(targets).max() / len(targets))
        number = f"accuracy {right:.3f}, most frequent class {chance:.3f}; {number}"
        values = {"accuracy": right}
    return verdict(gain <= SURE * error, number, hint, gain=gain, error=error, **values)


def _is_one_label(truth: np.ndarray) -> bool:
    """Has a row a class, of which a prediction is right or wrong?"""
    return truth.ndim == 1


def _right(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Which rows (N,) of a single label are right."""
    return predicted.argmax(1) == truth  # of a single label alone


def labels_survive(subject: Subject) -> CheckResult:
    """Augmented images are still known for what they are, by a probe that has learned from augmented ones too."""
    if not _is_augmented(subject):
        return not_applicable("nothing is augmented")
    if why := _no_features(subject):
        return not_applicable(why)
    truth, found, target = subject.competition.targets, features(subject), subject.competition.target
    seen, drawn = (target_of_view(subject.experiment, view) for view in ("draw0", "draw1"))
    solved = _solve(subject, [found.plain, found.draws[0]], truth, [target.learned, seen.learned])
    on_plain = target.from_learned(solved.predicted)
    on_drawn = each_fold(solved, found.draws[1], subject.experiment.folds.fold, target)
    judge = _kept_right if _is_one_label(truth) else _kept_loss
    return judge(subject, on_plain, on_drawn, drawn.truth)


def _kept_right(subject: Subject, on_plain: np.ndarray, on_drawn: np.ndarray, shown: np.ndarray) -> CheckResult:
    """By accuracy, from predictions (N, K) of plain and of augmented images, and what these show (N,)."""
    truth = subject.competition.targets
    plain, drawn = _right(on_plain, truth), _right(on_drawn, shown)
    chance = np.bincount(truth).max() / len(truth)
    if plain.mean() <= chance + SURE * (chance * (1 - chance) / len(truth)) ** 0.5:
        return not_applicable("a probe knows plain images no better than by guessing, so nothing can be lost")
    lost, error = _gain(drawn.astype(float), plain.astype(float))
    kept = (drawn.mean() - chance) / (plain.mean() - chance)
    torn = _torn_classes(subject, plain, drawn)
    number = f"accuracy {plain.mean():.3f} on plain images, {drawn.mean():.3f} on augmented ones"
    number += f" ({-lost:+.3f} ± {error:.3f})"
    number += f"; class {torn[0]!r} {torn[1]:.2f} to {torn[2]:.2f}" if torn else ""
    values = {"plain": float(plain.mean()), "augmented": float(drawn.mean()), "error": error, "kept": float(kept)}
    if torn or (kept < KEPT and lost > SURE * error):
        return CheckResult(FAIL, number, LABELS_LOST, values)
    noisy = lost > max(WORTH_A_NOTE, SURE * error)
    return CheckResult(NOTE if noisy else PASS, number, LABELS_LOST if noisy else "", values)


@dataclass(frozen=True)
class _Kept:
    """What is known of a label or a column: its loss without images, on plain ones and on augmented ones.

    Attributes:
        is_known: plain images tell more than none.
        is_worse: augmented ones tell less than plain ones.
    """

    name: str
    without: float
    plain: float
    drawn: float
    is_known: bool
    is_worse: bool

    @classmethod
    def of(cls, name: str, without: np.ndarray, plain: np.ndarray, drawn: np.ndarray) -> "_Kept":
        """From the losses of each row (n,)."""
        gain, gain_error = _gain(plain, without)
        lost, lost_error = _gain(plain, drawn)
        means = (float(np.nanmean(losses)) for losses in (without, plain, drawn))
        return cls(name, *means, gain > SURE * gain_error, lost > SURE * lost_error)

    @property
    def share(self) -> float:
        """Share of what is known beyond guessing that augmented images keep."""
        return (self.without - self.drawn) / (self.without - self.plain)


def _part_losses(predicted: np.ndarray, part: Part) -> np.ndarray:
    """Of each row (N,), NaN where the part is not known."""
    losses = np.full(len(predicted), np.nan)
    losses[part.rows] = part.space.losses(predicted[part.rows, part.columns].astype(np.float64), part.truth)
    return losses


def _kept_loss(subject: Subject, on_plain: np.ndarray, on_drawn: np.ndarray, shown: np.ndarray) -> CheckResult:
    """By the proper loss, from predictions (N, W) and what augmented images show: of all, and of each label or column
    by itself."""
    target, truth = subject.competition.target, subject.competition.targets
    said = ((_known_without(subject, truth), truth), (on_plain, truth), (on_drawn, shown))
    whole = _Kept.of("", *(_losses(subject, *one) for one in said))
    each = [target.space.parts(true) for _, true in said]
    parts = [
        _Kept.of(name, *(_part_losses(one, part) for (one, _), part in zip(said, same, strict=True)))
        for name, *same in zip(target.heads, *each, strict=False)
        if len(same[0].rows) >= FEWEST
    ]
    if not whole.is_known and not any(part.is_known for part in parts):
        return not_applicable("a probe knows plain images no better than without them, so nothing can be lost")
    torn = [part for part in parts if part.is_known and part.is_worse and part.share < CLASS_KEPT]
    number = f"{target.space.loss_name} {whole.plain:.3f} on plain images, {whole.drawn:.3f} on augmented ones"
    number += f" ({whole.without:.3f} without images)"
    if torn:
        worst = min(torn, key=lambda part: part.share)
        number += f"; {worst.name!r} {worst.plain:.3f} to {worst.drawn:.3f} ({worst.without:.3f})"
    values = {"plain": whole.plain, "augmented": whole.drawn, "without": whole.without}
    lost = whole.is_known and whole.is_worse
    if torn or (lost and whole.share < KEPT):
        return CheckResult(FAIL, number, LABELS_LOST, values)
    return CheckResult(NOTE if lost else PASS, number, LABELS_LOST if lost else "", values)


def _torn_classes(subject: Subject, plain: np.ndarray, drawn: np.ndarray) -> tuple[str, float, float] | None:
    """The class that loses most, with its recall on plain and on augmented images, if it loses far too much."""
    truth, worst = subject.competition.targets, None
    for k, name in enumerate(subject.competition.classes.names):
        rows = truth == k
        before, after = plain[rows].mean() if rows.any() else 0.0, drawn[rows].mean() if rows.any() else 0.0
        error = ((before * (1 - before) + after * (1 - after)) / max(1, rows.sum())) ** 0.5
        if rows.sum() < FEWEST or after >= CLASS_KEPT * before or before - after <= SURE * error:
            continue
        if worst is None or before - after > worst[1] - worst[2]:
            worst = (name, float(before), float(after))
    return worst


def draws_differ(subject: Subject) -> CheckResult:
    """Each epoch augments anew, and no two images of a batch alike, in worker processes too."""
    if not _is_augmented(subject):
        return not_applicable("nothing is augmented")
    if not subject.trains:
        return not_applicable("a linear probe learns from numbered draws")
    store = subject.as_is.start.train
    row = int(store.pixels.std((1, 2, 3)).argmax())  # the picture that has most to change
    workers = 0 if subject.config.machine.workers == 0 else 2
    trainer = subject.trainer(subject.as_is, np.full(DRAWS, row), train={"batch": 8}, machine={"workers": workers})
    seen: list[bytes] = []
    for epoch in range(2):
        trainer.batches.epoch = epoch
        seen += [image.numpy().tobytes() for batch in trainer.loader for image in batch.images]
    augment = trainer.loader.dataset.augment
    possible = len({augment(store.pixels[row], seed).tobytes() for seed in range(len(seen))})
    distinct = len(set(seen))
    number = f"{distinct} different pictures in {len(seen)} draws of one image, 2 epochs, {workers} workers"
    number += f" ({possible} with as many seeds)"
    hint = "seed each image from (seed, epoch, place), as loader.EpochBatches does"
    return verdict(distinct > max(1, 0.7 * possible) or distinct == possible > 1, number, hint, distinct=distinct)


def _is_augmented(subject: Subject) -> bool:
    """Is there more than what brings an image to the net's size?"""
    as_is, plain = subject.experiment.config, subject.plain.experiment.config
    side = subject.as_is.start.train.pixels.shape[1]
    steps = [len(Augment(config.augment, config.images, side).transforms) for config in (as_is, plain)]
    return steps[0] > steps[1]
