"""What a check says."""

from dataclasses import dataclass, field
from typing import Any

PASS, FAIL, NOTE, NOT_APPLICABLE = "pass", "fail", "note", "n/a"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        status: "pass", "fail", "note" (worth knowing, no mistake) or "n/a" (the settings leave nothing to check).
        number: what was measured, with its bound, in words.
        hint: what to do about it; empty where nothing is to be done.
        values: the numbers themselves.
    """

    status: str
    number: str
    hint: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def verdict(sound: bool, number: str, hint: str, **values: Any) -> CheckResult:
    """Pass, or fail with a way out."""
    return CheckResult(PASS, number, "", values) if sound else CheckResult(FAIL, number, hint, values)


def noted(sound: bool, number: str, hint: str, **values: Any) -> CheckResult:
    """Pass, or worth a look."""
    return CheckResult(PASS, number, "", values) if sound else CheckResult(NOTE, number, hint, values)


def not_applicable(why: str) -> CheckResult:
    """There is nothing to check."""
    return CheckResult(NOT_APPLICABLE, why)
