"""What the page says of labels, heads and columns, where a row has more than one label."""

from collections.abc import Iterator

import numpy as np

from foldcraft.common.errors import counted, plural
from foldcraft.ensemble.decision_rules import HeadRules, LabelThresholds
from foldcraft.metrics import scores
from foldcraft.metrics.parts import BIAS, Part
from foldcraft.views.report import charts, classes
from foldcraft.views.report.blocks import (
    Block,
    Cell,
    Chart,
    PageSection,
    Side,
    Table,
    columns,
    interval,
    number,
    texts,
)
from foldcraft.views.report.evidence import Evidence

MOST_INTERVALS = 60  # parts that are drawn, the weakest first
MOST_MATRICES = 6  # heads
MOST_SCATTERS = 8  # columns
MOST_DOTS = 1500  # rows in a scatter
BINS = 5  # of a column's truth


def of_kind(seen: Evidence) -> list[PageSection]:
    """The sections that depend on what kind the target is."""
    space = seen.target.space
    if not seen.parts:
        return [classes.classes(seen), classes.confusions(seen), classes.sureness(seen)]
    if space.form == "labels":
        return [labels(seen), classes.sureness(seen)]
    if space.form == "values":
        return [values(seen)]
    if not seen.target.is_right_or_wrong:
        return [shares(seen)]
    return [heads(seen), *confusions(seen), classes.sureness(seen)]


def _measured(seen: Evidence, part: Part, with_interval: bool) -> Iterator[Cell]:
    """Its measures, the first with its interval."""
    for place, measure in enumerate(part.measures):
        given = seen.scored(measure.name)
        yield number(part.score(measure, given), ".3f")
        if place == 0:
            units = seen.combined.truth.units
            yield interval(*(part.interval(measure, given, units) if with_interval else (None, None)), ".3f")


def _table(seen: Evidence, title: str, more: dict[str, list[Cell]], note: str = "") -> Table:
    """A line a part: its rows, its measures, and what else there is."""
    known = _first_parts(seen)
    rows = [
        [
            Cell(part.name),
            number(len(part.rows), ",d"),
            *(cells[k] for cells in more.values()),
            *_measured(seen, part, k in known),
        ]
        for k, part in enumerate(seen.parts)
    ]
    names = [f"# {measure.name}" for measure in seen.parts[0].measures]
    names.insert(1, "# 95 % interval")
    return Table(title, columns(seen.target.part, f"# {plural(seen.thing)}", *more, *names), rows, note)


def _first_parts(seen: Evidence) -> set[int]:
    """Places of the parts whose interval is worth its time: all, or of very many the weakest."""
    first = [part.measures[0] for part in seen.parts]
    worth = [
        measure.metric.sign * part.score(measure, seen.scored(measure.name))
        for part, measure in zip(seen.parts, first, strict=True)
    ]
    return set(np.argsort(worth, kind="stable")[:MOST_INTERVALS].tolist())


def _chart(table: Table, seen: Evidence) -> Chart:
    """The first measure of each part with its interval, the weakest first."""
    name = seen.parts[0].measures[0].name
    place = [column.title for column in table.columns].index(name)
    points = []
    for row in table.rows:
        low, _, high = row[place + 1].text.partition("–")
        if low and high:
            points.append({"name": row[0].text, "value": row[place].order, "low": float(low), "high": float(high)})
    sign = seen.parts[0].measures[0].metric.sign
    points.sort(key=lambda point: sign * point["value"])
    cut = f" The {MOST_INTERVALS} weakest of {len(seen.parts)}." if len(seen.parts) > MOST_INTERVALS else ""
    words = f"{name} of each {seen.target.part} with its 95 % interval, the weakest first.{cut}"
    return Chart(f"{name} by {seen.target.part}", words, charts.intervals(points, name))


def labels(seen: Evidence) -> PageSection:
    """Each label by itself."""
    truth, names = seen.combined.truth.targets, seen.target.space.names
    rule = seen.chosen.plan.rule
    cuts = rule.cuts if isinstance(rule, LabelThresholds) else (0.0,) * len(names)
    things = plural(seen.thing)
    more = {
        f"# there|{things} that have it": [number(int((own == 1).sum()), ",d") for own in truth.T],
        f"# test answers|share of the test {things} that are given it": [
            number(float(share), ".1%") for share in seen.target.answered(seen.combined.test).mean(0)
        ],
        "# threshold|probability from which on it is answered": [
            number(float(p), ".3f") for p in seen.target.space.scored(np.array(cuts))
        ],
    }
    note = (
        f"{things.capitalize()} whose label is known. F1 is that of what is answered, each fold with the thresholds "
        "that the other folds ask for; the threshold shown is that of all. AUC and average precision need none; a dash "
        "says that all are alike."
    )
    table = _table(seen, "Measures by label", more, note)
    question = "Which labels are told well, which not, and from which probability on are they answered?"
    return PageSection("classes", "Labels", question, [_chart(table, seen), table])


def heads(seen: Evidence) -> PageSection:
    """Each head by itself."""
    slices = seen.target.space.slices
    more = {"# classes": [number(own.stop - own.start, "d") for own in slices]}
    rule = seen.chosen.plan.rule
    if isinstance(rule, HeadRules):
        more["decision rule"] = texts(*rule.rules)
    table = _table(
        seen, "Measures by head", more, f"{plural(seen.thing).capitalize()} whose label is known, by what is answered."
    )
    question = "Which of the labels is told well, which not?"
    return PageSection("classes", "Heads", question, [_chart(table, seen), table])


def confusions(seen: Evidence) -> Iterator[PageSection]:
    """What is taken for what, head by head."""
    blocks: list[Block] = []
    for part in seen.parts[:MOST_MATRICES]:
        counts = scores.confusion(part.truth, part.given(seen.chosen.nested))
        names = [name.removeprefix(f"{part.name}=") for name in seen.target.space.names[part.columns]]
        blocks += classes.confusion_blocks(counts, names, seen.thing, f"{part.name}: ")
    yield PageSection("confusions", "Confusions", "Which classes are taken for which others?", blocks)


def values(seen: Evidence) -> PageSection:
    """How far each column is off, and where."""
    units = seen.combined.truth.units
    bias = [part.interval(BIAS, seen.scored(BIAS.name), units) for part in seen.parts]
    table = _table(seen, "Measures by column", {})
    table.columns.append(columns("# its 95 % interval|of the mean error: above 0 predictions are too high")[0])
    for row, pair in zip(table.rows, bias, strict=True):
        row.append(interval(*pair, "+.3f"))
    dots = [_scatter(seen, part) for part in seen.parts[:MOST_SCATTERS]]
    sides = [Side(dots[k : k + 2]) for k in range(0, len(dots), 2)]
    question = "How far are predictions from the truth, and are they off in one direction?"
    return PageSection("classes", plural("Column"), question, [table, *sides, _by_size(seen)])


def _scatter(seen: Evidence, part: Part) -> Chart:
    step = max(1, -(-len(part.rows) // MOST_DOTS))
    said, ids = part.given(seen.answers)[::step, 0], seen.ids[part.rows][::step]
    rows = [
        {"image": str(name), "truth": float(f"{true:.5g}"), "predicted": float(f"{own:.5g}")}
        for name, true, own in zip(ids, part.truth[::step, 0], said, strict=True)
    ]
    cut = f" {len(rows):,} of {counted(len(part.rows), seen.thing)}, evenly spread." if step > 1 else ""
    words = f"A point is an {seen.thing}; on the dashed line the prediction is right.{cut}"
    return Chart(f"{part.name}: prediction by truth", words, charts.scatter(rows, part.name))


def _by_size(seen: Evidence) -> Table:
    """Errors of small and of large values."""
    rows, units = [], seen.combined.truth.units
    for part in seen.parts:
        for low, high, some in _bins(part):
            given = seen.scored(BIAS.name)
            error = part.given(given)[some, 0] - part.truth[some, 0]
            own = Part(part.name, part.rows[some], part.columns, part.truth[some], part.measures)
            rows.append(
                [
                    *texts(part.name, f"{low:.4g} to {high:.4g}" if low < high else f"{low:.4g}"),
                    number(int(some.sum()), ",d"),
                    number(float(error.mean()), "+.3f"),
                    interval(*own.interval(BIAS, given, units), "+.3f"),
                    number(float(np.abs(error).mean()), ".3f"),
                ]
            )
    heads = columns(
        "column",
        "truth",
        f"# {plural(seen.thing)}",
        "# mean error|above 0: too high. Predictions drawn to the mean are too high where little is",
        "# 95 % interval",
        "# MAE",
    )
    return Table("Errors by the size of the truth", heads, rows)


def _bins(part: Part) -> Iterator[tuple[float, float, np.ndarray]]:
    """Parts of about equally many rows by their truth: from, to, and which rows (n,)."""
    true = part.truth[:, 0]
    ends = np.unique(np.quantile(true, np.linspace(0, 1, BINS + 1)[1:-1]))
    place = np.searchsorted(ends, true, side="left")
    for k in np.unique(place):
        some = place == k
        yield float(true[some].min()), float(true[some].max()), some


def shares(seen: Evidence) -> PageSection:
    """Classes whose shares are predicted."""
    truth, given = seen.combined.truth.targets, seen.target.space.scored(seen.plain.nested)
    more = {
        "# votes|mean share of the votes": [number(float(each), ".1%") for each in truth.mean(0)],
        "# predicted|mean share that is predicted": [number(float(each), ".1%") for each in given.mean(0)],
        "# test answers|the same on the test set": [
            number(float(each), ".1%") for each in seen.target.answered(seen.combined.test).mean(0)
        ],
    }
    table = _table(seen, "Measures by class", more, "Of the shares, from 0 to 1.")
    kl = seen.target.row_losses(seen.plain.nested, truth)
    parts = ("mean", "median", "90 % are below", "99 % are below", "most")
    found = [kl.mean(), *np.quantile(kl, [0.5, 0.9, 0.99, 1])]
    things = plural(seen.thing)
    heads = columns(
        f"of the {things}", "# KL|divergence of the votes from what is predicted, 0 where both are the same"
    )
    rows = [[Cell(name), number(float(value))] for name, value in zip(parts, found, strict=True)]
    question = f"Which shares are met well, which not, and are a few {things} far off?"
    blocks = [_chart(table, seen), table, Table(f"KL of an {seen.thing}", heads, rows)]
    return PageSection("classes", "Classes", question, blocks)
