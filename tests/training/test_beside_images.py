"""Metadata beside the image, from the tables to a submission: images of noise, and columns that tell the class."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CONFIG, Outcome, draw_shape
from PIL import Image

from foldcraft.common import config_file
from foldcraft.data.metadata import Encoder
from foldcraft.ensemble.blend import combine
from foldcraft.models import checkpoint
from foldcraft.predictions.experiment import Experiment
from foldcraft.predictions.finished import open_finished

Command = Callable[..., Outcome]
ROWS, TESTS = 90, 12
METADATA = "metadata: {numeric: [size], category: [site]}"


def write(telling: bool = True, rows: int = ROWS, shown: bool = False) -> pd.DataFrame:
    """input/noise: three classes by `size` and, of the smaller ones, by `site`; some cells are empty; all rows."""
    rng, folder = np.random.default_rng(0), Path("input/noise")
    label = rng.integers(0, 3, rows + TESTS)
    known = label if telling else rng.permutation(label)
    size = (10 * (known == 2) + rng.normal(50, 1, len(label))).round(2).astype(str)
    site = np.array(["north", "south", "west"])[np.where(known == 2, rng.integers(0, 3, len(label)), known)]
    size[3], site[5], site[7] = "", "", "once"
    frame = pd.DataFrame({"id": [f"{row:03d}.png" for row in range(len(label))], "size": size, "site": site})
    frame["label"] = [f"c{k}" for k in label]
    for part, some in (("train", frame[:rows]), ("test", frame[rows:])):
        (folder / part).mkdir(parents=True)
        for row, name in some["id"].items():
            noise = Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8))
            picture = draw_shape(("bar", "cross", "dot")[label[row]], int(row)) if shown else noise
            picture.save(folder / part / name)
    frame[:rows].to_csv(folder / "train.csv", index=False)
    frame[rows:].drop(columns="label").to_csv(folder / "test.csv", index=False)
    frame[rows:][["id", "label"]].assign(label="c0").to_csv(folder / "sample_submission.csv", index=False)
    return frame


def config(name: str, more: str = "", metadata: str = METADATA) -> Path:
    about = f"name: noise, metric: accuracy{', ' if metadata else ''}{metadata}"
    path = Path("configs") / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(CONFIG.replace("name: shapes, metric: accuracy", about) + more)
    return path


PROBE = "finetune: {mode: linear_probe}\nprobe: {augmented: 0}\n"


def fine(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.err
    return outcome


def oof_score(path: Path) -> float:
    return open_finished([config_file.load(path)])[0].oof().score


def test_a_probe_finds_what_metadata_tell(workplace: Path, command: Command) -> None:
    frame = write()
    probe, without = config("probe", PROBE), config("without", PROBE, metadata="")
    said = fine(command("train", "--config", probe, "--fold", "all"))
    assert "2 columns of metadata beside the image: size (1 missing), site (1 missing)" in said.out
    assert "fold 0: metadata " in said.out
    fine(command("train", "--config", without, "--fold", "all"))
    assert oof_score(probe) > 0.9
    assert oof_score(without) < 0.6
    fine(command("infer", "--config", probe, "--name", "one"))
    answers = pd.read_csv("submissions/one.csv")["label"].to_numpy()
    assert np.mean(answers == frame["label"].to_numpy()[ROWS:]) > 0.8


def test_the_saved_probe_says_what_the_features_said(workplace: Path, command: Command) -> None:
    write()
    probe = config("probe", PROBE)
    fine(command("train", "--config", probe, "--fold", "0"))
    member = open_finished([config_file.load(probe)])[0]
    known = member.oof().predicted
    fine(command("infer", "--config", probe, "tta.views=[identity,vflip]"))  # a new view is asked of the net itself
    config_now = config_file.load(probe, ["tta.views=[identity,vflip]"])
    again = open_finished([config_now])[0].oof().predicted
    np.testing.assert_allclose(again[0], known[0], atol=1e-3)
    np.testing.assert_allclose(again[1], known[0], atol=0.5)
    assert np.abs(again[1].argmax(1) == known[0].argmax(1)).mean() > 0.9, "another view, the same metadata"


def test_an_encoder_is_fitted_on_the_rows_of_its_fold(workplace: Path, command: Command) -> None:
    write()
    probe = config("probe", PROBE)
    fine(command("train", "--config", probe, "--fold", "1"))
    experiment = Experiment.open(config_file.load(probe))
    own = experiment.competition.metadata.at(experiment.folds.train_rows(1))
    _, blueprint, _ = checkpoint.load_model(Path("runs/noise/probe/fold1/model.safetensors"))
    kept = Encoder.from_plain(blueprint.metadata["encoder"])
    assert kept == Encoder.fit(own)
    assert kept.mean[0] == pytest.approx(np.nanmean(own.numbers[:, 0]), abs=1e-12)
    assert kept.mean[0] != pytest.approx(np.nanmean(experiment.competition.metadata.numbers[:, 0]), abs=1e-6)


MODES = {
    "full": "finetune: {mode: full, head_init: probe}\n",
    "norm, mixed": "finetune: {mode: norm, head_init: probe}\naugment: {mixup: 0.4}\n",
    "lora": "finetune: {mode: lora, head_init: random, interpolate: false}\n",
    "interpolated, swa": "finetune: {mode: full, head_init: probe, interpolate: true}\noptim: {swa: 0.5}\n",
}


@pytest.mark.parametrize("mode", MODES)
def test_a_trained_net_sees_metadata(workplace: Path, command: Command, mode: str) -> None:
    write()
    text = MODES[mode]
    if mode == "norm, mixed":
        text = text.replace("augment: {mixup: 0.4}\n", "")
    path = config("net", text)
    words = ["augment.mixup=0.4"] if mode == "norm, mixed" else []
    words += ["backbone.name=test_vit"] if mode == "lora" else []
    fine(command("train", "--config", path, "--fold", "0", *words))
    found = open_finished([config_file.load(path, words)])[0]
    assert found.oof().score > 0.85
    net, blueprint, _ = checkpoint.load_model(Path("runs/noise/net/fold0/model.safetensors"))
    image, beside = torch.zeros(2, 3, 16, 16), torch.zeros(2, blueprint.metadata["width"])
    beside[1, 0] = 2.0
    with torch.no_grad():
        first, second = net(image, beside)
        assert torch.equal(net(image)[0], first), "without metadata 0 is meant"
    assert (second - first).argmax() == 2, "a great size is of the third class"


def test_a_training_with_metadata_goes_on_as_if_never_stopped(
    workplace: Path, command: Command, after_one_epoch: Callable
) -> None:
    write(rows=48)
    path = config("net", "finetune: {head_init: probe}\n")
    fine(command("train", "--config", path, "--fold", "0", "experiment=whole"))
    with after_one_epoch():
        command("train", "--config", path, "--fold", "0", "experiment=torn")
    fine(command("train", "--config", path, "--fold", "0", "experiment=torn"))
    states = [
        checkpoint.load_model(Path(f"runs/noise/{name}/fold0/model.safetensors"))[0] for name in ("whole", "torn")
    ]
    one, other = (net.state_dict() for net in states)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_other_cells_are_another_experiment_and_other_test_cells_are_predicted_anew(
    workplace: Path, command: Command
) -> None:
    write()
    probe = config("probe", PROBE)
    fine(command("train", "--config", probe, "--fold", "all"))
    fine(command("infer", "--config", probe, "--name", "one"))
    tests = pd.read_csv("input/noise/test.csv")
    tests["size"], tests["site"] = 60.0, "north"
    tests.to_csv("input/noise/test.csv", index=False)
    said = fine(command("infer", "--config", probe, "--name", "two"))
    assert "predicted anew" in said.out
    assert set(pd.read_csv("submissions/two.csv")["label"]) == {"c2"}

    rows = pd.read_csv("input/noise/train.csv")
    rows.loc[0, "size"] = 77
    rows.to_csv("input/noise/train.csv", index=False)
    refused = command("infer", "--config", probe)
    assert refused.code == 2
    assert "made otherwise" in refused.err


def test_a_column_that_is_missing_in_the_test_table_is_one_line(workplace: Path, command: Command) -> None:
    write()
    pd.read_csv("input/noise/test.csv").drop(columns="site").to_csv("input/noise/test.csv", index=False)
    said = command("train", "--config", config("probe", PROBE), "--fold", "0")
    assert said.code == 2
    assert "test.csv: no column 'site' of metadata" in said.err
    assert len(said.err) < 300


@pytest.mark.slow
def test_views_say_which_metadata_there_are_and_what_became_of_them(workplace: Path, command: Command) -> None:
    write()
    probe = config("probe", PROBE)
    fine(command("train", "--config", probe, "--fold", "all"))
    said = fine(command("audit", "--config", probe))
    assert "metadata: 2 columns of metadata beside the image: size (1 missing), site (1 missing)" in said.out
    said = fine(command("infer", "--config", probe, "--name", "one"))
    assert "- boosted trees on size, site gain " in said.out
    fine(command("report", "--config", probe))
    page = Path("runs/noise/report.html").read_text()
    assert "2 columns of metadata beside the image" in page
    assert "of what the head of probe sees" in page
    said = fine(command("compare", "--config", probe))
    assert "probe" in said.out


@pytest.mark.parametrize("text", [PROBE, "finetune: {head_init: probe}\n"], ids=["probe", "net"])
@pytest.mark.slow
def test_checks_pass_with_metadata(workplace: Path, command: Command, text: str) -> None:
    write(shown=True)
    path = config("one", text)
    fine(command("split", "--config", path))
    said = command("check", "--config", path)
    assert said.code == 0, said.out + said.err


@pytest.mark.slow
def test_a_teacher_and_a_student_see_metadata_and_a_soup_does_not(workplace: Path, command: Command) -> None:
    write()
    teacher, other = (
        config("teacher", "finetune: {head_init: probe}\n"),
        config("other", "finetune: {head_init: probe}\nseed: 1\n"),
    )
    student = config("student", "finetune: {head_init: probe}\ndistill: {teachers: [teacher], pseudo: 0.3}\n")
    for path in (teacher, other, student):
        fine(command("train", "--config", path, "--fold", "0,1"))
    assert oof_score(student) > 0.85
    refused = command("infer", "--soup", "--config", teacher, other)
    assert refused.code == 2
    assert "sees metadata, which soups are not made for" in refused.err


@pytest.mark.slow
def test_metadata_that_tell_nothing_hardly_harm(workplace: Path, command: Command) -> None:
    write(telling=False, shown=True)
    probe, without = config("probe", PROBE), config("without", PROBE, metadata="")
    for path in (probe, without):
        fine(command("train", "--config", path, "--fold", "all"))
    found = {path.stem: combine(open_finished([config_file.load(path)])) for path in (probe, without)}
    assert oof_score(probe) > oof_score(without) - 0.04
    scores = {name: one.selection.chosen.score.value for name, one in found.items()}
    assert scores["probe"] > scores["without"] - 0.04
