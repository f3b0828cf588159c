"""Which experiments go into a soup, and whether it is better than the best of them: judged on folds that had no say.

The uniform soup takes all. The greedy one (model soups, arXiv 2203.05482) goes through the experiments from the best to
the worst and keeps each that lets the out-of-fold log-loss fall. One set is chosen for all folds. For its nested score
the choice is made anew for each fold, on the other folds alone, and so is that of the best single experiment. The soup
that is written is chosen on all folds: the out-of-fold predictions in its folders have that one choice (a few bits) in
them, and its nested score has not.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foldcraft.common import checksums
from foldcraft.common.config import Config, DistillConfig
from foldcraft.common.errors import listing
from foldcraft.common.files import locked, remove_leftovers, write_atomic
from foldcraft.common.paths import FoldFolder
from foldcraft.ensemble.model_soup import Chosen, SoupCandidates
from foldcraft.ensemble.soup_ingredients import MARK, check_free
from foldcraft.metrics.gain import Gain, gain_in_loss, gain_in_score
from foldcraft.metrics.intervals import bootstrap_interval
from foldcraft.predictions import lineage
from foldcraft.predictions.experiment import Experiment
from foldcraft.training.fold_result import Outcome, finish

Predict = Callable[[Sequence[int]], np.ndarray]  # from folds to log-probabilities of their rows


@dataclass(frozen=True)
class SoupGain:
    """How much better than the best single experiment.

    Attributes:
        metric: of the competition.
        loss: of the log-loss.
    """

    metric: Gain
    loss: Gain

    @property
    def is_real(self) -> bool:
        """One of both is better by more than chance would make it, and neither is worse by more."""
        both = (self.metric, self.loss)
        return any(gain.is_real for gain in both) and not any(gain.is_real_loss for gain in both)


@dataclass(frozen=True)
class SoupScore:
    """One line of the comparison.

    Attributes:
        chosen: members, of a soup those that all folds choose.
        nets: how many nets a prediction takes.
        loss, score, low, high: log-loss and the competition's metric with its 95 % interval, on held-out rows, after
            temperatures that other folds chose.
        gain: over the best single experiment; None of single ones.
    """

    name: str
    chosen: Chosen
    nets: int
    loss: float
    score: float
    low: float
    high: float
    gain: SoupGain | None = None

    @property
    def is_real_gain(self) -> bool:
        """Is it better than the best single experiment by more than chance would make it?"""
        return self.gain is not None and self.gain.is_real


@dataclass(frozen=True)
class SoupComparison:
    """What there is to know before a soup is written.

    Attributes:
        members: each experiment.
        best: the best single one, chosen for each fold on the others.
        uniform, greedy: the soups.
        blend: the mean of all members' predictions; as many nets.
        apart: the uniform soup is worse than every member, beyond chance: the weights lie in different basins.
    """

    members: list[SoupScore]
    best: SoupScore
    uniform: SoupScore
    greedy: SoupScore
    blend: SoupScore
    apart: bool

    @property
    def rows(self) -> list[SoupScore]:
        return [*self.members, self.best, self.uniform, self.greedy, self.blend]

    @property
    def soup(self) -> SoupScore | None:
        """The better of the soups; None where greed keeps a single experiment and the even mean is no net at all."""
        possible = [self.greedy] if self.apart else [self.uniform, self.greedy]
        return min(
            (soup_score for soup_score in possible if len(soup_score.chosen) > 1),
            key=lambda soup_score: soup_score.loss,
            default=None,
        )


def compare_soups(candidates: SoupCandidates) -> SoupComparison:
    """Try the soups of a candidates; a set of members is predicted once a fold."""
    judge = _Judge(candidates)
    with candidates.callback.progress(
        "means of weights predicted on a fold", len(candidates.folds) * len(candidates.members)
    ) as advance:
        judge.advance = advance
        members = [judge.nested(lambda seen, chosen=(number,): judge.predicts(chosen)) for number in candidates.all]
        best = judge.nested(lambda seen: judge.predicts(judge.best(seen)))
        uniform = judge.nested(lambda seen: judge.predicts(candidates.all))
        greedy = judge.nested(lambda seen: judge.predicts(judge.greedy(seen)))
        best_of_all, greedy_of_all = judge.best(candidates.folds), judge.greedy(candidates.folds)
    blend = judge.nested(lambda seen: judge.blended)
    worst = max(members, key=judge.loss)
    lost = gain_in_loss(judge.space, judge.truth, worst, uniform, judge.units)
    return SoupComparison(
        [judge.row(name, (number,), members[number]) for number, name in enumerate(candidates.names(candidates.all))],
        judge.row("best single", best_of_all, best),
        judge.row("uniform soup", candidates.all, uniform, against=best),
        judge.row("greedy soup", greedy_of_all, greedy, against=best),
        judge.row("mean of their predictions", candidates.all, blend, against=best, nets=len(candidates.members)),
        apart=lost.is_real,
    )


class _Judge:
    """Choices made on some folds, and what they are worth on others."""

    def __init__(self, candidates: SoupCandidates) -> None:
        data, rows = candidates.experiment.competition.answers, candidates.rows(candidates.folds)
        self.candidates, self.metric = candidates, data.metric
        self.truth, self.units, self.space = data.targets[rows], data.units[rows], data.space
        self.weights = None if data.score_weights is None else data.score_weights[rows]
        self.advance: Callable[[int], object] = lambda done: None

    def predicts(self, chosen: Chosen) -> Predict:
        def on(folds: Sequence[int]) -> np.ndarray:
            before = self.candidates.tried
            found = self.candidates.predicted(chosen, folds)
            self.advance(self.candidates.tried - before)
            return found

        return on

    def blended(self, folds: Sequence[int]) -> np.ndarray:
        """The mean of what all members predict."""
        return self.space.pooled(
            np.stack([self.candidates.predicted((number,), folds) for number in self.candidates.all])
        )

    def best(self, seen: Sequence[int]) -> Chosen:
        """The experiment with the least log-loss on those folds."""
        return self._ranking(seen)[0]

    def greedy(self, seen: Sequence[int]) -> Chosen:
        """Experiments from the best on, each kept if the log-loss on those folds falls."""
        first, *others = self._ranking(seen)
        chosen, least = first, self._loss_on(first, seen)
        for other in others:
            tried = tuple(sorted(chosen + other))
            loss = self._loss_on(tried, seen)
            if loss < least:
                chosen, least = tried, loss
        return chosen

    def _ranking(self, seen: Sequence[int]) -> list[Chosen]:
        return sorted(((number,) for number in self.candidates.all), key=lambda chosen: self._loss_on(chosen, seen))

    def _loss_on(self, chosen: Chosen, seen: Sequence[int]) -> float:
        truth = self._truth_of(seen)
        return self.space.loss(self.space.calibrated(self.predicts(chosen)(seen), truth), truth)

    def _truth_of(self, folds: Sequence[int]) -> np.ndarray:
        return self.candidates.experiment.competition.answers.targets[self.candidates.rows(folds)]

    def nested(self, choose: Callable[[Sequence[int]], Predict]) -> np.ndarray:
        """Log-probabilities (N, K) of all rows: each fold's by what the other folds choose, at their temperature."""
        parts = []
        for fold in self.candidates.folds:
            seen = [other for other in self.candidates.folds if other != fold]
            predict = choose(seen)
            temperature = self.space.fit_temperature(predict(seen), self._truth_of(seen))
            parts.append(self.space.at_temperature(predict([fold]), temperature))
        return np.concatenate(parts)

    def loss(self, predicted: np.ndarray) -> float:
        return self.space.loss(predicted, self.truth)

    def row(
        self, name: str, chosen: Chosen, predicted: np.ndarray, against: np.ndarray | None = None, nets: int = 1
    ) -> SoupScore:
        scored = self.space.scored(predicted)
        low, high = bootstrap_interval(self.metric, self.truth, scored, self.units, row_weights=self.weights)
        score, gain = self.metric(self.truth, scored, self.weights), None
        if against is not None:
            both = (scored, self.space.scored(against), self.units)
            in_score = gain_in_score(self.metric, self.truth, *both, row_weights=self.weights)
            gain = SoupGain(in_score, gain_in_loss(self.space, self.truth, predicted, against, self.units))
        return SoupScore(name, chosen, nets, self.loss(predicted), score, low, high, gain)


def settings_of(candidates: SoupCandidates, chosen: Chosen, name: str) -> Config:
    """The settings of a soup: those of its first member, but for teachers."""
    first = candidates.members[chosen[0]].experiment.config
    return first.model_copy(update={"experiment": name, "distill": DistillConfig(share=0.0)})


def write_soup(candidates: SoupCandidates, chosen: Chosen, config: Config, about: dict[str, Any]) -> list[float]:
    """Write the soup as an experiment with every fold that all members have; the score of each fold.

    Args:
        config: what `settings_of` gave.
        about: more for the manifests.

    Raises:
        FoldcraftError: another experiment lies there.
    """
    members = {member.name: member.experiment.identity.settings for member in (candidates.members[k] for k in chosen)}
    check_free(config, members)
    lineage.write_soup_members(config, members)
    experiment = Experiment(config, candidates.experiment.competition, candidates.experiment.folds)
    scores = []
    for fold in candidates.folds:
        folder, began = FoldFolder.of(config, fold), time.perf_counter()
        with locked(folder.lock, wait=False, busy="another process is at this fold"):
            folder.manifest.unlink(missing_ok=True)  # the fold is not done until all of it is new
            remove_leftovers(folder.path)
            write_atomic(folder.config, checksums.seal_text(config.to_yaml()))
            told = {"hardware": str(candidates.hardware), "why": f"the mean of {len(chosen)} experiments' weights"}
            candidates.callback.fold_started(config, folder, told)
            outcome = Outcome(
                weights=candidates.net(chosen, fold).state_dict(),
                blueprint=candidates.blueprint,
                hardware=candidates.hardware,
                train=candidates.train,
                images=candidates.test,
                epochs=0,
                seconds=time.perf_counter() - began,
                oof=candidates.in_views(chosen, fold),
                about={**about, **_descent(candidates, chosen, fold)},
            )
            scores.append(finish(experiment, folder, outcome, candidates.callback)["score"])
    return scores


def _descent(candidates: SoupCandidates, chosen: Chosen, fold: int) -> dict[str, Any]:
    """The models that a fold's soup is the mean of, as its sources too, since a soup may be a teacher."""
    members = [candidates.members[number] for number in chosen]
    entries = [lineage.entry_of(member.name, member.folder(fold)) for member in members]
    return {"soup": {entry["experiment"]: entry["model"] for entry in entries}, "teachers": entries}


def save(candidates: SoupCandidates, comparison: SoupComparison, target: Path, command: str) -> None:
    """Write the better soup: its run folder, then the config that the other commands take, which names it.

    Args:
        command: that made it, for the config's first lines.

    Raises:
        FoldcraftError: another experiment lies there.
    """
    soup, best = comparison.soup, comparison.best
    assert soup is not None
    made = settings_of(candidates, soup.chosen, target.stem)
    data = candidates.experiment.competition
    about = {"kind": soup.name, "nested_score": soup.score, "nested_log_loss": soup.loss}
    write_soup(candidates, soup.chosen, made, about)
    comment = (
        f"{MARK} {listing(candidates.names(soup.chosen), 100)}, by\n#   {command}\n"
        f"# OOF {data.metric.name} {soup.score:.4f} ({soup.low:.4f}–{soup.high:.4f}), {data.space.loss_name} "
        f"{soup.loss:.4f}; of the best of them {best.score:.4f} and {best.loss:.4f}.\n"
    )
    write_atomic(target, comment + made.to_yaml())
