"""A first config for a host's folder: configs/<name>/competition.yaml, with a reason beside each line.

Looks at the tables, images and descriptions in the folder, tries the images' paths on the files that are there, reads
the competition by what it has written, and says what it could not tell. Reasons of guesses begin with CHECK. Nothing
that is there already is overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foldcraft.views import cli


def main(arguments: Sequence[str]) -> int:
    parser = cli.bare_parser(__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="what the host hands out, unpacked: input/NAME")
    parser.add_argument("--name", help="of the competition; left out: the folder's")
    args = parser.parse_args(arguments)

    from foldcraft.study.start import run
    from foldcraft.views.start import show

    started = run.start(Path(args.folder), args.name)
    show(started, cli.terminal(args))
    return 0


if __name__ == "__main__":
    cli.run(main)
