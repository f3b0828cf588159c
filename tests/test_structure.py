"""Packages import in one direction, and commands keep off the names of other modules."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "foldcraft"


# Imports go to the left only.
PACKAGES = (
    "common",
    "metrics",
    "models",
    "data",
    "predictions",
    "training",
    "ensemble",
    "submission",
    "study",
    "views",
)


@cache
def imports() -> dict[str, set[str]]:
    """What each module of the package imports of the others; both by their names below `foldcraft`."""
    modules = {".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, file in modules.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "foldcraft":
                base = (node.module or "").partition(".")[2]
                inner = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
                found[name] |= {one if one in modules else base for one in inner}
    return found


def test_the_packages_are_these() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/*.py")} == set(PACKAGES)
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]


def test_imports_go_to_packages_further_left() -> None:
    place = {package: number for number, package in enumerate(PACKAGES)}
    upward = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if place[other.partition(".")[0]] > place.get(module.partition(".")[0], -1)
    ]
    assert upward == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_tests_lie_where_what_they_test_does() -> None:
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").glob("*/**/test_*.py")}
    assert [folder for folder in folders if not (PACKAGE / folder).is_dir()] == []
    assert {folder.partition("/")[0] for folder in folders} == set(PACKAGES)


def test_what_all_use_needs_no_torch() -> None:
    code = (
        "import sys; from foldcraft.common import "
        + ", ".join(sorted(file.stem for file in (PACKAGE / "common").glob("*.py") if file.stem != "__init__"))
        + "; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_only_one_module_touches_albumentations() -> None:
    files = [file.name for file in PACKAGE.rglob("*.py") if "import albumentations" in file.read_text()]
    assert files == ["augment.py"]


def test_only_one_module_touches_ray() -> None:
    wanted = re.compile(r"^\s*(import|from) ray\b", re.MULTILINE)
    assert [file.name for file in PACKAGE.rglob("*.py") if wanted.search(file.read_text())] == ["ray_executor.py"]


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
    made_on_the_way = {"configs/faces/vit.yaml", "configs/masks/soup.yaml"}  # by the reader, by src/infer.py --soup
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "src").glob("*.py")]
    named = {name for text in texts for name in re.findall(r"configs/\w+/[\w-]+\.yaml", text.read_text())}
    assert len(named) > 5
    assert [name for name in sorted(named - made_on_the_way) if not (ROOT / name).is_file()] == []


def test_generated_files_are_current() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec
    assert spec.loader
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for path, text in reference.generated(ROOT).items():
        assert path.read_text() == text, f"{path.name} is out of date: run `make reference`"


# Where it is known of what kind a target is; elsewhere a target or its space is asked.
KNOWS_KINDS = ("metrics/", "data/targets/", "training/losses.py", "ensemble/decision_rules.py")
OF_ONE_KIND = re.compile(r"\.argmax\((1|-1|dim|axis)|softmax\(|cross_entropy\(|one_hot\(")


def test_nobody_else_takes_a_target_for_one_label() -> None:
    """A line that does says why in a comment, its own or the one above."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        lines = ["", *file.read_text().splitlines()]
        for number, (before, line) in enumerate(pairwise(lines), start=1):
            told = "  # " in line or before.strip().startswith("#")
            if OF_ONE_KIND.search(line) and not told and not name.startswith(KNOWS_KINDS):
                found.append(f"{name}:{number}: {line.strip()}")
    assert found == []
