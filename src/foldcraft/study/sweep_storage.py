"""Where a sweep keeps what it has tried: a journal in the runs folder, or a database."""

import os
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

from foldcraft.common.errors import FoldcraftError, said_by, shorten
from foldcraft.common.files import cannot_write


def open_study(folder: Path, name: str, maximize: bool, url: str | None = None) -> optuna.Study:
    """The study of that name; made where there is none.

    A journal is a file to which lines are added, so it may lie on a network file system, where SQLite may not. A
    sweep that was begun in an SQLite file, as all once were, goes on there. Call it while holding the sweep's lock.

    Args:
        url: of a database, as SQLAlchemy has it; None: a file in `folder`.

    Raises:
        FoldcraftError: the file is damaged or cannot be written; the database cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file, old = folder / f"{name}.journal", folder / f"{name}.db"
    try:
        return optuna.create_study(
            storage=_database(url) if url else f"sqlite:///{old}" if old.is_file() else _journal(file),
            study_name=name,
            direction="maximize" if maximize else "minimize",
            load_if_exists=True,
        )
    except (optuna.exceptions.StorageInternalError, OSError) as error:
        if url:
            raise _unreachable(error) from None
        raise cannot_write(old if old.is_file() else file, OSError(str(error))) from None
    except ValueError as error:
        raise FoldcraftError(
            f"damaged: {said_by(error)}", file, "delete it; trials that are finished are not trained again"
        ) from None


def _journal(file: Path) -> JournalStorage:
    _drop_torn_end(file)
    return JournalStorage(JournalFileBackend(str(file), lock_obj=JournalFileOpenLock(str(file))))


def _drop_torn_end(file: Path) -> None:
    """Cut off a last line that was not written to its end: what came after it would be read as a part of it."""
    if not file.is_file():
        return
    with open(file, "r+b") as stream:
        whole = stream.read().rfind(b"\n") + 1
        if whole < os.fstat(stream.fileno()).st_size:
            stream.truncate(whole)


def _database(url: str) -> optuna.storages.RDBStorage:
    try:
        return optuna.storages.RDBStorage(url)
    except Exception as error:  # each database's driver has errors of its own
        raise _unreachable(error) from None


def _unreachable(error: Exception) -> FoldcraftError:
    """Told without the URL, which may hold a password."""
    what = shorten(str(error).strip().partition("\n")[0], 120)
    hint = "a URL such as postgresql+psycopg://USER@HOST/NAME, and its driver installed"
    return FoldcraftError(f"the database cannot be used: {type(error).__name__}: {what}", "--storage", hint)
