"""A sweep: each trial is an experiment, a set of folds; one that cannot win any more is left after a few of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from foldcraft.common import config_renames, fingerprint
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import locked
from foldcraft.common.fingerprint import seed_from
from foldcraft.common.paths import FoldFolder
from foldcraft.predictions import oof
from foldcraft.predictions.experiment import Experiment
from foldcraft.study import racing, search_space, sweep_storage
from foldcraft.study.search_space import Parameter, Space
from foldcraft.study.trial_folds import Outcome, Train, TrialFold, train_here

TRIALS = 20  # where the space does not say how many
IN_A_ROW = 3  # trials that fail, after which it is no trial's fault
Load = Callable[[Sequence[str]], Config]


@dataclass(frozen=True)
class Trial:
    """What became of a trial.

    Attributes:
        settings: the settings that were tried, by name.
        scores: of its finished folds, fold 0 first.
        oof: score over all rows; None while folds are missing.
        reason: why it failed; "" where it did not.
    """

    experiment: str
    settings: dict[str, Any]
    scores: list[float]
    seconds: float
    oof: float | None = None
    interval: tuple[float, float] | None = None
    reason: str = ""


@dataclass
class _Running:
    """A trial whose folds are being trained.

    Attributes:
        number: how many were begun before it.
        words: what it tries.
        scores, seconds: of its finished folds, fold 0 first; of all of them.
    """

    trial: optuna.Trial
    number: int
    words: list[str]
    experiment: Experiment
    scores: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def next(self) -> TrialFold:
        """The fold that is to be trained now."""
        return TrialFold(f"trial {self.number}", self.words, self.experiment, len(self.scores))


@dataclass
class Sweep:
    """A sweep over a space, kept in `runs/<competition>/sweeps/` and gone on with from there.

    Args:
        load: the config with some more `key=value` words.
        experiment: the experiment without any.
        train: trains a fold of each of some trials.
        jobs: trials at a time.
        storage: URL of a database for what was tried.
    """

    load: Load
    space: Space
    experiment: Experiment
    callback: Callback
    train: Train = train_here
    jobs: int = 1
    storage: str | None = None

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
        first = {parameter.name: parameter.examples[0] for parameter in self.space.parameters}
        for parameter in self.space.parameters:
            configs = [self.load(search_space.words({**first, parameter.name: text})) for text in parameter.examples]
            if len(configs) == 2 and configs[0].training_fingerprint() == configs[1].training_fingerprint():
                raise FoldcraftError(
                    "changes nothing in the training of a fold",
                    f"sweep {self.space.name}: {parameter.name}",
                    "leave it out",
                )

    def run(self, trials: int | None) -> list[Trial]:
        """Try until so many trials have been tried, earlier ones counted; gives all of them.

        Raises:
            FoldcraftError: another process runs this sweep; it was begun with other settings, data or folds; several
                trials in a row have failed.
        """
        everything = len(self.space.grid()) if self.space.method == "grid" else None
        count = trials or self.space.trials or everything or TRIALS
        count = min(count, everything or count)
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / f".{self.name}.lock", wait=False, busy=f"another process runs sweep {self.name}"):
            study = self._open_study()
            self._take_up_interrupted(study)
            self._try_all(study, count)
            return [_trial_of(trial) for trial in _finished(study)]

    def _try_all(self, study: optuna.Study, count: int) -> None:
        """Train the trials, `jobs` at a time: a fold of each, then what their scores so far say.

        All that is asked of the study and told to it comes from this thread.
        """
        running: list[_Running] = []
        failures: list[FoldcraftError] = []  # since a trial last came to its end
        while True:
            while len(running) < self.jobs and len(failures) < IN_A_ROW:
                number = len(_finished(study)) + len(running)
                if number >= count:
                    break
                trial = self._ask(study, number)
                try:
                    running.append(self._begin(trial, number))
                except FoldcraftError as error:
                    failures.append(self._fail(study, trial, error))
            if not running:
                break
            for each, outcome in zip(
                list(running), self.train([each.next for each in running], self.callback), strict=True
            ):
                try:
                    if not self._note(study, each, outcome):
                        continue
                    failures.clear()
                except FoldcraftError as error:
                    failures.append(self._fail(study, each.trial, error))
                running.remove(each)
        if len(failures) >= IN_A_ROW:
            raise failures[-1]

    def _open_study(self) -> optuna.Study:
        study = sweep_storage.open_study(self.folder, self.name, self.space.maximize, self.storage)
        space = (self.space.method, self.space.score, [repr(_stored(parameter)) for parameter in self.space.parameters])
        data = (self.experiment.competition.fingerprint, self.experiment.folds.fingerprint)
        now = fingerprint.of_values([self.base.training_fingerprint(), self.base.tta.views, space, data])
        if study.user_attrs.get("identity", now) != now:
            raise FoldcraftError(
                "was begun with another space, other settings, data or folds",
                self.folder / self.name,
                "give the sweep another name in its file, or delete its files",
            )
        study.set_user_attr("identity", now)
        return study

    def _take_up_interrupted(self, study: optuna.Study) -> None:
        """Put trials that were killed at the head of the queue: same settings, so same folder, so they go on there."""
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.enqueue_trial(trial.params)
            study.tell(trial.number, state=TrialState.FAIL)

    def _ask(self, study: optuna.Study, number: int) -> optuna.Trial:
        """The next trial; so many have been begun before it."""
        if self.space.method == "grid" and not study.get_trials(states=(TrialState.WAITING,)):
            begun = [trial.params for trial in (*_finished(study), *study.get_trials(states=(TrialState.RUNNING,)))]
            grid = ({config_renames.oldest(name): value for name, value in each.items()} for each in self.space.grid())
            study.enqueue_trial(next(each for each in grid if each not in begun))
        # Seeded anew for each trial, so that a sweep that was interrupted asks what an undisturbed one would ask.
        seed = seed_from(self.base.seed, "sweep", number) % 2**32
        bayes = self.space.method == "bayes"
        study.sampler = (optuna.samplers.TPESampler if bayes else optuna.samplers.RandomSampler)(seed=seed)
        return study.ask({_stored(parameter).name: _distribution(parameter) for parameter in self.space.parameters})

    def _begin(self, trial: optuna.Trial, number: int) -> "_Running":
        """The trial as an experiment, whose folds are to be trained.

        Raises:
            FoldcraftError: its settings, or the experiment, are not sound.
        """
        words = search_space.words(_settings_of(trial))
        self.callback.say(f"trial {number}: {' '.join(words)}")
        config = self.load(words).as_trial()
        trial.set_user_attr("experiment", config.experiment)
        return _Running(trial, number, words, Experiment.open(config))

    def _fail(self, study: optuna.Study, trial: optuna.Trial, error: FoldcraftError) -> FoldcraftError:
        trial.set_user_attr("reason", str(error))
        study.tell(trial, state=TrialState.FAIL)
        self.callback.say(f"trial failed: {error}")
        return error

    def _note(self, study: optuna.Study, running: "_Running", outcome: Outcome) -> bool:
        """Take in what became of a trial's next fold; whether the trial has come to its end.

        Raises:
            FoldcraftError: it has failed.
        """
        if isinstance(outcome, FoldcraftError):
            raise outcome
        trial, experiment, scores = running.trial, running.experiment, running.scores
        scores.append(outcome["score"])
        running.seconds += outcome["seconds"]
        trial.set_user_attr("scores", scores)
        trial.set_user_attr("seconds", running.seconds)
        trial.report(float(np.mean(scores)), len(scores) - 1)
        if self._is_lost(_best(study), running):
            study.tell(trial, state=TrialState.PRUNED)
            return True
        if len(scores) < experiment.folds.count:
            return False
        files = [FoldFolder.of(experiment.config, fold).oof for fold in range(experiment.folds.count)]
        rows = oof.load(files, experiment.config.tta.views, experiment.competition)
        trial.set_user_attr("oof", rows.score)
        trial.set_user_attr("interval", rows.interval)
        study.tell(trial, rows.score if self.space.score == "oof" else float(np.mean(scores)))
        return True

    def _is_lost(self, best: Trial | None, running: "_Running") -> bool:
        """Whether a trial cannot win any more against the best that was finished; says so."""
        scores, count = running.scores, running.experiment.folds.count
        if best is None:
            return False
        ahead = running.experiment.competition.metric.sign * (np.array(scores) - best.scores[: len(scores)])
        if not racing.is_lost(ahead, count, self._one_row()):
            return False
        bound = racing.upper_bound(ahead, count, self._one_row())
        self.callback.say(
            f"left after fold {len(scores) - 1}: {np.mean(ahead):+.4f} against {best.experiment} on the same folds, "
            f"and with 95 % no better than {bound:+.4f} after all {count}"
        )
        return True

    def _one_row(self) -> float:
        """What one row makes of a fold's score, or about that: differences are known no finer."""
        return self.experiment.competition.answers.score_unit / int(np.bincount(self.experiment.answer_folds).min())


def _stored(parameter: Parameter) -> Parameter:
    """The parameter under the oldest name of its setting, as studies keep it, so that a rename ends no sweep."""
    return replace(parameter, name=config_renames.oldest(parameter.name))


def _settings_of(trial: optuna.Trial | FrozenTrial) -> dict[str, Any]:
    """What a trial tries, under the names that the settings have now."""
    return {config_renames.current(name): value for name, value in trial.params.items()}


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.values:
        return CategoricalDistribution(parameter.values)
    if parameter.whole:
        return IntDistribution(int(parameter.low), int(parameter.high))
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials whose outcome is known; those that were merely interrupted are tried again."""
    ended = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in ended if trial.state != TrialState.FAIL or "reason" in trial.user_attrs]


def _best(study: optuna.Study) -> Trial | None:
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    return _trial_of(study.best_trial) if complete else None


def _trial_of(trial: FrozenTrial) -> Trial:
    known = trial.user_attrs
    interval = known.get("interval")
    return Trial(
        experiment=known.get("experiment", ""),
        settings=_settings_of(trial),
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


def words_of_caution(trials: Sequence[Trial], best: Trial, config: Config) -> Iterator[str]:
    """What the best of many tries is worth."""
    whole = np.array([trial.scores for trial in trials if trial.oof is not None])
    if len(whole) > 1:
        luck, factor = racing.spread_of_luck(whole), racing.best_of_equals(len(trials))
        yield (
            f"the best of {len(trials)} tries looks better than it is: of that many equally good ones, luck with the "
            f"folds alone would put the best {luck * factor:.4f} ahead of their mean ({factor:.2f} × {luck:.4f})"
        )
    place = config.runs / config.competition.name
    yield (
        "is it better than what you have? "
        f"python src/compare.py {place / 'BASELINE'} {place / best.experiment} --tried {len(trials)}"
    )
