"""The old name of `python src/check.py --show augmentations`."""

import check
from foldcraft.views import cli

main = cli.old_name("preview", "check.py --show augmentations", check.main, "--show=augmentations")

if __name__ == "__main__":
    cli.run(main)
