"""One drawn competition that can be read as every kind of target: shapes, how many, how bright, what votes said."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from foldcraft.common import config_file
from foldcraft.common.config import Config
from foldcraft.data.targets import reading
from foldcraft.data.targets.target import Target

SIDE = 16
TARGETS: dict[str, tuple[object, str]] = {  # by shape of target: what the config says of it, and a metric
    "single": ("label", "accuracy"),
    "heads": ({"column": "label", "heads": ["form", "tone"]}, "accuracy"),
    "auxiliary": ({"column": "label", "auxiliary": ["tone"]}, "accuracy"),
    "ordinal": ({"column": "grade", "kind": "ordinal"}, "qwk"),
    "ordinal as classes": ({"column": "grade", "kind": "ordinal", "cumulative": False}, "qwk"),
    "multilabel": ({"columns": ["bar", "bright", "left"], "kind": "multilabel"}, "macro_f1"),
    "soft": ({"columns": "votes_*", "kind": "soft"}, "kl"),
    "regression": ({"columns": ["level", "width"], "kind": "regression"}, "rmse"),
    "multioutput": ({"columns": ["form", "grade"], "kind": "multioutput"}, "mean_accuracy"),
}

PLAIN = {
    "folds": {"count": 3},
    "images": {"size": SIDE},
    "augment": {"preset": "light"},
    "backbone": {"name": "test_resnet", "weights": "none"},
    "train": {"epochs": 1, "batch": 8},
    "probe": {"augmented": 0},
    "machine": {"workers": 0, "device": "cpu", "precision": "32-true", "memory_format": "contiguous"},
    "tta": {"views": ["identity"]},
    "tracking": {"wandb": "off"},
}


def table(rows: int) -> pd.DataFrame:
    """The rows, as text: a bar or a dot, in one of three tones, on the left or on the right."""
    rng = np.random.default_rng(0)
    bar, tone, left = rng.integers(0, 2, rows), rng.integers(0, 3, rows), rng.integers(0, 2, rows)
    width = rng.integers(2, 7, rows)
    votes = rng.multinomial(5, [0.1, 0.1, 0.1], rows) + 5 * np.eye(3, dtype=int)[tone]
    form = np.where(bar == 1, "bar", "dot")
    frame = {
        "id": [f"{row:03d}" for row in range(rows)], "form": form, "tone": np.array(["dim", "mid", "light"])[tone],
        "label": [f"{a}-{b}" for a, b in zip(form, tone, strict=True)], "grade": tone, "bar": bar,
        "bright": (tone == 2).astype(int), "left": left, "level": 80 * tone + rng.normal(0, 3, rows).round(2),
        "width": width, **{f"votes_{k}": votes[:, k] for k in range(3)},
    }  # fmt: skip
    return pd.DataFrame(frame).astype(str)


def draw(row: "pd.Series[str]", seed: int) -> Image.Image:
    """The picture of a row."""
    pixels = np.random.default_rng(seed).normal(20, 4, (SIDE, SIDE))
    level, width = float(row["level"]), int(row["width"])
    first = 1 if row["left"] == "1" else 9
    tall = slice(1, 15) if row["bar"] == "1" else slice(6, 6 + width)
    pixels[tall, first : first + width] += 40 + level
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(folder: Path, rows: int = 36, test: int = 6) -> pd.DataFrame:
    """The competition in `folder`; all its rows."""
    frame = table(rows + test)
    for part, some in (("train", frame[:rows]), ("test", frame[rows:])):
        (folder / part).mkdir(parents=True)
        for place, row in some.iterrows():
            draw(row, int(place)).save(folder / part / f"{row['id']}.png")
    frame[:rows].to_csv(folder / "train.csv", index=False)
    frame[rows:][["id"]].to_csv(folder / "test.csv", index=False)
    return frame


def config(shape: str, **sections: dict[str, object]) -> Path:
    """configs/<shape>.yaml of input/kinds read as that shape, with a sample submission of its own; where it is."""
    target, metric = TARGETS[shape]
    names = columns(shape)
    ids = pd.read_csv("input/kinds/test.csv", dtype=str)["id"]
    value = "bar-0" if names == ["label"] else "0"
    name = shape.replace(" ", "_")
    sample = f"sample_{name}.csv"
    pd.DataFrame({"id": ids, **dict.fromkeys(names, value)}).to_csv(f"input/kinds/{sample}", index=False)
    about = {"name": f"kinds_{name}", "folder": "input/kinds", "target": target, "metric": metric, "sample": sample}
    settings = {"competition": about, **PLAIN}
    for section, values in sections.items():
        settings[section] = {**settings.get(section, {}), **values}
    path = Path("configs") / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(settings))
    return path


def columns(shape: str) -> list[str]:
    """Columns of the table that the target is read from."""
    wanted = TARGETS[shape][0]
    if isinstance(wanted, str):
        return [wanted]
    listed = wanted.get("columns", wanted.get("column"))
    return [f"votes_{k}" for k in range(3)] if listed == "votes_*" else [listed] if isinstance(listed, str) else listed


def settings(shape: str, *words: str) -> Config:
    """The settings of a shape, without files."""
    target, metric = TARGETS[shape]
    about = {"name": "kinds", "target": target, "metric": metric}
    Path("kinds.yaml").write_text(yaml.safe_dump({"competition": about, **PLAIN}))
    return config_file.load(Path("kinds.yaml"), words)


def target(shape: str) -> Target:
    """The target of that shape, read from the table."""
    names = settings(shape).competition
    return reading.read(names, table(36), Path("train.csv")).target
