"""The old name of `python src/compare.py` without runs."""

import compare
from foldcraft.views import cli

main = cli.old_name("board", "compare.py", compare.main)

if __name__ == "__main__":
    cli.run(main)
