"""`src/compete.py` as a user calls it: a submission early, better ones later, stopped and gone on with."""

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldcraft.common import config_file
from foldcraft.common.errors import FoldcraftError
from foldcraft.ensemble import blend, unfinished
from foldcraft.metrics import calibration
from foldcraft.metrics.gain import Gain
from foldcraft.predictions.finished import open_finished
from foldcraft.study import trial_folds
from foldcraft.study.compete import actions
from foldcraft.study.compete.worth import Belief
from foldcraft.training import fold as fold_training
from foldcraft.training import plan

LONG = ("--minutes", "600")  # more than all that can be done takes


@pytest.fixture
def short(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The drawn competition; a fine-tuning has three steps, and is carried on with however poor it is."""
    monkeypatch.setattr(plan, "FULL_STEPS", 3)
    monkeypatch.setattr("foldcraft.study.compete.run.CEILING", 2.0)
    monkeypatch.setattr("foldcraft.study.compete.run.LEAST", -1.0)
    monkeypatch.setattr("foldcraft.study.compete.nets.SECONDS", 0.01)
    monkeypatch.setattr("foldcraft.models.backbones.local_names", lambda competition: [])
    return shapes


def entries() -> list[dict]:
    return json.loads(Path("runs/shapes/compete/history.json").read_text())["entries"]


def test_it_goes_from_the_folder_to_a_submission_and_says_what_helped(short: Path, command) -> None:
    done = command("compete", "--config", short, *LONG)
    assert done.code == 0, done.err
    whole = {entry["action"]: entry for entry in entries() if entry["is_whole"]}
    assert {"probe_test_resnet", "probe_test_resnet_draws", "probe_test_resnet_32", "full_test_resnet"} <= set(whole)
    notes = json.loads(Path("runs/shapes/compete/history.json").read_text())["notes"]
    rates = [list(of_machine) for of_machine in notes["training_rates"].values()]
    assert rates == [["test_resnet"]], "one machine, one net, kept"
    assert notes["gathered"] == ["test_resnet@16:identity"], "what the audit has gathered costs nothing"
    first = entries()[0]
    assert (first["action"], first["is_kept"], first["submission"]) == (
        "probe_test_resnet",
        True,
        "submissions/shapes_compete.csv",
    )
    last = [entry["submission"] for entry in entries() if entry["submission"]][-1]
    ledger = pd.read_csv("submissions/ledger.csv", dtype=str).set_index("file")
    assert set(ledger.index) == {Path(entry["submission"]).name for entry in whole.values() if entry["submission"]}
    assert len(pd.read_csv(last)) == 12
    assert done.out.count("; wrote submissions/") == len(ledger), "a file is said to be written once"
    assert f"The one to upload is {last}. Nested, with the choice among all blends: " in done.out
    kept = max(place for place, entry in enumerate(whole.values()) if entry["is_kept"])
    (again,) = (line for line in done.out.splitlines() if line.startswith("the same submission once more: "))
    assert again.count(".yaml") == kept + 1, "what came after it is not in it"
    page = Path("runs/shapes/report.html").read_text()
    assert f"<title>shapes: {kept + 1} experiments</title>" in page
    assert [page.count(words) for words in ("No epochs, so no curves: ", "Not checked: ")] == [1, 1]
    nets = page.split('id="nets"')[1].split("</section")[0]
    assert 0 < nets.count("<summary>") < kept + 1, "a net that several experiments begin with is shown once"

    again = command("compete", "--config", short, *LONG)
    assert again.code == 0, again.err
    assert entries()[-1]["action"] == json.loads(json.dumps(entries()))[-1]["action"]
    assert "fold 0: " not in again.out, "nothing is left to train"

    configs = [entry["config"] for entry in whole.values()]
    together = command("infer", "--config", *configs)
    assert together.code == 0, "names of many experiments are too long for a file"
    assert f"{len(configs)}_experiments-" in together.out

    name = whole["full_test_resnet"]["experiment"]
    repeated = command("train", "--config", whole["full_test_resnet"]["config"], "--fold", "0")
    assert "fold 0: done before" in repeated.out, "every action is an ordinary experiment with a config"
    other = "not about the experiments of this page"
    assert command("report", "--config", configs[0]).code == 0
    assert (other in page, other in Path("runs/shapes/report.html").read_text()) == (False, True)
    assert Path("runs/shapes", name, "fold0/manifest.json").is_file()


@pytest.mark.slow
def test_killed_at_any_action_it_goes_on_and_ends_alike(short: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    train, calls = fold_training.train_fold, []

    def killed(experiment, fold, *others):
        calls.append(fold)
        if len(calls) in (2, 5, 11):
            raise KeyboardInterrupt
        return train(experiment, fold, *others)

    with monkeypatch.context() as patch:
        patch.setattr(trial_folds, "train_fold", killed)
        codes = [command("compete", "--config", short, *LONG).code for _ in range(3)]
    assert codes == [130, 130, 130]
    done = command("compete", "--config", short, *LONG)
    assert done.code == 0, done.err
    names = [entry["action"] for entry in entries() if entry["is_whole"]]
    assert len(set(names)) == len(names) >= 8
    assert [entry["seconds"] for entry in entries()] == sorted(entry["seconds"] for entry in entries())


def test_a_budget_that_is_too_short_gives_a_submission_and_another_metric_is_refused(short: Path, command) -> None:
    done = command("compete", "--config", short, "--minutes", "0.001")
    assert done.code == 0, done.err
    assert [entry["action"] for entry in entries()] == ["probe_test_resnet"]
    assert Path("submissions/shapes_compete.csv").is_file()
    assert "0 s left, in which nothing fits: the shortest, " in done.out
    assert " minutes are used of 0.001: --minutes " in done.out
    file, again = Path("submissions/shapes_compete.csv"), ("compete", "--config", short, "--minutes", "0.001")
    answers = file.read_text()
    file.write_text(answers + "more,0\n")
    edited = command(*again)
    assert (edited.code, f"{file}: has changed since it was written; delete it" in edited.err) == (2, True), edited.err
    file.unlink()
    assert (command(*again).code, file.read_text()) == (0, answers), "it is written once more"
    config = Path("configs/shapes/compete/probe_test_resnet.yaml")
    content = config.read_text()
    config.unlink()
    lost = command(*again)
    assert (lost.code, f"{config}: is gone" in lost.err, len(lost.err) < 300) == (2, True, True), lost.err
    config.write_text(content)
    other = command("compete", "--config", short, *LONG, "competition.metric=log_loss")
    assert (other.code, "of other data, folds or metric; delete " in other.err) == (2, True), other.err
    for setting, value, before in (("images.size", "48", "16"), ("augment.hflip", "0.0", "0.5")):
        other = command("compete", "--config", short, *LONG, f"{setting}={value}")
        assert (other.code, f"made with {setting} {before}, not {value}; " in other.err) == (2, True), other.err


@pytest.mark.slow
def test_the_blend_teaches_on_test_images_where_that_is_asked_for(short: Path, command) -> None:
    done = command("compete", "--config", short, *LONG, "--pseudo-labels", "2")
    assert done.code == 0, done.err
    taught = [entry for entry in entries() if entry["kind"] == "pseudo-labels" and entry["is_whole"]]
    assert [entry["action"] for entry in taught] == ["full_test_resnet_pseudo1", "full_test_resnet_pseudo2"]
    assert Path("runs/shapes", taught[1]["experiment"], "fold2/manifest.json").is_file()


def test_a_first_fold_may_end_a_fine_tuning_and_that_is_said(
    short: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foldcraft.study.compete.run.LEAST", 1e-3)
    monkeypatch.setattr(
        "foldcraft.study.compete.blend_so_far.BlendSoFar.gain_of_part", lambda self, member: Belief(-0.5, 0.01)
    )
    done = command("compete", "--config", short, *LONG)
    assert done.code == 0, done.err
    assert Belief(-0.5, 0.01).worth < 1e-3
    parts = [entry for entry in entries() if entry["action"] == "full_test_resnet"]
    assert [entry["folds"] for entry in parts] == [[0]]
    assert "full_test_resnet, fold 0: -50.0% ± 1.0% of the loss there, and not gone on with" in done.out


def test_a_first_fold_that_helps_is_in_the_submission_until_the_others_are_there(
    short: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = fold_training.train_fold

    def fails(experiment, fold, *others):
        if "full" in experiment.config.experiment and fold:
            raise FoldcraftError("no more of it", "a test")
        return train(experiment, fold, *others)

    monkeypatch.setattr("foldcraft.ensemble.unfinished.gain", lambda member, *others: Gain(0.3, 0.1))
    monkeypatch.setattr("foldcraft.study.compete.actions.TOGETHER", 0)  # probes, and the first folds of trainings
    possible, mixed = actions.possible, []

    def noted(now):
        mixed.append((now.is_mixed, [entry.folds for entry in now.entries if not entry.is_whole]))
        return possible(now)

    monkeypatch.setattr("foldcraft.study.compete.actions.possible", noted)
    with monkeypatch.context() as patch:
        patch.setattr(trial_folds, "train_fold", fails)
        done = command("compete", "--config", short, *LONG)
    assert done.code == 0, done.err
    assert {is_mixed for is_mixed, parts in mixed if parts} == {True}, "so probes are expected to gain half"
    assert {is_mixed for is_mixed, parts in mixed if not parts} == {False}
    last = [entry for entry in entries() if entry["submission"]][-1]
    assert f"The one to upload is {last['submission']}. " in done.out
    assert f"Mixed into it evenly, and not yet in that score: {last['mixed_in']}." in done.out
    name = last["mixed_in"].removesuffix(", fold 0")
    whole = [entry for entry in entries() if entry["is_whole"]]
    last_kept = max(place for place, entry in enumerate(whole) if entry["is_kept"])
    kept = [
        entry["config"] for k, entry in enumerate(whole) if k == last_kept or (k < last_kept and entry["is_member"])
    ]
    (config,) = (entry["config"] for entry in entries() if entry["experiment"] == name)
    *members, part = open_finished([config_file.load(Path(file)) for file in (*kept, config)])
    by_views = part.test()[0].of_views(part.views).mean(0)
    found, truth = part.oof(), part.oof().targets
    own = calibration.at_temperature(by_views, calibration.fit_temperature(found.mean, truth))
    blended = blend.combine(members)
    mixture = blended.undecided + own
    answers = pd.read_csv(last["submission"], dtype=str)["label"]
    assert answers.tolist() == [part.experiment.competition.classes.names[k] for k in mixture.argmax(1)]
    mixed = unfinished.mixed(blended, part)
    normalised = mixture / 2 - np.log(np.exp(mixture / 2).sum(1, keepdims=True))
    np.testing.assert_allclose(mixed.test, normalised, atol=1e-6)
    assert (sum(mixed.shares), mixed.shares[-1]) == (pytest.approx(1.0), 0.5)
    (line,) = (line for line in done.out.splitlines() if line.startswith("the same submission once more: "))
    again = command("infer", *shlex.split(line)[7:], "--name", "again")
    assert (again.code, Path("submissions/again.csv").read_text()) == (0, Path(last["submission"]).read_text())


@pytest.mark.slow
def test_further_nets_are_fine_tuned_and_may_be_dropped_later(
    short: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting in ("TOGETHER", "SEEDS"):  # fewer actions
        monkeypatch.setattr(f"foldcraft.study.compete.actions.{setting}", 0)
    more = ("--backbones", "test_efficientnet", "test_vit")
    done = command("compete", "--config", short, *LONG, *more)
    assert done.code == 0, done.err
    tuned = {entry["nets"][0] for entry in entries() if entry["kind"] == "fine-tuning" and entry["is_whole"]}
    assert tuned == {"test_resnet", "test_efficientnet", "test_vit"}
    later = command("compete", "--config", short, *LONG)
    assert (later.code, later.err) == (0, "")


@pytest.mark.slow
def test_what_fails_is_told_and_left_but_for_the_first(short: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    train = fold_training.train_fold

    def fails(experiment, fold, *others):
        if "lora" in experiment.config.experiment:
            raise FoldcraftError("no net of this kind", "backbone.name")
        return train(experiment, fold, *others)

    monkeypatch.setattr(trial_folds, "train_fold", fails)
    done = command("compete", "--config", short, *LONG)
    assert done.code == 0, done.err
    assert "warning: lora_test_resnet is left out: backbone.name: no net of this kind" in done.out
    Path("input/shapes/train/000.png").write_bytes(b"no picture")
    for folder in ("runs", "folds"):
        Path(folder).rename(f"{folder}-before")
    broken = command("compete", "--config", short, *LONG)
    assert (broken.code, "000.png" in broken.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--minutes", "0"), "--minutes: 0 is no amount of time"),
        (("--minutes", "nan"), "--minutes: nan is no amount of time"),
        (("--hours", "-1"), "--hours: -1 is no amount of time"),
        (("--jobs", "0"), "--jobs: 0 is not a number of jobs"),
    ],
)
def test_a_budget_that_is_none_is_refused(shapes: Path, command, words: tuple[str, ...], said: str) -> None:
    done = command("compete", "--config", shapes, *words)
    assert (done.code, said in done.err) == (2, True), done.err
