"""Split the training rows into frozen folds: folds/<competition>.csv, to be kept in git.

Folds that are there already are checked and shown, never made again. Copies of images that src/audit.py found stay in
one fold (folds.merge_duplicates).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from foldcraft.common.errors import FoldcraftError
from foldcraft.views import cli

if TYPE_CHECKING:
    import pandas as pd

    from foldcraft.common.config import Config
    from foldcraft.data.competition import Competition
    from foldcraft.data.folds import Folds


def main(arguments: Sequence[str]) -> int:
    args = cli.parser(__doc__).parse_intermixed_args(arguments)
    config = cli.load_config(args)

    from foldcraft.data import competition, folds
    from foldcraft.study.audit import label_issues

    terminal = cli.terminal(args)
    tables = competition.read_tables(config)
    data = competition.whole(tables, config)
    for note in data.image_notes:
        terminal.say(note)
    for finding in label_issues.of_names(tables, config.folds.count):
        terminal.say(f"warning: {finding.sentence}; {finding.hint}")
    copies = copies_found(config, data)
    if config.folds_file.exists():
        made = folds.read(config.folds_file, data)
        terminal.say(f"{config.folds_file} is there and fits")
        if apart := folds.straddling(made, copies):
            terminal.say(
                f"warning: {apart} clusters of copies lie in several folds, so the OOF score is too good; to keep them "
                f"together, delete {config.folds_file} and split again (earlier runs will not blend with new ones)"
            )
    else:
        from foldcraft.data import splitting  # scikit-learn, which mistakes above do not wait for

        made = splitting.make(data, config.folds, copies)
        folds.write(made, config.folds_file)
        terminal.say(f"wrote {config.folds_file}; keep it in git")
        if made.duplicates:
            terminal.say(f"{len(copies)} images in {copies.nunique()} clusters of copies stay together")
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
    rare = balance.iloc[2:]
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


def copies_found(config: Config, data: Competition) -> pd.Series:
    """Cluster by id of those training images that the audit found copies of, where they are to be merged.

    Raises:
        FoldcraftError: they must be and there has been no audit, or it was of other data.
    """
    import pandas as pd

    from foldcraft.common.paths import duplicates_file
    from foldcraft.study.audit import duplicates

    wanted, path = config.folds.merge_duplicates, duplicates_file(config)
    if wanted is True and not path.is_file():
        raise FoldcraftError("no audit yet", path, "run `python src/audit.py` first, with the same --config")
    if not path.is_file() or wanted is False:
        return pd.Series(dtype=object)
    return duplicates.clusters(duplicates.read(path, data.train_ids.tolist()))


if __name__ == "__main__":
    cli.run(main)
