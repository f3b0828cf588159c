"""The frozen folds of a competition: made by the first command that needs them, and never again.

The copies that an audit found stay in one fold, as groups do.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, listing
from foldcraft.common.files import locked
from foldcraft.common.paths import duplicates_file, groups_file
from foldcraft.data import competition, folds
from foldcraft.data.competition import Competition
from foldcraft.data.folds import Folds
from foldcraft.ensemble import constraints
from foldcraft.predictions.experiment import Experiment, with_images_known
from foldcraft.study.audit import group_file
from foldcraft.study.audit.finding import Finding
from foldcraft.submission import form_inference

Say = Callable[[str], object]
PATIENCE = 600.0  # seconds that the other processes of torchrun wait for the first


def open_experiment(config: Config, say: Say) -> Experiment:
    """As `Experiment.open`, once the folds are made where there are none.

    Raises:
        FoldcraftError: what `ensure` and `Experiment.open` raise.
    """
    ensure(config, say)
    experiment = Experiment.open(config)
    constraints.read(config.competition.constraints, experiment.competition.space)  # told before hours of training
    return experiment


def open_to_look(config: Config) -> Experiment:
    """As `Experiment.open`; where there are no folds yet, with such as they would be, which are not kept.

    Raises:
        FoldcraftError: what `Experiment.open` and `splitting.make` raise.
    """
    if config.folds_file.exists():
        return Experiment.open(config)
    return with_folds_unkept(config)


def with_folds_unkept(config: Config) -> Experiment:
    """The experiment on folds that are made for this once and written nowhere.

    Raises:
        FoldcraftError: what `competition.read` and `splitting.make` raise.
    """
    data = competition.read(config)
    settled, of_bands, of_depth = with_images_known(config, data)

    from foldcraft.data import splitting

    return Experiment(settled, data, splitting.make(data, settled.folds), (*data.image_notes, *of_bands, *of_depth))


def ensure(config: Config, say: Say) -> None:
    """Make the folds where there are none, and say so; folds that are there are left to whoever reads them.

    Several processes may want them at once: one makes them. Of those that torchrun started it is the first.

    Raises:
        FoldcraftError: the competition is not what it should be; the sample cannot be filled; the rows cannot
            be split so; copies are to be merged, and there was no audit, or one of other data.
    """
    if config.folds_file.exists():
        return
    data = competition.read(config)
    if _is_led():
        return _wait_for(config.folds_file)
    form = form_inference.tried(data)
    copies = copies_found(config, data)
    made, is_new = read_or_make(config, data, copies)
    if is_new:
        together = f", {len(copies)} copies kept together" if made.duplicates else ""
        together += ", the audit's groups kept whole" if made.groups else ""
        what = f"{data.counted()} in {made.count} folds, {made.scheme}, seed {made.seed}{together}"
        say(f"no folds yet: made {config.folds_file}, {what}; src/split.py shows them; keep them in git")
        for line in folds.warnings(made, data, folds.balance(made, data)):
            say(f"warning: {line}")
        for line in () if form.goes_without_saying else form.lines():
            say(line)


def read_or_make(config: Config, data: Competition, copies: pd.Series) -> tuple[Folds, bool]:
    """The folds that are there, or that are made and written now, and whether they are new.

    Args:
        copies: cluster by id of images that stay in one fold.

    Raises:
        FoldcraftError: what `folds.read_for`, `groups_found` and `splitting.make` raise; the folder cannot be written
            to.
    """
    path = config.folds_file
    if not path.exists():
        from foldcraft.data import splitting

        with locked(path.with_name(f".{path.stem}.lock")):
            if not path.exists():
                made = splitting.make(data, config.folds, copies, groups_found(config, data))
                folds.write(made, path)
                return made, True
    return folds.read_for(config, data), False


def _is_led() -> bool:
    """Whether torchrun started this process beside a first one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0


def _wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > end:
            raise FoldcraftError("the first process has made no folds", path, "see what it says; or make them first")
        time.sleep(0.1)


def copies_found(config: Config, data: Competition) -> pd.Series:
    """Cluster by id of those training images that the audit found copies of, where they are to be merged.

    Raises:
        FoldcraftError: they must be and there has been no audit, or it was of other data.
    """
    wanted, path = config.folds.merge_duplicates, duplicates_file(config)
    if wanted is True and not path.is_file():
        raise FoldcraftError("no audit yet", path, "run `python src/audit.py` first, with the same --config")
    if not path.is_file() or wanted is False:
        return pd.Series(dtype=object)
    from foldcraft.study.audit import duplicates  # SciPy, for which a competition without an audit does not wait

    return duplicates.clusters(duplicates.read(path, data.train_ids.tolist()))


def groups_found(config: Config, data: Competition) -> pd.Series | None:
    """Hidden group by id of those training images that the audit found to be of one, where they are asked for.

    Raises:
        FoldcraftError: there was no audit, or one of other data, or it found none.
    """
    return None if config.folds.groups is None else group_file.read(groups_file(config), data.train_ids.tolist())


def ensure_after_audit(config: Config, findings: Sequence[Finding], say: Say) -> None:
    """Make the folds where there are none, unless the audit found what changes the rows, labels or groups first.

    Folds are frozen for the ids, labels and groups that there are; mending these later would need other folds. An audit
    does not fail because no folds can be made: why is said.
    """
    if config.folds_file.exists():
        return
    is_free = config.folds.groups is None
    names = [each.name for each in findings if each.severity == "serious" or (is_free and _asks_for_groups(each))]
    if names:
        say(f"no folds yet, and none made: see to {listing(names, 5)} first; src/train.py or src/split.py makes them")
        return
    try:
        ensure(config, say)
    except FoldcraftError as error:
        say(f"warning: no folds yet, and none can be made: {error}")


def _asks_for_groups(finding: Finding) -> bool:
    return finding.name == "hidden_groups" and finding.severity == "warning"
