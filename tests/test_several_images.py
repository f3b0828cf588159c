"""Two competitions whose answers are of several images, from tables to submission: breasts, and videos."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CONFIG, Outcome, draw_shape

from foldcraft.common import config_file
from foldcraft.data import competition
from foldcraft.metrics import scores
from foldcraft.predictions import store

SETTINGS = CONFIG.replace("count: 3", "count: 2").replace("epochs: 2", "epochs: 1")


def draw(folder: Path, part: str, names: list[str], kind: str, seed: int) -> None:
    for number, name in enumerate(names):
        path = folder / part / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_shape(kind, seed + number).save(path)


@pytest.fixture
def breasts(workplace: Path) -> Path:
    """Two views a breast, a label a breast, another name of it in the test table; the config's path."""
    folder, train, test = workplace / "input" / "breasts", [], []
    for patient in range(14):
        for side in "LR":
            sick = int(patient % 2 and side == "L")
            views = [f"{patient}{side}{view}" for view in ("cc", "mlo")]
            part = "train" if patient < 12 else "test"
            draw(folder, part, views, "cross" if sick else "dot", 10 * patient)
            if part == "train":
                train += [(patient, side, view, sick) for view in views]
            else:
                test += [(view, f"{patient}_{side}") for view in views]
    write(folder, pd.DataFrame(train, columns=["patient", "side", "image", "cancer"]), ["image", "prediction_id"], test)
    paths = 'metric: roc_auc, image: "train/{image}", test_image: "test/{image}"'
    by = "{train: [patient, side], test: prediction_id}"
    section = f"{{name: breasts, id: image, target: cancer, group: patient, {paths}, answer: {{by: {by}}}}}"
    return configured(workplace, "breasts", section)


def write(folder: Path, train: pd.DataFrame, columns: list[str], rows: list[tuple[str, str]]) -> None:
    """The three tables; the sample has an answer a row, the last of them first."""
    train.sample(frac=1, random_state=0).to_csv(folder / "train.csv", index=False)
    test = pd.DataFrame(rows, columns=columns)
    test.to_csv(folder / "test.csv", index=False)
    sample = test[[columns[1]]].drop_duplicates()[::-1].assign(**{train.columns[-1]: 0.5})
    sample.to_csv(folder / "sample_submission.csv", index=False)


def configured(workplace: Path, name: str, section: str, tta: str = "[identity, hflip]") -> Path:
    path = workplace / "configs" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    text = SETTINGS.replace("{name: shapes, metric: accuracy}", section)
    path.write_text(text.replace("[identity, hflip]", tta))
    return path


def by_hand(path: Path, fold: int) -> tuple[np.ndarray, pd.Series]:
    """Mean of the views' log-probabilities, each of an answer the mean probability of its images: by pandas."""
    data = competition.read(config_file.load(path), images_of=())
    said = store.read(Path(f"runs/{data.name}/{path.stem}/fold{fold}/oof.parquet"))
    answer = pd.Series(data.answering.train_ids[data.answering.train], data.train_ids)[said.ids].to_numpy()
    views = [pd.Series(np.exp(view[:, 1].astype(float))).groupby(answer).mean() for view in said.predicted]
    odds = sum(np.log(view / (1 - view)) for view in views) / len(views)
    truth = pd.Series(data.answers.targets, data.answers.train_ids)[odds.index]
    return 1 / (1 + np.exp(-odds.to_numpy())), truth


@pytest.mark.slow
def test_two_views_of_a_breast_make_one_answer(breasts: Path, command: Callable[..., Outcome]) -> None:
    done = command("split", "--config", breasts)
    assert "24 answers of 48 images" in done.out
    done = command("train", "--config", breasts, "--fold", "all", "--quiet")
    assert done.code == 0, done.err
    for fold in (0, 1):
        said, truth = by_hand(breasts, fold)
        assert len(said) == 12
        manifest = json.loads(Path(f"runs/breasts/breasts/fold{fold}/manifest.json").read_text())
        wanted = scores.get("roc_auc")(truth.to_numpy(), np.stack([1 - said, said], axis=1))
        assert manifest["score"] == pytest.approx(wanted)
    done = command("infer", "--config", breasts)
    assert done.code == 0, done.err
    assert "on 24 answers of 48 images" in done.out
    made = pd.read_csv("submissions/breasts_breasts.csv")
    assert made["prediction_id"].tolist() == ["13_R", "13_L", "12_R", "12_L"]
    assert made["cancer"].between(0, 1).all()
    assert pd.read_csv("submissions/ledger.csv")["rows"].tolist() == [24]
    done = command("compare", "--config", breasts)
    assert "24 answers of 48 images" in done.out
    done = command("report", "--config", breasts)
    assert done.code == 0, done.err
    page = Path("runs/breasts/report.html").read_text()
    assert "4 answers of 8 images" in page
    assert "Few answers make long intervals" in page
    done = command("audit", "--config", breasts)
    assert done.code == 0, done.err
    assert "sample_columns" not in done.out


def test_frames_of_a_video_share_its_id_and_the_way_is_chosen(workplace: Path, command: Callable[..., Outcome]) -> None:
    """A row a video, which unfolds into its frames; the test rows are the sample's."""
    folder, labels = workplace / "input" / "videos", {}
    for video in range(20):
        kind, labels[f"v{video}.mp4"] = ("cross", "FAKE") if video % 2 else ("dot", "REAL")
        frames = [f"v{video}/{frame}" for frame in range(2 + video % 3)]
        draw(folder, "train" if video < 16 else "test", frames, kind, 10 * video)
    table = pd.DataFrame({"video": list(labels), "label": list(labels.values())})
    table[:16].to_csv(folder / "train.csv", index=False)
    table[16:][::-1].assign(label=0.5).to_csv(folder / "sample_submission.csv", index=False)
    section = (
        '{name: videos, id: video, derive: {clip: {from: video, regex: "^(.+)[.]"}}, files: "train/{clip}/*", '
        'test_files: "test/{clip}/*", metric: log_loss, submission: {positive: FAKE}, '
        "answer: {by: video, combine: auto, k: 2}}"
    )
    path = configured(workplace, "videos", section, "[identity]")
    done = command("train", "--config", path, "--fold", "all")
    assert done.code == 0, done.err
    assert "videos: 16 answers of 47 images" in done.out
    done = command("infer", "--config", path)
    assert done.code == 0, done.err
    assert "on 16 answers of 47 images" in done.out
    assert pd.read_csv("submissions/videos_videos.csv")["video"].tolist() == [f"v{k}.mp4" for k in (19, 18, 17, 16)]
    found = [store.read(Path(f"runs/videos/videos/fold{fold}/oof.parquet")).ids.tolist() for fold in (0, 1)]
    assert {"v0.mp4", "v0.mp4#2", "v2.mp4#4"} <= {*found[0], *found[1]}


def test_an_answer_of_each_row_is_as_without(shapes: Path, command: Callable[..., Outcome]) -> None:
    command("train", "--config", shapes, "--fold", "all", "--quiet", "train.epochs=1", "experiment=e")
    without = command("infer", "--config", shapes, "experiment=e", "train.epochs=1", "--name", "a")
    answer = "competition.answer={by: id, combine: auto}"
    with_it = command("infer", "--config", shapes, "experiment=e", "train.epochs=1", answer, "--name", "b")
    assert with_it.code == 0, with_it.err
    assert Path("submissions/a.csv").read_text() == Path("submissions/b.csv").read_text()
    rows = [[line for line in done.out.splitlines() if line.startswith("used: ")] for done in (without, with_it)]
    assert rows[0] == rows[1] != []
