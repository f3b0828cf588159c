"""Draw what enters the net: a contact sheet of images as inference sees them beside augmented ones.

python src/preview.py --config configs/digits/finetune.yaml
"""

from collections.abc import Sequence
from pathlib import Path

from foldcraft.views import cli


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--images", type=int, default=8, help="images, one a row (default 8)")
    parser.add_argument("--draws", type=int, default=8, help="augmented draws of each (default 8)")
    parser.add_argument("--out", help="where to write the PNG; left out: preview.png in the experiment's run folder")
    args = parser.parse_intermixed_args(arguments)
    config = cli.load_config(args)

    from foldcraft.predictions.experiment import Experiment

    experiment = Experiment.open(config)

    from foldcraft.common.paths import experiment_folder
    from foldcraft.data import contact_sheet
    from foldcraft.views import preview

    terminal = cli.terminal(args)
    out = Path(args.out) if args.out else experiment_folder(config) / "preview.png"
    drawn = preview.draw(experiment, args.images, args.draws, terminal)
    contact_sheet.save(drawn.sheet, out)
    terminal.say(
        f"wrote {out}: left as inference sees it, then {args.draws} draws of {config.experiment}'s augmentation"
    )
    steps = [[number, step, f"{chance:.0%}"] for number, (step, chance) in enumerate(drawn.steps, start=1)]
    terminal.table("what augmentation does to an image", ["", "step", "chance"], steps)
    return 0


if __name__ == "__main__":
    cli.run(main)
