"""Split the training rows into frozen folds: folds/<competition>.csv, to be kept in git.

Folds that are there already are checked and shown, never made again.
"""

from collections.abc import Sequence

from foldcraft import cli


def main(arguments: Sequence[str]) -> int:
    args = cli.parser(__doc__).parse_intermixed_args(arguments)
    config = cli.load_config(args)

    from foldcraft import competition, folds
    from foldcraft.terminal import Terminal

    terminal = Terminal()
    data = competition.read(config)
    if config.folds_file.exists():
        made = folds.read(config.folds_file, data)
        terminal.say(f"{config.folds_file} is there and fits")
    else:
        made = folds.make(data, config.folds)
        folds.write(made, config.folds_file)
        terminal.say(f"wrote {config.folds_file}; keep it in git")
    balance = folds.balance(made, data)
    title = f"{data.name}: {made.count} folds, {made.scheme}, seed {made.seed}"
    rows = [(name, *counts) for name, counts in zip(balance.index, balance.to_numpy(), strict=True)]
    terminal.table(title, ["", *balance.columns], rows)
    for name, counts in balance.iloc[2:].iterrows():
        if len(empty := counts.index[counts == 0]):
            terminal.say(f"warning: no row of class {name!r} in {', '.join(empty)}")
    return 0


if __name__ == "__main__":
    cli.run(main)
