"""What the benchmark of a budget reckons with: hidden groups, curves over time, finished cells, the table."""

import importlib
import json
import os
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, write_competition

from foldcraft.study.compete.history import Entry, History

sys.path.insert(0, str(ROOT / "benchmarks"))
budget = importlib.import_module("budget")
hidden = importlib.import_module("hidden")

CELL = budget.Cell("shapes", 1.0, 0)


def test_hidden_groups_are_a_quarter_and_never_learned_from() -> None:
    units = np.repeat([f"photo{number}" for number in range(80)], 3)
    targets = np.repeat(np.arange(80) % 2, 3)
    known, judged = hidden.hide(units, targets, 1.0, 0)
    tenth, same_judged = hidden.hide(units, targets, 0.1, 0)
    assert sorted([*known, *judged]) == list(range(240))
    assert not set(units[known]) & set(units[judged])
    assert len(set(units[judged])) == 20
    assert len(set(units[tenth])) == 6, "a tenth of the thirty others of either class"
    assert set(tenth) < set(known)
    assert same_judged.tolist() == judged.tolist()
    assert hidden.hide(units, targets, 0.1, 0)[0].tolist() == tenth.tolist()
    assert hidden.hide(units, targets, 0.1, 1)[0].tolist() != tenth.tolist()
    few = hidden.hide(units, targets, 1.0, 0, most=10)
    assert len(few[1]) == 10
    assert few[0].tolist() == known.tolist()


def test_a_cell_is_a_competition_without_its_answers(tmp_path: Path) -> None:
    write_competition(tmp_path / "source", train=48, group=True)
    truth = budget.write_competition(CELL, tmp_path / "source", tmp_path / "cell")
    source = pd.read_csv(tmp_path / "source" / "train.csv", dtype=str).set_index("id")
    train, test, sample = (
        pd.read_csv(tmp_path / "cell" / f"{name}.csv", dtype=str) for name in ("train", "test", "sample_submission")
    )
    assert list(test) == ["id"]
    assert sample["label"].nunique() == 1
    assert (len(train), len(test)) == (36, 12)
    assert not set(train["group"]) & set(source.loc[test["id"], "group"])
    assert truth.to_dict() == source.loc[test["id"], "label"].to_dict()
    assert {file.name for file in (tmp_path / "cell" / "test").iterdir()} == set(test["id"])
    image = tmp_path / "cell" / "test" / test["id"][0]
    assert image.read_bytes() == (tmp_path / "source" / "train" / test["id"][0]).read_bytes()


def test_a_history_becomes_a_curve(tmp_path: Path) -> None:
    truth = pd.Series({"1.png": "bar", "2.png": "bar", "3.png": "dot", "4.png": "dot"})
    for name, labels in (("half", ["bar", "dot", "bar", "dot"]), ("right", truth.tolist())):
        answers = pd.DataFrame({"id": truth.index, "label": labels})
        answers[::-1].to_csv(tmp_path / f"{name}.csv", index=False)  # a submission's order is its own
    history = History(tmp_path, data="of these images")
    for seconds, submission in ((30.0, "half.csv"), (70.0, None), (110.0, "right.csv")):
        history.add(
            Entry("probe", "probe", ("net",), "e", (0,), True, seconds, 20, 20, 20, submission=submission), None
        )
    points = budget.curve(budget.compete_entries(history.file), tmp_path, truth)
    assert points == [(0.0, 0.0), (30.0, 0.5), (110.0, 1.0)]
    assert [budget.score_at(points, at) for at in (29, 30, 109, 110, 1200)] == [0.0, 0.5, 0.5, 1.0, 1.0]


def test_finished_cells_are_skipped_and_the_longest_measurement_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measure(cell: object, contender: str, minutes: float, *_: object) -> tuple[list[tuple[float, float]], float]:
        asked.append((cell.set, contender, minutes))
        return [(0.0, 0.0), (60.0 * minutes, minutes / 10)], 1.0

    def benchmark(*words: str) -> None:
        files = ("--file", str(tmp_path / "b.jsonl"), "--picture", str(tmp_path / "b.svg"))
        monkeypatch.setattr(sys, "argv", ["budget.py", "--sets", "a", "--shares", "1", *files, *words])
        budget.main()

    monkeypatch.setattr(budget, "measure", measure)
    benchmark("--contenders", budget.BARE, "--minutes", "5")
    benchmark("--contenders", budget.BARE, budget.COMPETE, "--minutes", "5")
    assert asked == [("a", budget.BARE, 5), ("a", budget.COMPETE, 5)]
    benchmark("--contenders", budget.BARE, "--minutes", "8")
    benchmark("--contenders", budget.BARE, "--minutes", "2")
    assert asked[2:] == [("a", budget.BARE, 8)]
    curves = budget.Measured(tmp_path / "b.jsonl", budget.this_machine()).curves()
    assert not budget.Measured(tmp_path / "b.jsonl", "another").curves(), "its seconds are no measure for these"
    assert curves[budget.Cell("a", 1.0, 0), budget.BARE] == (8.0, [(0.0, 0.0), (480.0, 0.8)])
    assert curves[budget.Cell("a", 1.0, 0), budget.COMPETE] == (5.0, [(0.0, 0.0), (300.0, 0.5)])
    assert "<svg" in (tmp_path / "b.svg").read_text()


def test_each_plot_stands_under_its_own_name_where_a_set_lacks_a_share(tmp_path: Path) -> None:
    measured = budget.Measured(tmp_path / "budget.jsonl", "this")
    for name, share in (("a", 0.1), ("b", 0.1), ("b", 0.3), ("a", 1.0)):
        measured.add(budget.Cell(name, share, 0), budget.BARE, 10, [(0, 0.0), (60, 0.5)])
    budget.draw_curves(measured, tmp_path / "b.json")
    drawn = json.loads((tmp_path / "b.json").read_text())
    plots = [plot for line in drawn["vconcat"] for plot in line["hconcat"]]
    titles = [plot.get("title") for plot in plots]
    assert titles == [
        *("a, 10% of the groups", "b, 10% of the groups"),
        *(None, "b, 30% of the groups"),
        *("a, 100% of the groups", None),
    ]
    for title, plot in zip(titles, plots, strict=True):
        rows = drawn["datasets"][plot["data"]["name"]]
        assert title is None or {f"{row['set']}, {row['share']:.0%} of the groups" for row in rows} == {title}


def test_the_table_has_errors_at_each_time_and_the_aims(tmp_path: Path) -> None:
    measured = budget.Measured(tmp_path / "budget.jsonl", "this")
    measured.add(CELL, budget.BARE, 10, [(0, 0.0), (60, 0.5), (200, 0.7)])
    measured.add(budget.Cell("shapes", 1.0, 1), budget.BARE, 10, [(0, 0.0), (200, 0.9)])
    measured.add(CELL, budget.COMPETE, 10, [(0, 0.0), (60, 0.75), (590, 0.95)])
    table = budget.errors(measured, [2, 10, 20])
    row = table.loc["shapes", 1.0]
    assert row[budget.BARE].round(6).tolist()[:2] == [0.75, 0.2], (
        "means of two draws; one had no answer after 2 minutes"
    )
    assert row[budget.COMPETE].round(6).tolist()[:2] == [0.25, 0.05]
    assert np.isnan([*row[budget.TIMM], row[budget.BARE, 20], row[budget.COMPETE, 20]]).all(), "not measured"
    assert list(budget.aims(table)) == [
        "shapes 1, 2 min: at most half of the errors: yes (0.2500, 0.7500)",
        "shapes 1, 10 min: at most half of the errors: yes (0.0500, 0.2000)",
        "shapes 1: after 2 min ahead of the bare loop after 10: no (0.2500, 0.2000)",
    ]


def test_a_command_that_uses_the_budget_is_ended(tmp_path: Path) -> None:
    place = budget.Place(tmp_path, "shapes", max(os.sched_getaffinity(0)), budget=1.5)
    assert place.run("-c", "pass")
    assert not place.run("-c", "raise SystemExit(1)", may_say_no=True)
    with pytest.raises(SystemExit, match="failed: see"):
        place.run("-c", "raise SystemExit(1)")
    with pytest.raises(budget.TimeIsUp):
        place.run("-c", "while True: pass")
    with pytest.raises(budget.TimeIsUp):
        budget.Place(tmp_path, "shapes", place.core, budget=0.001).run("-c", "pass")


def test_the_commands_of_a_diagnosis_are_followed_in_their_order() -> None:
    from foldcraft.views.diagnosis import commands

    pool, tried = ["c/probe_b.yaml", "c/probe_a.yaml", "c/pool.yaml"], ["c/full_b.yaml", "c/full_a.yaml"]
    lines = list(commands(list(map(Path, pool)), list(map(Path, tried))))
    assert budget.commands("\n".join(lines)) == (pool, tried)
    assert lines[-1].split()[3:] == [*pool, *tried], "all of it in the end"
    others = [line.split()[3] for line in lines if "--fold all &&" in line]
    mixed_in = [before.split()[-3] for before, line in pairwise(lines) if "--fold all &&" in line]
    assert mixed_in == others == tried, "a first fold is submitted before the others are trained"


@pytest.mark.parametrize("recipe", ["bare", "heavy"])
def test_a_loop_written_by_hand_answers_model_after_model(
    shapes: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foldcraft.common import config_file

    by_hand = importlib.import_module("by_hand")
    monkeypatch.setattr(by_hand, "BETWEEN", 0.0)
    short = replace(by_hand.RECIPES[recipe], epochs=2, steps=2)
    clock = by_hand.Clock(by_hand.Clock(0).used + 2)
    config = config_file.load(shapes, ["images.size=32"])
    data = by_hand.Data(config)
    with pytest.raises(by_hand.TimeIsUp):
        by_hand.train_on(by_hand.Loop(config, short, data, clock), by_hand.Answers(data, clock))
    history = [json.loads(line) for line in Path("history.jsonl").read_text().splitlines()]
    seconds = [entry["seconds"] for entry in history]
    assert len(history) >= 3, "two epochs or so of the first model, and models"
    assert seconds == sorted(seconds)
    assert seconds[-1] < clock.budget
    for entry in history:
        answers = pd.read_csv(entry["submission"], dtype=str)
        assert answers["id"].tolist() == data.ids.tolist()
        assert set(answers["label"]) <= {"bar", "cross", "dot"}
    known, held = data.split(7)
    assert sorted([*known, *held]) == list(range(48))
    assert held.tolist() != data.split(2)[1].tolist(), "another seed after the fifth fold"
