"""What a page is built of. Every block says by `kind` how the template shows it; all text is escaped there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Words:
    """A paragraph; `tone` is "plain", "note" or "warning".

    Attributes:
        see: title and key of a section of the page that says more.
    """

    kind: ClassVar[str] = "words"
    text: str
    tone: str = "plain"
    see: tuple[str, str] | None = None


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    kind: ClassVar[str] = "points"
    lines: Sequence[str]


@dataclass(frozen=True)
class StatTile:
    """One number with what it is."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class StatTiles:
    """A few numbers that everything else explains."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[StatTile]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        order: what it is sorted by; left out: the text.
        link: what a click opens, relative to the page.
    """

    text: str
    order: float | None = None
    link: str | None = None


@dataclass(frozen=True)
class Column:
    """Its heading, a word of explanation, and whether it holds numbers."""

    title: str
    numeric: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """A table that can be sorted and filtered.

    Attributes:
        of: how many rows there were before it was cut to the first ones; 0: all are there.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    of: int = 0


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite specification with its heading, and what it shows in words.

    Attributes:
        wide: it needs a whole line, and scrolls inside its box where that is too short.
    """

    kind: ClassVar[str] = "chart"
    title: str
    words: str
    spec: dict[str, Any]
    wide: bool = False


@dataclass(frozen=True)
class Side:
    """Blocks beside each other where there is room."""

    kind: ClassVar[str] = "side"
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Card:
    """A picture with what is known of it.

    Attributes:
        label, said: the truth and the answer in words.
        sure, own: probability of the answer and of the label; None where an answer is more than one label.
        loss: how bad it is, its name and the number; None where `own` says so.
        picture, heat: data URIs; `heat` is the same picture with what the net looked at, None where that is not known.
        link: the image file, relative to the page.
        agree: how many of how many members answer so; "" where no two answers are the same.
    """

    name: str
    picture: str
    heat: str | None
    pixelated: bool
    link: str
    label: str
    said: str
    sure: float | None
    own: float | None
    loss: tuple[str, str] | None
    fold: int
    agree: str
    doubtful: bool


@dataclass(frozen=True)
class Gallery:
    """Cards, which can be filtered where there are labels."""

    kind: ClassVar[str] = "gallery"
    cards: Sequence[Card]
    labels: Sequence[str]


@dataclass(frozen=True)
class More:
    """Blocks behind a line that opens them."""

    kind: ClassVar[str] = "more"
    title: str
    blocks: Sequence["Block"]


Block = Words | Points | StatTiles | Table | Chart | Side | Gallery | More


@dataclass(frozen=True)
class PageSection:
    """A part of the page; `key` is its anchor, `question` what it answers."""

    key: str
    title: str
    question: str
    blocks: Sequence[Block] = field(default_factory=list)


def number(value: float | None, form: str = ".4f", link: str | None = None) -> Cell:
    """A cell with a number; a dash for none."""
    if value is None or value != value:
        return Cell("–", float("-inf"), link)
    return Cell(format(value, form).replace("%", " %"), float(value), link)


def interval(low: float | None, high: float | None, form: str = ".4f") -> Cell:
    """A cell with an interval, sorted by its lower end; a dash for none."""
    if low is None or low != low:
        return Cell("–", float("nan"))
    between = " to " if form.startswith("+") else "–"
    return Cell(f"{low:{form}}{between}{high:{form}}", low)


def in_words(metric: str) -> str:
    """A metric's name as people say it."""
    known = {"macro_f1": "macro F1", "weighted_f1": "weighted F1", "f1": "F1", "roc_auc": "ROC AUC"}
    known |= {"micro_f1": "micro F1", "sample_f1": "sample F1", "mean_auc": "mean AUC", "kl": "KL divergence"}
    known |= {"rmse": "RMSE", "mae": "MAE", "rmsle": "RMSLE", "r2": "R2", "rmse_over_std": "RMSE over std"}
    return known.get(metric, metric.replace("_", " "))


def texts(*values: object) -> list[Cell]:
    """Cells of text."""
    return [Cell(str(value)) for value in values]


def columns(*titles: str) -> list[Column]:
    """Columns from their headings; one that begins with # holds numbers, and what stands behind | explains it."""
    made = []
    for title in titles:
        name, _, hint = title.partition("|")
        made.append(Column(name.lstrip("#").strip(), name.startswith("#"), hint.strip()))
    return made


def seconds(value: float) -> str:
    """A time in words: 48 s, 12 min, 3 h 20 min."""
    if value < 90:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
