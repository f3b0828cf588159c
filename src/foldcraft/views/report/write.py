"""The page about some experiments, written and told of."""

from collections.abc import Sequence
from pathlib import Path

from foldcraft.common.errors import counted, listing
from foldcraft.common.files import write_atomic
from foldcraft.predictions.finished import FinishedExperiment
from foldcraft.submission.ledger import SUBMISSIONS
from foldcraft.views.report import evidence, page
from foldcraft.views.terminal import Terminal

MOST_NAMES = 3  # of experiments in the title and the table


def write_page(members: Sequence[FinishedExperiment], out: Path | None, command: str, terminal: Terminal) -> None:
    """Write the page, and say where it is.

    Args:
        out: file; None: `runs/<competition>/report.html`.
        command: that makes it again.

    Raises:
        FoldcraftError: a file of a fold or of a study is damaged; the page cannot be written.
    """
    seen = evidence.gather_evidence(members, SUBMISSIONS, terminal, out)
    names = [member.name for member in seen.members]
    of = counted(len(names), "experiment") if len(names) > MOST_NAMES else listing(names)
    html = page.render(
        f"{seen.config.competition.name}: {of}",
        f"What {'this experiment does' if len(seen.members) == 1 else 'these experiments do'}, and where they fail.",
        page.sections(seen, terminal),
        command,
    )
    write_atomic(seen.page, html)
    score = seen.chosen.score
    terminal.say(f"wrote {seen.page}: open it in any browser, with or without a network")
    row = [
        listing(names, MOST_NAMES),
        f"{score.value:.4f}",
        f"{score.low:.4f}–{score.high:.4f}",
        f"{len(html) / 1e6:.1f} MB",
    ]
    terminal.table("", ["experiments", seen.combined.truth.metric.title, "95 % interval", "page"], [row])
