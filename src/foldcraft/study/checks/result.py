"""What a check says."""

from dataclasses import dataclass, field
from typing import Any

PASS, FAIL, NOTE, NOT_APPLICABLE = "pass", "fail", "note", "n/a"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        status: "pass", "fail", "note" (worth knowing, no mistake) or "n/a" (the settings leave nothing to check).
        number: what was measured, with its bound, in words.
        mend: what to do about it; empty where nothing is to be done.
        values: the numbers themselves.
    """

    status: str
    number: str
    mend: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def verdict(sound: bool, number: str, mend: str, **values: Any) -> Finding:
    """Pass, or fail with a way out."""
    return Finding(PASS, number, "", values) if sound else Finding(FAIL, number, mend, values)


def noted(sound: bool, number: str, mend: str, **values: Any) -> Finding:
    """Pass, or worth a look."""
    return Finding(PASS, number, "", values) if sound else Finding(NOTE, number, mend, values)


def not_applicable(why: str) -> Finding:
    """There is nothing to check."""
    return Finding(NOT_APPLICABLE, why)
