"""Tables, pages and panels of every kind of target, from a table to a page."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb
from conftest import CONFIG, draw_shape
from sklearn.metrics import average_precision_score

from foldcraft.common import config_file
from foldcraft.ensemble.blend import Combined, combine, complete
from foldcraft.predictions.finished import open_finished
from foldcraft.views import wandb_panels, wandb_process
from foldcraft.views.blend import show
from foldcraft.views.terminal import Terminal

KINDS = {
    "single": ("label", "metric: macro_f1"),
    "ordinal": ("{column: grade, kind: ordinal, cumulative: true}", "metric: qwk"),
    "multilabel": ("{columns: [long, wide, far], kind: multilabel}", "metric: mean_average_precision"),
    "multioutput": ("{columns: [label, grade], kind: multioutput}", "metric: {name: macro_f1, weights: {label: 2}}"),
    "soft": ("{columns: '*_vote', kind: soft}", "metric: kl"),
    "regression": ("{columns: [size, light], kind: regression, range: [0, 99]}", "metric: rmse"),
}
ROWS, TESTS = 60, 8


def draw(kind: str) -> Path:
    """A competition of 60 shapes with a column for each kind of target, some cells empty; its config."""
    rng, folder = np.random.default_rng(0), Path("input/kinds")
    shape = rng.integers(0, 3, ROWS + TESTS)
    names = np.array(["bar", "cross", "dot"])
    frame = pd.DataFrame({"id": [f"{row:03d}.png" for row in range(len(shape))], "label": names[shape]})
    frame["grade"] = shape + rng.integers(0, 2, len(shape))
    frame["long"], frame["wide"], frame["far"] = shape != 2, shape == 1, rng.random(len(shape)) < 0.3
    frame[["long", "wide", "far"]] = frame[["long", "wide", "far"]].astype(int).astype(str)
    frame["size"], frame["light"] = 30 + 20.0 * shape, (5 + shape + rng.normal(0, 1, len(shape))).round(2)
    frame[["size", "light"]] = frame[["size", "light"]].astype(str)
    for k, name in enumerate(names):
        frame[f"{name}_vote"] = 1 + 6 * (shape == k) + rng.integers(0, 3, len(shape))
    if kind != "soft":
        frame.loc[[3, 8], ["wide", "light"]] = ""
    for part, rows in (("train", frame[:ROWS]), ("test", frame[ROWS:])):
        (folder / part).mkdir(parents=True)
        for row in rows.itertuples():
            draw_shape(row.label, int(row.Index)).save(folder / part / row.id)
    frame[:ROWS].to_csv(folder / "train.csv", index=False)
    frame[ROWS:][["id"]].to_csv(folder / "test.csv", index=False)
    asked = {
        "single": ["label"], "ordinal": ["grade"], "multilabel": ["long", "wide", "far"],
        "multioutput": ["label", "grade"], "soft": [f"{name}_vote" for name in names], "regression": ["size", "light"],
    }[kind]  # fmt: skip
    frame[ROWS:][["id", *asked]].to_csv(folder / "sample_submission.csv", index=False)
    target, metric = KINDS[kind]
    path = Path("configs/kinds/one.yaml")
    path.parent.mkdir(parents=True)
    base = CONFIG.replace("name: shapes, metric: accuracy", f"name: kinds, target: {target}, {metric}")
    path.write_text(base.replace("count: 3", "count: 2") + "finetune: {mode: linear_probe}\n")
    path.with_name("two.yaml").write_text(path.read_text().replace("size: 16", "size: 24"))
    return path


def show_blend(paths: list[Path]) -> Combined:
    """The tables of src/infer.py."""
    members = open_finished([config_file.load(path) for path in paths])
    complete(members, Terminal(quiet=True))
    combined = combine(members)
    show(combined, Terminal())
    return combined


SHOWN = {
    "single": ("Confusion matrix", "F1 by class"),
    "ordinal": ("Confusion matrix", "How far off"),
    "multilabel": ("Measures by label", "Mean over folds", "probability of a label", "images with a wrong label"),
    "multioutput": ("macro F1 (weights of label 2)", "label: confusion matrix", "Measures by head"),
    "soft": ("KL of an image", "Measures by class", "Worst rows"),
    "regression": ("size: prediction by truth", "Errors by the size of the truth", "Worst rows", "squared error"),
}
COMPARED = {
    "single": ("classes, one → two", "rows with another answer"),
    "ordinal": ("classes, one → two", "rows with another answer"),
    "multilabel": ("labels, one → two", "average precision difference", "correlation of errors"),
    "multioutput": ("heads, one → two", "macro F1 difference", "one a row and head", "macro_f1 (weights of label 2)"),
    "soft": ("classes, one → two", "MAE difference", "correlation of errors"),
    "regression": ("columns, one → two", "RMSE difference", "correlation of errors"),
}
PANELS = {
    "multilabel": {"parts"},
    "multioutput": {"parts", "confusion_matrix/label", "confusion_matrix/grade"},
    "soft": {"parts"},
    "regression": {"parts", "scatter/size", "scatter/light"},
}


def test_infer_shows_the_mean_over_folds_where_only_the_order_counts(workplace: Path, command) -> None:
    one = draw("multilabel")
    assert command("train", "--config", one, "--fold", "all").code == 0
    (member,) = open_finished([config_file.load(one)])
    combined, card = show_blend([one]), member.oof()
    own = combined.selection.members[0]
    folds = [
        np.mean([average_precision_score(*pair) for pair in known(card.targets[rows], own.nested[rows])])
        for rows in (combined.truth.fold == 0, combined.truth.fold == 1)
    ]
    assert combined.mean_of_folds(own) == pytest.approx(np.mean(folds))


def known(truth: np.ndarray, odds: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each label, truth and prediction where it is known."""
    return [(t[~np.isnan(t)], p[~np.isnan(t)]) for t, p in zip(truth.T, odds.T, strict=True)]


def test_the_weakest_label_is_that_of_the_table(workplace: Path, command) -> None:
    """Both are judged by what is answered, with the thresholds of the other folds."""
    one = draw("multilabel")
    one.write_text(re.sub(r"metric: [^,}]*", "metric: macro_f1", one.read_text()))
    assert command("train", "--config", one, "--fold", "all").code == 0
    assert command("report", "--config", one).code == 0
    page = Path("runs/kinds/report.html").read_text()
    (value,) = re.findall(r"Weakest label: \w+, with F1 ([.\d]+) on", page)
    table = page[page.index("Measures by label") :]
    f1 = re.findall(r">(?:long|wide|far)</t[dh]>(?:\s*<td[^>]*>[^<]*</td>){4}\s*<td[^>]*>([.\d]+)</td>", table)
    assert len(f1) == 3
    assert value == min(f1)


QUICK = ("ordinal", "regression")  # labels and values; the others are slow


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k in QUICK else pytest.mark.slow) for k in KINDS])
def test_every_kind_goes_from_a_table_to_a_page(kind: str, workplace: Path, command) -> None:
    one = draw(kind)
    two = one.with_name("two.yaml")
    done = [command("train", "--config", each, "--fold", "all") for each in (one, two)]
    shown = show_blend([one, two])
    for name, words in (
        ("infer", ["--config", one, two]),
        ("compare", [one, two]),
        ("compare", ["--config", one]),
        ("report", ["--config", one, two]),
    ):
        done.append(command(name, *words))
        assert done[-1].code == 0, (name, done[-1].err[-2000:])
    text = re.sub(r"\s+", " ", Path("runs/kinds/report.html").read_text())
    assert [words for words in SHOWN[kind] if words not in text] == []
    assert "There is no Grad-CAM" not in text
    assert [words for words in COMPARED[kind] if words not in done[3].out] == []
    assert f"{shown.selection.chosen.score.value:.4f}" in text
    said = [word for word in ("likeliest class", "correlation of being wrong") if kind == "regression" and word in text]
    assert said == []
    if kind in PANELS:
        card = open_finished([config_file.load(one)])[0].oof()
        summary = wandb_process.summary_of(card, [{"score": 0.5, "metric": "m", "seconds": 1}] * 2)
        assert summary["oof_low"] < summary["oof"] == card.score < summary["oof_high"]
        made = wandb_panels.panels(wandb, card, 3, (0, 65535))
        assert set(made) == PANELS[kind] | {"mistakes"}
        assert [row[0] for row in made["parts"].data] == list(card.competition.target.heads)
        worst = made["mistakes"].data
        assert [row[4] for row in worst] == sorted((row[4] for row in worst), reverse=True)
