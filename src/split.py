"""Split the training rows into frozen folds: folds/<competition>.csv, to be kept in git.

Folds that are there already are checked and shown, never made again. Copies of images that src/audit.py found stay in
one fold (folds.merge_duplicates).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foldcraft import cli
from foldcraft.errors import FoldcraftError

if TYPE_CHECKING:
    import pandas as pd

    from foldcraft.competition import Competition
    from foldcraft.config import Config


def main(arguments: Sequence[str]) -> int:
    args = cli.parser(__doc__).parse_intermixed_args(arguments)
    config = cli.load_config(args)

    from foldcraft import competition, folds, labelfindings

    terminal = cli.terminal(args)
    tables = competition.read_tables(config)
    data = competition.whole(tables)
    for finding in labelfindings.of_names(tables, config.folds.count):
        terminal.say(f"warning: {finding.sentence}; {finding.mend}")
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
        from foldcraft import splitting  # scikit-learn, which mistakes above do not wait for

        made = splitting.make(data, config.folds, copies)
        folds.write(made, config.folds_file)
        terminal.say(f"wrote {config.folds_file}; keep it in git")
        if made.duplicates:
            terminal.say(f"{len(copies)} images in {copies.nunique()} clusters of copies stay together")
    balance = folds.balance(made, data)
    title = f"{data.name}: {made.count} folds, {made.scheme}, seed {made.seed}"
    rows = [(name, *counts) for name, counts in zip(balance.index, balance.to_numpy(), strict=True)]
    terminal.table(title, ["", *balance.columns], rows)
    for name, counts in balance.iloc[2:].iterrows():
        if len(empty := counts.index[counts == 0]):
            terminal.say(f"warning: no row of class {name!r} in {', '.join(empty)}")
    return 0


def copies_found(config: Config, data: Competition) -> pd.Series:
    """Cluster by id of those training images that the audit found copies of, where they are to be merged.

    Raises:
        FoldcraftError: they must be and there has been no audit, or it was of other data.
    """
    import pandas as pd

    from foldcraft import duplicates
    from foldcraft.rundir import duplicates_file

    wanted, path = config.folds.merge_duplicates, duplicates_file(config)
    if wanted is True and not path.is_file():
        raise FoldcraftError("no audit yet", path, "run `python src/audit.py` first, with the same --config")
    groups_known = config.folds.scheme in ("auto", "stratified_group")
    if not path.is_file() or wanted is False or (wanted == "auto" and not groups_known):
        return pd.Series(dtype=object)
    return duplicates.clusters(duplicates.read(path, data.train_ids.tolist()))


if __name__ == "__main__":
    cli.run(main)
