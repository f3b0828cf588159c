"""A first config of a competition: a line a setting with the reason for it, and what could not be told."""

from dataclasses import dataclass, field
from typing import Any

import yaml

from foldcraft.common.errors import printable

WIDTH = 76  # columns that a setting takes before its reason
CHECK = "CHECK:"  # begins what is a guess


@dataclass
class Draft:
    """Settings with their reasons.

    Attributes:
        lines: of `competition`: key, value, reason.
        open: what the files do not tell.
        folds: column of the host's own folds.
    """

    lines: list[tuple[str, Any, str]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    folds: str = ""

    def add(self, key: str, value: Any, reason: str) -> None:
        self.lines.append((key, value, reason))

    def derive(self, name: str, how: dict[str, Any], reason: str) -> None:
        """One more derived column; all of them are one setting."""
        before = self.get("derive") or {}
        reasons = [why for key, _, why in self.lines if key == "derive" and name not in before] + [reason]
        if name not in before:
            self.lines = [line for line in self.lines if line[0] != "derive"]
            self.add("derive", {**before, name: how}, "; ".join(dict.fromkeys(reasons)))

    def get(self, key: str) -> Any:
        """What a setting was given; None where it was not."""
        return next((value for name, value, _ in self.lines if name == key), None)

    @property
    def guesses(self) -> list[str]:
        """Names of the settings that are guesses."""
        return [key for key, _, reason in self.lines if reason.startswith(CHECK)]

    def settings(self) -> dict[str, Any]:
        """All of it as a config has it."""
        made: dict[str, Any] = {"competition": {key: value for key, value, _ in self.lines}}
        return {**made, "folds": {"column": self.folds}} if self.folds else made

    def text(self, head: str) -> str:
        """The file."""
        rows = [f"# {printable(head)}", "competition:"]
        rows += [_line(f"  {key}: {flow(value)}", reason) for key, value, reason in self.lines]
        if self.folds:
            rows.append(_line(f"folds: {{column: {flow(self.folds)}}}", "the host's own folds"))
        rows += ["# Not told by the files:"] * bool(self.open) + [f"# - {printable(text)}" for text in self.open]
        return "\n".join(rows) + "\n"


def _line(setting: str, reason: str) -> str:
    """A setting and its reason. What is in a host's cells may be anything, and must stay within the comment."""
    said = printable(reason)
    return f"{setting.ljust(WIDTH)}  # {said}" if len(setting) <= WIDTH else f"  # {said}\n{setting}"


class _OneLine(yaml.SafeDumper):
    """Writes texts with line breaks and the like between double quotes, with escapes."""

    def text(self, value: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"')


_OneLine.add_representer(str, _OneLine.text)


def flow(value: Any) -> str:
    """A value in one line of YAML."""
    about = {"default_flow_style": True, "width": 10**6, "allow_unicode": True, "sort_keys": False}
    return yaml.dump(value, Dumper=_OneLine, **about).removesuffix("\n").removesuffix("\n...")
