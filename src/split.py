"""Split the training rows into frozen folds: folds/<competition>.csv, to be kept in git.

Folds that are there already are checked and shown, never made again. src/train.py and others make them by themselves
where there are none; this command is for who wants to look at them first. Copies of images that src/audit.py found stay
in one fold (folds.merge_duplicates).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from foldcraft.views import cli

if TYPE_CHECKING:
    import pandas as pd

    from foldcraft.data.competition import Competition
    from foldcraft.data.folds import Folds


def main(arguments: Sequence[str]) -> int:
    args = cli.parser(__doc__).parse_intermixed_args(arguments)
    config = cli.load_config(args)

    from foldcraft.data import competition, folds
    from foldcraft.study import make_folds
    from foldcraft.study.audit import label_issues

    terminal = cli.terminal(args)
    tables = competition.read_tables(config)
    data = competition.whole(tables, config)
    for note in data.image_notes:
        terminal.say(note)
    for finding in label_issues.of_names(tables, config.folds.count):
        terminal.say(f"warning: {finding.sentence}; {finding.hint}")
    copies = make_folds.copies_found(config, data)
    made, is_new = make_folds.read_or_make(config, data, copies)
    if is_new:
        terminal.say(f"wrote {config.folds_file}; keep it in git")
        if made.duplicates:
            terminal.say(f"{len(copies)} images in {copies.nunique()} clusters of copies stay together")
    else:
        terminal.say(f"{config.folds_file} is there and fits")
        if apart := folds.straddling(made, copies):
            terminal.say(
                f"warning: {apart} clusters of copies lie in several folds, so the OOF score is too good; to keep them "
                f"together, delete {config.folds_file} and split again (earlier runs will not blend with new ones)"
            )
    if shared := sum(count > 1 for count in Counter(data.train_paths).values()):
        terminal.say(f"{shared} image files have several rows each; the rows of a file stay together, as a group does")
    balance = folds.balance(made, data)
    title = f"{data.name}: {made.count} folds, {made.scheme}, seed {made.seed}"
    rows = [(name, *counts) for name, counts in zip(balance.index, balance.to_numpy(), strict=True)]
    terminal.table(title, ["", *balance.columns], rows)
    for line in warnings(made, data, balance):
        terminal.say(f"warning: {line}")
    return 0


def warnings(made: Folds, data: Competition, balance: pd.DataFrame) -> Iterator[str]:
    """What is wrong with folds that can be used all the same."""
    from foldcraft.common.errors import listing
    from foldcraft.data import folds

    if torn := folds.torn_groups(made, data):
        yield (
            f"{torn} groups lie in several folds, so the OOF score is too good; delete the folds file and split again "
            "(earlier runs will not blend with new ones)"
        )
    rare = balance.iloc[-len(data.classes) :]
    absent = rare[(rare == 0).any(axis=1)]
    lines = [f"{name!r} in {', '.join(counts.index[counts == 0])}" for name, counts in absent.iterrows()]
    if lines:
        yield f"no row of class {listing(lines, 5)}"
    whole = [name for name, counts in absent.iterrows() if (counts.iloc[:-1] == counts["all"]).any()]
    if whole:
        yield (
            f"class {listing([repr(name) for name in whole], 5)} lies in one fold as a whole: the model that is judged "
            "on it never saw it; use fewer folds, or merge classes"
        )


if __name__ == "__main__":
    cli.run(main)
