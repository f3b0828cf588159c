"""Which members answer: the whole blend, and smaller ones where size or time is short, each with its nested score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foldcraft.ensemble import nested
from foldcraft.ensemble.methods import Method
from foldcraft.ensemble.nested import BlendMember, BlendSelection, Labels, Score
from foldcraft.ensemble.plan import BlendPlan

UNKNOWN = Score(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class SmallerBlend:
    """Some of the members, blended.

    Attributes:
        members: places of those that count, among all.
        plan: of these.
    """

    members: tuple[int, ...]
    plan: BlendPlan
    score: Score


def of_plan(plan: BlendPlan, places: Sequence[int], score: Score) -> SmallerBlend:
    """What a plan of some members uses; those without a weight are left out.

    Args:
        places: of the plan's members among all.
    """
    used = plan.combination.used
    combination = replace(plan.combination, used=tuple(range(len(used))), given=len(used))
    kept = replace(plan, views=tuple(plan.views[k] for k in used), combination=combination)
    return SmallerBlend(tuple(places[k] for k in used), kept, score)


def blended(
    known: Sequence[BlendMember], truth: Labels, places: Sequence[int], methods: Sequence[Method] | None
) -> SmallerBlend:
    """The best honest blend of some members."""
    found: BlendSelection = nested.judge([known[k] for k in places], truth, methods)
    return of_plan(found.chosen.plan, places, found.chosen.score)


def leaving(blend: SmallerBlend, costs: Sequence[float]) -> list[int]:
    """Places of a blend's members in the order in which they leave: those first that count little for what they cost.

    Args:
        costs: of all members.
    """
    worth = dict(zip(blend.members, blend.plan.combination.weights, strict=True))
    return sorted(worth, key=lambda place: worth[place] / max(costs[place], 1e-12))


def smaller(
    blend: SmallerBlend, costs: Sequence[float], judged: Callable[[Sequence[int]], SmallerBlend]
) -> list[SmallerBlend]:
    """About half as many members again and again, down to one."""
    order, found = leaving(blend, costs), []
    count = len(order) // 2
    while count:
        found.append(judged(sorted(order[-count:])))
        count //= 2
    return found


def views_of(plans: Sequence[tuple[BlendPlan, int]], views: Sequence[str]) -> tuple[str, ...]:
    """The views of an image that some plans use of a member, in their order.

    Args:
        plans: each with the member's place in it.
    """
    counted = np.zeros(len(views), dtype=bool)
    for plan, place in plans:
        counted |= np.reshape(plan.views[place], (-1, len(views))).any(0)
    return tuple(view for view, is_used in zip(views, counted, strict=True) if is_used)


def with_views(plan: BlendPlan, all_views: Sequence[Sequence[str]], kept: Sequence[Sequence[str]]) -> BlendPlan:
    """The plan for members that look at the kept views only."""
    weights = []
    for own, every, few in zip(plan.views, all_views, kept, strict=True):
        by_way = np.reshape(own, (-1, len(every)))
        weights.append(tuple(by_way[:, [list(every).index(view) for view in few]].ravel().tolist()))
    return replace(plan, views=tuple(weights))
