"""The files by which Kaggle takes a pack for a data set, and the notebook beside it for a kernel.

Their form is that of `kaggle datasets create` and `kaggle kernels push`, documented with Kaggle's own client.
"""

import json
import re
from pathlib import Path

from foldcraft.submission.pack.outcome import Wanted

NOTEBOOK = "inference.ipynb"
CELLS = Path(__file__).with_name("notebook.py")
CELL = re.compile(r"^# %%(?: \[(markdown)\])?\n", re.MULTILINE)
SHORTEST, LONGEST = 6, 50  # characters of a title


def write(folder: Path, name: str, competition: str, wanted: Wanted) -> None:
    """Write the metadata of data set and kernel, and the notebook."""
    title = _title(name, competition)
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    dataset = {
        "title": title,
        "id": f"{wanted.owner}/{slug}",
        "licenses": [{"name": "other"}],
        "description": "A trained blend; README.md says what it is made of, and the licences of its weights.",
    }
    kernel = {
        "id": f"{wanted.owner}/{slug}-run",
        "title": f"{slug.replace('-', ' ')} run",
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": "true",
        "enable_gpu": "true" if wanted.engine == "torch" else "false",
        "enable_internet": "false",
        "dataset_sources": [dataset["id"]],
        "competition_sources": [wanted.competition] if wanted.competition else [],
        "kernel_sources": [],
        "model_sources": [],
    }
    for file, content in (("dataset-metadata.json", dataset), ("kernel-metadata.json", kernel)):
        (folder / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    cells = CELLS.read_text(encoding="utf-8").replace("COMPETITION_HERE", wanted.competition or competition)
    (folder / NOTEBOOK).write_text(json.dumps(_notebook(cells), indent=1) + "\n", encoding="utf-8")


def _title(name: str, competition: str) -> str:
    """A title that Kaggle takes, from the folder's name."""
    words = re.sub(r"[^A-Za-z0-9]+", " ", name).strip()
    title = words if len(words) >= SHORTEST else f"{competition} {words}".strip()
    return (title if len(title) >= SHORTEST else f"{title} blend")[: LONGEST - len(" run")].strip()


def _notebook(text: str) -> dict[str, object]:
    """A notebook from a script whose cells begin with `# %%`; what stands before the first is for the project."""
    parts = CELL.split(text)[1:]
    cells = []
    for kind, content in zip(parts[::2], parts[1::2], strict=True):
        lines = content.strip().splitlines(keepends=True)
        if kind == "markdown":
            lines = [line.removeprefix("# ").removeprefix("#") for line in lines]
            cells.append({"cell_type": "markdown", "metadata": {}, "source": lines})
        else:
            about = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
            cells.append({**about, "source": lines})
    python = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": cells, "metadata": python, "nbformat": 4, "nbformat_minor": 4}
