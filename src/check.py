"""Is the training code sound on these data, with these settings? Under two minutes; exit code 1 when something fails.

Karpathy's list of common mistakes and Falcon's list of slow habits, each tried on the parts that train and predict.
Writes runs/<competition>/check/<experiment>.json. docs/check.md says what each line means.

  python src/check.py --config configs/maskstates/vit_tiny.yaml
  python src/check.py --config C --profile
  python src/check.py --config C --only one_batch gradients
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from foldcraft.common.errors import FoldcraftError
from foldcraft.common.files import write_atomic
from foldcraft.views import cli

if TYPE_CHECKING:
    from foldcraft.study.checks.run import Line, Report
    from foldcraft.views.terminal import Terminal

FAILED = 1


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--profile", action="store_true", help="watch some steps with torch.profiler; writes a trace")
    parser.add_argument("--only", nargs="+", default=[], metavar="CHECK", help="carry out these checks alone")
    parser.add_argument("--images", type=int, default=400, help="training images to look at (default 400)")
    args = parser.parse_intermixed_args(arguments)
    args.overrides += [word for word in args.only if "=" in word]
    if args.images < 1:
        raise FoldcraftError(f"{args.images} is not a number of images", "--images")
    config = cli.load_config(args)

    from foldcraft.study.checks import opening, titles

    only = titles.named([word for word in args.only if "=" not in word])
    opened = opening.read(config)

    from foldcraft.common.paths import check_file
    from foldcraft.study.checks.run import examine

    terminal, file = cli.terminal(args), check_file(config)
    trace = file.with_name(f"{file.stem}-trace.json") if args.profile else None
    width = max(map(len, titles.TITLES.values()))
    report = examine(opened, terminal, args.images, only, trace, lambda line: tell(line, width, terminal))
    write_atomic(file, json.dumps({"experiment": config.experiment, **report.as_values()}, indent=1))
    show_time(report, terminal)
    if trace:
        terminal.say(f"trace: {trace} (open it at ui.perfetto.dev or chrome://tracing)")
    terminal.say(f"{summary(report)}; all numbers: {file}")
    return 0 if report.sound else FAILED


def tell(line: Line, width: int, terminal: Terminal) -> None:
    """One line as soon as it is known, and how to mend it."""
    found = line.finding
    terminal.say(f"{found.status:5} {line.title:{width}}  {found.number}")
    if found.hint:
        terminal.say(f"{'':5} {'':{width}}  -> {found.hint}")


def show_time(report: Report, terminal: Terminal) -> None:
    """Where the time of a step goes."""
    if report.timetable is None:
        return
    rows = [
        (name, f"{milliseconds:.2f}", "" if share is None else f"{share:.0%}")
        for name, milliseconds, share in report.timetable.rows()
    ]
    terminal.table(f"a step of {report.timetable.batch} images", ["part", "ms an image", "of a step"], rows)
    if report.timetable.operators:
        rows = [(name, f"{share:.1%}") for name, share in report.timetable.operators]
        terminal.table("costliest operators", ["operator", "of the time"], rows)


def summary(report: Report) -> str:
    """How many lines say what."""
    states = [line.finding.status for line in report.lines]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return (
        f"{counts}, on {report.images} images in {report.seconds:.0f} s ({report.cpu_seconds:.0f} s of one processor)"
    )


if __name__ == "__main__":
    cli.run(main)
