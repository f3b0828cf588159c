"""Packing: the blend that infer would submit, its models, its code and its papers, in one folder."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foldcraft.common.callbacks import Callback
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import locked, remove_leftovers, temporary_beside
from foldcraft.ensemble import blend
from foldcraft.ensemble.blend import Combined
from foldcraft.ensemble.methods import Method
from foldcraft.ensemble.nested import Labels
from foldcraft.ensemble.plan import BlendMember
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.submission.pack import code, kaggle, nets, readings, stored, tiers
from foldcraft.submission.pack.card import card
from foldcraft.submission.pack.draft import Draft
from foldcraft.submission.pack.outcome import Made, Wanted, megabytes
from foldcraft.submission.pack.packed import Packed, Tier
from foldcraft.submission.pack.tiers import SmallerBlend

PAPERS = 100_000  # bytes of settings, notebook and card, about


@dataclass(frozen=True)
class _Judge:
    """Blends of some members, by their out-of-fold predictions."""

    known: Sequence[BlendMember]
    truth: Labels
    methods: Sequence[Method] | None

    def __call__(self, places: Sequence[int]) -> SmallerBlend:
        return tiers.blended(self.known, self.truth, places, self.methods)


def pack(
    members: Sequence[FinishedExperiment], wanted: Wanted, callback: Callback, methods: Sequence[Method] | None = None
) -> Made:
    """Write the pack.

    Raises:
        FoldcraftError: what `blend.complete` and `blend.combine` raise; a net cannot be exported; packed models say
            something else than trained ones; not even one model fits into the size; the folder is no pack.
    """
    nets.check_engine(wanted.engine)
    _check_free(wanted.out)
    blend.complete(members, callback)
    combined = blend.combine(members, methods)
    _, truth, known = blend.out_of_fold(members)
    judge = _Judge(known, truth, methods)
    whole = _whole(combined, judge, callback)
    temporary = temporary_beside(wanted.out)
    with locked(
        wanted.out.with_name(f".{wanted.out.name}.lock"), wait=False, busy=f"another process packs {wanted.out}"
    ):
        remove_leftovers(wanted.out.parent, wanted.out.name)  # of one that was killed
        try:
            made = _write(members, wanted, combined, judge, whole, temporary, callback)
            if wanted.out.exists():
                shutil.rmtree(wanted.out)
            temporary.rename(wanted.out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return made


def _check_free(out: Path) -> None:
    if out.is_file():
        raise FoldcraftError("is a file", out, "name a folder: --out FOLDER")
    if out.is_dir() and any(out.iterdir()) and not (out / stored.TABLE).is_file():
        raise FoldcraftError("holds something that is no pack", out, "name another folder: --out FOLDER")


def _whole(combined: Combined, judge: _Judge, callback: Callback) -> SmallerBlend:
    """The blend that infer submits, but for boosted trees, which scikit-learn would be needed for."""
    if not combined.boosted:
        return tiers.of_plan(combined.plan, range(len(judge.known)), combined.selection.chosen.score)
    found = judge(range(len(judge.known)))
    before = combined.selection.chosen.score.value
    callback.say(
        f"warning: boosted trees on metadata are not packed: nested {before:.4f} becomes {found.score.value:.4f}"
    )
    return found


def _write(
    members: Sequence[FinishedExperiment],
    wanted: Wanted,
    combined: Combined,
    judge: _Judge,
    whole: SmallerBlend,
    folder: Path,
    callback: Callback,
) -> Made:
    code.copy(folder, wanted.engine)
    drafts = {place: Draft.of(members[place], place, wanted, folder) for place in whole.members}
    for draft in drafts.values():
        with callback.progress(f"{draft.member.name}: packing", len(draft.member.done_folds)) as advance:
            draft.write(wanted.half, callback, advance)
    said: list[str] = []
    if wanted.most is not None:
        whole = _fitting(drafts, whole, judge, wanted.most, folder, callback, said)
    drafts = {place: drafts[place] for place in whole.members}
    packed = _packed(list(drafts.values()), whole, judge, wanted)
    blueprints = [draft.blueprint for draft in drafts.values()]
    made = Made(wanted, combined, whole, packed, [d.parity for d in drafts.values()], blueprints, said)
    stored.write(folder, packed)
    kaggle.write(folder, wanted.out.name, members[0].experiment.competition.name, wanted)
    (folder / "README.md").write_text(card(made, members[0].experiment.competition), encoding="utf-8")
    made.bytes = size_of(folder)
    return made


def size_of(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _fitting(
    drafts: dict[int, Draft],
    whole: SmallerBlend,
    judge: _Judge,
    most: int,
    folder: Path,
    callback: Callback,
    said: list[str],
) -> SmallerBlend:
    """The largest blend that fits: weights in 16 bits, then fewer members, then fewer folds of the last.

    Raises:
        FoldcraftError: not one model fits.
    """
    room = most - size_of(folder) + sum(draft.bytes for draft in drafts.values()) - PAPERS
    if sum(draft.bytes for draft in drafts.values()) > room:
        for draft in drafts.values():
            if not draft.half:
                draft.write(True, callback)
    while sum(drafts[place].bytes for place in whole.members) > room and len(whole.members) > 1:
        gone = tiers.leaving(whole, [drafts[k].bytes if k in drafts else 1 for k in range(len(judge.known))])[0]
        before, spared = whole.score.value, drafts[gone].bytes
        kept = judge([place for place in whole.members if place != gone])
        for place in set(whole.members) - set(kept.members):
            drafts[place].drop()
        whole = kept
        name = drafts[gone].member.name
        said.append(f"without {name} ({megabytes(spared)}) nested {before:.4f} becomes {whole.score.value:.4f}")
    (place, *_) = whole.members
    if drafts[place].bytes > room and len(whole.members) == 1:
        said.append(_with_fewer_folds(drafts[place], room, most))
    return whole


def _with_fewer_folds(draft: Draft, room: int, most: int) -> str:
    models = draft.packed.models
    each = draft.bytes / len(models)
    count = int(room // each)
    if not count:
        least = megabytes(most - room + each)
        raise FoldcraftError(f"one model of {draft.member.name} does not fit", "--most", f"allow {least} at the least")
    draft.drop()
    draft.packed = replace(draft.packed, models=models[:count])
    draft.write(draft.half, _Silent())
    return f"{count} of {len(models)} fold models of {draft.member.name}; what that costs no held-out row can tell"


class _Silent(Callback):
    """Hears nothing."""


def _packed(drafts: Sequence[Draft], whole: SmallerBlend, judge: _Judge, wanted: Wanted) -> Packed:
    """The pack of the drafts, which are the members of the whole blend."""
    seconds = dict(zip(whole.members, (draft.parity.seconds for draft in drafts), strict=True))
    costs = [seconds.get(place, np.inf) for place in range(len(judge.known))]
    blends = [whole, *tiers.smaller(whole, costs, judge)]
    most = max(len(draft.packed.models) for draft in drafts)
    folds = [most] * len(blends)
    if most > 1:
        blends.append(blends[-1])
        folds.append(1)
    read, reading_of = readings.of([draft.member.experiment for draft in drafts])
    kept = _views(drafts, whole, blends)
    about = zip(drafts, kept, reading_of, strict=True)
    members = tuple(
        replace(
            draft.packed,
            reading=reading,
            views=views,
            seconds=draft.parity.seconds * len(views) / len(draft.packed.views),
            bytes=draft.bytes,
            config=draft.member.experiment.config,
        )
        for draft, views, reading in about
    )
    return Packed(
        wanted.engine,
        tuple(read),
        members,
        tuple(_tier(one, count, whole, drafts, kept) for one, count in zip(blends, folds, strict=True)),
        len(drafts[0].member.experiment.test_rows),
    )


def _views(drafts: Sequence[Draft], whole: SmallerBlend, blends: Sequence[SmallerBlend]) -> list[tuple[str, ...]]:
    """The views that any of the blends uses of each member."""
    found = []
    for draft, place in zip(drafts, whole.members, strict=True):
        plans = [(one.plan, one.members.index(place)) for one in blends if place in one.members]
        found.append(tiers.views_of(plans, draft.packed.views))
    return found


def _tier(
    found: SmallerBlend,
    folds: int,
    whole: SmallerBlend,
    drafts: Sequence[Draft],
    kept: Sequence[tuple[str, ...]],
) -> Tier:
    own = [whole.members.index(place) for place in found.members]
    plan = tiers.with_views(found.plan, [drafts[k].packed.views for k in own], [kept[k] for k in own])
    score = found.score if folds > 1 or len(drafts[0].packed.models) == 1 else tiers.UNKNOWN
    return Tier(tuple(own), folds, plan, score.value, score.low, score.high)
