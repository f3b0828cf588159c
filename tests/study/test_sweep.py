"""Sweeps: a trial is a set of folds, is left when it cannot win, and is gone on with when it was interrupted."""

import json
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from conftest import ROOT
from optuna.storages.journal import JournalFileBackend, JournalStorage

from foldcraft.common.config_renames import oldest
from foldcraft.common.errors import FoldcraftError
from foldcraft.study import racing, search_space, sweep_storage, trial_folds
from foldcraft.training import fold as fold_training

PROBE = ["finetune.mode=linear_probe"]
GRID = """
name: try
method: grid
metric: {name: oof, goal: maximize}
parameters:
  probe.solver: {values: [ridge, logistic]}
  probe.stages: {values: [all, last]}
"""


@pytest.fixture
def space(shapes: Path, command) -> Path:
    """A grid of four probes; the folds are made."""
    command("split", "--config", shapes)
    path = Path("try.yaml")
    path.write_text(GRID)
    return path


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """Scores that folds are said to have, by solver and stages; the folds are trained all the same."""
    given: dict[str, list[float]] = {}
    train = fold_training.train_fold

    def told(experiment, fold, *others):
        manifest = train(experiment, fold, *others)
        return {**manifest, "score": given[f"{experiment.config.probe.solver} {experiment.config.probe.stages}"][fold]}

    monkeypatch.setattr(trial_folds, "train_fold", told)
    return given


def tried(name: str = "tiny-try") -> list[optuna.trial.FrozenTrial]:
    """What the study holds."""
    journal = JournalFileBackend(f"runs/shapes/sweeps/{name}.journal")
    return optuna.load_study(study_name=name, storage=JournalStorage(journal)).trials


@pytest.mark.slow
def test_a_sweep_is_interrupted_and_goes_on(
    shapes: Path, space: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--config", shapes, "--space", space, *PROBE]
    train, calls = fold_training.train_fold, []

    def killed(experiment, fold, *others):
        calls.append((experiment.config.experiment, fold))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return train(experiment, fold, *others)

    with monkeypatch.context() as patch:
        patch.setattr(trial_folds, "train_fold", killed)
        assert command("sweep", *words).code == 130
    second = command("sweep", *words)
    third = command("sweep", *words)

    assert second.code == third.code == 0, second.err
    assert "fold 0: done before" in second.out, "the interrupted trial goes on in its folder"
    assert "trial" not in third.out.split("tiny-try:")[0], "nothing is left to try"
    folders = {path.name for path in Path("runs/shapes").glob("tiny-*")}
    assert len(folders) == 4
    assert {calls[0][0], calls[3][0]} <= folders
    finished = [trial for trial in tried() if trial.state.name in ("COMPLETE", "PRUNED")]
    assert len({json.dumps(trial.params) for trial in finished}) == len(finished) == 4
    best = max((t for t in finished if t.value is not None and t.state.name == "COMPLETE"), key=lambda t: t.value)
    manifests = [Path(f"runs/shapes/{best.user_attrs['experiment']}/fold{k}/manifest.json") for k in range(3)]
    assert best.user_attrs["scores"] == [json.loads(path.read_text())["score"] for path in manifests]
    assert best.value == pytest.approx(np.mean(best.user_attrs["scores"])), "accuracy on folds of equal size"
    assert "the best of 4 tries looks better than it is" in third.out
    assert f"{best.user_attrs['experiment']} --tried 4" in third.out


@pytest.mark.slow
def test_a_trial_that_cannot_win_is_left(shapes: Path, space: Path, command, scored) -> None:
    scored |= {
        "ridge all": [0.90, 0.70, 0.80],
        "ridge last": [0.50, 0.31, 0.40],  # as much worse in each fold, however hard the fold
        "logistic all": [0.70, 0.90, 0.80],  # worse, then better: cannot be told
        "logistic last": [0.92, 0.71, 0.83],
    }

    done = command("sweep", "--config", shapes, "--space", space, *PROBE)

    assert done.code == 0, done.err
    by_choice = {" ".join(json.loads(value) for value in trial.params.values()): trial for trial in tried()}
    assert {name: trial.state.name for name, trial in by_choice.items()} == {
        "ridge all": "COMPLETE",
        "ridge last": "PRUNED",
        "logistic all": "COMPLETE",
        "logistic last": "COMPLETE",
    }
    lost = by_choice["ridge last"].user_attrs
    assert lost["scores"] == [0.50, 0.31]
    assert not Path(f"runs/shapes/{lost['experiment']}/fold2").exists()
    assert "left after fold 1: -0.3950 against" in done.out


@pytest.mark.slow
def test_trials_side_by_side_are_those_of_one_after_the_other(shapes: Path, space: Path, command) -> None:
    """Four trials, one of which fails: the same experiments with the same scores, and one that fails ends no other."""
    space.write_text("{name: try, method: grid, parameters: {probe.stages: {values: [all, [nowhere], last, [head]]}}}")
    Path("folds/shapes.csv").unlink()
    words = ["--config", shapes, "--space", space, *PROBE, "folds.count=2"]

    alone = command("sweep", *words)
    outcomes = {json.dumps(trial.params): (trial.state.name, trial.user_attrs) for trial in tried()}
    Path("runs").rename("alone")
    beside = command("sweep", *words, "--jobs", 2)

    assert (alone.code, beside.code) == (0, 0), beside.err
    assert "[trial 0] fold 0: done" in beside.out
    assert beside.out.count("trial failed") == alone.out.count("trial failed") == 1
    for trial in tried():
        state, known = outcomes[json.dumps(trial.params)]
        seconds = {"seconds": trial.user_attrs.get("seconds")} if "seconds" in known else {}
        assert (trial.state.name, trial.user_attrs) == (state, {**known, **seconds})
    assert [trial.state.name for trial in tried()].count("COMPLETE") == 3
    assert {path.name for path in Path("runs/shapes").glob("tiny-*")} == {
        path.name for path in Path("alone/shapes").glob("tiny-*")
    }
    assert command("sweep", *words, "--jobs", 0).err.startswith("error: --jobs: 0 is not a number of jobs")


def test_races_are_paired_and_rarely_lost_by_winners() -> None:
    rng = np.random.default_rng(0)
    ahead = dropped = 0
    for differences in rng.normal(0, 0.01, (500, 5)):
        lost = any(racing.is_lost(differences[:k], 5, 1e-6) for k in range(1, 6))
        ahead += differences.mean() > 0
        dropped += lost and differences.mean() > 0
    assert dropped / ahead < 0.1
    assert racing.is_lost([-0.02, -0.021], 5, 1e-6)
    assert not racing.is_lost([-0.02], 5, 1e-6), "one fold says nothing of the spread"
    assert not racing.is_lost([-0.01, -0.01], 5, 0.01), "two rows apart are no certainty"
    assert not racing.is_lost([-1.0, -1.1, -1.0], 3, 1e-6), "nothing is spared after the last fold"


def test_luck_of_equals() -> None:
    rng = np.random.default_rng(1)
    folds, draws = rng.normal(0, 0.05, 5), rng.normal(0, 0.01, (400, 12, 5))
    scores = 0.8 + folds + draws
    found = np.mean([racing.spread_of_luck(each) for each in scores])
    assert found == pytest.approx(0.01 / np.sqrt(5), rel=0.05), "hard folds are not luck"
    best = scores.mean(2).max(1) - scores.mean((1, 2))
    assert best.mean() == pytest.approx(racing.best_of_equals(12) * 0.01 / np.sqrt(5), rel=0.05)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("method: annealing\nparameters: {seed: {values: [0]}}", "unknown method 'annealing'"),
        ("parametres: {seed: {values: [0]}}", "did you mean 'parameters'?"),
        ("method: grid\nparameters: {optim.lr: {min: 0.1, max: 1.0}}", "a grid needs values"),
        ("parameters: {optim.lr: {min: 1.0, max: 0.1}}", "no range"),
        ("parameters: {optim.lr: {min: 0.1, max: 1.0, distribution: log_normal}}", "unknown distribution"),
        ("metric: {name: valid_loss}\nparameters: {seed: {values: [0]}}", "name oof or mean"),
        ("metric: {goal: minimize}\nparameters: {seed: {values: [0, 1]}}", "the goal of accuracy is to maximize"),
        ("parameters: {train.learning_rate: {values: [0.1]}}", "did you mean 'optim.lr'?"),
        ("parameters: {tta.views: {values: [[identity], [hflip]]}}", "changes nothing in the training"),
        ("parameters: {}", "no parameters"),
    ],
)
def test_what_is_wrong_with_a_space_is_told(shapes: Path, space: Path, command, text: str, told: str) -> None:
    space.write_text(text)
    done = command("sweep", "--config", shapes, "--space", space, *PROBE)
    assert done.code == 2
    assert told in done.err
    assert not list(Path("runs").rglob("*.journal"))


def test_another_space_under_the_same_name_is_refused(shapes: Path, space: Path, command) -> None:
    words = ["--config", shapes, "--space", space, *PROBE, "--trials", "1"]
    assert command("sweep", *words).code == 0
    space.write_text(GRID.replace("[all, last]", "[last]"))
    assert "was begun with another space" in command("sweep", *words).err


def test_failures_are_told_and_three_in_a_row_end_it(shapes: Path, space: Path, command) -> None:
    space.write_text("{name: bad, method: grid, parameters: {probe.stages: {values: [[a], [b], [c], [d]]}}}")
    done = command("sweep", "--config", shapes, "--space", space, *PROBE)
    assert done.code == 2
    assert done.out.count("trial failed") == 3


def test_bayes_and_ranges_reach_the_settings(shapes: Path, space: Path, command) -> None:
    space.write_text(
        "{name: b, run_cap: 3, parameters: {augment.hflip: {min: 0.1, max: 0.9}, seed: {min: 1, max: 9}, "
        "optim.lr: {min: 1e-5, max: 1e-2, distribution: log_uniform_values}}}"
    )
    assert command("sweep", "--config", shapes, "--space", space, *PROBE).code == 0
    for trial in tried("tiny-b"):
        kept = yaml.safe_load(Path(f"runs/shapes/{trial.user_attrs['experiment']}/fold0/config.yaml").read_text())
        now = (kept["augment"]["hflip"], kept["seed"], kept["optim"]["lr"])
        assert now == pytest.approx(tuple(trial.params[oldest(key)] for key in ("augment.hflip", "seed", "optim.lr")))
        assert 1e-5 <= now[2] <= 1e-2


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "sweeps").glob("*.yaml")), ids=lambda file: file.stem)
def test_command_of_a_sweep_is_one_that_train_takes(file: Path, shapes: Path, command) -> None:
    """With W&B's own code for what its agent does with `command`."""
    from wandb.sdk.launch.sweeps import utils as wandb_sweeps  # three seconds

    content = yaml.safe_load(file.read_text())
    space = search_space.read(file)
    chosen = {one.name: {"value": json.loads(one.examples[0])} for one in space.parameters}
    filled = wandb_sweeps.create_sweep_command_args({"args": chosen})
    filled |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [content["program"]]}
    words: list[str] = []
    for part in wandb_sweeps.create_sweep_command(content["command"]):
        words += filled[part[2:-1]] if part.startswith("${") else [part]
    assert words[:3] == ["/usr/bin/env", "python", "src/train.py"]
    assert (ROOT / words[words.index("--config") + 1]).is_file()
    command("split", "--config", shapes)
    words = [str(shapes) if word.endswith(".yaml") else word for word in words[3:]]

    done = command("train", *words, "finetune.mode=linear_probe", "--fold", "0")

    assert done.code == 0, done.err
    assert [path.name for path in Path("runs/shapes").glob("tiny-*")], "the trial is named by its settings"


def test_a_sweep_in_sqlite_goes_on_there_and_a_database_may_be_named(
    shapes: Path, space: Path, command, tmp_path: Path
) -> None:
    words = ["--config", shapes, "--space", space, *PROBE, "folds.count=2"]
    Path("folds/shapes.csv").unlink()
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    assert command("sweep", *words, "--trials", "1", "--storage", url).code == 0
    assert not list(Path("runs").rglob("*.journal"))
    old = Path("runs/shapes/sweeps/tiny-try.db")
    Path("elsewhere.db").rename(old)

    done = command("sweep", *words, "--trials", "2")

    assert done.code == 0, done.err
    assert done.out.count("trial 1:") == 1
    assert "trial 0:" not in done.out, "it goes on in the file that it was begun in"
    assert len(optuna.load_study(study_name="tiny-try", storage=f"sqlite:///{old}").trials) == 2
    wrong = command("sweep", *words, "--storage", "postgresql+nodriver://me:secret@nowhere/x").err
    assert wrong.startswith("error: --storage: the database cannot be used")
    assert "secret" not in wrong
    assert len(wrong) < 300


def test_a_line_that_was_torn_off_is_dropped_from_a_journal(tmp_path: Path) -> None:
    study = sweep_storage.open_study(tmp_path, "s", maximize=True)
    study.tell(study.ask(), 1.0)
    with open(tmp_path / "s.journal", "ab") as stream:
        stream.write(b'{"op_code": 4, "work')
    study = sweep_storage.open_study(tmp_path, "s", maximize=True)
    study.tell(study.ask(), 2.0)
    assert [trial.value for trial in sweep_storage.open_study(tmp_path, "s", maximize=True).trials] == [1.0, 2.0]
    (tmp_path / "s.journal").write_bytes(b"no journal\n" + (tmp_path / "s.journal").read_bytes())
    with pytest.raises(FoldcraftError, match=r"s\.journal: damaged"):
        sweep_storage.open_study(tmp_path, "s", maximize=True)
