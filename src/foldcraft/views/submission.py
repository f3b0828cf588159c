"""A submission as it is made: the blend as tables, where the file is, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foldcraft.submission import build, ledger
from foldcraft.views import blend, tracking

if TYPE_CHECKING:
    from foldcraft.ensemble.blend import Combined
    from foldcraft.ensemble.methods import Method
    from foldcraft.predictions.finished import FinishedExperiment
    from foldcraft.views.terminal import Terminal


def submit(
    members: Sequence[FinishedExperiment],
    name: str | None,
    terminal: Terminal,
    methods: Sequence[Method] | None = None,
    out: Path | None = None,
    part: FinishedExperiment | None = None,
) -> tuple[Path, Combined]:
    """Write the submission and show all there is to say of it; where it is and what it is made of."""
    submission = build.submit(members, name, terminal, methods, out=out, part=part)
    path, is_new, doubt, is_entered = submission.written
    blend.show(submission.combined, terminal)
    if part:
        terminal.say(blend.mixed_in(submission.combined, part))
    for line in build.meaning(members[0].experiment.competition):
        terminal.say(line)
    rows = f"{submission.rows} rows"
    if submission.files > 1:
        rows += f" in {submission.files} files, not compared with other submissions"
    verb = "wrote" if is_new else "the same as"
    book = ledger.path_in(ledger.SUBMISSIONS)
    entered = f"see {book}" if is_entered else f"{ledger.SUBMISSIONS} may only be read, so no ledger has it"
    terminal.say(f"{verb} {path}: {rows}, checked; {entered}")
    if doubt:
        terminal.say(f"warning: {doubt}")
    of = [*members, part] if part else members
    if is_new and (warning := tracking.track_submission(of, path, submission.entry)):
        terminal.say(warning)
    return path, submission.combined
