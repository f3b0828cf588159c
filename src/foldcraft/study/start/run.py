"""A first config of a competition from the host's folder: looked at, drafted, tried."""

from pathlib import Path

from foldcraft.study.start import from_files, from_tables, inventory, roles
from foldcraft.study.start.draft import Draft
from foldcraft.study.start.roles import Frames


def draft(folder: Path, name: str) -> Draft:
    """What the files in a host's folder say of a competition.

    Args:
        name: of the competition; `input/<name>` is where its files lie by default.

    Raises:
        FoldcraftError: no such folder; nothing in it to learn from.
    """
    seen, made = inventory.look(folder), Draft()
    made.add("name", name, "names folds, runs and submissions")
    if folder != Path("input") / name:
        made.add("folder", folder.as_posix(), "where the host's files lie")
    found = roles.find(seen)
    train = found.frame(seen, "train")
    for path in found.joined if train is not None else ():
        train = train.merge(seen.tables[path], validate="one_to_one")
    if train is None:
        from_files.write(made, seen, found)
    else:
        from_tables.write(made, seen, found, Frames(train, found.frame(seen, "test"), found.frame(seen, "sample")))
    made.open += [f"a table that cannot be read: {problem}" for problem in seen.unread]
    return made
