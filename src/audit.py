"""Is the data sound? Files, labels, duplicates, leaks, hidden groups and wrong labels, in minutes; nothing is changed.

Writes summary.json, CSVs and a contact sheet a finding to runs/<competition>/audit/. docs/audit.md says what each
finding means. Where there are no folds yet they are made at the end, unless something found asks for other rows, labels
or groups.

  python src/audit.py --config configs/maskstates/vit_tiny.yaml
  python src/audit.py --config C --strict         # exit code 1 where something is serious
"""

from collections.abc import Sequence

from foldcraft.views import cli

SERIOUS = 1


def main(arguments: Sequence[str]) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--strict", action="store_true", help="exit with 1 where something is serious")
    args = parser.parse_intermixed_args(arguments)
    config = cli.load_config(args)

    from foldcraft.data.host_files.tables import read_tables

    tables = read_tables(config)  # a mistake in them is told before torch is there

    from foldcraft.study import make_folds
    from foldcraft.views import audit_report

    terminal = cli.terminal(args)
    found = audit_report.audit(config, tables, terminal)
    make_folds.ensure_after_audit(config, found.findings, terminal.say)
    return SERIOUS if args.strict and found.is_serious else 0


if __name__ == "__main__":
    cli.run(main)
