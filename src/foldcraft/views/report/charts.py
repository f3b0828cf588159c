"""Charts as Vega-Lite specifications, made by Altair.

They name no colour: `ink`, `paper`, `muted`, `good` and `bad` are parameters that the page sets for light and for dark.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

INK, PAPER, MUTED, GOOD, BAD = (alt.ExprRef(name) for name in ("ink", "paper", "muted", "good", "bad"))
STEP = 20  # pixels a row of a chart with names
MOST_CLASSES = 60  # of a matrix
STRONG = 0.72  # share of a colour, from which text on it takes the colour of paper
TEXTS = 16  # classes, up to which a matrix has numbers in its cells
ROW_NAME, CELL_NAME, LEGEND_NAME = 36, 24, 36  # characters of a name beside a row, a matrix, and in a legend
DIGEST = re.compile("-[0-9a-f]{8}$")  # of a trial's settings, in the name of its experiment
Spec = dict[str, Any]


def _spec(chart: alt.TopLevelMixin, called: Mapping[str, str] | None = None) -> Spec:
    """The specification alone; its data stay in it, and its version too.

    Args:
        called: what names are shortened to; the page shows them whole when one points at them.
    """
    spec, short = chart.to_dict(), called or {}
    names = {text: name for name, text in short.items() if text != name}
    return spec | {"usermeta": {"names": names}} if names else spec


def shortened(names: Sequence[str], most: int) -> dict[str, str]:
    """Names of so many characters at the most by the whole ones, none alike.

    Where one is longer, digests at the end go first, if names differ without; then what is in the middle.
    """
    tail = (most - 1) // 2
    bare = {name: DIGEST.sub("", name) for name in names}
    if max(map(len, names), default=0) <= most or len(set(bare.values())) < len(bare):
        bare = {name: name for name in names}
    called = {
        name: text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[-tail:]}" for name, text in bare.items()
    }
    for text, count in Counter(called.values()).items():
        alike = [name for name in called if called[name] == text] if count > 1 else []
        for number, name in enumerate(alike, start=1):
            called[name] = f"{name[: most - 5]}… ({number})"
    return called


def _labels(called: Mapping[str, str]) -> dict[str, Any]:
    """Settings of an axis or a legend by which names are shown as they are called."""
    shown = {"labelLimit": 0}  # Vega's own limit cuts the end off, which is where names differ
    if any(name != text for name, text in called.items()):
        shown["labelExpr"] = f"({json.dumps(called)})[datum.label]"
    return shown


def _data(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    return alt.Data(values=[dict(row) for row in rows])


def _some_epochs(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """About eight whole numbers for an axis."""
    last = max(int(row["epoch"]) for row in rows)
    step = -(-last // 8)
    return [1, *range(step, last + 1, step)] if step > 1 else list(range(1, last + 1))


def curves(rows: Sequence[Mapping[str, Any]], title: str, dashed: bool = False) -> Spec:
    """Lines over epochs, one a fold, from `epoch`, `fold`, `value` and, where `dashed`, `part`."""
    encode = {
        "x": alt.X("epoch:Q", title="epoch", axis=alt.Axis(values=_some_epochs(rows), format="d")),
        "y": alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
        "color": alt.Color("fold:N", title="fold"),
        "tooltip": ["fold:N", "epoch:Q", alt.Tooltip("value:Q", format=".4f"), *(["part:N"] if dashed else [])],
    }
    if dashed:
        parts = ["held-out images", "training images"]
        encode["strokeDash"] = alt.StrokeDash("part:N", sort=parts, legend=None)
    point = alt.OverlayMarkDef(size=24)
    return _spec(
        alt.Chart(_data(rows)).mark_line(point=point).encode(**encode).properties(width="container", height=230)
    )


def intervals(rows: Sequence[Mapping[str, Any]], title: str, hint: str = "") -> Spec:
    """A point with its interval a row, from `name`, `value`, `low`, `high`, in the order given."""
    order = [row["name"] for row in rows]
    called = shortened(order, ROW_NAME)
    name = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(**_labels(called)))
    tips = ["name:N", *(alt.Tooltip(f"{key}:Q", format=".4f") for key in ("value", "low", "high"))]
    base = alt.Chart(_data(rows)).encode(y=name, tooltip=tips + ([f"{hint}:Q"] if hint else []))
    scale = alt.Scale(zero=False, nice=True)
    whisker = base.mark_rule(size=2).encode(
        x=alt.X("low:Q", title=title, scale=scale), x2="high:Q", color=alt.value(MUTED)
    )
    point = base.mark_point(filled=True, size=70, opacity=1).encode(x=alt.X("value:Q", scale=scale))
    return _spec((whisker + point).properties(width="container", height=STEP * len(rows)), called)


def confusion(counts: np.ndarray, names: Sequence[str]) -> Spec:
    """Counts (K, K), truth by row, as shares of the row; right answers in one colour, wrong ones in another."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    wrong = share - np.diag(np.diag(share))
    most = max(float(wrong.max()), 1e-9)
    rows = [
        {
            "label": names[i],
            "answer": names[j],
            "images": int(counts[i, j]),
            "share": round(float(share[i, j]), 4),
            "right": i == j,
            "strong": bool(share[i, j] ** 0.5 > STRONG if i == j else (share[i, j] / most) ** 0.5 > STRONG),
        }
        for i in range(len(names))
        for j in range(len(names))
        if counts[i, j] or i == j or len(names) <= TEXTS
    ]
    side = 44 if len(names) <= 6 else 34 if len(names) <= TEXTS else 15
    called = shortened(names, CELL_NAME)
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("answer:N", sort=list(names), axis=alt.Axis(orient="top", labelAngle=-90, **_labels(called))),
        y=alt.Y("label:N", sort=list(names), axis=alt.Axis(**_labels(called))),
        tooltip=["label:N", "answer:N", "images:Q", alt.Tooltip("share:Q", format=".1%", title="share of the label")],
    )

    def cells(right: bool, colour: alt.ExprRef, highest: float) -> alt.Chart:
        scale = alt.Scale(type="sqrt", domain=[0, highest], range=[PAPER, colour], interpolate="rgb")
        shown = alt.Color("share:Q", scale=scale, legend=None)
        return (
            base.transform_filter(alt.datum.right == right).mark_rect(stroke=MUTED, strokeWidth=0.3).encode(color=shown)
        )

    layers = [cells(True, GOOD, 1.0), cells(False, BAD, most)]
    if len(names) <= TEXTS:
        ink = alt.condition("datum.strong", alt.value(PAPER), alt.value(INK))
        said = base.transform_filter("datum.images > 0").mark_text(fontSize=12).encode(text="images:Q", color=ink)
        layers.append(said)
    chart = alt.layer(*layers).resolve_scale(color="independent")
    return _spec(chart.properties(width=alt.Step(side), height=alt.Step(side)), called)


def matrix(values: np.ndarray, names: Sequence[str], title: str) -> Spec:
    """Numbers from -1 to 1 (P, P) between things of the same names; an empty cell where one is NaN."""
    called = shortened(names, CELL_NAME)
    rows = [
        {"a": names[i], "b": names[j], "value": None if np.isnan(values[i, j]) else round(float(values[i, j]), 3)}
        for i in range(len(names))
        for j in range(len(names))
    ]
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("b:N", sort=list(names), title=None, axis=alt.Axis(orient="top", labelAngle=-90, **_labels(called))),
        y=alt.Y("a:N", sort=list(names), title=None, axis=alt.Axis(**_labels(called))),
        tooltip=["a:N", "b:N", alt.Tooltip("value:Q", title=title)],
    )
    scale = alt.Scale(domain=[0, 1], range=[PAPER, GOOD], interpolate="rgb", clamp=True)
    cells = base.mark_rect(stroke=MUTED, strokeWidth=0.3).encode(color=alt.Color("value:Q", scale=scale, legend=None))
    ink = alt.condition(f"datum.value > {STRONG}", alt.value(PAPER), alt.value(INK))
    known = base.transform_filter("isValid(datum.value)")
    text = known.mark_text(fontSize=12).encode(text=alt.Text("value:Q", format=".2f"), color=ink)
    return _spec((cells + text).properties(width=alt.Step(52), height=alt.Step(36)), called)


def reliability(
    rows: Sequence[Mapping[str, Any]],
    sure: str = "how sure (mean probability of the answer)",
    right: str = "how often right",
) -> Spec:
    """How often answers are right over how sure they are, from `who`, `sure`, `right`, `low`, `high`, `images`."""
    first, lowest = min(row["sure"] for row in rows), min(row["low"] for row in rows)
    across, up = (alt.Scale(domain=[least, 1], nice=False, zero=False) for least in (first, lowest))
    axis = alt.Axis(format="%", tickCount=6)
    ends = [{"x": max(first, lowest), "y": max(first, lowest)}, {"x": 1, "y": 1}]
    ideal = (
        alt.Chart(_data(ends))
        .mark_line(strokeDash=[4, 4])
        .encode(x=alt.X("x:Q", scale=across), y=alt.Y("y:Q", scale=up), color=alt.value(MUTED))
    )
    tips = ["who:N", "images:Q", *(alt.Tooltip(f"{key}:Q", format=".1%") for key in ("sure", "right", "low", "high"))]
    called = shortened([row["who"] for row in rows], LEGEND_NAME)
    who = alt.Legend(orient="top", columns=1, symbolOpacity=1, **_labels(called))
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("sure:Q", title=sure, scale=across, axis=axis),
        color=alt.Color("who:N", title=None, legend=who, sort=list(dict.fromkeys(row["who"] for row in rows))),
        tooltip=tips,
    )
    height = alt.Y("right:Q", title=right, scale=up, axis=axis)
    line = base.mark_line(point=alt.OverlayMarkDef(size=40)).encode(y=height)
    whisker = base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", scale=up), y2="high:Q")
    return _spec((ideal + whisker + line).properties(width="container", height=300), called)


def growth(rows: Sequence[Mapping[str, Any]], title: str) -> Spec:
    """A score over the share of the data, from `share`, `value`, `low`, `high`."""
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("share:Q", title="share of the groups learned from", axis=alt.Axis(format="%")),
        tooltip=[
            alt.Tooltip("share:Q", format="%"),
            *(alt.Tooltip(f"{k}:Q", format=".4f") for k in ("value", "low", "high")),
        ],
    )
    band = base.mark_area(opacity=0.25).encode(y=alt.Y("low:Q", title=title, scale=alt.Scale(zero=False)), y2="high:Q")
    line = base.mark_line(point=True).encode(y=alt.Y("value:Q", scale=alt.Scale(zero=False)))
    return _spec((band + line).properties(width="container", height=230))


def over_time(rows: Sequence[Mapping[str, Any]], title: str) -> Spec:
    """A score that stays until there is a better one, from `minutes`, `value`, `low`, `high`, `what`."""
    x = alt.X("minutes:Q", title="minutes", scale=alt.Scale(zero=True))
    tips = ["what:N", *(alt.Tooltip(f"{key}:Q", format=".4f") for key in ("minutes", "value", "low", "high"))]
    base = alt.Chart(_data(rows)).encode(x=x, tooltip=tips)
    scale, step = alt.Scale(zero=False), "step-after"
    band = base.mark_area(opacity=0.25, interpolate=step).encode(
        y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q"
    )
    line = base.mark_line(point=True, interpolate=step).encode(y=alt.Y("value:Q", scale=scale))
    return _spec((band + line).properties(width="container", height=230))


def scatter(rows: Sequence[Mapping[str, Any]], title: str) -> Spec:
    """Predicted values over true ones, from `image`, `truth`, `predicted`; on the dashed line both are the same."""
    both = [float(row[key]) for row in rows for key in ("truth", "predicted")]
    scale = alt.Scale(domain=[min(both), max(both)], nice=True, zero=False)
    ends = [{"x": end, "y": end} for end in (min(both), max(both))]
    ideal = (
        alt.Chart(_data(ends))
        .mark_line(strokeDash=[4, 4])
        .encode(x=alt.X("x:Q", scale=scale), y=alt.Y("y:Q", scale=scale), color=alt.value(MUTED))
    )
    tips = ["image:N", *(alt.Tooltip(f"{key}:Q", format=".4g") for key in ("truth", "predicted"))]
    points = (
        alt.Chart(_data(rows))
        .mark_point(filled=True, size=26, opacity=0.45)
        .encode(
            x=alt.X("truth:Q", title=f"{title}: truth", scale=scale),
            y=alt.Y("predicted:Q", title="prediction", scale=scale),
            tooltip=tips,
        )
    )
    return _spec((ideal + points).properties(width="container", height=300))


def against(rows: Sequence[Mapping[str, Any]], board: str) -> Spec:
    """Leaderboard scores over out-of-fold ones with their intervals, from `file`, `oof`, `low`, `high`, `score`."""
    scale = alt.Scale(zero=False)
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("score:Q", title=f"{board} leaderboard", scale=scale),
        tooltip=["file:N", *(alt.Tooltip(f"{key}:Q", format=".4f") for key in ("oof", "low", "high", "score"))],
    )
    whisker = base.mark_rule().encode(
        x=alt.X("low:Q", title="out-of-fold", scale=scale), x2="high:Q", color=alt.value(MUTED)
    )
    point = base.mark_point(filled=True, size=70, opacity=1).encode(x=alt.X("oof:Q", scale=scale))
    return _spec((whisker + point).properties(width="container", height=230))
