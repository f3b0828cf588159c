"""The scheduler: of what gains most in the time left, the first; then anew."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from foldcraft.common import config_file, fingerprint
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.ensemble import stored_blend
from foldcraft.models import hardware
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.study import diagnose, recipes
from foldcraft.study.advice_files import write_config
from foldcraft.study.compete import actions, nets, seconds
from foldcraft.study.compete.actions import Action, Situation
from foldcraft.study.compete.blend_so_far import BlendSoFar, loss_alone
from foldcraft.study.compete.clock import Clock, TimeIsUp, UntilTimeIsUp
from foldcraft.study.compete.history import Entry, History, anew
from foldcraft.study.compete.nets import Net
from foldcraft.study.compete.options import Option, best_plan, share_given
from foldcraft.study.recipes import Looks, Recipe
from foldcraft.study.trial_folds import Train, TrialFold, train_here
from foldcraft.submission import build

MARK = "# Written by src/compete.py"
HEAD = f"{MARK}; as it was run. Remove this line to keep your changes."
CEILING = 0.995  # a blend of probes that scores so leaves fine-tuning nothing that these data could show
LEAST = 1e-3  # share of the loss; what is expected to gain less is not worth beginning, or going on with
PAGE = 15.0  # seconds that the page takes, before it was ever made
FIRST_RESERVE, JUDGING = 5.0, 1.5  # seconds for the first blend; how much longer than the last one the next may take


@dataclass(frozen=True)
class Standing:
    """How it stands, for whoever looks.

    Attributes:
        entries: what was done.
        running: what is being done.
        next: what would come then, the best first.
        clock: how much time is left.
        before: how many of the entries are of earlier runs of the command.
    """

    entries: Sequence[Entry]
    running: Option | None
    next: Sequence[Option]
    clock: Clock
    metric: str
    before: int


Show = Callable[[Standing], None]


@dataclass(frozen=True)
class Outcome:
    """What it came to.

    Attributes:
        members: experiments of the blend that is submitted.
        is_new: was anything done in this run?
        metric: as people call it.
    """

    history: History
    members: Sequence[FinishedExperiment]
    metric: str
    is_new: bool


@dataclass
class Competing:
    """One run of the command.

    Args:
        base: the experiment of the config that was given, whose data, images and folds all actions share.
        all_nets: the fastest first.
        folder: for the configs of actions.
        train: trains folds.
        jobs: folds of one experiment at a time.
        rounds: of pseudo-labels that may be tried.
        show: is told how it stands.
    """

    base: Experiment
    all_nets: Sequence[Net]
    history: History
    clock: Clock
    callback: Callback
    folder: Path
    train: Train = train_here
    jobs: int = 1
    rounds: int = 0
    show: Show = lambda standing: None
    blend: BlendSoFar = field(default_factory=BlendSoFar, init=False)
    _judging: float = field(default=FIRST_RESERVE, init=False)
    _failed: set[str] = field(default_factory=set, init=False)
    _last_submitted: tuple[list[str], str] | None = field(default=None, init=False)  # members, and what is mixed in

    def __post_init__(self) -> None:
        self._rate = seconds.product_rate()
        self._before = len(self.history.entries)

    def run(self) -> Outcome:
        """Act until nothing fits into the time left.

        Raises:
            FoldcraftError: the first action fails; a file that was written before has changed.
        """
        self._take_up()
        while (option := self._next()) is not None:
            try:
                self._carry_out(option)
            except TimeIsUp:
                self.callback.say(f"{option.action.name}: the time is up; the same command with more minutes goes on")
                break
        self._show(None, [])
        is_new = len(self.history.entries) > self._before
        return Outcome(self.history, self.blend.kept, self.base.competition.metric.title, is_new)

    @property
    def config(self) -> Config:
        return self.base.config

    @property
    def _looks(self) -> Looks:
        kept = self.history.notes.get("looks")
        return Looks(tuple(kept["used"]), kept["mirror"]) if kept else Looks.as_configured(self.config)

    def situation(self) -> Situation:
        """What is known now."""
        rows = len(self.base.competition.train_ids)
        learned = rows * (self.base.folds.count - 1) // self.base.folds.count
        return Situation(
            self.config,
            rows,
            learned,
            self.all_nets,
            self._looks,
            self.history.entries,
            self._is_at_ceiling(),
            self.rounds,
            self.history.notes.get("teachers", {}),
            is_mixed=bool(self._last_submitted and self._last_submitted[1]),
            gathered=self.history.notes.get("gathered", ()),
        )

    def _is_at_ceiling(self) -> bool:
        metric, whole = self.base.competition.metric, self.history.whole
        is_bounded = metric.greater_is_better and metric.name != "log_loss"
        return bool(is_bounded and whole and (whole[-1].score or 0) >= CEILING)

    def options(self) -> list[Option]:
        """All that is worth doing, the most gain a second first."""
        now = self._with_training_rates(self.situation())
        found = [self._option(action, now) for action in actions.possible(now) if action.name not in self._failed]
        return sorted((each for each in found if each.belief.worth >= LEAST), key=lambda option: -option.rate)

    def _with_training_rates(self, now: Situation) -> Situation:
        """With the speed of nets that may be fine-tuned; each is measured once on a machine."""
        if now.at_ceiling:
            return now
        kept = self.history.notes.setdefault("training_rates", {}).setdefault(hardware.this_machine(), {})
        for net in now.tuned:
            if net.name not in kept:
                outputs = self.base.competition.target.outputs
                kept[net.name] = nets.training_rate(self.config, outputs, net.name)
        return replace(now, training_rates=kept)

    def _option(self, action: Action, now: Situation) -> Option:
        parts = [entry for entry in now.entries if entry.action == action.name and not entry.is_whole]
        done = {fold for entry in parts for fold in entry.folds}
        left = [fold for fold in range(self.base.folds.count) if fold not in done]
        step, rounds = left, 1
        if action.fold_by_fold:
            step = left[: self.jobs if parts else 1]
            rounds = seconds.rounds(len(left), self.jobs, bool(parts))
        tests = len(self.base.competition.test_ids)
        own = seconds.reckon(action, now, tests, 1 if action.fold_by_fold else len(step), self._rate)
        next_step = seconds.corrected(action.kind, own, now.entries)
        seen = [entry.seen for entry in parts[-1:] if entry.seen]
        given, later = (share_given(len(folds), self.base.folds.count) for folds in (done, {*done, *step}))
        belief = action.before.after(seen).times(1 - given)
        share = 0.0 if step == left else (later - given) / (1 - given)
        expected = rounds * next_step + self._judging
        return Option(action, belief, expected, own, tuple(step), next_step + self._judging, share)

    def _next(self) -> Option | None:
        """The best that fits; None where nothing does."""
        every = self.options()
        plan = best_plan(every, self.clock.left - self._reserve)
        if not self.history.whole:  # there must be a submission, however short the time
            plan = every[:1]
        if not plan:
            self._say_why_it_ends(every)
            return None
        self._show(plan[0], plan[1:4])
        return plan[0]

    def _say_why_it_ends(self, every: Sequence[Option]) -> None:
        left = max(0.0, self.clock.left)
        if not every:
            self.callback.say(f"{left:.0f} s left, and nothing is expected to gain more")
        else:
            best = min(every, key=lambda option: option.seconds)
            words = f"the shortest, {best.action.name}, would take {best.seconds:.0f} s"
            minutes = math.ceil((self.clock.used + best.seconds + self._reserve) / 60)
            used = f"{self.clock.used / 60:.1f} minutes are used of {self.clock.budget / 60:g}"
            self.callback.say(
                f"{left:.0f} s left, in which nothing fits: {words}, and {self._reserve:.0f} s are for the end; "
                f"{used}: --minutes {minutes} goes on"
            )

    @property
    def _reserve(self) -> float:
        """Seconds for the next blend, and for the page."""
        return JUDGING * self._judging + float(self.history.notes.get("page", PAGE))

    def _show(self, running: Option | None, following: Sequence[Option]) -> None:
        metric = self.base.competition.metric.title
        self.show(Standing(self.history.entries, running, following, self.clock, metric, self._before))

    def _carry_out(self, option: Option) -> None:
        self.history.note_time(self.clock.used)
        action, began = option.action, time.monotonic()
        if action.teacher:
            self._store_teacher(action)
        try:
            experiment, file = self._experiment(action.recipe, action.why)
        except FoldcraftError as error:
            return self._fail(action, error)
        folds = [TrialFold(f"{action.name} {fold}", ["--config", str(file)], experiment, fold) for fold in option.folds]
        reserve = self._reserve if self.history.whole else -math.inf  # the first one may take what it takes
        until = UntilTimeIsUp(self.callback, self.clock, reserve, self.history.note_time)
        outcomes = (self.train if action.fold_by_fold else train_here)(folds, until)
        if errors := [outcome for outcome in outcomes if isinstance(outcome, FoldcraftError)]:
            if self.history.whole and self.clock.left < self._reserve:  # it was ended
                raise TimeIsUp
            return self._fail(action, errors[0])
        took = time.monotonic() - began
        entry = Entry(
            action=action.name,
            kind=action.kind,
            nets=tuple(net.name for net in action.nets),
            experiment=experiment.config.experiment,
            folds=option.folds,
            is_whole=False,
            seconds=self.clock.used,
            took=took,
            expected=seconds.corrected(action.kind, option.reckoned, self.history.entries),
            reckoned=option.reckoned,
            features=tuple(map(seconds.feature_name, action.looks_at)),
            config=str(file),
            why=action.why,
        )
        member = FinishedExperiment(experiment)
        entry = replace(entry, alone=loss_alone(member.oof()))
        if member.missing_folds:
            self._note_part(entry, member)
        else:
            self._judge(entry, member)
        if len(self.history.whole) == 1 and "looks" not in self.history.notes:
            self._look_at_views(action.nets[0])

    def _fail(self, action: Action, error: FoldcraftError) -> None:
        """Leave an action that cannot be carried out; the first one is the user's matter."""
        if not self.history.whole:
            raise error
        self._failed.add(action.name)
        self.callback.say(f"warning: {action.name} is left out: {error}")

    def _store_teacher(self, action: Action) -> None:
        """Keep the blend as it is now, once for all folds of what learns from it."""
        taught = self.history.notes.setdefault("teachers", {})
        if action.name not in taught:
            stored_blend.store_blend(self.blend.members, action.teacher, self.callback)
            taught[action.name] = action.teacher
            self.history.write()

    def _experiment(self, recipe: Recipe, why: str) -> tuple[Experiment, Path]:
        """The action as an experiment, its config written."""
        file = self.folder / f"{recipe.name}.yaml"
        write_config(file, recipe.text(f"{HEAD}\n# {why}"), MARK)
        name = config_file.load(file).as_trial().experiment
        named = replace(recipe, sections={"experiment": name, **recipe.sections})
        write_config(file, named.text(f"{HEAD}\n# {why}"), MARK)
        return Experiment.on(config_file.load(file), self.base.competition, self.base.folds), file

    def _note_part(self, entry: Entry, member: FinishedExperiment) -> None:
        """Keep what some folds of an experiment say of it: against the blend, on the rows of these folds."""
        gain = self.blend.gain_of_part(member)
        self.blend.unfinished[member.name] = member
        noted = replace(entry, gain=gain.mean, error=gain.error, **self.blend.standing)
        self.history.add(self._submitted(noted), None)
        self.callback.say(
            f"{entry.action}, fold {listing(member.done_folds)}: evenly mixed with the blend it takes "
            f"{gain.mean:+.1%} ± {gain.error:.1%} off the {self.base.competition.space.loss_name} there"
        )

    def _judge(self, entry: Entry, member: FinishedExperiment) -> None:
        """Blend all that is there, judge it, and submit it where it is better than what was submitted."""
        began = time.monotonic()
        judged = self.blend.judge(member, self.callback)
        entry = self._submitted(entry)
        self._judging = time.monotonic() - began
        last = self.history.whole[-1].forecast if self.history.whole else None
        whole = replace(
            entry,
            is_whole=True,
            seconds=self.clock.used,
            gain=judged.gain.mean if judged.gain else None,
            error=judged.gain.error if judged.gain else None,
            is_kept=judged.is_kept,
            is_member=judged.is_member,
            forecast=judged.forecast if judged.is_kept else last,
            **self.blend.standing,
        )
        self.history.add(whole, judged.step)

    def _submitted(self, entry: Entry) -> Entry:
        """The entry with the submission that is due after it; as it is where the last one stays."""
        part = self.blend.mixed_in
        mixed_in = f"{part.name}, fold {listing(part.done_folds)}" if part else ""
        due = ([member.name for member in self.blend.kept], mixed_in)
        if due == self._last_submitted:
            return entry
        written = self.blend.submit(part, f"{self.config.competition.name}_compete", self.callback)
        self._last_submitted = due
        return replace(entry, submission=written, mixed_in=mixed_in)

    def _take_up(self) -> None:
        """Go on from what earlier runs did: their experiments, and the steps of their blend."""
        whole, entries = self.history.whole, self.history.entries
        found = [
            (self._member(entry), entry.is_member, step)
            for entry, step in zip(whole, self.history.steps(), strict=True)
        ]
        self.blend.take_up(found)
        done = {entry.experiment for entry in whole}
        for entry in entries:
            if entry.experiment not in done:
                self.blend.unfinished[entry.experiment] = self._member(entry)
        written = [entry for entry in entries if entry.submission]
        if written and Path(written[-1].submission).is_file():
            build.check_unchanged(Path(written[-1].submission), self.config.competition.name)
            self._last_submitted = [member.name for member in self.blend.kept], written[-1].mixed_in
        elif written:  # it was deleted, or renamed
            entries[-1] = self._submitted(entries[-1])
            self.history.write()

    def _member(self, entry: Entry) -> FinishedExperiment:
        """The experiment of an entry, whose folds are still as they were."""
        file = Path(entry.config)
        if not file.is_file():
            mend = f"get it back, or {anew(self.history.folder)}"
            raise FoldcraftError("is gone, though an experiment of an earlier run was made with it", file, mend)
        member = FinishedExperiment(Experiment.on(config_file.load(file), self.base.competition, self.base.folds))
        member.check()
        return member

    def _look_at_views(self, net: Net) -> None:
        """Find out which views keep the label, once there is an answer."""
        config = diagnose.config_for(self.config, net.name)
        until = UntilTimeIsUp(self.callback, self.clock, self._reserve, self.history.note_time)
        most = seconds.rows_to_look_at(self.clock.budget, net.rate, len(diagnose.VIEWS))
        try:
            effects, mirror = diagnose.look_at_views(replace(self.base, config=config), until, most)
        except TimeIsUp:
            return
        looks = Looks.as_seen(effects, mirror, self.config)
        self.history.notes["looks"] = {"used": list(looks.used), "mirror": looks.mirror}
        self.history.write()
        seen = ", ".join(looks.used) or "none"
        mirrored = "averaged in" if looks.mirror else "not averaged in"
        self.callback.say(f"views that keep the label, by a probe on {net.name}: {seen}; mirror images are {mirrored}")


def data_digest(experiment: Experiment) -> str:
    """Of what a history is for."""
    data = experiment.competition
    judged = (data.metric.name, str(data.metric.options), data.metric.code)
    return fingerprint.of_values([data.fingerprint, experiment.folds.fingerprint, *judged])


def shared_settings(config: Config) -> dict[str, str]:
    """What all experiments are made with: the config's images, flips and net, and the recipes themselves.

    Returns: values by the name of the setting, after the kind of experiment and a colon.
    """
    looks, name = Looks.as_configured(config), config.backbone.name
    made = {"probe": recipes.probe(config, [name], looks, [config.images.size])}
    for kind in ("transformer", "CNN"):
        made[kind] = recipes.fine_tuning(config, name, kind == "transformer", looks, rows=1000)
        made[f"{kind}, short"] = recipes.shorter(made[kind])
    found = {
        f"{kind}: {section}.{setting}": str(value)
        for kind, recipe in made.items()
        for section, values in recipe.sections.items()
        if section not in ("competition", "folds", *recipes.PLACE)  # the first two are in `data_digest`
        for setting, value in values.items()
    }
    for view in (*diagnose.VIEWS, *diagnose.TURNS):
        found[f"views: {view}"] = "ruled out" if recipes.is_ruled_out(view, config) else "possible"
    return found
