"""The part of the project that `predict.py` runs on, found by its imports and copied beside it."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

PROJECT = "foldcraft"
SOURCE = Path(__file__).parents[3]  # the folder that holds the package
ENTRY = "foldcraft.submission.pack.predict"
# What `predict.py` looks up by name: the engines, and whatever a plan is made of.
BY_NAME = (
    "foldcraft.submission.pack.torch_engine",
    "foldcraft.submission.pack.onnx_engine",
    "foldcraft.ensemble.constraints",
    "foldcraft.ensemble.decision_rules",
    "foldcraft.ensemble.methods",
)


def modules(engine: str) -> list[str]:
    """Names of all modules that predicting by an engine imports, at once or while it runs."""
    wanted = [ENTRY, *(name for name in BY_NAME if name.rpartition(".")[2] not in _other_engines(engine))]
    found: dict[str, None] = {}
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = None
            wanted += imported(name)
    return sorted(found)


def _other_engines(engine: str) -> set[str]:
    return {"torch_engine", "onnx_engine"} - {f"{engine}_engine"}


def imported(name: str) -> list[str]:
    """The project's modules that a module imports, those in functions among them; not those for types alone."""
    tree = ast.parse(_file(name).read_text())
    packages = [".".join(name.split(".")[: k + 1]) for k in range(name.count("."))]
    return [*packages, *(one for one in _imports(tree) if one.partition(".")[0] == PROJECT)]


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (one if _is_module(one) else node.module for one in inner)
        yield from _imports(node)


def _is_module(name: str) -> bool:
    return name.partition(".")[0] == PROJECT and _file(name).is_file()


def _file(name: str) -> Path:
    path = SOURCE.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def copy(folder: Path, engine: str) -> None:
    """Write the modules, and `predict.py`, into a folder."""
    for name in modules(engine):
        file = _file(name)
        target = folder / file.relative_to(SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    shutil.copyfile(_file(ENTRY), folder / "predict.py")
