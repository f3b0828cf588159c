"""The old name of `python src/check.py --show net`."""

import check
from foldcraft.views import cli

main = cli.old_name("summary", "check.py --show net", check.main, "--show=net")

if __name__ == "__main__":
    cli.run(main)
