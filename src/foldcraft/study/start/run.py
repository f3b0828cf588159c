"""A first config of a competition from the host's folder: looked at, drafted, written, tried."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from foldcraft.common import config_file
from foldcraft.common.errors import FoldcraftError, counted, shorten
from foldcraft.common.files import write_atomic
from foldcraft.data import competition
from foldcraft.study.start import from_files, from_tables, inventory, roles
from foldcraft.study.start.draft import Draft
from foldcraft.study.start.roles import Frames
from foldcraft.submission import form_inference

CONFIGS, INPUT = Path("configs"), Path("input")
RECIPE = "recipes/pretrained.yaml"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
HEAD = "Drafted by src/start.py from the files of {folder}. Look at each line; CHECK stands before what is a guess."
PROBE = """# python src/train.py --config {path} --fold all
extends: [{recipe}competition.yaml]
backbone: {{name: vit_tiny_patch16_224}}
finetune: {{mode: linear_probe}}
"""


@dataclass(frozen=True)
class Started:
    """A config that was written.

    Attributes:
        competition, probe: its files.
        read: what it reads, in words; "" where it cannot be read yet.
        problem: why not.
    """

    draft: Draft
    competition: Path
    probe: Path
    read: str = ""
    problem: str = ""


def start(folder: Path, name: str | None = None) -> Started:
    """Draft a competition's config, write it beside one of a linear probe, and read the competition by it.

    Args:
        name: of the competition; None: the folder's.

    Raises:
        FoldcraftError: no such folder; nothing in it to learn from; such a config is there already; a name that a
            competition cannot have.
    """
    name = _name_of(folder) if name is None else name
    if not NAME.fullmatch(name):
        what = f"{shorten(name, 60)!r} is no name of a competition"
        raise FoldcraftError(what, "--name", "use letters, digits, '.', '_' and '-', the first a letter or digit")
    files = [CONFIGS / name / file for file in ("competition.yaml", "probe.yaml")]
    for file in files:
        if file.exists():
            raise FoldcraftError("is there already", file, "delete it, or take another --name")
    made = draft(folder, name)
    write_atomic(files[0], made.text(HEAD.format(folder=folder)))
    recipe = f"../{RECIPE}, " if (CONFIGS / RECIPE).is_file() else ""  # elsewhere than in a clone there is none
    write_atomic(files[1], PROBE.format(path=files[1], recipe=recipe))
    try:
        return Started(made, *files, read=_read(files[1]))
    except FoldcraftError as error:
        return Started(made, *files, problem=str(error))


def _name_of(folder: Path) -> str:
    """A competition's name from its folder's.

    Raises:
        FoldcraftError: there is nothing in it that such a name may have.
    """
    base = os.path.basename(os.path.abspath(folder))
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", base).strip("._-")[:100]
    if not name:
        what = f"{shorten(base, 60)!r} has no letter or digit that a competition's name may have"
        raise FoldcraftError(what, folder, "say what it is called: --name birds")
    return name


def _read(file: Path) -> str:
    """What a config reads: rows, classes, the form of the submission.

    Raises:
        FoldcraftError: it cannot be read.
    """
    data = competition.read(config_file.load(file))
    form = form_inference.tried(data)
    rows = f"{counted(len(data.train_ids), 'training row')}, {counted(len(data.test_ids), 'test row')}"
    return f"{rows}, a target of kind {data.target.kind}; {'; '.join(form.lines())}"


def draft(folder: Path, name: str) -> Draft:
    """What the files in a host's folder say of a competition.

    Args:
        name: of the competition; `input/<name>` is where its files lie by default.

    Raises:
        FoldcraftError: no such folder; nothing in it to learn from.
    """
    seen, made = inventory.look(folder), Draft()
    made.add("name", name, "names folds, runs and submissions")
    if folder != INPUT / name:
        made.add("folder", folder.as_posix(), "where the host's files lie")
    found = roles.find(seen)
    train = found.frame(seen, "train")
    for path in found.joined if train is not None else ():
        train = train.merge(seen.tables[path], validate="one_to_one")
    if train is None:
        from_files.write(made, seen, found)
    else:
        from_tables.write(made, seen, found, Frames(train, found.frame(seen, "test"), found.frame(seen, "sample")))
    made.open += [f"a file that cannot be read: {problem}" for problem in seen.unread]
    return made
