"""A sweep: each trial is an experiment, a set of folds; one that cannot win any more is left after a few of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from foldcraft.common import config_renames, fingerprint
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import cannot_write, locked
from foldcraft.common.fingerprint import seed_from
from foldcraft.common.paths import FoldFolder
from foldcraft.predictions import oof
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.oof import OOF
from foldcraft.study import racing, search_space
from foldcraft.study.search_space import Parameter, Space
from foldcraft.training.distributed import Processes
from foldcraft.training.fold import train_fold

TRIALS = 20  # where the space does not say how many
IN_A_ROW = 3  # trials that fail, after which it is no trial's fault
Load = Callable[[Sequence[str]], Config]


@dataclass(frozen=True)
class Trial:
    """What became of a trial.

    Attributes:
        chosen: the settings that were tried, by name.
        scores: of its finished folds, fold 0 first.
        oof: score over all rows; None while folds are missing.
        reason: why it failed; "" where it did not.
    """

    experiment: str
    chosen: dict[str, Any]
    scores: list[float]
    seconds: float
    oof: float | None = None
    interval: tuple[float, float] | None = None
    reason: str = ""


@dataclass
class Sweep:
    """A sweep over a space, kept in `runs/<competition>/sweeps/<name>.db` and gone on with from there.

    Args:
        load: the config with some more `key=value` words.
        experiment: the experiment without any.
    """

    load: Load
    space: Space
    experiment: Experiment
    callback: Callback

    def __post_init__(self) -> None:
        self._check_parameters()
        metric = self.experiment.competition.metric
        if metric.greater_is_better != self.space.maximize:
            right = "maximize" if metric.greater_is_better else "minimize"
            raise FoldcraftError(f"the goal of {metric.name} is to {right}", f"sweep {self.space.name}: metric.goal")

    @property
    def base(self) -> Config:
        """The settings without any of a trial."""
        return self.experiment.config

    @property
    def name(self) -> str:
        return f"{self.base.experiment}-{self.space.name}"

    @property
    def folder(self) -> Path:
        """Where what belongs to the sweep as a whole is kept."""
        return self.base.runs / self.base.competition.name / "sweeps"

    def _check_parameters(self) -> None:
        """See that each parameter is a setting, and that it changes what is trained."""
        first = {one.name: one.examples[0] for one in self.space.parameters}
        for one in self.space.parameters:
            seen = [self.load(search_space.words({**first, one.name: text})) for text in one.examples]
            if len(seen) == 2 and seen[0].training_fingerprint() == seen[1].training_fingerprint():
                raise FoldcraftError(
                    "changes nothing in the training of a fold", f"sweep {self.space.name}: {one.name}", "leave it out"
                )

    def run(self, trials: int | None) -> list[Trial]:
        """Try until so many trials have been tried, earlier ones counted; gives all of them.

        Raises:
            FoldcraftError: another process runs this sweep; it was begun with other settings, data or folds; several
                trials in a row have failed.
        """
        everything = len(self.space.grid()) if self.space.method == "grid" else None
        wanted = trials or self.space.trials or everything or TRIALS
        wanted = min(wanted, everything or wanted)
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / f".{self.name}.lock", wait=False, busy=f"another process runs sweep {self.name}"):
            study = self._open_study()
            self._take_up_interrupted(study)
            failures = 0
            while len(_finished(study)) < wanted:
                failed = self._try(study, self._ask(study))
                failures = failures + 1 if failed else 0
                if failed and failures >= IN_A_ROW:
                    raise failed
            return [_tried(trial) for trial in _finished(study)]

    def _open_study(self) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        file = self.folder / f"{self.name}.db"
        try:
            study = optuna.create_study(
                storage=f"sqlite:///{file}",
                study_name=self.name,
                direction="maximize" if self.space.maximize else "minimize",
                load_if_exists=True,
            )
        except optuna.exceptions.StorageInternalError as error:
            raise cannot_write(file, OSError(str(error))) from None
        space = (self.space.method, self.space.score, [repr(_stored(one)) for one in self.space.parameters])
        data = (self.experiment.competition.fingerprint, self.experiment.folds.fingerprint)
        now = fingerprint.of_values([self.base.training_fingerprint(), self.base.tta.views, space, data])
        if study.user_attrs.get("identity", now) != now:
            raise FoldcraftError(
                "was begun with another space, other settings, data or folds",
                file,
                "give the sweep another name in its file, or delete that one",
            )
        study.set_user_attr("identity", now)
        return study

    def _take_up_interrupted(self, study: optuna.Study) -> None:
        """Put trials that were killed at the head of the queue: same settings, so same folder, so they go on there."""
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.enqueue_trial(trial.params)
            study.tell(trial.number, state=TrialState.FAIL)

    def _ask(self, study: optuna.Study) -> optuna.Trial:
        finished = _finished(study)
        if self.space.method == "grid" and not study.get_trials(states=(TrialState.WAITING,)):
            seen = [trial.params for trial in finished]
            wanted = (
                {config_renames.oldest(name): value for name, value in each.items()} for each in self.space.grid()
            )
            study.enqueue_trial(next(each for each in wanted if each not in seen))
        # Seeded anew for each trial, so that a sweep that was interrupted asks what an undisturbed one would ask.
        seed = seed_from(self.base.seed, "sweep", len(finished)) % 2**32
        bayes = self.space.method == "bayes"
        study.sampler = (optuna.samplers.TPESampler if bayes else optuna.samplers.RandomSampler)(seed=seed)
        return study.ask({_stored(one).name: _distribution(one) for one in self.space.parameters})

    def _try(self, study: optuna.Study, trial: optuna.Trial) -> FoldcraftError | None:
        """Train the trial's folds until it is finished, or lost, or fails; then the error."""
        words = search_space.words(_chosen(trial))
        self.callback.say(f"trial {len(_finished(study))}: {' '.join(words)}")
        try:
            config = self.load(words).as_trial()
            trial.set_user_attr("experiment", config.experiment)
            oof = self._race(study, trial, Experiment.open(config))
        except (FoldcraftError, torch.OutOfMemoryError) as error:
            told = error if isinstance(error, FoldcraftError) else FoldcraftError("not enough memory", " ".join(words))
            trial.set_user_attr("reason", str(told))
            study.tell(trial, state=TrialState.FAIL)
            self.callback.say(f"trial failed: {told}")
            return told
        if oof is None:
            study.tell(trial, state=TrialState.PRUNED)
            return None
        trial.set_user_attr("oof", oof.score)
        trial.set_user_attr("interval", oof.interval)
        scores = trial.user_attrs["scores"]
        study.tell(trial, oof.score if self.space.score == "oof" else float(np.mean(scores)))
        return None

    def _race(self, study: optuna.Study, trial: optuna.Trial, experiment: Experiment) -> OOF | None:
        """Its out-of-fold predictions; None if it was left before the end."""
        scores: list[float] = []
        seconds, count = 0.0, experiment.folds.count
        best = _best(study)
        for fold in range(count):
            manifest = train_fold(experiment, fold, Processes(), self.callback)
            scores.append(manifest["score"])
            seconds += manifest["seconds"]
            trial.set_user_attr("scores", scores)
            trial.set_user_attr("seconds", seconds)
            trial.report(float(np.mean(scores)), fold)
            if best is None:
                continue
            ahead = experiment.competition.metric.sign * (np.array(scores) - best.scores[: len(scores)])
            if racing.is_lost(ahead, count, self._one_row()):
                bound = racing.upper_bound(ahead, count, self._one_row())
                self.callback.say(
                    f"left after fold {fold}: {np.mean(ahead):+.4f} against {best.experiment} on the same folds, "
                    f"and with 95 % no better than {bound:+.4f} after all {count}"
                )
                return None
        files = [FoldFolder.of(experiment.config, fold).oof for fold in range(count)]
        return oof.load(files, experiment.config.tta.views, experiment.competition)

    def _one_row(self) -> float:
        """What one row makes of a fold's score, or about that: differences are known no finer."""
        return 1 / int(np.bincount(self.experiment.folds.fold).min())


def _stored(one: Parameter) -> Parameter:
    """The parameter under the oldest name of its setting, as studies keep it, so that a rename ends no sweep."""
    return replace(one, name=config_renames.oldest(one.name))


def _chosen(trial: optuna.Trial | FrozenTrial) -> dict[str, Any]:
    """What a trial tries, under the names that the settings have now."""
    return {config_renames.current(name): value for name, value in trial.params.items()}


def _distribution(one: Parameter) -> BaseDistribution:
    if one.values:
        return CategoricalDistribution(one.values)
    if one.whole:
        return IntDistribution(int(one.low), int(one.high))
    return FloatDistribution(one.low, one.high, log=one.log, step=one.step)


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials whose outcome is known; those that were merely interrupted are tried again."""
    ended = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in ended if trial.state != TrialState.FAIL or "reason" in trial.user_attrs]


def _best(study: optuna.Study) -> Trial | None:
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    return _tried(study.best_trial) if complete else None


def _tried(trial: FrozenTrial) -> Trial:
    known = trial.user_attrs
    interval = known.get("interval")
    return Trial(
        experiment=known.get("experiment", ""),
        chosen=_chosen(trial),
        scores=known.get("scores", []),
        seconds=known.get("seconds", 0.0),
        oof=known.get("oof"),
        interval=tuple(interval) if interval else None,
        reason=known.get("reason", ""),
    )


def ranked(trials: Sequence[Trial], space: Space) -> list[Trial]:
    """The best first; then those that were left, then those that failed."""
    sign = 1 if space.maximize else -1

    def place(trial: Trial) -> tuple[bool, bool, float]:
        mean = sum(trial.scores) / len(trial.scores) if trial.scores else 0.0
        value = trial.oof if trial.oof is not None and space.score == "oof" else mean
        return bool(trial.reason), trial.oof is None, -sign * value

    return sorted(trials, key=place)


def words_of_caution(tried: Sequence[Trial], best: Trial, config: Config) -> Iterator[str]:
    """What the best of many tries is worth."""
    whole = np.array([one.scores for one in tried if one.oof is not None])
    if len(whole) > 1:
        luck, factor = racing.spread_of_luck(whole), racing.best_of_equals(len(tried))
        yield (
            f"the best of {len(tried)} tries looks better than it is: of that many equally good ones, luck with the "
            f"folds alone would put the best {luck * factor:.4f} ahead of their mean ({factor:.2f} × {luck:.4f})"
        )
    place = config.runs / config.competition.name
    yield (
        "is it better than what you have? "
        f"python src/compare.py {place / 'BASELINE'} {place / best.experiment} --tried {len(tried)}"
    )
