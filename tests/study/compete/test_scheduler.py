"""The scheduler's parts: what an action is worth, what could be done, how long it takes, what is kept of it."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foldcraft.common import config_file
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.ensemble.best_so_far import Step
from foldcraft.study.compete import actions, seconds
from foldcraft.study.compete.actions import Situation, possible
from foldcraft.study.compete.blend_so_far import BlendSoFar
from foldcraft.study.compete.clock import Clock, TimeIsUp, UntilTimeIsUp
from foldcraft.study.compete.history import Entry, History
from foldcraft.study.compete.nets import Net
from foldcraft.study.compete.options import FIRST_FOLD, Option, best_plan, share_given
from foldcraft.study.compete.worth import Belief
from foldcraft.study.recipes import Looks

CNN, VIT = Net("cnn", False, 100.0, 1000), Net("vit", True, 50.0, 2000)
SETTINGS = {"probe: images.size": "160"}
LOOKS = Looks(("hflip", "scale1.25"), True)


@pytest.fixture
def config(shapes: Path) -> Config:
    return config_file.load(shapes)


@pytest.fixture
def situation(config: Config) -> Situation:
    rates = {"cnn": 30.0, "vit": 80.0}
    return Situation(config, rows=1000, learned=800, nets=[CNN, VIT], looks=LOOKS, training_rates=rates)


def entry(action: str, kind: str, nets: tuple[str, ...], **more: object) -> Entry:
    known = {"folds": (0, 1, 2), "is_whole": True, "seconds": 10.0, "took": 4.0, "expected": 4.0, "reckoned": 4.0}
    return Entry(action, kind, nets, f"{action}-12345678", **{**known, **more})


def after(now: Situation, *entries: Entry) -> Situation:
    return replace(now, entries=[*now.entries, *entries])


PROBED = [entry("probe_cnn", "probe", ("cnn",), alone=0.5), entry("probe_vit", "probe", ("vit",), alone=0.4)]


def test_an_action_is_worth_what_it_gains_where_it_gains() -> None:
    assert Belief(0.0, 1.0).worth == pytest.approx(0.39894, abs=1e-5)  # E max(0, X) of a standard normal
    assert Belief(0.2, 1e-6).worth == pytest.approx(0.2)
    assert Belief(-0.2, 1e-6).worth == pytest.approx(0.0)
    assert Belief(0.0, 0.2).worth > Belief(0.0, 0.1).worth > Belief(-0.1, 0.1).worth


def test_a_belief_follows_what_was_seen() -> None:
    before = Belief(0.2, 0.1)
    after_one = before.after([Belief(0.0, 0.1)])
    assert (after_one.mean, after_one.error) == pytest.approx((0.1, 0.1 / 2**0.5))
    assert before.after([]).mean == pytest.approx(0.2)
    assert before.after([Belief(0.0, 0.1)], spread=10.0).mean == pytest.approx(0.2, abs=1e-4)


def test_the_fastest_net_comes_first_and_alone(situation: Situation) -> None:
    (first,) = possible(situation)
    assert (first.name, first.kind) == ("probe_cnn", "probe")
    assert first.recipe.sections["probe"]["augmented"] == 0


def test_more_is_possible_once_there_are_probes(situation: Situation) -> None:
    names = [action.name for action in possible(after(situation, *PROBED))]
    assert len(set(names)) == len(names)
    assert {"pool2", "pool2_draws", "pool2_32", "probe_vit_draws", "probe_vit_32", "full_vit", "full_cnn"} <= set(names)
    assert not {"probe_cnn", "probe_vit", "full_vit_seed1"} & set(names)
    finished = after(situation, *PROBED, entry("full_vit", "fine-tuning", ("vit",), alone=0.3))
    assert {"full_vit_seed1", "full_vit_seed2", "full_vit_32", "full_vit_long"} <= {a.name for a in possible(finished)}


def test_pseudo_labels_come_in_rounds_each_by_a_blend_with_the_last(situation: Situation) -> None:
    tuned = after(situation, *PROBED, entry("full_vit", "fine-tuning", ("vit",), alone=0.3))
    assert not [a for a in possible(tuned) if a.kind == "pseudo-labels"]
    (first,) = (a for a in possible(replace(tuned, rounds=2)) if a.kind == "pseudo-labels")
    assert first.recipe.sections["distill"] == {"teachers": [first.teacher], "share": 0.0, "pseudo": 0.3}
    later = after(replace(tuned, rounds=2, teachers={first.name: first.teacher}), entry("pool2", "one head", ("vit",)))
    (same,) = (a for a in possible(later) if a.kind == "pseudo-labels")
    assert same.teacher == first.teacher, "its folds learn from one blend, whatever comes between them"
    (second,) = (a for a in possible(after(later, entry(first.name, "pseudo-labels", ("vit",)))) if a.teacher)
    assert second.name == "full_vit_pseudo2"
    assert second.teacher != first.teacher


def test_the_first_fine_tuning_is_expected_to_gain_most(situation: Situation) -> None:
    found = {action.name: action for action in possible(after(situation, *PROBED))}
    assert found["full_vit"].before == actions.FINE_TUNING
    assert found["full_vit"].fold_by_fold
    assert found["full_cnn"].before == actions.FINE_TUNING, "and the best CNN, until one of them is begun"


def test_a_transformer_may_be_fine_tuned_before_it_was_probed(situation: Situation) -> None:
    other = Net("slow_vit", True, 5.0, 2000)
    now = after(replace(situation, nets=[CNN, VIT, other]), PROBED[0])
    tuned = {a.nets[0].name: a for a in possible(now) if a.kind == "fine-tuning"}
    assert set(tuned) == {"cnn", "vit"}, "the fastest of them"
    assert tuned["vit"].recipe.sections["finetune"]["head_init"] == "random", "no features are needed"
    own = now.config.model_copy(update={"backbone": now.config.backbone.model_copy(update={"name": "slow_vit"})})
    named = {a.nets[0].name for a in possible(replace(now, config=own)) if a.kind == "fine-tuning"}
    assert named == {"cnn", "slow_vit"}, "or the one that the config names"


def test_folds_side_by_side_take_the_time_of_one_but_the_first_goes_alone() -> None:
    assert [seconds.rounds(5, at_once, begun=False) for at_once in (1, 2, 4, 8)] == [5, 3, 2, 2]
    assert [seconds.rounds(4, at_once, begun=True) for at_once in (1, 2, 4)] == [4, 2, 1]
    assert seconds.rounds(1, 4, begun=False) == 1


def test_a_look_at_views_takes_a_small_part_of_the_budget() -> None:
    rows = {minutes: seconds.rows_to_look_at(60.0 * minutes, 300.0, views=3) for minutes in (2, 10, 60)}
    assert rows == {2: 300, 10: 900, 60: 1500}


def test_more_is_expected_of_the_better_net(situation: Situation) -> None:
    found = {action.name: action for action in possible(after(situation, *PROBED))}
    best, behind = (found[f"probe_{name}_draws"].before.mean for name in ("vit", "cnn"))
    assert behind / best == pytest.approx(np.exp(-2 * (0.5 - 0.4) / 0.4))


def test_once_a_fine_tuning_is_begun_less_is_expected_of_others_but_not_of_its_own_folds(situation: Situation) -> None:
    def begun(gain: float) -> Entry:
        return entry("full_vit_short", "fine-tuning", ("vit",), folds=(0,), is_whole=False, gain=gain, error=0.1)

    before, good, bad = (
        {a.name: a.before for a in possible(after(situation, *PROBED, *more))}
        for more in ((), [begun(0.24)], [begun(-0.1)])
    )
    assert good["full_vit_short"] == before["full_vit_short"]
    assert good["full_vit"] == Belief(0.12, actions.OTHER_FINE_TUNING.error), "half of what the short form gained"
    assert bad["full_vit"].mean == pytest.approx(-0.05)
    assert good["full_cnn"] == bad["full_cnn"] == actions.OTHER_KIND_TUNED
    whole = after(situation, *PROBED, replace(begun(0.3), action="full_vit"))
    assert "full_vit_short" not in {a.name for a in possible(whole)}, "the short form comes before, or not at all"


def test_a_part_is_mixed_in_by_what_its_rows_say_and_by_what_is_known_beforehand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = {"few rows": Belief(0.04, 0.13), "good": Belief(0.25, 0.1), "bad": Belief(-0.1, 0.05)}
    monkeypatch.setattr(BlendSoFar, "gain_of_part", lambda self, member: seen[member])

    def mixed_in(*names: str) -> str | None:
        blend = BlendSoFar()
        blend.unfinished = {name: name for name in names}
        return blend.mixed_in

    assert mixed_in("few rows", "bad") == "few rows", "4 % ± 13 would not be enough by itself"
    assert mixed_in("few rows", "good") == "good"
    assert mixed_in("bad") is None
    assert mixed_in() is None


def test_probes_gain_half_where_a_net_is_mixed_in_evenly(situation: Situation) -> None:
    alone, mixed = (
        {a.name: a.before for a in possible(replace(after(situation, *PROBED), is_mixed=is_mixed))}
        for is_mixed in (False, True)
    )
    assert mixed["pool2"].mean == pytest.approx(alone["pool2"].mean / 2)
    assert mixed["full_vit"] == alone["full_vit"]


def test_the_best_cnn_is_known_when_two_are_probed(situation: Situation) -> None:
    now = replace(situation, nets=[CNN, VIT, Net("cnn2", False, 20.0, 1000)])
    second = entry("probe_cnn2", "probe", ("cnn2",), alone=0.45)
    assert {net.name for net in after(now, *PROBED).worth_tuning} == {"vit"}, "the fastest is not yet the best"
    assert {net.name for net in after(now, *PROBED, second).worth_tuning} == {"vit", "cnn2"}


def test_a_short_fine_tuning_costs_a_part_of_the_time(situation: Situation) -> None:
    now = after(situation, *PROBED)
    found = {action.name: action for action in possible(now)}
    long, short = (seconds.reckon(found[name], now, 0, 1, 1e12) for name in ("full_vit", "full_vit_short"))
    settings = [found[name].recipe.sections["train"] for name in ("full_vit", "full_vit_short")]
    assert [(each["epochs"], each["batch"]) for each in settings] == [(12, 32), (2, 16)]
    assert short < 0.25 * long
    assert 0 < found["full_vit_short"].before.mean < found["full_vit"].before.mean


def test_what_gained_nothing_is_expected_to_gain_less(situation: Situation) -> None:
    useless = entry("probe_vit_draws", "augmented copies", ("vit",), alone=0.4, gain=-0.02, error=0.01)
    before = {a.name: a for a in possible(after(situation, *PROBED))}["pool2_draws"].before
    then = {a.name: a for a in possible(after(situation, *PROBED, useless))}["pool2_draws"].before
    assert then.worth < before.worth


def test_what_the_first_transformer_gains_is_not_expected_of_another_net(situation: Situation) -> None:
    third = replace(situation, nets=[CNN, VIT, Net("cnn2", False, 40.0, 1000), Net("cnn3", False, 30.0, 1000)])
    first = [PROBED[0], replace(PROBED[1], gain=0.5, error=0.01)]
    expected = {a.name: a.before.mean for a in possible(after(third, *first))}
    assert expected["probe_cnn2"] == actions.PROBES[1].mean
    seen = entry("probe_cnn2", "probe", ("cnn2",), alone=0.6, gain=0.0, error=0.001)
    later = {a.name: a.before.mean for a in possible(after(third, *first, seen))}
    assert later["probe_cnn3"] < actions.PROBES[2].mean


def test_copies_for_another_net_tell_partly_the_same(situation: Situation) -> None:
    """Seen gains alone would lead to expect the same of each net to the last."""
    copies = [entry(f"probe_{net}_draws", "augmented copies", (net,), gain=0.1, error=0.01) for net in ("cnn", "vit")]
    first, second = (
        {a.name: a for a in possible(after(situation, *PROBED, *copies[:count]))} for count in (0, 1)
    )  # as much was seen as was expected
    assert second["probe_vit_draws"].before.mean / first["probe_vit_draws"].before.mean == pytest.approx(0.7)
    third = {a.name: a for a in possible(after(situation, *PROBED, *copies))}
    assert third["pool2_draws"].before.mean == pytest.approx(0.05), "one head over all is another matter"


def test_at_the_ceiling_nothing_is_fine_tuned_and_many_rows_have_no_copies(situation: Situation) -> None:
    now = after(situation, *PROBED)
    assert not [a.name for a in possible(replace(now, at_ceiling=True)) if a.fold_by_fold]
    copies = {
        rows: {a.recipe.sections["probe"]["augmented"] for a in possible(replace(now, rows=rows)) if "draws" in a.name}
        for rows in (100, 500, 1900, 2100)
    }
    assert copies == {100: {16}, 500: {7}, 1900: {1}, 2100: set()}


def test_very_small_images_have_no_larger_ones(situation: Situation) -> None:
    images = situation.config.images.model_copy(update={"size": 32})
    now = after(situation, *PROBED, entry("full_vit", "fine-tuning", ("vit",), alone=0.3))
    small = replace(now, config=situation.config.model_copy(update={"images": images}))
    assert {"pool2_32", "full_vit_32"} <= {action.name for action in possible(now)}
    assert not [action.name for action in possible(small) if action.name.endswith("_32")]


def test_features_that_are_there_cost_nothing(situation: Situation) -> None:
    now = after(situation, *PROBED)
    draws = {a.name: a for a in possible(now)}["probe_vit_draws"]
    every = seconds.reckon(draws, now, 200, 3, rate=1e12)
    names = tuple(map(seconds.feature_name, draws.looks_at))
    there = after(now, entry("other", "probe", ("vit",), features=names[:2]))
    plain = 2 * (1000 + 200) / 50.0  # the image and its mirror image, of training and test rows
    assert every - seconds.reckon(draws, there, 200, 3, rate=1e12) == pytest.approx(plain)
    audited = replace(now, gathered=names[:1])
    assert every - seconds.reckon(draws, audited, 200, 3, rate=1e12) == pytest.approx(plain / 2)


def test_a_training_is_reckoned_by_its_steps_and_pixels(situation: Situation) -> None:
    now = after(situation, *PROBED, entry("full_vit", "fine-tuning", ("vit",), alone=0.3))
    found = {a.name: a for a in possible(now)}
    one, two = (seconds.reckon(found["full_vit_seed1"], now, 200, folds, rate=1e12) for folds in (1, 2))
    assert two == pytest.approx(2 * one)
    larger = seconds.reckon(found["full_vit_32"], now, 200, 1, rate=1e12)
    fixed = seconds.OF_A_TRAINING
    assert (larger - fixed) / (one - fixed) == pytest.approx((32 / 16) ** 2)
    # 12 epochs of 800 images, and two views of 400, at a third of a step each; not by the speed of frozen features
    assert one - fixed == pytest.approx((12 * 800 + 2 * 400 / 3) / 80)


def test_small_gains_do_not_take_the_time_of_a_large_one(situation: Situation) -> None:
    some, count = possible(after(situation, *PROBED))[0], itertools.count()

    def option(worth: float, took: float, kind: str = "") -> Option:
        own = replace(some, kind=kind or f"{took}", recipe=replace(some.recipe, name=f"{next(count)}"))
        return Option(own, Belief(worth, 1e-9), took, took, (0,))

    small, large = [option(0.03, 10.0) for _ in range(4)], option(0.2, 90.0)
    assert small[0].rate > large.rate
    plans = [best_plan([*small, large], seconds) for seconds in (130.0, 100.0)]
    orders = [[chosen.belief.mean for chosen in plan] for plan in plans]
    assert orders == [[0.03, 0.03, 0.03, 0.03, 0.2], [0.2, 0.03]], "the large one first where it is nearly too late"
    assert best_plan([*small, large], 80.0) == small
    assert best_plan([*small, large], 15.0) == small[:1]
    assert best_plan([*small, large], 9.0) == []
    assert best_plan([], 9.0) == []
    alike = [option(0.06, 10.0, "larger images") for _ in range(9)]
    assert large in best_plan([*alike, large], 95.0), "nine of a kind do not gain nine times as much"
    different = [option(0.06, 10.0, f"kind {k}") for k in range(9)]
    assert large not in best_plan([*different, large], 95.0)


def test_a_first_fold_alone_is_begun_where_there_is_no_time_for_the_others(situation: Situation) -> None:
    found = {action.name: action for action in possible(after(situation, *PROBED))}
    small = Option(found["pool2"], Belief(0.03, 1e-9), 10.0, 10.0, (0,))
    tuning = Option(found["full_vit"], Belief(0.2, 1e-9), 100.0, 20.0, (0,), 20.0, FIRST_FOLD)
    assert tuning.rate == pytest.approx(FIRST_FOLD * 0.2 / 20), "its first step gains faster than all of it"
    whole, part = best_plan([small, tuning], 110.0), best_plan([small, tuning], 30.0)
    assert whole == [tuning, small]
    assert [(one.seconds, one.belief.mean) for one in part] == [(20.0, pytest.approx(FIRST_FOLD * 0.2)), (10.0, 0.03)]
    short = Option(found["full_vit_short"], Belief(0.18, 1e-9), 50.0, 10.0, (0,), 10.0, FIRST_FOLD)
    assert [one.action.name for one in best_plan([small, tuning, short], 200.0)] == ["full_vit", "pool2"]
    assert [one.action.name for one in best_plan([small, tuning, short], 65.0)] == ["full_vit_short", "pool2"]
    assert [share_given(done, 5) for done in range(6)] == pytest.approx([0.0, 0.8, 0.9, 1 - 0.2 / 3, 0.95, 1.0])


def test_a_forecast_learns_from_what_took_longer() -> None:
    slow = [entry("a", "probe", ("cnn",), took=8.0), entry("b", "probe", ("vit",), took=8.0)]
    assert seconds.corrected("probe", 10.0, []) == 10.0
    assert 10.0 < seconds.corrected("probe", 10.0, slow[:1]) < seconds.corrected("probe", 10.0, slow) < 20.0
    assert seconds.corrected("fine-tuning", 10.0, slow) == 10.0


def test_work_ends_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from foldcraft.common.callbacks import Callback

    clock = Clock(budget=10.0, before=4.0, began=0.0)
    monkeypatch.setattr("time.monotonic", lambda: 3.0)
    assert (clock.used, clock.left) == (7.0, 3.0)
    UntilTimeIsUp(Callback(), clock, reserve=2.0).stepped(8)
    with pytest.raises(TimeIsUp), UntilTimeIsUp(Callback(), clock, reserve=4.0).progress("work", 1) as advance:
        advance(1)


def test_a_history_is_kept_with_the_steps_of_its_blend(config: Config) -> None:
    history = History.open(config, "data", SETTINGS)
    history.notes["looks"] = {"used": ["hflip"], "mirror": True}
    history.note_time(3.0)
    step = Step(np.full((4, 2), -0.7), np.full((4, 2), -0.5))
    history.add(entry("full_vit", "fine-tuning", ("vit",), is_whole=False, folds=(0,), seconds=20.0), None)
    history.add(entry("probe_cnn", "probe", ("cnn",), seconds=30.0, score=0.5, forecast=(0.5, 0.4, 0.6)), step)
    again = History.open(config, "data", SETTINGS)
    assert (again.entries, again.notes, again.used) == (history.entries, history.notes, 30.0)
    (found,) = again.steps()
    assert np.array_equal(found.answers, step.answers)
    assert np.array_equal(found.undecided, step.undecided)


def test_a_history_of_other_data_or_a_damaged_one_is_refused(config: Config) -> None:
    history = History.open(config, "data", SETTINGS)
    history.add(entry("probe_cnn", "probe", ("cnn",)), Step(np.zeros((1, 2)), np.zeros((1, 2))))
    with pytest.raises(FoldcraftError, match="of other data, folds or metric"):
        History.open(config, "other", SETTINGS)
    with pytest.raises(FoldcraftError, match=r"was made with images\.size 160, not 192; delete"):
        History.open(config, "data", {"probe: images.size": "192"})
    with pytest.raises(FoldcraftError, match=r"was made with images\.mode not set, not grey; delete"):
        History.open(config, "data", {**SETTINGS, "probe: images.mode": "grey"})
    next(history.folder.glob("steps/*")).write_bytes(b"PK")
    with pytest.raises(FoldcraftError, match="damaged"):
        History.open(config, "data", SETTINGS).steps()
    history.file.write_text(history.file.read_text().replace("probe_cnn", "probe_vit"))
    with pytest.raises(FoldcraftError, match="damaged"):
        History.open(config, "data", SETTINGS)


def test_the_next_nets_are_fine_tuned_once_the_best_ones_are(situation: Situation) -> None:
    nets = [CNN, VIT, Net("cnn2", False, 20.0, 1000), Net("vit2", True, 10.0, 2000)]
    probes = [*PROBED, entry("probe_cnn2", "probe", ("cnn2",), alone=0.6), entry("probe_vit2", "probe", ("vit2",))]
    now = after(replace(situation, nets=nets), *(replace(one, alone=one.alone or 0.9) for one in probes))

    def tuned(now: Situation) -> set[str]:
        return {a.nets[0].name for a in possible(now) if a.kind == "fine-tuning"}

    assert tuned(now) == {"cnn", "vit"}
    first = after(now, entry("full_vit_short", "fine-tuning", ("vit",), alone=0.3, gain=0.5, error=0.05))
    assert tuned(first) == {"cnn", "vit", "vit2"}, "vit: the whole recipe"
    given_up = entry("full_cnn", "fine-tuning", ("cnn",), folds=(0,), is_whole=False, gain=-0.2, error=0.1)
    assert "cnn2" not in tuned(after(first, given_up)), "a worse net of a kind that does not help"
    expected = {a.name: a.before for a in possible(first)}
    assert expected["full_vit2"] == actions.OTHER_FINE_TUNING, "what the first one gained is not expected of another"
    second = entry("full_vit2", "fine-tuning", ("vit2",), alone=0.5, gain=0.0, error=0.02)
    assert {a.name: a.before for a in possible(after(first, second))}["full_cnn"].worth < expected["full_cnn"].worth


def test_a_net_that_is_not_asked_for_any_more_is_left_as_it_is(situation: Situation) -> None:
    gone = [
        entry("probe_gone", "probe", ("gone",), alone=0.1),
        entry("full_gone", "fine-tuning", ("gone",), alone=0.1, gain=0.3, error=0.1),
    ]
    now = after(situation, *PROBED, *gone)
    assert {net.name for net in now.tuned} == {"cnn", "vit"}
    assert not [action.name for action in possible(now) if "gone" in action.name]
