"""Pack a blend into one folder that answers new test images where nothing can be installed: docs/pack.md.

  python src/pack.py --config configs/digits/probe.yaml configs/digits/finetune.yaml

With exported nets, for ONNX Runtime in place of torch and timm:

  python src/pack.py --config C --engine onnx

No larger than that; what it leaves out, and what that costs, is said:

  python src/pack.py --config C --most 500MB
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from foldcraft.common.errors import FoldcraftError
from foldcraft.views import cli

ENGINES = ("torch", "onnx")
UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB)", re.IGNORECASE)


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__, several_configs=True)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="left out: packs/<competition>_<experiments>")
    parser.add_argument("--engine", choices=ENGINES, default="torch", help="what predict.py needs (default torch)")
    parser.add_argument("--most", metavar="500MB", help="size that it may have; left out: what it needs")
    parser.add_argument("--half", action="store_true", help="weights in 16 bits where that changes no answer")
    parser.add_argument("--method", help="blending method, as for src/infer.py")
    parser.add_argument("--owner", help="your name on Kaggle, for the metadata of data set and kernel")
    parser.add_argument("--competition", metavar="NAME", help="the competition's name on Kaggle, for the same")
    args = parser.parse_intermixed_args(arguments)
    most = None if args.most is None else bytes_of(args.most)
    configs = cli.load_configs(args)

    from foldcraft.predictions.finished import joined_name, open_finished

    members = open_finished(configs)

    from foldcraft.ensemble import methods
    from foldcraft.submission.pack.outcome import OWNER, Wanted
    from foldcraft.views import pack

    chosen = None if args.method is None else [methods.named(args.method, members[0].experiment.competition.metric)]
    command = shlex.join(["python", "src/pack.py", *arguments])
    about = (args.out or Path("packs") / joined_name(members), args.engine, most, args.half)
    wanted = Wanted(*about, args.owner or OWNER, args.competition or "", command)
    pack.write(members, wanted, cli.terminal(args), chosen)
    return 0


def bytes_of(text: str) -> int:
    """A size as it is written.

    Raises:
        FoldcraftError: it is none.
    """
    found = SIZE.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise FoldcraftError(f"{text!r} is no size", "--most", "write 500MB or 1.5GB")
    return int(float(found[1]) * UNITS[found[2].upper()])


if __name__ == "__main__":
    cli.run(main)
