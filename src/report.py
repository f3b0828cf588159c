"""One HTML page about experiments: score, mistakes with pictures, blend, data, training. It opens without a network.

python src/report.py --config configs/digits/probe.yaml configs/digits/finetune.yaml
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from foldcraft.views import cli


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__, several_configs=True)
    parser.add_argument("--out", type=Path, help="where to write it (default runs/<competition>/report.html)")
    args = parser.parse_intermixed_args(arguments)
    configs = cli.load_configs(args)

    from foldcraft.predictions.finished import open_finished

    members = open_finished(configs)

    from foldcraft.common.errors import listing
    from foldcraft.common.files import write_atomic
    from foldcraft.submission.ledger import SUBMISSIONS
    from foldcraft.views.report import evidence, page

    terminal = cli.terminal(args)
    seen = evidence.gather_evidence(members, SUBMISSIONS, terminal, args.out)
    names = listing([member.name for member in seen.members], 3)
    html = page.render(
        f"{seen.config.competition.name}: {names}",
        f"What {'this experiment does' if len(seen.members) == 1 else 'these experiments do'}, and where they fail.",
        page.sections(seen, terminal),
        shlex.join(["python", "src/report.py", *arguments]),
    )
    write_atomic(seen.page, html)
    score = seen.chosen.score
    terminal.say(f"wrote {seen.page}: open it in any browser, with or without a network")
    row = [names, f"{score.value:.4f}", f"{score.low:.4f}–{score.high:.4f}", f"{len(html) / 1e6:.1f} MB"]
    terminal.table("", ["experiments", seen.combined.truth.metric.title, "95 % interval", "page"], [row])
    return 0


if __name__ == "__main__":
    cli.run(main)
