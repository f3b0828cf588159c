"""Lines of a draft about images, and about rows that hang together."""

import fnmatch
import re
from pathlib import PurePosixPath

from foldcraft.common.errors import listing
from foldcraft.study.start import groups, image_search
from foldcraft.study.start.answers import Answer
from foldcraft.study.start.draft import CHECK, Draft, flow
from foldcraft.study.start.images import Found
from foldcraft.study.start.inventory import Inventory
from foldcraft.study.start.roles import Frames


def share(found: Found) -> str:
    """How many rows have an image, in words."""
    return "all rows have theirs" if found.coverage == 1 else f"{found.coverage:.1%} of the rows have theirs"


def write(made: Draft, inventory: Inventory, frames: Frames, ours: Found | None, theirs: Found | None) -> None:
    """Where images lie.

    Args:
        ours: those of the training rows.
        theirs: those of the test rows.
    """
    for found, key, several in ((ours, "image", "files"), (theirs, "test_image", "test_files")):
        if found is None:
            part = "test" if key == "test_image" else "training"
            rows = frames.train if part == "training" else frames.test if frames.test is not None else frames.sample
            why = "" if rows is None else image_search.unlike(inventory, rows)
            made.open.append(f"the {part} images: no column of the {part} rows leads to a file{why}")
        elif found.pixels:
            made.add(key, {"pixels": found.pixels, "shape": list(found.shape)}, "the table holds the pixels")
        elif found.several:
            made.add(several, _with_stem(made, found), f"a folder of images a row; {share(found)}")
        elif found.channels:
            paths = [_with_stem(made, found).replace("{*}", kind) for kind in found.channels]
            made.add(key, {"channels": paths}, f"a file a channel; {share(found)}")
        else:
            made.add(key, _with_stem(made, found), share(found))
    if ours and ours.several:
        _of_folders(made, inventory, ours, theirs)


def _of_folders(made: Draft, inventory: Inventory, ours: Found, theirs: Found | None) -> None:
    """A row stands for a folder of images: they have one answer, or one that differs within the folder."""
    if theirs and theirs.several:
        by = ours.column if ours.column == theirs.column else {"train": ours.column, "test": theirs.column}
        made.add("answer", {"by": by, "combine": "mean"}, "the images of a row have one answer")
        return
    made.add("group", ours.column, "the images of a training row stay in one fold")
    names = sorted({PurePosixPath(path).stem for path in _under(ours, inventory)})
    if len(names) <= 30:
        made.open.append(f"what tells the images of a row apart: they are called {listing(names, 10)}")


def _under(found: Found, inventory: Inventory) -> set[str]:
    """Images that lie where a template of folders says."""
    top = found.template.partition("{")[0]
    return {path for path in inventory.images if path.startswith(top)}


def _with_stem(made: Draft, found: Found) -> str:
    """The template, with a derived column where a cell has another extension than the file."""
    if not found.stem:
        return found.template
    name = f"{re.sub(r'[^A-Za-z0-9]', '_', found.column)}_stem"
    made.derive(name, {"from": found.column, "regex": r"^(.*)\.[^.]+$"}, "names without their extension")
    return found.template.replace(f"{{{found.column}}}", f"{{{name}}}")


def hang_together(made: Draft, frames: Frames, key: str, answer: Answer) -> None:
    """Groups, the host's folds, weights; and what else there is beside the image."""
    train = frames.train
    made.folds, weight = groups.fold_column(train), groups.weight_column(train)
    taken = [name for name in (key, *answer.columns, made.folds, weight) if name]
    found = groups.find(train, taken, key)
    if not made.get("group"):
        _group(made, frames, key, found)
    if weight:
        made.add("weight", weight, f"{CHECK} how much a row counts in training")
    numeric, category = groups.metadata(train, frames.test, [*taken, found.column, *found.others, *_used(made, frames)])
    if numeric or category:
        both = {"numeric": numeric, "category": category}
        setting = flow({key: names for key, names in both.items() if names})
        made.open.append(f"whether columns beside the image help; to try it: metadata: {setting}")


def _group(made: Draft, frames: Frames, key: str, found: groups.Groups) -> None:
    if found.column:
        more = f"; {listing(list(found.others), 3)} repeat too" if found.others else ""
        count = frames.train[found.column].nunique()
        guess = f"{CHECK} folds.count must be at most {count}; " if found.is_few else ""
        reason = f"{guess}{count} values in {len(frames.train)} rows: a fold keeps each whole{more}"
        made.add("group", found.column, reason)
    elif found.part:
        made.derive("group_in_name", {"from": key, "regex": found.part}, "names begin alike")
        made.add("group", "group_in_name", f"{CHECK} rows whose names begin alike stay in one fold")
    else:
        made.open.append("groups: no column repeats as persons or places do; src/audit.py looks for hidden ones")


def _used(made: Draft, frames: Frames) -> set[str]:
    """Columns that other settings name, and pixels."""
    pivot, image = made.get("pivot") or {}, made.get("image")
    pixels = image["pixels"] if isinstance(image, dict) and "pixels" in image else None
    by = (made.get("answer") or {}).get("by", [])
    parts = by.get("train", []) if isinstance(by, dict) else by
    names = {*pivot.values(), *([parts] if isinstance(parts, str) else parts)}
    return names if pixels is None else {*names, *fnmatch.filter(frames.train, pixels)}
