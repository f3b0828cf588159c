"""Learning from teachers: what a student of a fold learns from, and that no label of that fold reaches it."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CONFIG, Outcome, write_competition
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from timm.data.mixup import mixup_target

import split
import train
from foldcraft.common import checksums, config_renames, fingerprint
from foldcraft.common.callbacks import Callback
from foldcraft.common.config import AugmentConfig, DistillConfig, ImagesConfig
from foldcraft.common.config_file import load
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.augment import Augment
from foldcraft.data.images.image_cache import ImageStore
from foldcraft.data.loader import DistillationTargets, EpochBatches, Sample, TrainImages
from foldcraft.data.mixup import mix_of
from foldcraft.data.plain_images import PlainImages
from foldcraft.models import checkpoint, hardware
from foldcraft.models.preprocessing import Preparation
from foldcraft.predictions import store as prediction_store
from foldcraft.predictions import tta
from foldcraft.predictions.experiment import Experiment
from foldcraft.training import distillation, teachers
from foldcraft.training.distillation import TeacherPredictions
from foldcraft.training.trainer import Trainer

CPU = hardware.Hardware("cpu", "32-true", "contiguous", "")
RUNS = Path("runs/shapes")
TEACHER = RUNS / "tiny"
CONFIG_FILE = Path("configs/tiny.yaml")
STUDENT = ("experiment=student", "distill.teachers=[tiny]")
BOTH = (*STUDENT, "distill.share=0.5", "distill.pseudo=0.25")
Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the drawn competition, its folds, and a teacher that has finished folds 0 and 1."""
    folder = tmp_path_factory.mktemp("school")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_competition(Path("input/shapes"))
        CONFIG_FILE.parent.mkdir()
        CONFIG_FILE.write_text(CONFIG)
        split.main(["--config", str(CONFIG_FILE)])
        train.main(["--config", str(CONFIG_FILE), "--fold", "0,1"])
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


def study(command: Command, *words: str, fold: int = 0) -> Outcome:
    return command("train", "--config", CONFIG_FILE, "--fold", str(fold), *words)


def workspace(*words: str) -> Experiment:
    return Experiment.open(load(CONFIG_FILE, words))


def manifest(experiment: str, fold: int = 0) -> dict[str, Any]:
    return json.loads((RUNS / experiment / f"fold{fold}" / "manifest.json").read_text())


def edit_manifest(fold: int, **prints: str) -> None:
    path = TEACHER / f"fold{fold}" / "manifest.json"
    content = json.loads(path.read_text())
    content["fingerprints"] |= prints
    checksums.write_json(path, {key: value for key, value in content.items() if key != checksums.KEY})


def weights(experiment: str, fold: int = 0, runs: str = "runs") -> dict[str, np.ndarray]:
    return load_file(Path(runs, "shapes", experiment, f"fold{fold}", "model.safetensors"))


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def asked(experiment: Experiment, fold: int = 0) -> TeacherPredictions:
    return distillation.predict_teachers(teachers.find_teachers(experiment, fold), experiment, fold, Callback())


def said_by_hand(file: Path, store: ImageStore, rows: np.ndarray) -> np.ndarray:
    """What a file of weights says of rows: the normalised mean of the log-probabilities of both views."""
    model, blueprint, _ = checkpoint.load_model(file)
    images = Preparation.of(blueprint, CPU)(PlainImages(store, ImagesConfig(size=16)).at(rows))
    with torch.inference_mode():
        views = [model(tta.view(name)(images)).log_softmax(1) for name in ("identity", "hflip")]
    return torch.stack(views).double().mean(0).log_softmax(1).numpy()


def stores(experiment: Experiment) -> tuple[ImageStore, ImageStore]:
    _, blueprint, _ = checkpoint.load_model(TEACHER / "fold0" / "model.safetensors")
    return experiment.open_images([experiment.image_spec(blueprint)], Callback())[0]


# What a student of fold k learns from


def test_answers_are_those_of_the_teachers_model_of_that_fold(place: Path) -> None:
    experiment = workspace(*BOTH)
    seen, unseen = stores(experiment)
    answers, rows = asked(experiment), experiment.folds.train_rows(0)

    def by(fold: int, store: ImageStore, these: np.ndarray) -> np.ndarray:
        return said_by_hand(TEACHER / f"fold{fold}" / "model.safetensors", store, these)

    np.testing.assert_allclose(answers.train, by(0, seen, rows), atol=1e-5)
    np.testing.assert_allclose(answers.test, by(0, unseen, experiment.test_rows), atol=1e-5)
    assert np.abs(answers.train - by(1, seen, rows)).max() > 1e-3
    assert np.abs(answers.test - by(1, unseen, experiment.test_rows)).max() > 1e-3


def test_nothing_of_other_folds_is_needed(place: Path, command: Command) -> None:
    shutil.rmtree(TEACHER / "fold1")
    (TEACHER / "fold0" / "oof.parquet").unlink()

    done = fine(study(command, *BOTH))

    assert "fold 0: learns from tiny; 0.5 of each target is theirs; 12 test images are 0.25 of each epoch" in done.out
    assert manifest("student")["pseudo_images"] == 12
    assert not (RUNS / "student/fold0/answers.safetensors").exists(), "needed no more"
    mistake(study(command, *BOTH, fold=1), "runs/shapes/tiny/fold1", "fold 1 is not finished", "src/train.py --fold 1")


@pytest.fixture
def relabelled(place: Path) -> Callable[..., None]:
    """Trains teacher and student of fold 0, having handed the labels of some rows round: `relabelled("runs", rows)`."""
    plain = ("folds.scheme=plain", "optim.lr=0.005", "regularize.label_smoothing=0")
    taught = (*BOTH, "augment.mixup=0.3", "train.imbalance=weighted")
    original = pd.read_csv("input/shapes/train.csv", dtype=str)

    def run(runs: str, which: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        Path("folds/shapes.csv").unlink()
        original.to_csv("input/shapes/train.csv", index=False)
        split.main(["--config", str(CONFIG_FILE), *plain])
        held_out = workspace(*plain).folds.valid_rows(0)
        labels = original["label"].to_numpy(copy=True)
        rows = which(held_out)
        labels[rows] = np.roll(labels[rows], 1)
        original.assign(label=labels).to_csv("input/shapes/train.csv", index=False)
        Path("folds/shapes.csv").unlink()
        split.main(["--config", str(CONFIG_FILE), *plain])
        assert np.array_equal(workspace(*plain).folds.valid_rows(0), held_out), "plain folds do not look at labels"
        for words in ((), taught):
            train.main(["--config", str(CONFIG_FILE), "--fold", "0", f"runs={runs}", *plain, *words])
        return np.mean(labels != original["label"])

    return run


def test_labels_of_the_fold_have_no_say_in_its_student(relabelled) -> None:
    """Teacher and student are trained twice; in between, the labels of the rows that they are judged on change."""
    assert relabelled("before", lambda held_out: held_out[:0]) == 0
    assert relabelled("after", lambda held_out: held_out) > 0.2
    relabelled("learned", lambda held_out: np.setdiff1d(np.arange(48), held_out)[:3])

    for name in ("tiny", "student"):
        assert same(weights(name, runs="before"), weights(name, runs="after")), name
        assert not same(weights(name, runs="before"), weights(name, runs="learned")), "labels that are learned from do"
    scores = [json.loads(Path(runs, "shapes/student/fold0/manifest.json").read_text()) for runs in ("before", "after")]
    assert scores[0]["fingerprints"]["data"] != scores[1]["fingerprints"]["data"]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_targets_that_training_sees(place: Path, command: Command, monkeypatch, share: float) -> None:
    """Of a training row: label and answer in their shares; of a test image: the answer. In every batch."""
    experiment = workspace(*STUDENT, f"distill.share={share}", "distill.pseudo=0.4")
    answers, rows, labels = asked(experiment), experiment.folds.train_rows(0), experiment.competition.targets
    theirs = dict(zip(rows.tolist(), np.exp(answers.train), strict=True))
    seen, backward = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda *given: (seen.append(given[1]), backward(*given))[1])

    fine(study(command, *STUDENT, f"distill.share={share}", "distill.pseudo=0.4"))

    assert [len(batch.rows) for batch in seen] == [8] * 8, "two epochs of 32 // 8 batches, as without a teacher"
    pseudo_rows = 0
    for row, target in ((int(r), t.numpy()) for batch in seen for r, t in zip(batch.rows, batch.targets, strict=True)):
        if row < 48:
            wanted = (1 - share) * np.eye(3)[labels[row]] + share * theirs[row]
        else:
            wanted = np.exp(answers.test[row - 48])
            pseudo_rows += 1
        np.testing.assert_allclose(target, wanted, atol=1e-6)
    assert pseudo_rows == 2 * round(0.4 * 32)


def test_teachers_are_averaged_in_log_space_and_a_probe_may_be_one(place: Path, command: Command) -> None:
    fine(study(command, "experiment=probe", "finetune.mode=linear_probe"))
    words = ("experiment=student", "distill.share=0.5", "distill.pseudo=0.25")
    one, two, both = (workspace(*words, f"distill.teachers={names}") for names in ("[tiny]", "[probe]", "[tiny,probe]"))

    answers = [asked(experiment) for experiment in (one, two, both)]

    probe_says = said_by_hand(RUNS / "probe/fold0/model.safetensors", stores(one)[0], one.folds.train_rows(0))
    np.testing.assert_allclose(answers[1].train, probe_says, atol=1e-4)
    for part in ("train", "test"):
        tiny, probe, mean = (np.exp(getattr(answer, part), dtype=np.float64) for answer in answers)
        product = np.sqrt(tiny * probe)
        np.testing.assert_allclose(mean, product / product.sum(1, keepdims=True), atol=1e-6)
    fine(study(command, *words, "distill.teachers=[tiny,probe]"))
    assert [entry["experiment"] for entry in manifest("student")["teachers"]] == ["tiny", "probe"]


def test_rows_are_matched_by_their_ids(place: Path) -> None:
    """A teacher may have read the same rows from a table in another order."""
    experiment = workspace(*BOTH)
    (teacher,) = teachers.find_teachers(experiment, 0)
    answers = distillation.predict_teachers([teacher], experiment, 0, Callback())
    table = pd.read_csv("input/shapes/train.csv", dtype=str)
    table[::-1].to_csv("input/shapes/train.csv", index=False)
    turned = replace(teacher, experiment=Experiment.open(teacher.experiment.config))
    assert turned.experiment.competition.train_ids[0] != experiment.competition.train_ids[0]

    again = distillation.predict_teachers([turned], experiment, 0, Callback())

    np.testing.assert_allclose(again.train, answers.train, atol=1e-5)


# From answers to targets


@given(
    share=st.floats(0, 1),
    temperature=st.floats(0.5, 20),
    hard=st.booleans(),
    logits=st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=32, max_size=32),
)
def test_targets_are_probabilities_in_their_shares(
    shared_work: Experiment, share: float, temperature: float, hard: bool, logits: list[list[float]]
) -> None:
    wanted = DistillConfig(teachers=["tiny"], share=share, hard=hard, temperature=temperature)
    experiment = replace(shared_work, config=shared_work.config.model_copy(update={"distill": wanted}))
    predicted = torch.tensor(logits).log_softmax(1)
    rows = experiment.folds.train_rows(0)

    distilled = distillation.distillation_targets(
        experiment, 0, TeacherPredictions(predicted.numpy(), np.empty((0, 3), np.float32)), unseen()
    )

    assert np.isnan(distilled.targets[experiment.folds.valid_rows(0)]).all(), "no batch can hold a row that is judged"
    labels = np.eye(3)[experiment.competition.targets[rows]]
    theirs = (predicted / temperature).softmax(1).numpy()
    if hard:
        theirs = np.eye(3)[predicted.argmax(1)]
    np.testing.assert_allclose(distilled.targets[rows], (1 - share) * labels + share * theirs, atol=1e-5)
    np.testing.assert_allclose(distilled.targets[rows].sum(1), 1, atol=1e-5)
    assert len(distilled.rows) == len(distilled.pseudo_rows) == 0


@pytest.fixture(scope="module")
def shared_work(school: Path) -> Iterator[Experiment]:
    before = Path.cwd()
    os.chdir(school)
    yield workspace(*STUDENT)
    os.chdir(before)


def test_only_test_images_that_the_teachers_are_sure_of(place: Path) -> None:
    test = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.85, 0.05], [0.9, 0.06, 0.04]], np.float32)).repeat(4, axis=0)

    def taught(*words: str, unreadable: tuple[int, ...] = ()) -> DistillationTargets:
        experiment = workspace(*STUDENT, "distill.share=0", "distill.pseudo=0.25", *words)
        return distillation.distillation_targets(
            experiment, 0, TeacherPredictions(np.empty((0, 3), np.float32), test), unseen(*unreadable)
        )

    some = taught("distill.confidence=0.8", "distill.temperature=4")  # softening does not change who is sure
    assert some.rows.tolist() == list(range(4, 12))
    assert some.ids.tolist() == workspace().competition.test_ids[4:].tolist()
    assert (some.pseudo_rows.tolist(), some.targets.shape) == (list(range(48, 56)), (56, 3))
    softer = np.exp(test[4:] / 4)
    np.testing.assert_allclose(some.targets[48:], softer / softer.sum(1, keepdims=True), rtol=1e-5)
    assert len(taught().rows) == 12
    assert taught(unreadable=(5,)).rows.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert taught("distill.hard=true").targets[48:].argmax(1).tolist() == [0] * 4 + [1] * 4 + [0] * 4
    assert set(np.unique(taught("distill.hard=true").targets[48:])) == {0.0, 1.0}
    with pytest.raises(FoldcraftError, match=r"distill\.confidence: .* the most is 0\.900"):
        taught("distill.confidence=0.95")


def unseen(*rows: int) -> ImageStore:
    """Test images that nobody looks at, of which some could not be read."""
    return ImageStore(np.empty((0, 8, 8, 3), np.uint8), Path(), unreadable=dict.fromkeys(rows, "damaged"))


def made_up(rows: int, pseudo_rows: int, share: float) -> DistillationTargets:
    every = np.arange(pseudo_rows)
    return DistillationTargets(np.zeros((rows + pseudo_rows, 3), np.float32), None, every, every.astype(str), share)


@given(data=st.data(), batch=st.integers(1, 8), share=st.floats(0.01, 0.99), world=st.integers(1, 3))
def test_pseudo_labelled_images_have_their_share_of_an_epoch(
    data: st.DataObject, batch: int, share: float, world: int
) -> None:
    count = data.draw(st.integers(world * batch, 60))
    distilled = made_up(100, data.draw(st.integers(1, 30)), share)
    alone = EpochBatches(np.arange(count), world * batch, seed=1, distilled=distilled)
    parts = [EpochBatches(np.arange(count), world * batch, 1, rank, world, None, distilled) for rank in range(world)]
    epochs = []
    for epoch in range(2):
        for batches in (alone, *parts):
            batches.epoch = epoch
        steps = list(alone)
        for step, *shares in zip(steps, *parts, strict=True):
            assert sorted(step) == sorted(draw for part in shares for draw in part)
        epochs.append([draw for step in steps for draw in step])
    places = count // (world * batch) * world * batch
    for drawn in epochs:
        rows = np.array([draw.row for draw in drawn])
        assert len(rows) == places
        assert (rows >= 100).sum() == round(share * places)
        times = np.bincount(rows, minlength=100 + len(distilled.rows))
        assert times[:100].max() <= 1
        assert np.ptp(times[100:]) <= 1, "each as often as the next"
    assert len({draw.seed for drawn in epochs for draw in drawn}) == 2 * places


def test_a_lesson_without_test_images_leaves_the_order_as_it_is() -> None:
    plain, taught = (
        EpochBatches(np.arange(40), 8, 3, distilled=distilled) for distilled in (None, made_up(40, 0, 0.0))
    )
    for plain.epoch in range(3):
        taught.epoch = plain.epoch
        assert list(plain) == list(taught)


def test_pixels_come_from_the_store_that_the_row_is_of(tmp_path: Path) -> None:
    for name, value in (("train", 10), ("test", 200)):
        np.save(tmp_path / f"{name}.npy", np.full((6, 16, 16, 3), value, np.uint8) + np.arange(6)[:, None, None, None])
    seen, unseen = (ImageStore(np.load(path, mmap_mode="r"), path) for path in sorted(tmp_path.glob("*"), reverse=True))
    distilled = DistillationTargets(
        np.arange(24, dtype=np.float32).reshape(8, 3), unseen, np.array([5, 2]), np.array(["a", "b"]), 0.5
    )
    augment = Augment(AugmentConfig(preset="none", hflip=0), ImagesConfig(size=16), 16)

    batch = TrainImages(seen, np.arange(6), augment, distilled).at([Sample(4, 0), Sample(6, 1), Sample(7, 2)])

    assert batch.images[:, 0, 0, 0].tolist() == [14, 205, 202]
    assert batch.targets.tolist() == [[12, 13, 14], [18, 19, 20], [21, 22, 23]]
    assert batch.rows.tolist() == [4, 6, 7]


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_soft_targets_are_mixed_as_labels_are(settings: dict[str, float]) -> None:
    mix = mix_of(AugmentConfig(**settings), 3, seed=5)
    shares, mix_batch = [], mix.mixup._mix_batch
    mix.mixup._mix_batch = lambda images: (shares.append(mix_batch(images)), shares[-1])[1]
    labels, images = torch.tensor([0, 1, 2, 2, 1]), torch.rand(5, 3, 12, 12)
    soft = torch.rand(5, 3).softmax(1)
    for step in range(5):
        mixed, hard = mix(images.clone(), labels, step)
        share = shares[-1]
        assert torch.equal(hard, mixup_target(labels, 3, share)), "to the bit what labels have always become"
        assert torch.equal(hard, mix(images.clone(), torch.eye(3)[labels], step)[1])
        again, probabilities = mix(images.clone(), soft, step)
        assert torch.equal(again, mixed)
        torch.testing.assert_close(probabilities, share * soft + (1 - share) * soft.flip(0))
    assert 0 < min(shares) < 1


# Interrupted, and resumed


def test_resumed_to_the_same_bits(place: Path, command: Command, after_one_epoch, monkeypatch) -> None:
    """Though the teacher has been asked in another view meanwhile, and could not be asked again."""
    words = (*BOTH, "augment.mixup=0.3", "distill.temperature=2")
    fine(study(command, *words, "runs=runs"))
    calm = weights("student")
    shutil.rmtree(RUNS / "student")
    with after_one_epoch():
        assert study(command, *words).code == 130
    assert (RUNS / "student/fold0/answers.safetensors").is_file()
    fine(command("infer", "--config", CONFIG_FILE, "tta.views=[vflip]"))
    monkeypatch.setattr(distillation, "predict_teachers", None)

    again = fine(study(command, *words, "machine.workers=1"))

    assert "goes on after epoch 1" in again.out
    assert same(weights("student"), calm)
    assert not same(calm, weights("tiny"))


def test_answers_of_another_experiment_are_asked_again_and_damaged_ones_told(
    place: Path, command: Command, after_one_epoch
) -> None:
    file = RUNS / "student/fold0/answers.safetensors"
    with after_one_epoch():
        study(command, *BOTH)
    shutil.copy(file, "kept")
    (RUNS / "student/fold0/last.ckpt").unlink()
    fine(study(command, *BOTH, "optim.lr=0.002"))
    calm = weights("student")
    shutil.rmtree(RUNS / "student")
    (RUNS / "student/fold0").mkdir(parents=True)
    file.write_bytes(Path("kept").read_bytes()[:40])
    mistake(study(command, *BOTH, "optim.lr=0.002"), str(file), "damaged")
    file.unlink()
    fine(study(command, *BOTH, "optim.lr=0.002"))
    assert same(weights("student"), calm)


def test_a_learning_rate_is_found_with_teachers_too(place: Path, command: Command, monkeypatch) -> None:
    """It is tried on fold 0, with what fold 0's teachers say, and tried once for all folds."""
    learned, run = [], Trainer.run
    monkeypatch.setattr(
        Trainer, "run", lambda trainer, state: (learned.append(trainer.task.distilled), run(trainer, state))[1]
    )
    words = (*BOTH, "optim.lr=auto")
    fine(study(command, *words, fold=1))
    fine(study(command, *words, fold=0))

    rows = workspace().folds
    held_out = [set(np.flatnonzero(np.isnan(distilled.targets).all(1))) for distilled in learned]
    assert held_out == [set(rows.valid_rows(fold)) for fold in (0, 0, 0, 1, 0)]


# Planted leaks


def swap_fold(file: str = "") -> None:
    """Put what fold 1 has made, all of it or a file, where fold 0's should be."""
    source, target = TEACHER / "fold1" / file, TEACHER / "fold0" / file
    if file:
        shutil.copy(source, target)
        return
    shutil.rmtree(target)
    shutil.copytree(source, target)


def forge_weights(with_manifest: bool) -> None:
    """The weights of the fold that has seen the held-out labels; also with a manifest that vouches for them."""
    swap_fold("model.safetensors")
    if with_manifest:
        edit_manifest(0, model=fingerprint.of_file(TEACHER / "fold1/model.safetensors"))


def forge_tensors() -> None:
    """Other weights under the name and metadata of the right ones."""
    file = TEACHER / "fold0/model.safetensors"
    with safe_open(file, "np") as stream:
        metadata = stream.metadata()
    save_file(weights("tiny", 1), file, metadata)


def forge_predictions() -> None:
    """The other fold's predictions, with the right fold's number written over theirs."""
    theirs = prediction_store.read(TEACHER / "fold1/test.parquet")
    prediction_store.write(TEACHER / "fold0/test.parquet", replace(theirs, origin=replace(theirs.origin, fold=0)))


def other_folds() -> None:
    Path("folds/shapes.csv").unlink()
    split.main(["--config", str(CONFIG_FILE), "folds.seed=1"])


def other_labels() -> None:
    table = pd.read_csv("input/shapes/train.csv", dtype=str)
    table.loc[0, "label"] = "dot"
    table.to_csv("input/shapes/train.csv", index=False)
    other_folds()


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (swap_fold, ("tiny/fold0/manifest.json", "not of fold 0 of tiny")),
        (lambda: forge_weights(False), ("tiny/fold0/model.safetensors", "not of fold 0")),
        (lambda: forge_weights(True), ("tiny/fold0/model.safetensors", "not of fold 0")),
        (forge_tensors, ("tiny/fold0/model.safetensors", "not the weights that its manifest was written for")),
        (lambda: swap_fold("test.parquet"), ("tiny/fold0/test.parquet", "fold 1, not 0")),
        (forge_predictions, ("tiny/fold0/test.parquet", "weights")),
        (other_folds, ("tiny/fold0/manifest.json", "other folds")),
        (other_labels, ("tiny/fold0/manifest.json", "other data")),
        (lambda: (TEACHER / "fold0/manifest.json").write_text('{"fingerprints": {}}'), ("manifest.json", "damaged")),
    ],
    ids=["folder", "weights", "vouched", "tensors", "test", "forged number", "folds", "labels", "manifest"],
)
def test_a_teacher_that_may_have_seen_the_labels_is_refused(
    place: Path, command: Command, plant: Callable[[], None], named: tuple[str, ...]
) -> None:
    plant()
    mistake(study(command, *BOTH), *named)
    assert not (RUNS / "student/fold0/history.csv").exists()


@pytest.mark.parametrize("share", [0, 0.5])
def test_weights_of_another_fold_are_noticed_whatever_is_learned(place: Path, command: Command, share: float) -> None:
    forge_weights(with_manifest=True)
    words = (*STUDENT, f"distill.share={share}", "distill.pseudo=0.5")
    mistake(study(command, *words), "tiny/fold0/model.safetensors", "not of fold 0")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("train.patience=2",), ("chosen/fold0/config.yaml", "train.patience")),
        (("finetune.interpolate=true", "finetune.head_init=probe"), ("chosen/fold0/config.yaml", "interpolate")),
        (("train.imbalance=logit_adjusted",), ("distill.teachers", "equally frequent", "none or focal")),
    ],
    ids=["early stopping", "interpolation", "prior"],
)
def test_teachers_that_would_mislead_are_refused(place: Path, command: Command, words, named) -> None:
    fine(study(command, "experiment=chosen", "train.epochs=1", *words))
    mistake(study(command, "experiment=student", "distill.teachers=[chosen]"), *named)


def test_the_sampler_wants_teachers_of_its_own_kind(place: Path, command: Command) -> None:
    sampler = "train.imbalance=sampler"
    mistake(study(command, *STUDENT, sampler), "distill.teachers", "as frequent as they are", "sampler, weighted")
    fine(study(command, "experiment=even", sampler))
    fine(study(command, "experiment=student", "distill.teachers=[even]", sampler))


def test_other_test_images_are_noticed(place: Path, command: Command) -> None:
    fine(study(command, *BOTH))
    for name in ("test", "sample_submission"):
        frame = pd.read_csv(f"input/shapes/{name}.csv", dtype=str)
        frame[:-1].to_csv(f"input/shapes/{name}.csv", index=False)
    mistake(study(command, *BOTH), "student/fold0", "has learned from other test images")
    mistake(study(command, *BOTH, "experiment=next"), "tiny/fold0/test.parquet", "other test images", "src/infer.py")
    fine(command("infer", "--config", CONFIG_FILE, *BOTH))  # what it has learned still predicts


# Who taught whom


def test_a_manifest_names_the_teachers_and_theirs(place: Path, command: Command) -> None:
    fine(study(command, *STUDENT))
    fine(study(command, "experiment=third", "distill.teachers=[student]"))

    (student,) = manifest("third")["teachers"]
    assert student["experiment"] == "student"
    assert student["model"] == manifest("student")["fingerprints"]["model"]
    assert student["teachers"] == manifest("student")["teachers"]
    assert student["teachers"][0]["model"] == fingerprint.of_file(TEACHER / "fold0/model.safetensors")


def test_a_circle_is_refused(place: Path, command: Command) -> None:
    fine(study(command, *STUDENT))
    fine(study(command, "experiment=third", "distill.teachers=[student]"))
    for teacher in ("student", "third"):
        shutil.rmtree(TEACHER / "fold0", ignore_errors=True)
        mistake(study(command, "experiment=tiny", f"distill.teachers=[{teacher}]"), f"{teacher} has learned from tiny")
    mistake(study(command, "distill.teachers=[tiny]"), "distill.teachers", "cannot teach itself")


def test_a_teacher_that_was_trained_again_has_another_student(place: Path, command: Command) -> None:
    fine(study(command, *STUDENT))
    assert "done before" in fine(study(command, *STUDENT)).out
    shutil.rmtree(TEACHER / "fold0")
    assert "done before" in fine(study(command, *STUDENT)).out, "a student can be used without its teacher"
    fine(command("infer", "--config", CONFIG_FILE, *STUDENT))

    fine(study(command, "optim.lr=0.002"))

    mistake(study(command, *STUDENT), "student/fold0", "folds or teachers")
    mistake(command("infer", "--config", CONFIG_FILE, *STUDENT), "student/fold0")
    third = ("experiment=third", "distill.teachers=[student]")
    mistake(study(command, *third), "tiny/fold0/model.safetensors", "has changed since student learned from it")


def test_a_training_that_has_begun_wants_the_teacher_it_began_with(
    place: Path, command: Command, after_one_epoch
) -> None:
    with after_one_epoch():
        study(command, *STUDENT)
    shutil.rmtree(TEACHER / "fold0")
    fine(study(command, "optim.lr=0.002"))
    mistake(study(command, *STUDENT), "student/fold0", "a checkpoint made otherwise", "teachers")


# Settings


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("distill.share=0.3",), ("distill.teachers", "share")),
        (("distill.pseudo=0.3", "distill.hard=true"), ("distill.teachers", "pseudo, hard")),
        ((*STUDENT, "distill.share=0"), ("distill.teachers", "nothing is learned")),
        ((*STUDENT, "finetune.mode=linear_probe"), ("distill.teachers", "closed-form")),
        ((*STUDENT, "distill.confidence=0.5"), ("distill.confidence", "no")),
        ((*STUDENT, "distill.hard=true", "distill.temperature=2"), ("distill.temperature", "hard")),
        ((*BOTH, "train.imbalance=sampler"), ("distill.pseudo", "sampler")),
        ((*STUDENT, "distill.pseudo=1"), ("distill.pseudo", "less than 1")),
        (("distill.teachers=[a,a]",), ("distill.teachers", "more than once")),
        (("distill.teachers=[../up]",), ("distill.teachers",)),
    ],
)
def test_settings_that_do_not_go_together(words: tuple[str, ...], named: tuple[str, ...], place: Path) -> None:
    with pytest.raises(FoldcraftError) as error:
        load(CONFIG_FILE, words)
    for part in named:
        assert part in str(error.value)


def test_without_teachers_an_experiment_is_what_it_always_was(place: Path) -> None:
    made = load(CONFIG_FILE)
    settings = made.training_settings()
    assert settings.pop("distill") == {**DistillConfig().model_dump(), "share": 0.0}
    assert made.training_fingerprint() == fingerprint.of_values(config_renames.canonical(settings))
    taught = load(CONFIG_FILE, STUDENT)
    assert taught.distill.share == 0.3
    Path("again.yaml").write_text(taught.to_yaml())
    assert load(Path("again.yaml")) == taught
    prints = {
        load(CONFIG_FILE, words).training_fingerprint() for words in (STUDENT, BOTH, (*BOTH, "distill.hard=true"))
    }
    assert len(prints | {made.training_fingerprint()}) == 4
