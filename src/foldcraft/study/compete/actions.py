"""What could be done next: probes of frozen nets, fine-tunings, and more of what has helped."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from foldcraft.common import fingerprint
from foldcraft.common.config import Config
from foldcraft.study import recipes
from foldcraft.study.compete.history import Entry
from foldcraft.study.compete.nets import Net
from foldcraft.study.compete.worth import Belief
from foldcraft.study.recipes import Looks, Recipe

LARGER = 1.4  # side of the larger images over that of the others
TOGETHER = 4  # nets under one head
COPIES, COPIES_TOGETHER = "augmented copies", "augmented copies together"  # kinds of actions
STEEP = 2.0  # how fast what is expected of a net falls with its distance to the best
SEEDS = 3  # trainings of one recipe
PSEUDO = 0.3  # share of an epoch that is test images

# Shares of the blend's log-loss that were taken off, with their spread over sets and nets (docs/experiments.md).
FIRST_PROBE = Belief(10.0, 1.0)  # of all that there is: nothing can be done before it
OTHER_KIND = Belief(0.20, 0.10)  # a first transformer beside CNNs, or a first CNN beside transformers
PROBES = (Belief(0.10, 0.06), Belief(0.06, 0.04), Belief(0.04, 0.03), Belief(0.02, 0.02))
TOGETHER_GAINS = Belief(0.03, 0.03)
DRAWS = {  # of a first net, and of one head over the best nets beside such nets, by training rows
    500: (Belief(0.25, 0.10), Belief(0.09, 0.05)),
    1500: (Belief(0.10, 0.08), Belief(0.05, 0.05)),
    10**9: (Belief(0.03, 0.04), Belief(0.02, 0.03)),
}
LARGER_GAINS = Belief(0.05, 0.04)
FINE_TUNING = Belief(0.35, 0.30)  # the first one that is begun
OTHER_KIND_TUNED = Belief(0.15, 0.15)  # the first CNN's where a transformer's is begun, and the other way round
OTHER_FINE_TUNING = Belief(0.06, 0.08)
LONGER = 0.5  # of what the short form of a fine-tuning gained: what the whole one gains beside it
SHORT = 0.8  # of what a fine-tuning gains, where it is a short one
PARTLY = Belief(0.03, 0.06)
SEED = Belief(0.05, 0.04)
PSEUDO_LABELS = Belief(0.02, 0.04)
AGAIN = 0.5  # of the gain of another seed with each more of it
MIXED = 0.5  # of what the blend gains, where a net that lacks folds is mixed into it evenly
COPIES_AGAIN = 0.7  # the same of augmented copies of another net: what they tell is partly the same


@dataclass(frozen=True)
class Action:
    """An experiment that could be run.

    Attributes:
        kind: what beliefs are kept by, and seconds.
        before: what is expected of it beforehand, as a share of the blend's loss.
        why: in words.
        fold_by_fold: may its first folds end it?
        looks_at: features that it needs, (net, side in pixels, view).
        pixels: of the images it is trained on, over those of the config's size.
        teacher: name of the stored blend that it learns from; "" where it learns from none.
        in_place_of: name of another action that does the same in more time; of the two one is planned.
    """

    recipe: Recipe
    kind: str
    nets: tuple[Net, ...]
    before: Belief
    why: str
    fold_by_fold: bool = False
    looks_at: tuple[tuple[str, int, str], ...] = ()
    pixels: float = 1.0
    teacher: str = ""
    in_place_of: str = ""

    @property
    def name(self) -> str:
        return self.recipe.name

    def is_alternative_to(self, other: "Action") -> bool:
        """Is it the same, or the same in more or less time?"""
        return (self.in_place_of or self.name) == (other.in_place_of or other.name)


@dataclass(frozen=True)
class Situation:
    """What is known when the next action is chosen.

    Attributes:
        rows: training images.
        learned: of which a fold learns from so many.
        nets: the fastest first.
        looks: views that may be used.
        entries: what was done.
        at_ceiling: is there nothing left that a fine-tuning could gain?
        rounds: of pseudo-labels that the user allows.
        teachers: stored blends that teach, or taught, by the name of the action.
        training_rates: images/s that nets are trained on, by name; of those of `worth_tuning` at the least.
        is_mixed: is an experiment that lacks folds mixed into what is submitted?
        gathered: features that are there beside those of the entries, as `seconds.feature_name` names them.
    """

    config: Config
    rows: int
    learned: int
    nets: Sequence[Net]
    looks: Looks
    entries: Sequence[Entry] = field(default_factory=list)
    at_ceiling: bool = False
    rounds: int = 0
    teachers: Mapping[str, str] = field(default_factory=dict)
    training_rates: Mapping[str, float] = field(default_factory=dict)
    is_mixed: bool = False
    gathered: Sequence[str] = ()

    @property
    def size(self) -> int:
        """Side of an image, in pixels."""
        return self.config.images.size

    @property
    def larger(self) -> int:
        """Side of a larger one, a multiple of 32, as patches and strides want it; of very small images the same."""
        return 32 * round(LARGER * self.size / 32)

    @property
    def whole(self) -> list[Entry]:
        """Finished experiments, in the order in which they were."""
        return [entry for entry in self.entries if entry.is_whole]

    def of_kind(self, *kinds: str) -> list[Entry]:
        """Finished experiments of some kinds, the one with the least loss first."""
        found = [entry for entry in self.whole if entry.kind in kinds]
        return sorted(found, key=lambda entry: entry.alone if entry.alone is not None else 0.0)

    def net(self, name: str) -> Net:
        """The net of that name."""
        return next(net for net in self.nets if net.name == name)

    def nets_of(self, kind: str) -> list[Net]:
        """Nets of finished experiments of a kind, the best first; those that are not tried any more are left out."""
        at_hand = {net.name: net for net in self.nets}
        names = dict.fromkeys(entry.nets[0] for entry in self.of_kind(kind))
        return [at_hand[name] for name in names if name in at_hand]

    @property
    def ranked(self) -> list[Net]:
        """Nets whose plain probe is there, the best first."""
        return self.nets_of("probe")

    @property
    def worth_tuning(self) -> list[Net]:
        """Of either kind the best net, and the next one when those before it are finished, transformers first.

        A transformer need not have been probed: it may begin from a new head. The best CNN is known as soon as two are
        probed; the first one is but the fastest.
        """
        finished = self.nets_of("fine-tuning")
        transformers, cnns = ([net for net in self.ranked if net.transformer is kind] for kind in (True, False))
        if len(cnns) < min(2, sum(not net.transformer for net in self.nets)):
            cnns = []
        found = []
        for nets in (transformers or self._unprobed_transformers, cnns):
            found += [net for net in nets if net in finished]
            found += [net for net in nets if net not in finished][:1]
        return found

    @property
    def _unprobed_transformers(self) -> list[Net]:
        """The config's own first, then the fastest."""
        transformers = [net for net in self.nets if net.transformer]
        return sorted(transformers, key=lambda net: net.name != self.config.backbone.name)

    @property
    def tuned(self) -> list[Net]:
        """Nets that are worth fine-tuning, and those that were fine-tuned."""
        return list(dict.fromkeys([*self.worth_tuning, *self.nets_of("fine-tuning")]))

    def likely_to_count(self, net: Net) -> float:
        """How much of what is expected of a probe is expected of one on that net, by how far it is behind the best."""
        alone = {entry.nets[0]: entry.alone for entry in self.of_kind("probe") if entry.alone is not None}
        least = min(alone.values(), default=0.0)
        if least <= 0 or net.name not in alone:
            return 1.0
        return math.exp(-STEEP * (alone[net.name] - least) / least)

    def expected_of_tuning(self, recipe: Recipe, net: Net) -> Belief:
        """What is expected of a fine-tuning beforehand, by which others are begun."""
        begun = [entry for entry in self.entries if entry.kind == "fine-tuning" and entry.action != recipe.name]
        names = {entry.nets[0] for entry in begun}
        if not begun:
            return FINE_TUNING
        if net.name in names:
            of_net = [entry.seen.mean for entry in begun if entry.nets[0] == net.name and entry.seen]
            return Belief(LONGER * of_net[-1], OTHER_FINE_TUNING.error) if of_net else OTHER_FINE_TUNING
        kinds = {other.transformer for other in self.nets if other.name in names}
        return OTHER_FINE_TUNING if net.transformer in kinds else OTHER_KIND_TUNED

    @property
    def further_fine_tunings(self) -> list[Entry]:
        """Those but for the first one, which tells nothing of what others may gain."""
        return [entry for entry in self.whole if entry.kind == "fine-tuning"][1:]

    @property
    def further_probes(self) -> list[Entry]:
        """Plain probes but for the first transformer and the first CNN, which tell nothing of what others may gain."""
        attends = {net.name: net.transformer for net in self.nets}
        probes = [entry for entry in self.whole if entry.kind == "probe" and entry.nets[0] in attends]
        kinds = [attends[entry.nets[0]] for entry in probes]
        return [entry for place, entry in enumerate(probes) if kinds[place] in kinds[:place]]

    def believed(self, kind: str, before: Belief, entries: Sequence[Entry] | None = None) -> Belief:
        """What is expected of a kind after what was seen of it here.

        Args:
            entries: that tell of it; left out: all of the kind.
        """
        tell = [entry for entry in self.whole if entry.kind == kind] if entries is None else entries
        return before.after([entry.seen for entry in tell if entry.seen], spread=before.error)


def possible(now: Situation) -> list[Action]:
    """All that could be done now; what is done already, by its name, is left out."""
    done = {entry.action for entry in now.entries if entry.is_whole}
    return [action for action in _all(now) if action.name not in done]


def _all(now: Situation) -> Iterator[Action]:
    yield from _probes(now)
    if not now.ranked:
        return
    yield from _together(now)
    if not now.at_ceiling:
        yield from _fine_tunings(now)


def _probes(now: Situation) -> Iterator[Action]:
    """A head on each net; the fastest is the first, so that there is an answer early."""
    count = len(now.ranked)
    for net in now.nets:
        recipe = _plain(recipes.probe(now.config, [net.name], now.looks, [now.size]))
        if not count:
            yield _probe(now, recipe, "probe", [net], FIRST_PROBE, "the fastest net first: an answer early")
            return
        if net.transformer not in {known.transformer for known in now.ranked}:
            why = "the first transformer" if net.transformer else "the first CNN"
            yield _probe(now, recipe, "probe", [net], OTHER_KIND, f"{why}, which errs differently")
            continue
        before = PROBES[min(count, len(PROBES)) - 1]
        expected = now.believed("probe", before, now.further_probes)
        yield _probe(now, recipe, "probe", [net], expected, "nets that err differently")


def _together(now: Situation) -> Iterator[Action]:
    """One head over the best nets, heads that see augmented copies, heads that see larger images too."""
    best = now.ranked[:TOGETHER]
    names = [net.name for net in best]
    for net in best:
        single = recipes.probe(now.config, [net.name], now.looks, [now.size])
        yield from _with_copies(now, single, [net], now.likely_to_count(net))
        yield from _with_larger(now, [net], now.likely_to_count(net))
    if len(best) > 1:
        joint = recipes.probe(now.config, names, now.looks, [now.size])
        plain = _plain(replace(joint, name=f"{joint.name}{len(names)}"))
        why = "one head over the best nets, beside their own"
        yield _probe(now, plain, "one head", best, now.believed("one head", TOGETHER_GAINS), why)
        yield from _with_copies(now, replace(joint, name=f"{joint.name}{len(names)}"), best, 1.0)
        yield from _with_larger(now, best, 1.0)


def _with_copies(now: Situation, recipe: Recipe, nets: Sequence[Net], share: float) -> Iterator[Action]:
    copies = recipes.copies_for(now.rows)
    if not copies:
        return
    more = recipes.with_copies(replace(recipe, name=f"{recipe.name}_draws"), now.rows)
    alone, together = next(beliefs for rows, beliefs in DRAWS.items() if now.rows <= rows)
    expected = now.believed(COPIES, alone.times(share)).times(COPIES_AGAIN ** len(now.of_kind(COPIES, COPIES_TOGETHER)))
    kind = COPIES
    if len(nets) > 1:
        kind = COPIES_TOGETHER
        expected = max(expected, now.believed(kind, together), key=lambda belief: belief.worth)
    words = "1 augmented copy" if copies == 1 else f"{copies} augmented copies"
    yield _probe(now, more, kind, nets, expected, f"{words} of each image")


def _with_larger(now: Situation, nets: Sequence[Net], share: float) -> Iterator[Action]:
    if now.larger <= now.size:
        return
    recipe = _plain(recipes.probe(now.config, [net.name for net in nets], now.looks, [now.size, now.larger]))
    name = f"{recipe.name}{len(nets) if len(nets) > 1 else ''}_{now.larger}"
    expected = now.believed("larger images", LARGER_GAINS.times(share))
    yield _probe(now, replace(recipe, name=name), "larger images", nets, expected, f"{now.larger} px beside {now.size}")


def _plain(recipe: Recipe) -> Recipe:
    return recipe.updated(recipe.name, probe={"augmented": 0})


def _probe(now: Situation, recipe: Recipe, kind: str, nets: Sequence[Net], before: Belief, why: str) -> Action:
    settings = recipe.sections["probe"]
    views = ["identity", *(["hflip"] if settings["mirror"] else [])]
    views += [f"draw{k}" for k in range(settings["augmented"])]
    sizes = settings.get("sizes", [now.size])
    looks = tuple((net.name, size, view) for net in nets for size in sizes for view in views)
    expected = before.times(MIXED) if now.is_mixed else before
    return Action(recipe, kind, tuple(nets), expected, why, looks_at=looks)


def _fine_tunings(now: Situation) -> Iterator[Action]:
    """The best nets, whole, in short and in part; then more of those that are in."""
    begun = {entry.action for entry in now.entries}
    for net in now.worth_tuning:
        recipe = recipes.fine_tuning(now.config, net.name, net.transformer, now.looks, now.learned)
        why = "a net that learns what no frozen one knows"
        yield _training(now, recipe, net, now.expected_of_tuning(recipe, net), why)
        if recipe.name not in begun:
            short = recipes.shorter(recipe)
            before = now.expected_of_tuning(short, net).times(SHORT)
            yield replace(_training(now, short, net, before, f"{why}, in a part of the time"), in_place_of=recipe.name)
        for mode, why in (("lora", "low-rank changes"), ("norm", "norms and biases alone")):
            partly = recipes.fine_tuning(now.config, net.name, net.transformer, now.looks, now.learned, mode)
            yield _training(now, partly, net, PARTLY, f"{why}, where all weights are too many", "partial fine-tuning")
    finished = now.nets_of("fine-tuning")
    for net in finished[:2]:
        recipe = recipes.fine_tuning(now.config, net.name, net.transformer, now.looks, now.learned)
        yield from _more_of(now, recipe, net)
    for net in finished[:1]:
        yield from _pseudo_labels(now, net)


def _more_of(now: Situation, recipe: Recipe, net: Net) -> Iterator[Action]:
    """Once more of a fine-tuning that is finished."""
    for seed in range(1, SEEDS):
        again = recipe.updated(f"{recipe.name}_seed{seed}", seed=seed)
        yield _training(now, again, net, SEED.times(AGAIN ** (seed - 1)), "the same from another seed", "seed")
    if now.larger > now.size:
        larger = recipe.updated(f"{recipe.name}_{now.larger}", images={"size": now.larger})
        pixels = (now.larger / now.size) ** 2
        yield _training(now, larger, net, OTHER_FINE_TUNING, f"at {now.larger} px", "larger fine-tuning", pixels)
    epochs = 2 * recipe.sections["train"]["epochs"]
    longer = recipe.updated(f"{recipe.name}_long", train={"epochs": epochs, "validate_every": epochs})
    yield _training(now, longer, net, PARTLY, "twice as many steps", "longer fine-tuning")


def _pseudo_labels(now: Situation, net: Net) -> Iterator[Action]:
    """The best net once more, with what the blend says of the test images; each round by a blend that has the last."""
    done = len(now.of_kind("pseudo-labels"))
    if done >= now.rounds:
        return
    recipe = recipes.fine_tuning(now.config, net.name, net.transformer, now.looks, now.learned)
    name = f"{recipe.name}_pseudo{done + 1}"
    teacher = now.teachers.get(name, f"blend-{fingerprint.of_values([e.experiment for e in now.whole])[:8]}")
    taught = recipe.updated(name, distill={"teachers": [teacher], "share": 0.0, "pseudo": PSEUDO})
    why = f"round {done + 1} of pseudo-labels: what the blend says of the test images"
    yield replace(_training(now, taught, net, PSEUDO_LABELS, why, "pseudo-labels"), teacher=teacher)


def _training(
    now: Situation,
    recipe: Recipe,
    net: Net,
    before: Belief,
    why: str,
    kind: str = "fine-tuning",
    pixels: float = 1.0,
) -> Action:
    expected = now.believed(kind, before, now.further_fine_tunings if kind == "fine-tuning" else None)
    return Action(recipe, kind, (net,), expected, why, fold_by_fold=True, pixels=pixels)
