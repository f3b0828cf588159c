"""What an experiment comes from: its teachers, by the manifests of finished folds, and what a soup is the mean of.

A stored blend comes from its members as a student does from its teachers.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from foldcraft.common import checksums, fingerprint
from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError, said_by
from foldcraft.common.paths import FoldFolder, experiment_folder, fold_configs, soup_file

RETRAIN = "delete its folder and train that fold again"


def soup_members(config: Config) -> dict[str, str]:
    """The experiments that a soup is the mean of, with the digests of their settings; of any other experiment nothing.

    Raises:
        FoldcraftError: the file that says so is damaged.
    """
    file = soup_file(config)
    try:
        return dict(checksums.read_json(file)["members"])
    except FileNotFoundError:
        return _members_in_settings(config)
    except (ValueError, KeyError, TypeError) as error:
        raise FoldcraftError(f"damaged: {said_by(error)}", file, "make the soup again, under another name") from None


def _members_in_settings(config: Config) -> dict[str, str]:
    """The same of a soup that was made when its folds' settings had a key for it."""
    for file in fold_configs(experiment_folder(config)):
        with suppress(FoldcraftError):  # what is damaged is told by whoever needs it
            return dict(FoldFolder(file.parent, -1).read_settings().get("soup") or {})
    return {}


def write_soup_members(config: Config, members: Mapping[str, str]) -> None:
    """Keep what a soup is the mean of, for `soup_members`."""
    checksums.write_json(soup_file(config), {"members": dict(members)})


def taught_by(config: Config, fold: int) -> dict[str, str]:
    """Fingerprint of each teacher's model of that fold, by the teacher's name.

    A finished student whose teachers are gone still knows who they were, and can be used without them.

    Raises:
        FoldcraftError: a teacher has not finished that fold, or its manifest is damaged.
    """
    student, noted = FoldFolder.of(config, fold), {}
    if config.distill.teachers and student.is_done:
        noted = {entry["experiment"]: entry["model"] for entry in student.read_manifest().get("teachers", [])}
    return {name: _model_of(config, student.of_other(name), noted.get(name)) for name in config.distill.teachers}


def _model_of(config: Config, teacher: FoldFolder, noted: str | None) -> str:
    if teacher.is_done:
        return fingerprints_of(teacher)["model"]
    if noted:
        return noted
    if config.blend_file(teacher.path.parent.name).is_file():
        raise FoldcraftError(
            f"of this blend fold {teacher.fold} is not stored, and a student learns in each fold from that fold's",
            teacher.path,
            "finish that fold of all its members, then run `python src/infer.py --store NEWNAME` with their configs",
        )
    raise FoldcraftError(
        f"this teacher's fold {teacher.fold} is not finished, and a student learns in each fold from that fold's model",
        teacher.path,
        f"run `python src/train.py --fold {teacher.fold}` with its config, or change distill.teachers",
    )


def fingerprints_of(folder: FoldFolder) -> dict[str, str]:
    """The fingerprints in a finished fold's manifest.

    Raises:
        FoldcraftError: there are none.
    """
    found = folder.read_manifest().get("fingerprints", {})
    if missing := {"data", "folds", "model"} - set(found):
        raise FoldcraftError(f"damaged manifest: no {', '.join(sorted(missing))}", folder.manifest, RETRAIN)
    return found


def entry_of(name: str, folder: FoldFolder) -> dict[str, Any]:
    """What a student's manifest says of a teacher: its name, its model's fingerprint, and its own teachers."""
    manifest = folder.read_manifest()
    return {"experiment": name, "model": manifest["fingerprints"]["model"], "teachers": manifest.get("teachers", [])}


def check_ancestors(student: FoldFolder, name: str, entry: dict[str, Any]) -> None:
    """See that a teacher does not come from its student, and that the files of all who taught it are what they were.

    An ancestor that has been deleted since cannot be looked at; what is noted of it stands.

    Raises:
        FoldcraftError: it does, or they are not.
    """
    for ancestor, model in dict.fromkeys(_ancestors(entry)):
        folder = student.of_other(ancestor)
        if folder.path == student.path:
            raise FoldcraftError(
                f"{name} has learned from {ancestor} itself, and would teach it what it was told",
                "distill.teachers",
                "name teachers that do not descend from this experiment, or set experiment=NEWNAME",
            )
        if _model_now(folder, model) != model:
            raise FoldcraftError(
                f"has changed since {name} learned from it",
                folder.model if folder.model.is_file() else folder.manifest,
                f"make fold {student.fold} of {name} again",
            )


def _model_now(folder: FoldFolder, noted: str) -> str:
    """Fingerprint of what lies there: of weights, or of a stored blend, which has none; `noted` where nothing does."""
    if folder.model.is_file():
        return fingerprint.of_file(folder.model)
    return fingerprints_of(folder)["model"] if folder.is_done else noted


def _ancestors(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for teacher in entry["teachers"]:
        yield teacher["experiment"], teacher["model"]
        yield from _ancestors(teacher)
