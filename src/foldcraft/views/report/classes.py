"""What the page says of the classes: each one's measures, what is taken for what, and how sure answers are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foldcraft.common.errors import plural
from foldcraft.ensemble.nested import Labels
from foldcraft.metrics import calibration, scores
from foldcraft.metrics.calibration import Bin
from foldcraft.views.report import charts
from foldcraft.views.report.blocks import (
    Block,
    Cell,
    Chart,
    PageSection,
    Side,
    Table,
    Words,
    columns,
    interval,
    number,
    texts,
)
from foldcraft.views.report.evidence import Evidence

MOST_PAIRS = 30  # rows of the table of confusions
MOST_POINTS = 60  # classes in the chart of F1
MOST_CURVES = 5  # experiments in the chart of calibration


def classes(seen: Evidence) -> PageSection:
    """Precision, recall and F1 of each class."""
    found = seen.each_class
    answers = seen.target.answered(seen.combined.test)
    answered = np.bincount(answers, minlength=len(found)) / max(1, len(answers))
    rows = [
        [
            Cell(one.name),
            number(one.rows, ",d"),
            *(cell for measure in (one.precision, one.recall, one.f1) for cell in _measured(*measure)),
            number(one.rows / len(seen.answers), ".1%"),
            number(answered[k], ".1%"),
        ]
        for k, one in enumerate(found)
    ]
    things = plural(seen.thing)
    heads = columns(
        "class",
        f"# {things}",
        "# precision|share of the answers of this class that are right",
        "# interval",
        f"# recall|share of the {things} of this class that are found",
        "# interval",
        "# F1|harmonic mean of precision and recall",
        "# interval",
        "# labels|share of the class among the labels",
        "# test answers|share of the class among the answers on the test set",
    )
    worst = sorted((one for one in found if one.rows), key=lambda one: one.f1[0])[:MOST_POINTS]
    points = [dict(zip(("name", "value", "low", "high"), (one.name, *one.f1), strict=True)) for one in worst]
    cut = f" The {MOST_POINTS} weakest of {len(found)}." if len(found) > MOST_POINTS else ""
    words = f"F1 of each class with its 95 % interval, the weakest first. Few {things} make long intervals.{cut}"
    question = "Which classes are told well, which not, and how sure is that?"
    blocks: list[Block] = [
        Chart("F1 by class", words, charts.intervals(points, "F1")),
        Table("Measures by class", heads, rows),
    ]
    return PageSection("classes", "Classes", question, blocks)


def _measured(value: float, low: float, high: float) -> tuple[Cell, Cell]:
    return number(value, ".3f"), interval(low, high, ".3f")


def confusions(seen: Evidence) -> PageSection:
    """What is taken for what."""
    truth, names = seen.combined.truth.targets, seen.classes.names
    counts = scores.confusion(truth, seen.chosen.nested)
    title, question = "Confusions", "Which classes are taken for which others?"
    blocks = confusion_blocks(counts, names, seen.thing)
    if seen.target.is_ordered:
        blocks.append(_how_far_off(counts, names, seen.thing))
    return PageSection("confusions", title, question, blocks)


def _how_far_off(counts: np.ndarray, names: Sequence[str], thing: str) -> Table:
    """Of each grade, how far answers lie from it."""
    grades = np.arange(len(names))
    apart = grades - grades[:, None]  # positive: the answer is too high
    rows = []
    for name, own, distance in zip(names, counts, apart, strict=True):
        near, total = np.abs(distance), own.sum()
        shares = [float(own[near == k].sum() / total) if total else np.nan for k in (0, 1)]
        far = float(own[near > 1].sum() / total) if total else np.nan
        means = [float((own * each).sum() / total) if total else np.nan for each in (near, distance)]
        rows.append([*texts(name), number(int(total), ",d"), *(number(v, ".1%") for v in (*shares, far))])
        rows[-1] += [number(means[0], ".2f"), number(means[1], "+.2f")]
    heads = columns(
        "grade",
        f"# {plural(thing)}",
        "# right",
        "# one off",
        "# more off",
        "# mean distance|in grades",
        "# mean error|in grades; above 0: answers are too high",
    )
    return Table("How far off", heads, rows)


def confusion_blocks(counts: np.ndarray, names: Sequence[str], thing: str, of: str = "") -> list[Block]:
    """The matrix of counts (K, K), truth by answer, and its largest cells off the diagonal.

    Args:
        thing: what is counted.
        of: whose, in the titles.
    """
    things = plural(thing)
    pairs = Counter({(i, j): int(counts[i, j]) for i, j in np.argwhere(counts) if i != j})
    rows = [
        [*texts(names[i], names[j]), number(count, ",d"), number(count / counts[i].sum(), ".1%")]
        for (i, j), count in pairs.most_common(MOST_PAIRS)
    ]
    heads = columns("label", "answer", f"# {things}", f"# of the label|share of the {things} with that label")
    title = f"{of}most frequent confusions" if of else "Most frequent confusions"
    table = Table(title, heads, rows, of=len(pairs) if len(pairs) > MOST_PAIRS else 0)
    shown = _most_confused(counts) if len(names) > charts.MOST_CLASSES else np.arange(len(names))
    cut = f" The {len(shown)} classes with the most mistakes of {len(names)}." if len(shown) < len(names) else ""
    share = (counts / np.maximum(counts.sum(1, keepdims=True), 1))[~np.eye(len(names), dtype=bool)].max()
    words = (
        "A row is a label, a column an answer. The diagonal is right, everything else is wrong; the stronger the "
        f"colour, the larger the share of the row (of the wrong ones, the strongest is {100 * share:.1f} %).{cut}"
    )
    spec = charts.confusion(counts[np.ix_(shown, shown)], [names[k] for k in shown])
    chart = Chart(f"{of}confusion matrix" if of else "Confusion matrix", words, spec, wide=len(names) > charts.TEXTS)
    if not rows:
        return [Words(f"{of}no answer is wrong." if of else "No answer is wrong.", "note"), chart]
    return [chart, table] if chart.wide else [Side([chart, table])]


def _most_confused(counts: np.ndarray) -> np.ndarray:
    wrong = counts.sum(1) + counts.sum(0) - 2 * np.diag(counts)
    return np.sort(np.argsort(-wrong, kind="stable")[: charts.MOST_CLASSES])


def sureness(seen: Evidence) -> PageSection:
    """Calibration of the blend and of its members."""
    plan, truth, of_labels = seen.chosen.plan, seen.combined.truth, seen.target.space.form == "labels"
    whose = [_Sureness("blend, calibrated", seen.plain.nested, plan.combination.overall)]
    for member, looks, weights in zip(seen.combined.selection.members, seen.looks, plan.views, strict=True):
        first = looks[int(np.argmax(weights))]
        whose.append(_Sureness(f"{member.name}, as trained", first, member.plan.combination.temperatures[0]))
    words = (
        f"Labels of {plural(seen.thing)} in ten parts of equally many, from the least to the most probable. On the "
        "dashed line a label that is given 80 % is there in 80 % of cases; above it the model is too modest, below it "
        "too sure. "
        f"Lines are 95 % intervals, as if each label were an {seen.thing} of its own."
        if of_labels
        else f"Answers in ten parts of equally many {plural(seen.thing)}, from the least to the most sure. On the "
        "dashed line an answer that is 80 % sure is right in 80 % of cases; above it the model is too modest, below it "
        "too sure."
        " Lines are 95 % intervals."
    )
    sure = "# how sure|mean probability of the answer"
    heads = columns(
        "who",
        "# log-loss|less is better",
        "# calibration error|mean distance of how sure to how often right",
        "# probability|mean of all labels" if of_labels else sure,
        "# there|share of the labels" if of_labels else "# right|before a decision rule",
        "# temperature|that was fitted: above 1 the answers were too sure, below 1 too modest",
    )
    points = [point for one in whose[:MOST_CURVES] for point in one.points(truth)]
    spec = charts.reliability(points, "probability of a label", "how often it is there") if of_labels else None
    chart = Chart("Reliability", words, spec or charts.reliability(points))
    table = Table("How sure, how right", heads, [one.row(truth) for one in whose])
    return PageSection("calibration", "Calibration", "Can the probabilities be taken at their word?", [chart, table])


@dataclass(frozen=True)
class _Sureness:
    """Somebody's log-probabilities (N, K), and the temperature that was fitted to them."""

    name: str
    predicted: np.ndarray
    temperature: float

    def _bins(self, truth: Labels) -> list[Bin]:
        return calibration.reliability_of(*truth.space.sure_and_right(self.predicted, truth.targets))

    def points(self, truth: Labels) -> list[dict[str, object]]:
        """Of the reliability curve."""
        return [
            {"who": self.name, "images": b.rows, "sure": b.sure, "right": b.right, "low": b.low, "high": b.high}
            for b in self._bins(truth)
        ]

    def row(self, truth: Labels) -> list[Cell]:
        """Of the table."""
        error = calibration.calibration_error(self._bins(truth))
        loss = number(truth.space.loss(self.predicted, truth.targets))
        pair = truth.space.sure_and_right(self.predicted, truth.targets)
        shares = [number(float(each.mean()), ".1%") for each in pair]
        return [*texts(self.name), loss, number(error, ".2%"), *shares, number(self.temperature, ".2f")]
