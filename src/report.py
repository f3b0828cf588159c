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

    from foldcraft.views.report.write import write_page

    write_page(members, args.out, shlex.join(["python", "src/report.py", *arguments]), cli.terminal(args))
    return 0


if __name__ == "__main__":
    cli.run(main)
