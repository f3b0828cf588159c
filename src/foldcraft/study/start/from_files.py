"""A draft of a competition whose training images have no table: folders or names are the labels."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import pandas as pd

from foldcraft.common.errors import FoldcraftError, counted, listing
from foldcraft.study.start import answers, image_lines, image_search, judge_lines
from foldcraft.study.start.draft import Draft
from foldcraft.study.start.inventory import Inventory, parent
from foldcraft.study.start.roles import Roles


def write(made: Draft, inventory: Inventory, found: Roles) -> None:
    """Lines of the draft.

    Raises:
        FoldcraftError: there are no training images.
    """
    folders = {path: files for path, files in inventory.folders.items() if "train" in path.casefold()}
    folders = folders or {path: files for path, files in inventory.folders.items() if "test" not in path.casefold()}
    aside = [path for path in inventory.folders if path not in folders and "test" not in path.casefold()]
    if aside:
        count = counted(sum(len(inventory.folders[path]) for path in aside), "image")
        made.open.append(f"what {count} in {listing(aside, 3)} are: no row takes them")
    if not folders:
        raise FoldcraftError("holds no training table and no training images", inventory.folder, "name another folder")
    labels = _by_folder(made, folders) or _by_name(made, folders)
    if not labels:
        elsewhere = f"; write what {listing(list(inventory.others), 2)} says as CSV" if inventory.others else ""
        what = "there is no training table, no folder a class and no label in the images' names"
        made.open.append(f"the label: {what}{elsewhere}")
    sample = found.frame(inventory, "sample")
    answer = answers.of_classes(labels, sample)
    _test(made, inventory, sample)
    judge_lines.sample(made, found)
    judge_lines.metric_of(made, inventory, answer)
    judge_lines.submission(made, answer)


def _by_folder(made: Draft, folders: dict[str, list[str]]) -> list[str]:
    """The classes, where each has a folder; none where not."""
    top = _common(folders)
    classes = [path for path in folders if len(folders) > 1 and parent(path) == top]
    if len(classes) < 2:
        return []
    count, labels = sum(map(len, folders.values())), sorted(PurePosixPath(path).name for path in classes)
    made.add("train", f"{top}/*/*" if top else "*/*", f"{count} images in {len(classes)} folders, no table")
    made.add("target", "folder", f"the folders are the classes: {listing(labels, 4)}")
    return labels


def _by_name(made: Draft, folders: dict[str, list[str]]) -> list[str]:
    """The classes, where names begin with them; none where not."""
    top = min(folders, key=lambda path: (path.count("/"), len(path)))
    stems = [PurePosixPath(path).stem for path in folders[top]]
    pattern = _label_in_name(stems)
    if not pattern and len(folders) > 1 and (above := _common(folders)):
        count = sum(map(len, folders.values()))
        made.add("train", f"{above}/**", f"{count} images in {len(folders)} folders, no table")
        return []
    made.add("train", f"{top}/*" if top else "*", f"{len(stems)} images, no table")
    if not pattern:
        return []
    labels = sorted({found[1] for stem in stems if (found := re.match(pattern, stem))})
    made.derive("label", {"from": "stem", "regex": pattern}, "names begin with the label")
    made.add("target", "label", f"{len(labels)} classes: {listing(labels, 4)}")
    return labels


def _common(folders: dict[str, list[str]]) -> str:
    parts = [path.split("/")[:-1] for path in folders]
    shared = []
    for each in zip(*parts, strict=False):
        if len(set(each)) > 1:
            break
        shared.append(each[0])
    return "/".join(shared)


def _label_in_name(stems: Sequence[str]) -> str:
    """What a label at the beginning of a name ends at: cat.0, dog_12."""
    for pattern in (r"^([A-Za-z][A-Za-z \-]*?)[._\- ]*\d+$", r"^([A-Za-z]+)[._\-]"):
        heads = {found[1] for stem in stems if (found := re.match(pattern, stem))}
        if all(re.match(pattern, stem) for stem in stems) and 1 < len(heads) <= max(2, len(stems) // 3):
            return pattern
    return ""


def _test(made: Draft, inventory: Inventory, sample: pd.DataFrame | None) -> None:
    """Test rows by the sample's ids, else by the files of a folder."""
    tests = {path: files for path, files in inventory.folders.items() if "test" in path.casefold()}
    found = None if sample is None else image_search.of_sample(inventory, sample)
    if sample is not None and found:
        made.add("test", "auto", f"the {counted(len(sample), 'id')} of the sample are the test rows")
        made.add(
            "id", {"train": "file", "test": found.column}, "the path of a training image, the id of a sample's row"
        )
        made.add("test_image", found.template, image_lines.share(found))
    elif tests:
        top, files = min(tests.items(), key=lambda item: (item[0].count("/"), len(item[0])))
        made.add("test", f"{top}/*", f"{len(files)} images")
        made.add("id", "file", "the path of an image")
    else:
        made.open.append("the test images: there is no folder of them, and no sample submission that leads to them")
