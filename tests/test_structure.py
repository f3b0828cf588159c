"""The house keeps its floors, and its commands keep off the names of other modules."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "foldcraft"


def floors() -> dict[str, int]:
    """The floor of every room, as the table in docs/architecture.md has it."""
    rows = re.findall(r"^\| (\d) \w+ \| ([^|]*) \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    return {room: int(number) for number, rooms in rows for room in re.findall(r"`(\w+)`", rooms)}


def files_of(room: str) -> list[Path]:
    """The file of a room, or those of one that is a folder."""
    return sorted((PACKAGE / room).glob("*.py")) or [PACKAGE / f"{room}.py"]


def imports_of(room: str) -> set[str]:
    """Rooms of the package that a room imports."""
    found = set()
    for node in (node for file in files_of(room) for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.ImportFrom) and node.module == "foldcraft":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("foldcraft."):
            found.add(node.module.split(".")[1])
    return found


def test_every_room_has_a_floor() -> None:
    rooms = {file.stem for file in PACKAGE.glob("*.py")} | {file.parent.name for file in PACKAGE.glob("*/*.py")}
    rooms -= {"__init__"}
    assert rooms == set(floors())


def test_rooms_import_from_their_own_floor_or_below() -> None:
    floor = floors()
    upward = [
        f"{room} (floor {floor[room]}) imports {other} (floor {floor[other]})"
        for room in floor
        for other in imports_of(room)
        if floor[other] > floor[room]
    ]
    assert not upward


def test_words_need_no_torch() -> None:
    code = (
        "import sys; from foldcraft import "
        + ", ".join(sorted(room for room, floor in floors().items() if floor == 0))
        + "; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_only_one_room_touches_albumentations() -> None:
    files = [file.name for file in PACKAGE.rglob("*.py") if "import albumentations" in file.read_text()]
    assert files == ["augment.py"]


def test_commands_have_names_of_their_own() -> None:
    commands = {file.stem for file in (ROOT / "src").glob("*.py")}
    code = (
        "import importlib.util, json, sys; "
        f"print(json.dumps([n for n in {sorted(commands)} "
        "if n in sys.stdlib_module_names or importlib.util.find_spec(n)]))"
    )
    # -I: what lies in the current folder does not count, a folder of the same name among it
    elsewhere = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, env={})
    assert json.loads(elsewhere.stdout) == []


def test_configs_that_are_talked_of_are_there() -> None:
    made_on_the_way = {"configs/faces/vit.yaml", "configs/masks/soup.yaml"}  # by the reader, by src/soup.py
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "src").glob("*.py")]
    named = {name for text in texts for name in re.findall(r"configs/\w+/[\w-]+\.yaml", text.read_text())}
    assert len(named) > 5
    assert [name for name in sorted(named - made_on_the_way) if not (ROOT / name).is_file()] == []


def test_generated_files_are_current() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "src" / "reference.py")
    assert spec
    assert spec.loader
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for path, text in reference.generated(ROOT).items():
        assert path.read_text() == text, f"{path.name} is out of date: run `make reference`"
