"""The old name of `python src/infer.py --soup`."""

import infer
from foldcraft.views import cli

main = cli.old_name("soup", "infer.py --soup", infer.main, "--soup")

if __name__ == "__main__":
    cli.run(main)
