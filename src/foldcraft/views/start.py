"""What src/start.py found in a host's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foldcraft.common.errors import counted

if TYPE_CHECKING:
    from foldcraft.study.start.run import Started
    from foldcraft.views.terminal import Terminal


def show(started: Started, terminal: Terminal) -> None:
    """The files that were written, what is a guess, what could not be told, whether it reads, and what comes next."""
    terminal.say(f"wrote {started.competition} and {started.probe}")
    if guesses := started.draft.guesses:
        terminal.say(f"check {counted(len(guesses), 'guess')}: {', '.join(guesses)}")
    for text in started.draft.open:
        terminal.say(f"not told by the files: {text}")
    if started.problem:
        terminal.say(f"warning: it cannot be read so yet: {started.problem}")
        terminal.say(f"next: mend {started.competition}; docs/competitions.md has the grammar and recipes")
        return
    terminal.say(f"read: {started.read}")
    terminal.say(f"next: python src/split.py --show --config {started.probe}")
