"""A blend that teaches: what it says in a fold, that no label of that fold is in it, and who descends from whom."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, Outcome, write_competition

import infer
import split
import train
from foldcraft.common.callbacks import Callback
from foldcraft.common.config_file import load
from foldcraft.common.errors import FoldcraftError
from foldcraft.ensemble.methods import Best, RankMean
from foldcraft.ensemble.stored_blend import TeachingBlend, store_blend
from foldcraft.predictions import store
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.finished import FinishedExperiment, open_finished
from foldcraft.training import distillation, teachers

RUNS = Path("runs/shapes")
TINY, PROBE = Path("configs/tiny.yaml"), Path("configs/probe.yaml")
FROM_BLEND = ("distill.teachers=[blend1]", "distill.pseudo=0.25")
Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the drawn competition, two experiments whose three folds are finished, and their blend."""
    folder = tmp_path_factory.mktemp("school")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_competition(Path("input/shapes"))
        TINY.parent.mkdir()
        TINY.write_text(CONFIG)
        PROBE.write_text(f"{CONFIG}finetune: {{mode: linear_probe}}\n")
        split.main(["--config", str(TINY)])
        train.main(["--config", str(TINY), str(PROBE), "--fold", "all"])
        infer.main(["--config", str(TINY), str(PROBE), "--store", "blend1"])
    return folder


@pytest.fixture
def place(school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to work in."""
    shutil.copytree(school, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return Path()


def fine(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome
    return outcome


def mistake(outcome: Outcome, *named: str) -> None:
    """One line, exit code 2, and each of `named` in it."""
    assert outcome.code == 2, outcome
    assert len(outcome.err.splitlines()) == 1, outcome.err
    for part in named:
        assert part in outcome.err, outcome.err


def study(command: Command, experiment: str, *words: str, fold: str = "0") -> Outcome:
    return command("train", "--config", TINY, "--fold", fold, f"experiment={experiment}", *words)


def members(*words: str) -> list[FinishedExperiment]:
    return open_finished([load(TINY, words), load(PROBE, words)])


def manifest(experiment: str, fold: int = 0) -> dict[str, Any]:
    return json.loads((RUNS / experiment / f"fold{fold}" / "manifest.json").read_text())


def stored(name: str, fold: int) -> store.Predictions:
    return store.read(RUNS / name / f"fold{fold}" / "test.parquet")


# What a blend says


def test_the_members_model_of_the_fold_at_a_temperature_of_the_other_folds(place: Path) -> None:
    """One member, one view: all that is fitted is a temperature."""
    (member,) = open_finished([load(TINY, ["tta.views=[identity]"])])
    data, fold_of = member.experiment.competition, member.experiment.folds.fold
    known = store.join_folds([store.read(member.folder(k).oof) for k in range(3)], ["identity"])
    oof = known.of_rows(data.train_ids)[0]

    store_blend([member], "alone", Callback(), [Best()])

    for fold in range(3):
        others = fold_of != fold
        temperature = data.space.fit_temperature(oof[others], data.targets[others])
        assert temperature != pytest.approx(data.space.fit_temperature(oof, data.targets), rel=1e-3)
        said = store.read(member.folder(fold).test).of_views(["identity"])[0] / temperature
        expected = said - np.log(np.exp(said).sum(1, keepdims=True))
        np.testing.assert_allclose(stored("alone", fold).predicted[0], expected, atol=1e-4)


def test_no_label_of_a_fold_is_in_what_teaches_it(place: Path) -> None:
    """Neither by the labels nor by what was predicted of these rows; those of the other folds count."""
    teaching = TeachingBlend(members())
    before = [teaching.of_fold(fold, "other") for fold in (0, 1)]
    held = teaching.truth.fold == 0
    changed = teaching.truth.targets.copy()
    changed[held] = (changed[held] + 1) % 3
    garbage = np.log(np.random.default_rng(0).dirichlet(np.ones(3), (2, held.sum()))).astype(np.float32)

    teaching.__dict__["truth"] = replace(teaching.truth, targets=changed)
    for member in teaching.held_out:
        member.predicted[:, held] = garbage
    after = [teaching.of_fold(fold, "other") for fold in (0, 1)]

    assert after[0].predictions.predicted.tobytes() == before[0].predictions.predicted.tobytes()
    assert after[0].manifest == before[0].manifest
    assert np.abs(after[1].predictions.predicted - before[1].predictions.predicted).max() > 1e-3


def test_a_student_learns_what_is_stored_for_its_fold(place: Path, command: Command) -> None:
    experiment = Experiment.open(load(TINY, ["experiment=student", *FROM_BLEND]))
    assert experiment.config.distill.share == 0
    for fold in (0, 1):
        answers = distillation.predict_teachers(teachers.find_teachers(experiment, fold), experiment, fold, Callback())
        np.testing.assert_allclose(answers.test, stored("blend1", fold).predicted[0], atol=1e-6)
    assert np.abs(stored("blend1", 0).predicted - stored("blend1", 1).predicted).max() > 1e-3

    done = fine(study(command, "student", *FROM_BLEND))

    assert "fold 0: learns from blend1; 12 test images are 0.25 of each epoch" in done.out
    (entry,) = manifest("student")["teachers"]
    assert (entry["experiment"], entry["model"]) == ("blend1", manifest("blend1")["fingerprints"]["model"])
    assert [(one["experiment"], one["model"]) for one in entry["teachers"]] == [
        (name, manifest(name)["fingerprints"]["model"]) for name in ("tiny", "probe")
    ]


# What is refused


def test_answers_for_training_rows_are_not_there(place: Path, command: Command) -> None:
    mistake(study(command, "student", *FROM_BLEND, "distill.share=0.3"), "distill.share", "blend1 is a stored blend")
    mistake(study(command, "student", "distill.teachers=[blend1]"), "distill.teachers", "nothing is learned")


def other_fold() -> None:
    shutil.copy(RUNS / "blend1/fold1/test.parquet", RUNS / "blend1/fold0/test.parquet")


def other_values() -> None:
    """The other fold's predictions in the name of this one."""
    store.write(
        RUNS / "blend1/fold0/test.parquet",
        replace(stored("blend1", 0), predicted=stored("blend1", 1).predicted),
    )


@pytest.mark.parametrize(
    ("plant", "named"), [(other_fold, "fold 1, not 0"), (other_values, "not the predictions that its manifest")]
)
def test_predictions_of_another_fold_are_noticed(
    place: Path, command: Command, plant: Callable[[], None], named: str
) -> None:
    plant()
    mistake(study(command, "student", *FROM_BLEND), "blend1/fold0/test.parquet", named)


def test_a_member_that_has_changed_is_noticed(place: Path, command: Command) -> None:
    shutil.rmtree(RUNS / "tiny/fold0")
    fine(study(command, "tiny", "optim.lr=0.002"))
    mistake(study(command, "student", *FROM_BLEND), "tiny/fold0/model.safetensors", "changed since blend1 learned")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("train.patience=2",), ("chosen/fold0/config.yaml", "train.patience")),
        (("train.imbalance=weighted",), ("--store", "chosen (train.imbalance=weighted)", "equally frequent")),
    ],
)
def test_members_that_may_not_teach(place: Path, command: Command, words, named) -> None:
    Path("configs/chosen.yaml").write_text(CONFIG)
    fine(study(command, "chosen", "train.epochs=1", *words, fold="0,1"))
    chosen = load(Path("configs/chosen.yaml"), ["train.epochs=1", *words])
    with pytest.raises(FoldcraftError) as error:
        store_blend(open_finished([load(TINY), chosen]), "blend2", Callback())
    for part in named:
        assert part in str(error.value)
    assert not (RUNS / "blend2").exists()


def test_a_fold_that_not_all_members_have(place: Path, command: Command) -> None:
    shutil.rmtree(RUNS / "tiny/fold2")
    store_blend(members(), "part", Callback())
    words = ("distill.teachers=[part]", "distill.pseudo=0.25")
    mistake(study(command, "student", *words, fold="2"), "part/fold2", "fold 2 is not stored", "--store NEWNAME")
    shutil.rmtree(RUNS / "tiny/fold1")
    with pytest.raises(FoldcraftError, match="1 finished fold in common"):
        store_blend(members(), "less", Callback())


def test_a_blend_stays_as_it_is(place: Path) -> None:
    before = (RUNS / "blend1/fold0/test.parquet").read_bytes()
    store_blend(members(), "blend1", Callback())
    assert (RUNS / "blend1/fold0/test.parquet").read_bytes() == before
    with pytest.raises(FoldcraftError, match="another blend"):
        store_blend(members()[:1], "blend1", Callback())
    with pytest.raises(FoldcraftError, match="no stored blend"):
        store_blend(members(), "probe", Callback())
    with pytest.raises(FoldcraftError, match="ranks"):
        store_blend(members(), "ranks", Callback(), [RankMean()])


# Rounds


def test_a_blend_with_a_student_of_an_earlier_one_teaches_the_next(place: Path, command: Command) -> None:
    student = Path("configs/student.yaml")
    student.write_text(f"{CONFIG}distill: {{teachers: [blend1], pseudo: 0.25}}\n")
    fine(study(command, "student", *FROM_BLEND, fold="0,1"))
    with_student = ("infer", "--config", TINY, PROBE, student, "--store")

    fine(command(*with_student, "blend2"))
    fine(study(command, "second", "distill.teachers=[blend2]", "distill.pseudo=0.25"))

    (entry,) = manifest("second")["teachers"]
    descent = {one["experiment"]: [each["experiment"] for each in one["teachers"]] for one in entry["teachers"]}
    assert descent == {"tiny": [], "probe": [], "student": ["blend1"]}
    mistake(command(*with_student, "blend1"), "student has learned from blend1 itself")
    shutil.rmtree(RUNS / "student/fold0")
    again = ("distill.teachers=[blend2]", "distill.pseudo=0.25")
    mistake(study(command, "student", *again), "blend2 has learned from student itself")
