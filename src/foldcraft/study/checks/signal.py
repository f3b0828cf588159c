"""Is there something to learn in the pixels, in the labels, and in what augmentation leaves? By closed-form probes."""

from dataclasses import dataclass, replace

import numpy as np

from foldcraft.common.config import ProbeConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.augment import Augment
from foldcraft.predictions import linear_probe
from foldcraft.predictions.feature_cache import FeatureRequest, FrozenNet
from foldcraft.predictions.inference import sweep
from foldcraft.predictions.linear_probe import Probe, Rows
from foldcraft.study.checks.result import FAIL, NOTE, PASS, CheckResult, not_applicable, verdict
from foldcraft.study.checks.subject import Subject
from foldcraft.study.diagnose import each_fold

SURE = 3.0  # standard errors
BLACK = 8  # images without pixels that are looked at
KEPT = 0.7  # share of what is known beyond chance that augmented images must keep
CLASS_KEPT = 0.5  # the same for each class
WORTH_A_NOTE = 0.03
DRAWS = 32  # of one image, an epoch
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


def _solve(subject: Subject, learned: list[np.ndarray], targets: np.ndarray) -> Probe:
    net, split = features(subject).net, subject.experiment.folds
    target = subject.competition.target.with_truth(targets)
    rows = Rows(net.stages, learned, learned[0], target.learned, split.fold, target.learned_space)
    return linear_probe.solve(rows, ProbeConfig())


def _losses(log_probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return -log_probs[np.arange(len(truth)), truth].astype(np.float64)


def _shuffled_in_folds(subject: Subject) -> np.ndarray:
    """Labels dealt out anew; each fold keeps its share of each class."""
    targets, fold = subject.competition.targets.copy(), subject.experiment.folds.fold
    rng = np.random.default_rng(0)
    for k in range(fold.max() + 1):
        targets[fold == k] = rng.permutation(targets[fold == k])
    return targets


def _gain(better: np.ndarray, worse: np.ndarray) -> tuple[float, float]:
    """Mean difference of two losses of each row, and its standard error."""
    apart = worse - better
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
    seen = _losses(_solve(subject, [found.plain], truth).log_probs, truth)
    unseen = _losses(_solve(subject, [black], truth).log_probs, truth)
    gain, error = _gain(seen, unseen)
    number = f"log-loss {seen.mean():.3f} with the pixels, {unseen.mean():.3f} without: {gain:+.3f} ± {error:.3f}"
    if spread:
        number += f"; black images differ by {spread:.2g} in what the net makes of them"
    elif gain <= SURE * error and subject.experiment.config.backbone.weights == "none":
        return not_applicable(f"{number}; random features know nothing, train the net and see")
    hint = "look at what enters the net (src/check.py --show), and whether labels and images belong together"
    matters = gain > SURE * error and not spread
    return verdict(matters, number, hint, gain=gain, error=error, seen=float(seen.mean()))


def shuffled_labels(subject: Subject) -> CheckResult:
    """Labels that were shuffled cannot be foretold: nothing of a row's label reaches the head that is judged on it."""
    if why := _no_features(subject):
        return not_applicable(why)
    targets = _shuffled_in_folds(subject)
    log_probs = _solve(subject, [features(subject).plain], targets).log_probs
    share = np.bincount(targets, minlength=log_probs.shape[1]) / len(targets)
    gain, error = _gain(_losses(log_probs, targets), -np.log(share[targets]))
    right, chance = float((log_probs.argmax(1) == targets).mean()), float(share.max())
    number = (
        f"accuracy {right:.3f}, most frequent class {chance:.3f}; log-loss {gain:+.3f} ± {error:.3f} over the prior's"
    )
    hint = "see that no fold's head learns from rows that it is judged on (Folds.train_rows, probe.Rows)"
    return verdict(gain <= SURE * error, number, hint, gain=gain, error=error, accuracy=right)


def labels_survive(subject: Subject) -> CheckResult:
    """Augmented images are still known for what they are, by a probe that has learned from augmented ones too."""
    if not _is_augmented(subject):
        return not_applicable("nothing is augmented")
    if why := _no_features(subject):
        return not_applicable(why)
    truth, found = subject.competition.targets, features(subject)
    solved = _solve(subject, [found.plain, found.draws[0]], truth)
    plain = solved.log_probs.argmax(1) == truth
    drawn = (
        each_fold(solved, found.draws[1], subject.experiment.folds.fold, subject.competition.target).argmax(1) == truth
    )
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
    hint = (
        "look at augmented images (src/check.py --show), weaken augment.preset, or drop the flip that changes the label"
    )
    if torn or (kept < KEPT and lost > SURE * error):
        return CheckResult(FAIL, number, hint, values)
    noisy = lost > max(WORTH_A_NOTE, SURE * error)
    return CheckResult(NOTE if noisy else PASS, number, hint if noisy else "", values)


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
