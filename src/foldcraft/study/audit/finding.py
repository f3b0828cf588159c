"""What an audit finds: how bad it is, in a sentence; what to do about it; which images show it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["serious", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "info")  # the worst first
MOST_IDS = 20  # in the summary; the CSV has all


@dataclass(frozen=True)
class ImageRef:
    """An image on a contact sheet.

    Attributes:
        part: "train" or "test".
        note: what there is to say of it, beside its id.
    """

    part: str
    id: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.part}/{self.id}"


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        name: a word or two joined by "_"; the contact sheet is called after it.
        count: how many images, labels, pairs or groups it is about, as the sentence says.
        sentence: what was found, with its numbers.
        hint: what to do about it.
        table: the CSV that lists all of it.
        image_rows: images, the worst first; those that belong together are one row.
    """

    name: str
    severity: Severity
    count: int
    sentence: str
    hint: str
    table: str
    image_rows: Sequence[Sequence[ImageRef]] = field(default=(), repr=False)

    def as_json(self) -> dict[str, Any]:
        """What the summary says of it."""
        ids = list(dict.fromkeys(str(shown) for strip in self.image_rows for shown in strip))
        words = {name: getattr(self, name) for name in ("name", "severity", "count", "sentence", "hint", "table")}
        return {**words, "ids": ids[:MOST_IDS]}


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """What is serious, then what is doubtful, then what is only worth knowing."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
