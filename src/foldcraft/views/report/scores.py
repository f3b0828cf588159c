"""What the page says of the score: the headline, the leaderboard, the blend and its views."""

from collections import Counter
from collections.abc import Iterator, Mapping

from foldcraft.common.errors import counted, listing, plural
from foldcraft.ensemble import nested
from foldcraft.ensemble.nested import BlendCandidate, Score
from foldcraft.metrics import calibration, significance
from foldcraft.submission import leaderboard as leaderboards
from foldcraft.views.report import charts
from foldcraft.views.report import data as data_section
from foldcraft.views.report.blocks import (
    Block,
    Cell,
    Chart,
    PageSection,
    Points,
    Side,
    StatTile,
    StatTiles,
    Table,
    Words,
    columns,
    interval,
    number,
    seconds,
    texts,
)
from foldcraft.views.report.evidence import Evidence

NOTHING = 1e-9  # differences below are rounding
MOST_BESIDE = 4  # members whose matrix has room beside another chart
MOST_NAMES = 3  # experiments of a submission that are named
MOST_VIEWS = 40  # rows of the table of views


def spread(score: Score) -> str:
    """An interval."""
    return f"{score.low:.4f} to {score.high:.4f}"


def headline(seen: Evidence) -> PageSection:
    """The score, what it rests on, and what is worth looking at first."""
    score, data = seen.chosen.score, seen.members[0].experiment.competition
    direction = "" if seen.combined.truth.metric.greater_is_better else " (less is better)"
    wrong, rows = len(seen.cases), len(seen.answers)
    total = sum(map(seen.seconds, range(len(seen.members))))
    folds = sum(len(member.done_folds) for member in seen.members)
    experiments = counted(len(seen.members), "experiment")
    answers = f" for {counted(len(data.answering.train_ids), 'answer')}" if data.answering else ""
    tiles = [
        StatTile(
            f"out-of-fold {seen.metric_words}{direction}",
            f"{score.value:.4f}",
            f"95 % interval {spread(score)}{_mean_of_folds(seen)}",
        ),
        *_forecast(seen),
        *_boards(seen),
        *([StatTile(*_wrong(seen, wrong, rows))] if seen.target.is_right_or_wrong else []),
        StatTile("training time", seconds(total), f"{experiments}, {counted(folds, 'fold')} in all"),
        StatTile(
            "data",
            f"{len(data.train_ids):,}",
            f"training images{answers} of {counted(len(data.target.heads), data.target.part)}, {_groups(seen)}",
        ),
    ]
    meaning = (
        "Out-of-fold: every image was answered by models that never saw it"
        + (" nor any image of its group" if data.groups is not None else "")
        + ". Whatever was fitted to make the answers (weights, views, decision rule) was fitted on the other folds, so "
        "the score is what a new test set of the same kind should give, within the interval."
    )
    return PageSection(
        "headline",
        "In short",
        "",
        [StatTiles(tiles), *data_section.doubts(seen), Words(meaning), Points(list(_first_looks(seen))), *_gaps(seen)],
    )


def _forecast(seen: Evidence) -> Iterator[StatTile]:
    """What the test set will score, and what that is made of."""
    found = seen.combined.forecast
    if found:
        words = f"95 % interval {found.low:.4f} to {found.high:.4f}, {counted(found.rows, 'test row')}; "
        yield StatTile("forecast of the hidden score", f"{found.value:.4f}", words + "; ".join(found.words))


def _mean_of_folds(seen: Evidence) -> str:
    """Beside a score that looks at the order of rows, which mixes what different folds put out."""
    if not seen.combined.truth.metric.by_order:
        return ""
    return f"; all folds pooled. Mean over folds {seen.combined.mean_of_folds(seen.chosen):.4f}"


def _wrong(seen: Evidence, wrong: int, rows: int) -> tuple[str, str, str]:
    title = "wrong answers" if not seen.parts else f"{plural(seen.thing)} with a wrong {seen.target.part}"
    return title, f"{wrong:,}", f"of {counted(rows, seen.thing)} ({100 * wrong / rows:.1f} %)"


def _groups(seen: Evidence) -> str:
    data = seen.members[0].experiment.competition
    return counted(len(set(data.units.tolist())), "group") if data.groups is not None else "no groups"


def _boards(seen: Evidence) -> Iterator[StatTile]:
    """The leaderboard's word on this very blend, or that there is none."""
    names = {member.name for member in seen.members}
    rows = [] if seen.standing is None else seen.standing.rows.to_dict("records")
    own = [row for row in rows if set(row["experiments"].split()) == names]
    known = [(board, row) for row in own[-1:] for board in ("public", "private") if row[board]]
    for board, row in known:
        yield StatTile(f"{board} leaderboard", row[board], row["file"])
    if not known:
        yield StatTile(
            "leaderboard", "not known", "infer.py --score FILE public=0.812" if own else "no submission of these yet"
        )


def _gaps(seen: Evidence) -> Iterator[Block]:
    for member in seen.members:
        if member.missing_folds:
            lacking = ", ".join(map(str, member.missing_folds))
            yield Words(
                f"{member.name} lacks fold {lacking}; only rows that all experiments answered are judged", "warning"
            )
    if len(seen.combined.folds) == 1:
        yield Words("With one fold nothing can be fitted on other folds: the score is optimistic.", "warning")


def _first_looks(seen: Evidence) -> Iterator[str]:
    yield from _first_of_parts(seen) if seen.parts else _first_of_classes(seen)
    if len(seen.members) > 1:
        yield _gain_of_blending(seen)
    if seen.target.is_right_or_wrong:
        yield _trust(seen)


def _first_of_parts(seen: Evidence) -> Iterator[str]:
    """Which label, head or column is told worst; values are compared by R2, whatever their units."""
    section = {"labels": "Labels", "values": "Columns"}.get(seen.target.space.form, "Heads")
    section = section if seen.target.is_right_or_wrong or section != "Heads" else "Classes"
    found = []
    for part in seen.parts:
        measure = next((one for one in part.measures if one.name == "R2"), part.measures[0])
        value = part.score(measure, seen.scored(measure.name))
        found += [(measure.metric.sign * value, part, measure, value)] if value == value else []
    if found:
        _, part, measure, value = min(found, key=lambda one: one[0])
        rows = counted(len(part.rows), seen.thing)
        yield f"Weakest {seen.target.part}: {part.name}, with {measure.name} {value:.3f} on {rows} (see {section})."


def _first_of_classes(seen: Evidence) -> Iterator[str]:
    truth, names = seen.combined.truth, seen.classes.names
    weakest = min((one for one in seen.each_class if one.rows), key=lambda one: one.f1[0])
    rows = counted(weakest.rows, seen.thing)
    yield f"Weakest class: {weakest.name}, with F1 {weakest.f1[0]:.3f} on {rows} (see Classes)."
    if seen.cases:
        pairs = Counter((names[truth.targets[case.row]], names[seen.answers[case.row]]) for case in seen.cases)
        (label, said), count = pairs.most_common(1)[0]
        yield f"Most frequent mistake: {label} taken for {said}, {counted(count, 'time')} (see Confusions)."
        doubted, wrong = sum(case.doubtful for case in seen.cases), counted(len(seen.cases), "wrong answer")
        yield f"Labels to look at: {doubted} of {wrong} may be wrong labels (see Mistakes)."


def _gain_of_blending(seen: Evidence) -> str:
    truth = seen.combined.truth
    best = max(seen.combined.selection.members, key=lambda one: truth.metric.sign * one.score.value)
    value, error = nested.gain(seen.chosen.nested, best.nested, truth)
    if abs(value) < NOTHING:
        return f"Blending changes nothing over {best.name} alone (see Blend)."
    what = "gains" if value > 0 else "loses"
    real = "which is real" if abs(value) > 2 * error else "which could be luck"
    return f"Blending {what} {abs(value):.4f} ± {error:.4f} against {best.name} alone, {real} (see Blend)."


def _trust(seen: Evidence) -> str:
    sure, right = seen.target.space.sure_and_right(seen.plain.nested, seen.combined.truth.targets)
    bins = calibration.reliability_of(sure, right)
    sure = sum(one.rows * (one.sure - one.right) for one in bins) / len(right)
    if abs(sure) < 0.01:
        return "Probabilities can be taken at their word, in the mean (see Calibration)."
    return f"Probabilities are {100 * abs(sure):.1f} % too {'high' if sure > 0 else 'low'} (see Calibration)."


def leaderboard(seen: Evidence) -> PageSection:
    """All submissions, and whether out-of-fold and leaderboard go together."""
    question = "Does the leaderboard agree with the out-of-fold score, and which of them should be believed?"
    if seen.standing is None:
        text = "Nothing is submitted yet. `python src/infer.py` with the same --config writes a submission."
        return PageSection("leaderboard", "Leaderboard", question, [Words(text, "note")])
    rows = [
        [
            Cell(row["file"], link=seen.link(seen.submissions / row["file"])),
            *texts(row["time"], listing(row["experiments"].split(), MOST_NAMES)),
            _score(row, "nested"),
            interval(*(float(row[key] or "nan") for key in ("nested_low", "nested_high"))),
            _score(row, "forecast"),
            interval(*(float(row[key] or "nan") for key in ("forecast_low", "forecast_high"))),
            _score(row, "public"),
            _score(row, "private"),
        ]
        for row in reversed(seen.standing.rows.to_dict("records"))
    ]
    own = ("# out-of-fold", "# 95 % interval", "# forecast|of the hidden score", "# its 95 % interval")
    heads = columns("file", "time", "experiments", *own, "# public", "# private")
    table = Table("Submissions", heads, rows[:100], of=len(rows) if len(rows) > 100 else 0)
    return PageSection(
        "leaderboard",
        "Leaderboard",
        question,
        [Points(list(leaderboards.findings(seen.standing))), *_scatter(seen), table],
    )


def _score(row: Mapping[str, str], key: str) -> Cell:
    return number(float(row[key]) if row[key] else None)


def _scatter(seen: Evidence) -> Iterator[Block]:
    for board in seen.standing.boards if seen.standing else ():
        if len(board.files) > 1:
            values = zip(board.files, board.oof, board.low, board.high, board.scores, strict=True)
            rows = [dict(zip(("file", "oof", "low", "high", "score"), row, strict=True)) for row in values]
            words = f"Each point is a submission: its {board.name} score over its out-of-fold score with the interval."
            yield Chart(f"Out-of-fold and {board.name} leaderboard", words, charts.against(rows, board.name))


def blend(seen: Evidence) -> PageSection:
    """Weights, scores, and how far members err together."""
    selection = seen.combined.selection
    shares = selection.chosen.plan.combination.shares
    shown = [
        *((one, "member", share) for one, share in zip(selection.members, shares, strict=True)),
        *((one, "blend", None) for one in selection.worth_showing if len(seen.members) > 1 or one.decides),
        (selection.chosen, "used", None),
    ]
    rows, by_order = [_scores_row(seen, *row) for row in shown], seen.combined.truth.metric.by_order
    heads = columns(
        "name",
        "what",
        "# weight|share in the blend that is used",
        f"# score|out-of-fold, all fitted on other folds{', all folds pooled' if by_order else ''}",
        "# 95 % interval",
        *(["# mean over folds|outputs of different folds need not be on one scale"] if by_order else []),
        "# optimistic|fitted on the rows it is judged on",
        *(f"# fold {fold}" for fold in seen.combined.folds),
    )
    truth = seen.combined.truth
    points = [
        {"name": f"used: {one.name}" if what == "used" else one.name, "value": s.value, "low": s.low, "high": s.high}
        for one, what, _ in shown
        for s in [one.score]
    ]
    words = (
        "Points are out-of-fold scores, lines their 95 % intervals. Intervals that overlap much mean: no telling "
        "them apart."
    )
    given = "values" if truth.space.form == "values" else "probabilities"
    note = (
        "A member is one experiment; a blend is a way to join them. Behind a comma stands the decision rule that turns "
        f"{given} into answers; without one it is {truth.space.by_default}. The line “used” is what is "
        "submitted: its choice among the blends is judged by the other folds as well."
    )
    blocks: list[Block] = [
        Points(selection.words) if selection.words else Words("One experiment: there is nothing to blend.", "note"),
        Chart("Scores with intervals", words, charts.intervals(points, seen.metric_words)),
        Table("Scores", heads, rows, note),
    ]
    if len(seen.members) > 1:
        blocks.insert(2, _together(seen))
        if len(seen.members) <= MOST_BESIDE:
            blocks[1:3] = [Side(blocks[1:3])]
    question = "How much does each experiment count, and is the blend better than its best member?"
    return PageSection("blend", "Blend", question, blocks)


def _scores_row(seen: Evidence, one: BlendCandidate, what: str, share: float | None) -> list[Cell]:
    score, others = one.score, map(number, [one.optimistic, *seen.combined.fold_scores(one)])
    return [
        *texts(one.name, what),
        number(share, ".2f"),
        number(score.value),
        interval(score.low, score.high),
        *([number(seen.combined.mean_of_folds(one))] if seen.combined.truth.metric.by_order else []),
        *others,
    ]


def _together(seen: Evidence) -> Chart:
    members = seen.combined.selection.members
    truth = seen.combined.truth
    values = significance.error_correlation(truth.space, truth.targets, [one.nested for one in members])
    if not seen.target.is_right_or_wrong:
        words = (
            "Correlation of errors, too much or too little: 1 means that two experiments miss alike, 0 that their "
            "errors have nothing to do with each other. The lower, the more there is to gain by blending."
        )
        return Chart("Do they err alike?", words, charts.matrix(values, [m.name for m in members], "correlation"))
    words = (
        "Correlation of being wrong: 1 means that two experiments fail on the same images, 0 that their mistakes have "
        "nothing to do with each other. The lower, the more there is to gain by blending. An empty cell: one of "
        "the two never fails."
    )
    return Chart(
        "Do they make the same mistakes?", words, charts.matrix(values, [one.name for one in members], "correlation")
    )


def views(seen: Evidence) -> PageSection:
    """What each view of the test images gives."""
    selection, truth = seen.combined.selection, seen.combined.truth
    rows, lines = [], []
    for place, member in enumerate(selection.members):
        names, weights = seen.combined.views[place], member.plan.views[0]
        value, error = selection.views_gain[place]
        if len(names) > 1:
            gain = f"{value:+.4f} ± {error:.4f}"
            lines.append(f"{member.name}: views, chosen on the other folds, give {gain} over the image as it is.")
        for view, weight, predicted in zip(names, weights, seen.looks[place], strict=True):
            found = nested.score_of(predicted, truth)
            loss = truth.space.loss(predicted, truth.targets)
            rows.append(
                [
                    *texts(member.name, view),
                    number(weight, ".2f"),
                    number(found.value),
                    interval(found.low, found.high),
                    number(loss),
                ]
            )
    heads = columns(
        "experiment",
        "view",
        "# weight|chosen on all rows; 0: not used",
        "# score|of this view alone",
        "# 95 % interval",
        f"# {truth.space.loss_name}|less is better",
    )
    table = Table("Views", heads, rows[:MOST_VIEWS], of=len(rows) if len(rows) > MOST_VIEWS else 0)
    probes = [member.experiment.config for member in seen.members if member.experiment.config.is_probe]
    beside = (
        "; probes have the mirror image in their features" if any(one.probe.mirror is True for one in probes) else ""
    )
    words = Words(f"Only the image as it is was looked at{beside}.", "note")
    question = (
        "Images are answered in several views (flipped, magnified), and the answers averaged. What did each give?"
    )
    return PageSection("views", "Test-time views", question, [Points(lines), table] if lines else [words])
