"""How long an action will take: reckoned from how fast nets and products are here, corrected by what was seen."""

import math
import time
from collections.abc import Collection, Iterator, Sequence

import torch

from foldcraft.study import diagnose
from foldcraft.study.compete.actions import Action, Situation
from foldcraft.study.compete.history import Entry

SIDE = 768  # of the matrices by whose product heads are reckoned
STEP = 3.0  # passes forward that a step of training takes
STRENGTHS = 8  # that a head is solved for
OF_A_FOLD, OF_A_TRAINING = 1.5, 6.0  # seconds for what has nothing to do with images: weights, files, a net's timing
AUGMENTED = 1.5  # seconds of an augmented image over one as it is, for a fast net
LOOK = 0.03  # share of the budget that a look at views may take
FEWEST_LOOKED_AT = 300  # rows, which still tell a flip that changes the label from one that does not
DOUBT = 0.5  # how many experiments the reckoning itself counts as, against what was seen


def product_rate() -> float:
    """Multiplications a second in a product of matrices, in 32 bits."""
    a = torch.rand(SIDE, SIDE)
    a @ a
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 0.2:
        a @ a
        count += 1
    return count * SIDE**3 / (time.perf_counter() - began)


def feature_name(look: tuple[str, int, str]) -> str:
    """Of features in a history."""
    net, size, view = look
    return f"{net}@{size}:{view}"


def reckon(action: Action, now: Situation, tests: int, folds: int, rate: float) -> float:
    """Seconds that some folds of an action take, on nets' own speed.

    Args:
        tests: test images.
        folds: that are left to do.
        rate: as `product_rate` gives it.
    """
    if action.looks_at:
        gathered = {*now.gathered, *(name for entry in now.entries for name in entry.features)}
        return _gathering(action, now, tests, gathered) + _solving(action, now, folds, rate) + OF_A_FOLD * folds
    net, train = action.nets[0], action.recipe.sections["train"]
    views = len(action.recipe.sections["tta"]["views"])
    steps = train["epochs"] * now.learned
    looks = views * (now.rows - now.learned + tests) / STEP
    return folds * ((steps + looks) * action.pixels / now.training_rates[net.name] + OF_A_TRAINING)


def _gathering(action: Action, now: Situation, tests: int, gathered: Collection[str]) -> float:
    total = 0.0
    for look in action.looks_at:
        if feature_name(look) in gathered:
            continue
        name, size, view = look
        images = now.rows * AUGMENTED if view.startswith("draw") else now.rows + tests
        total += images * (size / now.size) ** 2 / now.net(name).rate
    return total


def _solving(action: Action, now: Situation, folds: int, rate: float) -> float:
    """Products of rows, or of features, and a Cholesky factor for each strength and fold."""
    settings = action.recipe.sections["probe"]
    width = sum(net.width for net in action.nets) * len(settings.get("sizes", [0]))
    rows = now.rows * (1 + settings["augmented"])
    small, large = sorted((rows, width))
    return (small**2 * large * (1 if rows < width else folds) + folds * STRENGTHS * small**3 / 3) / rate


def rounds(left: int, at_once: int, begun: bool) -> int:
    """How often folds are trained, of a fine-tuning whose first fold goes alone.

    Args:
        left: folds that are left to do.
        at_once: side by side.
        begun: is there a fold already?
    """
    return math.ceil(left / at_once) if begun else 1 + math.ceil((left - 1) / at_once)


def rows_to_look_at(budget: float, rate: float, views: int) -> int:
    """On how many rows views may be judged: computing features takes half of the time, solving heads the other.

    Args:
        budget: seconds in all.
        rate: images/s of the net.
        views: that are tried.
    """
    return max(FEWEST_LOOKED_AT, min(diagnose.MOST_FOR_VIEWS, int(LOOK * budget * rate / (2 * views))))


def corrected(kind: str, reckoned: float, entries: Sequence[Entry]) -> float:
    """The same, times what such actions have taken over what was reckoned; the mean of the logarithms."""
    seen = list(_excess(kind, entries))
    return reckoned * math.exp(sum(seen) / (len(seen) + DOUBT))


def _excess(kind: str, entries: Sequence[Entry]) -> Iterator[float]:
    for entry in entries:
        if entry.kind == kind and entry.reckoned and entry.took:
            yield math.log(entry.took / entry.reckoned)
