"""What the page says of the data: how they split, what the audit found, what frozen features say of them."""

from collections.abc import Iterator
from typing import Any

from foldcraft.common.errors import counted, listing, plural
from foldcraft.data import folds
from foldcraft.predictions import oof
from foldcraft.views.report import charts
from foldcraft.views.report.blocks import (
    Block,
    Cell,
    Chart,
    Column,
    More,
    PageSection,
    Points,
    Side,
    Table,
    Words,
    columns,
    in_words,
    interval,
    number,
    texts,
)
from foldcraft.views.report.evidence import Evidence, read_json

SEVERITIES = ("serious", "warning", "info")  # worst first
MOST_IDS = 100  # of a finding
MOST_DOUBTS = 3  # findings beside the score
# Findings that make an out-of-fold score too good, however few images they are about.
TOO_GOOD = ("train_test_copies", "copies_apart", "hidden_groups")


def split(seen: Evidence) -> PageSection:
    """Who is in which fold."""
    experiment = seen.members[0].experiment
    table = folds.balance(experiment.folds, experiment.competition)
    rows = [
        [Cell(str(name)), *(_total(cell) for cell in row)]
        for name, row in zip(["images", *table.index[1:]], table.to_numpy(), strict=True)
    ]
    part = experiment.competition.target.part
    even = "the same spread of values" if part == "column" else f"the same share of every {part}"
    if part == "head":
        even = "the same share of every class of every head"
    scheme = {
        "stratified": f"each fold has {even}",
        "stratified_group": f"each fold has about {even}, and no group lies in two folds",
        "plain": f"rows are shuffled, {plural(part)} are not looked at",
    }.get(experiment.folds.scheme, experiment.folds.scheme)
    tests = counted(len(experiment.competition.test_ids), "image")
    if made := experiment.competition.answering:
        tests = f"{counted(len(made.test_ids), 'answer')} of {tests}"
    words = (
        f"{experiment.folds.count} folds, frozen in {experiment.config.folds_file}: {scheme}. "
        f"A model of fold k learns from all other folds and answers fold k. The test set has {tests}."
        + (f" Training has {experiment.competition.counted()}, and what is judged are the answers." if made else "")
    )
    heads = columns("", *(f"# {name}" for name in table.columns))
    title = Column(part if part != "head" else "class")
    return PageSection(
        "split",
        "Data and folds",
        "What is learned from, and what is it judged on?",
        [
            Words(words),
            *_metadata(seen),
            Table(
                "Images in each fold",
                [title, *heads[1:]],
                rows,
                f"The first rows count everything, then each {title.title}.",
            ),
        ],
    )


def _metadata(seen: Evidence) -> Iterator[Block]:
    """Which columns stand beside the image, and who makes something of them."""
    found = [one.experiment.competition.metadata for one in seen.members]
    known = next((one for one in found if one is not None), None)
    if known is None:
        return
    said = [f"{known.describe()}."]
    for member, own, manifests in zip(seen.members, found, seen.manifests, strict=True):
        shares = [one.get("probe", {}).get("metadata_share") for one in manifests.values()]
        if own is None:
            said.append(f"{member.name} does not see them.")
        elif None in shares:
            said.append(f"{member.name} sees them beside the features of the image.")
        else:
            listed = ", ".join(f"{share:.0%}" for share in shares)
            said.append(f"They are {listed} of what the head of {member.name} sees, fold by fold, as the others chose.")
    used = "are used" if seen.combined.boosted else "are not used"
    yield Words(" ".join([*said, f"Boosted trees on them {used} in the blend."]))


def _total(cell: object) -> Cell:
    """A count, or a mean that is text already."""
    return number(float(cell), "g") if isinstance(cell, str) else number(int(cell), ",d")


def audit(seen: Evidence) -> PageSection:
    """What is wrong with the data."""
    question = "Is the data sound: duplicates, leaks, corrupt files, shift between training and test?"
    if seen.audited is None:
        text = (
            "The data have not been audited. `python src/audit.py` with the same --config does it; then make this"
            " page again."
        )
        return PageSection("audit", "Audit", question, [Words(text, "note")])
    findings = sorted(seen.audited["findings"], key=_urgency)
    blocks: list[Block] = list(_not_looked_at(seen))
    if not findings:
        return PageSection(
            "audit", "Audit", question, [Words("The audit found nothing to complain of.", "note"), *blocks]
        )
    heads = columns("severity", "what", "# count", "in words", "what to do", "files")
    blocks.insert(0, Table("Findings", heads, [_finding(seen, one) for one in findings]))
    for one in findings:
        if ids := [str(each) for each in one.get("ids") or []]:
            more = f" and {len(ids) - MOST_IDS} more" if len(ids) > MOST_IDS else ""
            blocks.append(
                More(
                    f"{str(one.get('name', 'finding')).replace('_', ' ')}: images",
                    [Words(", ".join(ids[:MOST_IDS]) + more)],
                )
            )
    return PageSection("audit", "Audit", question, blocks)


def _not_looked_at(seen: Evidence) -> Iterator[Block]:
    """What the audit left out, but for experiments that have been finished since."""
    experiment, about = seen.members[0].experiment, "predictions: "
    reasons = seen.audited["not_looked_at"] if seen.audited else []
    if any(reason.startswith(about) for reason in reasons):
        unfinished = oof.load_complete(experiment.config, experiment.competition)[1]
        now = [reason for reason in reasons if not reason.startswith(about) or reason.removeprefix(about) in unfinished]
        if now != reasons:
            words = "Other experiments are finished now than at the audit; `python src/audit.py` again looks at them."
            yield Words(words, "note")
        reasons = now
    yield from (Words(f"Not looked at: {reason}", "note") for reason in reasons)


def doubts(seen: Evidence) -> Iterator[Block]:
    """A warning beside the score where the audit found that it may not mean what it says."""
    experiment = seen.members[0].experiment
    mended = {
        "hidden_groups": experiment.competition.groups is not None,
        "copies_apart": experiment.folds.duplicates != "",
    }
    found = [one for one in (seen.audited or {"findings": []})["findings"] if not mended.get(str(one.get("name")))]
    told = [
        str(one.get("sentence", one.get("name", "")))
        for one in sorted(found, key=_urgency)
        if one.get("severity") == "serious" or (one.get("severity") == "warning" and one.get("name") in TOO_GOOD)
    ]
    if told:
        words = f"The audit found what may make the score mean less than it says: {listing(told, MOST_DOUBTS)}."
        yield Words(words, "warning", ("Audit", "audit"))


def _urgency(finding: dict[str, Any]) -> int:
    severity = finding.get("severity")
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _finding(seen: Evidence, finding: dict[str, Any]) -> list[Cell]:
    count = finding.get("count")
    return [
        *texts(finding.get("severity", "info"), str(finding.get("name", "")).replace("_", " ")),
        number(count if isinstance(count, int | float) else None, "g"),
        *texts(finding.get("sentence", ""), finding.get("hint") or ""),
        _file(seen, finding),
    ]


def _file(seen: Evidence, finding: dict[str, Any]) -> Cell:
    """The pictures of a finding, or else its table."""
    for key, text in (("sheet", "pictures"), ("table", "table"), ("csv", "table")):
        path = seen.study("audit") / str(finding.get(key))
        if finding.get(key) and path.is_file():
            return Cell(text, link=seen.link(path))
    return Cell("")


def diagnosis(seen: Evidence) -> PageSection:
    """What frozen features say, and what is advised."""
    question = "How much data is there, how unlike ImageNet is it, and what is worth training?"
    found = read_json(seen.study("diagnose") / "diagnosis.json")
    if not isinstance(found, dict):
        text = "The data have not been diagnosed. `python src/diagnose.py` with the same --config does it, in minutes."
        return PageSection("diagnosis", "Diagnosis", question, [Words(text, "note")])
    return PageSection("diagnosis", "Diagnosis", question, list(_of_diagnosis(found, seen)))


def _of_diagnosis(found: dict[str, Any], seen: Evidence) -> Iterator[Block]:
    score = in_words(found.get("metric", seen.metric))
    if reasons := (found.get("advice") or {}).get("reasons"):
        yield Points([str(reason) for reason in reasons])
    curve, nets, views = found.get("curve"), found.get("nets"), found.get("views")
    beside = [*([_learning_curve(curve, score)] if curve else []), *([_backbones(nets, score)] if nets else [])]
    if beside:
        yield Side(beside)
    if nets:
        heads = columns("backbone", "# all blocks", "# 95 % interval", "# last layer", "# nearest neighbours")
        yield Table("Frozen backbones", heads, [_net(net) for net in nets])
    if views:
        yield _views(views)


def _learning_curve(curve: dict[str, Any], score: str) -> Chart:
    points = [
        {"share": float(share), "value": mean, "low": mean - spread, "high": mean + spread}
        for share, (mean, spread) in curve.items()
    ]
    words = (
        "Score of the best frozen backbone by how much it learns from; still rising at the right: more data would help."
    )
    return Chart("Learning curve", words, charts.growth(points, score))


def _backbones(nets: list[dict[str, Any]], score: str) -> Chart:
    points = [{"name": net["name"], "value": net["score"], "low": net["low"], "high": net["high"]} for net in nets]
    words = "Out-of-fold score of a closed-form head on each frozen backbone, with its 95 % interval."
    return Chart("Frozen backbones", words, charts.intervals(points, score))


def _views(views: list[dict[str, Any]]) -> Table:
    gain = "# gain|on plain images, when the view is learned from as well"
    heads = columns("view", gain, "# error", "# in the view", "keeps the label")
    return Table("Views", heads, [_view(view) for view in views])


def _view(view: dict[str, Any]) -> list[Cell]:
    numbers = [number(view["plain"]["value"], "+.4f"), number(view["plain"]["error"]), number(view["seen"])]
    return [Cell(view["view"]), *numbers, Cell("yes" if view["keeps_label"] else "no")]


def _net(found: dict[str, Any]) -> list[Cell]:
    others = (number(found.get(key)) for key in ("last", "neighbours"))
    return [Cell(found["name"]), number(found["score"]), interval(found["low"], found["high"]), *others]
