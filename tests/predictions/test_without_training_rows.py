"""A host's machine: models and out-of-fold predictions are there, the hidden test rows, and little else."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import CONFIG, Outcome, draw_shape, flipped, recipe, write_competition

from foldcraft.common.config import Config
from foldcraft.common.config_file import load
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import competition
from foldcraft.data.folds import Folds
from foldcraft.data.images.sources import all_files
from foldcraft.ensemble import blend
from foldcraft.predictions import store, trained_rows
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.finished import open_finished

Command = Callable[..., Outcome]
RUN = Path("runs/shapes/one")
CONFIGS = ["configs/one.yaml", "configs/two.yaml"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebook") / "trained"


@pytest.fixture
def home(workplace: Path, trained: Path, command: Command) -> Path:
    """Two experiments that were trained at home, on groups and weights, and blended."""
    if trained.is_dir():
        shutil.copytree(trained, ".", dirs_exist_ok=True)
        return workplace
    write_competition(Path("input/shapes"), group=True)
    table = Path("input/shapes/train.csv")
    rows = pd.read_csv(table, dtype=str)
    rows.assign(w=1 + np.arange(len(rows)) % 3, site="north").to_csv(table, index=False)
    Path("configs").mkdir()
    more = "metric: macro_f1, group: group, weight: w, metric_weight: true"
    for seed, file in enumerate(CONFIGS):
        text = CONFIG.replace("metric: accuracy", more).replace("count: 3", "count: 2")
        Path(file).write_text(text.replace("epochs: 2", f"epochs: {3 + seed}") + f"seed: {seed}\n")
    assert command("train", "--config", *CONFIGS, "--fold", "all").code == 0
    shutil.copytree(".", trained)
    return workplace


def hide(rows: int = 20) -> None:
    """Put the host's hidden test set in the place of the one that was handed out, and take the training images away."""
    folder = Path("input/shapes")
    for place in (folder / "train", folder / "test", Path("runs/shapes/cache")):
        shutil.rmtree(place)
    (folder / "test").mkdir()
    ids = [f"hidden{row}.png" for row in range(rows)]
    for row, name in enumerate(ids):
        draw_shape(("dot", "bar", "cross")[row % 3], 100 + row).save(folder / "test" / name)
    pd.DataFrame({"id": ids}).to_csv(folder / "test.csv", index=False)
    pd.DataFrame({"id": ids, "label": "bar"}).to_csv(folder / "sample_submission.csv", index=False)


def outcome() -> blend.Combined:
    return blend.combine(open_finished([load(Path(file)) for file in CONFIGS]))


def plan_of(found: blend.Combined) -> object:
    plan = found.selection.chosen.plan
    members = [one.plan.views for one in found.selection.members]
    return found.selection.chosen.name, plan.combination.shares, str(plan.rule), str(members)


def no_folds() -> None:
    Path("folds/shapes.csv").unlink()


def no_table() -> None:
    no_folds()
    Path("input/shapes/train.csv").unlink()


def stub() -> None:
    no_folds()
    table = Path("input/shapes/train.csv")
    pd.read_csv(table, dtype=str)[:4].to_csv(table, index=False)


def header() -> None:
    Path("input/shapes/train.csv").write_text("id,label\n")


SLOW = [pytest.param(gone, marks=pytest.mark.slow) for gone in (no_folds, header)]


@pytest.mark.parametrize("gone", [lambda: None, no_table, stub, *SLOW])
def test_hidden_rows_are_blended_as_at_home(home: Path, command: Command, gone: Callable[[], None]) -> None:
    """Same weights, views, rule and score; the predictions of the hidden rows are those of the models."""
    at_home = outcome()
    hide()
    gone()
    assert command("infer", "--config", *CONFIGS, "--name", "there").code == 0

    there = outcome()
    assert plan_of(there) == plan_of(at_home)
    assert there.selection.chosen.score == at_home.selection.chosen.score
    tests = [store.read(file) for file in Path("runs").rglob("test.parquet")]
    assert {tuple(test.ids) for test in tests} == {tuple(f"hidden{row}.png" for row in range(20))}
    submitted = pd.read_csv("submissions/there.csv", dtype=str)
    assert submitted["id"].tolist() == [f"hidden{row}.png" for row in range(20)]
    told = command("infer", "--config", *CONFIGS, "tta.views=[identity,vflip]")
    assert (told.code, "of view vflip" in told.err, "set tta.views=[identity,hflip]" in told.err) == (2, True, True)


@pytest.mark.parametrize("is_there", [True, False])
def test_the_page_is_made_without_pictures(home: Path, command: Command, is_there: bool) -> None:
    """With and without the training table."""
    hide()
    if not is_there:
        Path("input/shapes/train.csv").unlink()
    assert command("infer", "--config", *CONFIGS).code == 0
    done = command("report", "--config", *CONFIGS)
    assert done.code == 0, done.err
    page = Path("runs/shapes/report.html").read_text()
    assert "The images are not on this machine, and cannot be shown." in page
    assert "Wrong answers, the worst first" in page


def test_what_stands_in_is_said_and_is_what_was_read(home: Path) -> None:
    config = load(Path(CONFIGS[0]))
    before = competition.read(config, ())
    kept = trained_rows.read(RUN / "rows.parquet")
    assert kept.rows.left_out == ("site", "row", "_row")
    after = competition.read(config, (), kept.rows)
    assert (after.fingerprint, after.learned_identity) == (before.fingerprint, before.learned_identity)
    assert after.train_paths == before.train_paths
    assert (after.score_weights == before.score_weights).all()
    assert (kept.folds.fold == pd.read_csv("folds/shapes.csv", comment="#")["fold"]).all()


def test_rows_that_are_others_are_refused_as_ever(
    home: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    """Who changes a label must train again; asked to, infer goes on with what was learned from."""
    table = Path("input/shapes/train.csv")
    rows = pd.read_csv(table, dtype=str)
    rows.loc[0, "label"] = "dot"
    rows.to_csv(table, index=False)
    told = command("infer", "--config", *CONFIGS)
    assert (told.code, "other labels or groups" in told.err, len(told.err) < 300) == (2, True, True)
    assert "set competition.train=none" in told.err
    asked = command("infer", "--config", *CONFIGS, "competition.train=none")
    assert asked.code == 0, asked.err
    assert "48 training rows, their labels and folds are those in runs/shapes/one/rows.parquet" in caplog.text


def test_older_runs_say_what_they_lack_and_are_given_it(home: Path, command: Command) -> None:
    for file in Path("runs").rglob("rows.parquet"):
        file.unlink()
    table = Path("input/shapes/train.csv")
    content = table.read_bytes()
    table.unlink()
    told = command("infer", "--config", *CONFIGS)
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "the folds keep no copy of the rows; `python src/train.py --fold all`" in told.err
    table.write_bytes(content)
    assert command("train", "--config", *CONFIGS, "--fold", "all").code == 0
    table.unlink()
    assert command("infer", "--config", *CONFIGS).code == 0


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: flipped(data, len(data) // 3)])
def test_damaged_rows_are_told(home: Path, damage: Callable[[bytes], bytes]) -> None:
    file = RUN / "rows.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(FoldcraftError, match="damaged training rows"):
        trained_rows.read(file)


def test_predictions_beside_runs_are_not_those_of_older_models(
    home: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs may only be read, and scratch holds what other models said of the same test rows."""
    access, forbidden = os.access, str(Path("runs").absolute())
    hide()
    assert command("infer", "--config", CONFIGS[1], "--name", "right").code == 0
    shutil.copytree("runs/shapes/two", "scratch/shapes/one")
    shutil.rmtree("runs/shapes/two")
    monkeypatch.setattr(os, "access", lambda at, how: not os.path.abspath(at).startswith(forbidden) and access(at, how))
    assert command("infer", "--config", CONFIGS[0], "--name", "there").code == 0
    models = [store.read(file).origin.weights for file in sorted(Path("scratch").rglob("fold*/test.parquet"))]
    made = [store.read(file).origin.weights for file in sorted(RUN.glob("fold*/oof.parquet"))]
    assert models == made


def test_a_submission_goes_where_the_host_wants_it(
    home: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of what is there; in the ledger too, unless that may only be read."""
    out, words = Path("working/submission.csv"), ["--config", *CONFIGS]
    assert command("infer", *words, "--name", "plain").code == 0
    out.parent.mkdir()
    out.write_text("of an earlier run")
    done = command("infer", *words, "--out", out)
    assert (done.code, out.read_text()) == (0, Path("submissions/plain.csv").read_text())
    assert "wrote working/submission.csv: 12 rows, checked; see submissions/ledger.csv" in done.out
    assert [file.name for file in sorted(Path("submissions").glob("*.csv"))] == ["ledger.csv", "plain.csv"]
    assert pd.read_csv("submissions/ledger.csv")["file"].tolist() == ["plain.csv", "submission.csv"]

    access, forbidden = os.access, os.path.abspath("submissions")
    monkeypatch.setattr(os, "access", lambda at, how: os.path.abspath(at) != forbidden and access(at, how))
    before = Path("submissions/ledger.csv").read_bytes()
    done = command("infer", *words, "--out", out.with_name("other.csv"))
    assert "submissions may only be read, so no ledger has it" in done.out
    assert Path("submissions/ledger.csv").read_bytes() == before
    for place, what in (("working", "is a folder"), ("sub", "no name of a CSV"), ("submissions/x.csv", "use --name")):
        told = command("infer", *words, "--out", place)
        assert (told.code, what in told.err) == (2, True), told.err
    assert command("infer", *words, "--out", out, "--name", "x").code == 2


HOSTS = (
    *("boostcamp", "dogs", "seedlings", "aptos", "cassava", "pp2020", "pp2021", "ranzcr", "isic2020", "paw", "csiro"),
    *("hms", "bengali", "frames", "rsna_bc", "foldcol", "digitrec", "hpa", "happywhale", "dacon_birds"),
)


@pytest.mark.parametrize("name", HOSTS)
def test_what_is_kept_is_what_a_host_s_files_say(hosts: Path, workplace: Path, name: str) -> None:
    """Joined, unfolded, pivoted, derived: without the training files all is as it was."""
    shutil.copytree(hosts / name, name)
    about = {"name": name, "folder": name, **yaml.safe_load(recipe(name))}
    config = Config.model_validate(
        {
            "experiment": "e",
            "competition": about,
            "backbone": {"name": "test_resnet"},
            "folds": {"column": "fold" if name == "foldcol" else None},
        }
    )
    before = competition.read(config)
    count = len(before.train_ids)
    folds = Folds(before.train_ids, np.arange(count) % 2, 2, "plain", 0, before.fingerprint)
    trained_rows.keep(Experiment(config, before, folds))
    tests = {*all_files(before.test_paths), Path(name, before.tables.names.test)}
    for file in {*all_files(before.train_paths), Path(name, before.tables.names.train)} - tests:
        file.unlink(missing_ok=True)

    kept = trained_rows.read(Path(f"runs/{name}/e/rows.parquet"))
    after = competition.read(config, (), kept.rows)
    assert (after.fingerprint, after.test_fingerprint) == (before.fingerprint, before.test_fingerprint)
    assert (after.learned_identity, after.classes) == (before.learned_identity, before.classes)
    assert np.array_equal(after.targets, before.targets, equal_nan=True)
    assert (after.units == before.units).all()
    assert after.submission.given == before.submission.given
    assert (after.host_folds is None) == (before.host_folds is None)
    if before.answering:
        assert (after.answers.units == before.answers.units).all()
        assert (after.answers.test_ids == before.answers.test_ids).all()
    assert kept.folds.fingerprint == folds.fingerprint
    assert len(kept.rows.frame.columns) < 30
