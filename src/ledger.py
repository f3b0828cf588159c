"""The old name of `python src/infer.py --ledger`."""

import infer
from foldcraft.views import cli

main = cli.old_name("ledger", "infer.py --ledger", infer.main, "--ledger")

if __name__ == "__main__":
    cli.run(main)
