"""Hosts' folders from the files as they are to a submission, which a reader of its own checks; no script between."""

import csv
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Outcome, recipe

pytestmark = pytest.mark.slow

DOCS = ROOT / "docs" / "competitions.md"
MORE = {"foldcol": {"folds": {"column": "fold"}}}  # settings beside `competition`
SAMPLES = {"boostcamp": "eval/info.csv"}  # where it is not sample_submission.csv
NET = {
    "folds": {"count": 2},
    "images": {"size": 32},
    "augment": {"preset": "none"},
    "backbone": {"name": "test_resnet", "weights": "none"},
    "train": {"epochs": 1, "batch": 16},
    "machine": {"workers": 0, "device": "cpu", "precision": "32-true", "memory_format": "contiguous"},
    "tracking": {"wandb": "off"},
}
Cells = Sequence[list[str]]


def is_share(text: str) -> bool:
    return 0 <= float(text) <= 1


def sums_to_one(cells: list[str]) -> bool:
    return all(map(is_share, cells)) and abs(sum(map(float, cells)) - 1) < 1e-3


def one_of(*labels: str) -> Callable[[list[str]], bool]:
    return lambda cells: len(cells) == 1 and cells[0] in labels


def list_of(labels: Sequence[str], most: int) -> Callable[[list[str]], bool]:
    return lambda cells: (
        0 < len(set(cells[0].split(" "))) == len(cells[0].split(" ")) <= most
        and set(cells[0].split(" ")) <= set(labels)
    )


def column(folder: Path, table: str, name: str) -> list[str]:
    with open(folder / table, newline="", encoding="utf-8") as stream:
        return [row[name] for row in csv.DictReader(stream)]


def checks(name: str, folder: Path) -> Callable[[list[str]], bool]:
    """What the host asks of the cells of a row, beside the ids."""

    def labels_of(where: str) -> list[str]:
        return sorted(set(column(folder, "train.csv", where)))

    def is_number(cells: list[str]) -> bool:
        return len(cells) == 1 and abs(float(cells[0])) < 1e6

    return {
        "boostcamp": lambda: one_of(*map(str, range(18))),
        "dogs": lambda: lambda cells: is_share(cells[0]),
        "seedlings": lambda: one_of(*(path.name for path in (folder / "train").iterdir())),
        "aptos": lambda: one_of("0", "1", "2", "3", "4"),
        "cassava": lambda: one_of(*labels_of("label")),
        "pp2020": lambda: lambda cells: len(cells) == 4 and all(map(is_share, cells)),
        "pp2021": lambda: list_of(sorted({part for cell in labels_of("labels") for part in cell.split(" ")}), 6),
        "ranzcr": lambda: lambda cells: len(cells) == 11 and all(map(is_share, cells)),
        "isic2020": lambda: lambda cells: is_share(cells[0]),
        "paw": lambda: lambda cells: 1 <= float(cells[0]) <= 100,
        "csiro": lambda: is_number,
        "hms": lambda: lambda cells: len(cells) == 6 and sums_to_one(cells),
        "bengali": lambda: one_of(*map(str, range(6))),
        "frames": lambda: lambda cells: is_share(cells[0]),
        "rsna_bc": lambda: lambda cells: is_share(cells[0]),
        "foldcol": lambda: one_of("a", "b", "c"),
        "digitrec": lambda: one_of(*map(str, range(10))),
        "hpa": lambda: list_of(list("012345"), 6),
        "happywhale": lambda: (
            lambda cells: len(cells[0].split(" ")) == 5 and list_of(labels_of("individual_id"), 5)(cells)
        ),
        "dacon_birds": lambda: one_of(*labels_of("label")),
    }[name]()


NAMES = (
    *("boostcamp", "dogs", "seedlings", "aptos", "cassava", "pp2020", "pp2021", "ranzcr", "isic2020", "paw", "csiro"),
    *("hms", "bengali", "frames", "rsna_bc", "foldcol", "digitrec", "hpa", "happywhale", "dacon_birds"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_host_is_taken_from_its_files_to_a_submission(
    hosts: Path, workplace: Path, command: Callable[..., Outcome], name: str
) -> None:
    Path("input").mkdir(exist_ok=True)
    Path(f"input/{name}").symlink_to(hosts / name)
    settings = yaml.safe_load(recipe(name))
    about = {**NET, **MORE.get(name, {}), "competition": {"name": name, **settings}}
    Path("c.yaml").write_text(yaml.safe_dump(about, allow_unicode=True))
    shutil.copytree(ROOT / "configs" / "recipes", "configs/recipes")  # which a draft extends
    started = command("start", f"input/{name}", "--name", "drafted")
    assert started.code == 0, started.err
    assert ("\nread: " in started.out) == (name != "boostcamp")  # whose label is in no table
    shown = command("split", "--show", "--config", "c.yaml")
    assert shown.code == 0, shown.err
    for words in (("train", "--fold", "all"), ("infer", "--out", "answers.csv")):
        done = command(words[0], "--config", "c.yaml", *words[1:])
        assert done.code == 0, done.err
    check_table(name, settings, shown.out)
    header, *rows = read(Path("answers.csv"))
    wanted, *sample = read(hosts / name / SAMPLES.get(name, "sample_submission.csv"))
    assert header == wanted
    assert [row[0] for row in rows] == [row[0] for row in sample]
    is_answer = checks(name, hosts / name)
    assert [row for row in rows if not is_answer(row[1:])] == []


def read(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def check_table(name: str, settings: dict, shown: str) -> None:
    """The layout's row in the docs says what the commands say; FOLDCRAFT_WRITE_DOCS=1 writes it."""
    count = {part: found[1] for part in ("training", "test") if (found := re.search(rf"first of (\S+) {part}", shown))}
    form = re.search(r"^submission: (.*)$", shown, re.MULTILINE)
    assert form
    row = f"| `{name}` | {len(settings)} | {count['training']} | {count['test']} | {form[1]} |"
    text = DOCS.read_text()
    if os.environ.get("FOLDCRAFT_WRITE_DOCS"):
        text = re.sub(rf"^\| `{name}` \|.*\n", "", text, flags=re.MULTILINE)
        DOCS.write_text(text.replace("<!-- end of hosts -->", f"{row}\n<!-- end of hosts -->"))
    else:
        assert row in text.splitlines(), f"{DOCS.name} is out of date; FOLDCRAFT_WRITE_DOCS=1 writes it"
