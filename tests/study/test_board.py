"""The board of a competition: real tiny experiments on digits, ranked as the comparison of two would have it."""

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import kinds_ground
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pseudo_terminal import screen
from sklearn.datasets import load_digits
from test_compare import simulated

from foldcraft.common import checksums, config_file
from foldcraft.common.errors import FoldcraftError
from foldcraft.metrics import significance
from foldcraft.metrics.bootstrap import bootstrap_scores
from foldcraft.metrics.intervals import bootstrap_interval
from foldcraft.predictions import oof, store
from foldcraft.predictions.experiment import Experiment
from foldcraft.study import compare, ranking
from foldcraft.study.ranking import Ranking

CONFIG = """
competition: {name: digits, metric: accuracy, group: writer}
folds: {count: 3}
images: {size: 16}
augment: {preset: none, hflip: 0}
backbone: {name: test_resnet, weights: none}
train: {epochs: 2, batch: 32}
machine: {workers: 0, device: cpu, precision: 32-true, memory_format: contiguous}
tta: {views: [identity]}
tracking: {wandb: "off"}
"""
PROBE = ("finetune.mode=linear_probe", "experiment=probe")


def write_digits(folder: Path, rows: int = 240, test: int = 12) -> None:
    """Real handwritten digits, two of each writer."""
    digits = load_digits()
    frame = pd.DataFrame({"id": [f"{row:03d}.png" for row in range(rows + test)]})
    frame["label"] = digits.target[: len(frame)].astype(str)
    frame["writer"] = [f"w{row // 2:03d}" for row in range(len(frame))]
    for part, some in (("train", frame[:rows]), ("test", frame[rows:])):
        (folder / part).mkdir(parents=True)
        for row in some.itertuples():
            Image.fromarray((digits.images[row.Index] * 15.9).astype(np.uint8)).save(folder / part / row.id)
        some.to_csv(folder / f"{part}.csv", index=False)
    frame[rows:][["id", "label"]].to_csv(folder / "sample_submission.csv", index=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A probe and a net with all folds; one that was stopped in its second fold; one on other folds."""
    import split
    import train

    place = tmp_path_factory.mktemp("board")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        write_digits(Path("input/digits"))
        Path("c.yaml").write_text(CONFIG)

        def run(*words: str) -> None:
            train.main(["--quiet", "--config", "c.yaml", *words])

        split.main(["--config", "c.yaml", "folds.seed=1"])
        run(*PROBE, "experiment=elsewhere", "--fold", "0")
        Path("folds/digits.csv").unlink()
        split.main(["--config", "c.yaml"])
        run(*PROBE)
        run("experiment=net", "optim.lr=0.00001", "train.epochs=1")
        run("experiment=stopped", "--fold", "0")
        run("experiment=stopped", "--fold", "1")
        fold = Path("runs/digits/stopped/fold1")
        (fold / "manifest.json").unlink()
        lines = (fold / "history.csv").read_text().splitlines(keepends=True)
        (fold / "history.csv").write_text("".join(lines[:2]))
        yield place


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that may be spoiled, as the current folder."""
    shutil.copytree(trained, tmp_path / "digits")
    monkeypatch.chdir(tmp_path / "digits")
    return tmp_path / "digits"


def experiment(*words: str) -> Experiment:
    return Experiment.open(config_file.load(Path("c.yaml"), words))


def row(found: Ranking, name: str) -> dict:
    return found.table.set_index("experiment").loc[name].to_dict()


def test_the_board_says_of_two_what_their_comparison_says(place: Path) -> None:
    found = ranking.rank(experiment())
    assert found.table["experiment"].tolist() == ["probe", "net", "stopped", "elsewhere"]
    assert found.table["state"].tolist() == ["ranked", "ranked", "unfinished", "apart"]
    assert (found.folds, found.rows, found.groups) == ((0, 1, 2), 240, 120)
    answers = compare.load_comparison(compare.open_runs(["runs/digits/probe", "runs/digits/net"], []))
    other = significance.compare(answers).others[0]
    probe, net = row(found, "probe"), row(found, "net")
    assert probe["score"] == pytest.approx(np.mean(answers.predicted[0].argmax(1) == answers.truth))
    assert net["score"] == pytest.approx(other.score)
    for key, value in (("difference", other.value), ("difference_low", other.low), ("difference_high", other.high)):
        assert net[key] == pytest.approx(value)
    assert net["error"] == pytest.approx(other.error)
    assert (probe["verdict"], net["verdict"]) == ("best", "worse")
    same = bootstrap_interval(answers.metric, answers.truth, answers.predicted[0], answers.units)
    assert (probe["low"], probe["high"]) == pytest.approx(same)
    assert probe["low"] < probe["score"] < probe["high"]
    assert probe["mode"] == "linear_probe"
    assert net["backbone"] == "test_resnet"
    manifests = [json.loads(file.read_text()) for file in Path("runs/digits/net").glob("fold*/manifest.json")]
    assert net["seconds"] == pytest.approx(sum(each["seconds"] for each in manifests))


def test_unfinished_ones_are_judged_on_what_they_have(place: Path) -> None:
    found = ranking.rank(experiment())
    stopped = row(found, "stopped")
    assert stopped["note"] == "fold 1 at epoch 1 of 2; fold 2 not begun"
    assert stopped["done"] == [0]
    said = store.read(Path("runs/digits/stopped/fold0/oof.parquet"))
    probe = store.read(Path("runs/digits/probe/fold0/oof.parquet"))
    label = pd.read_csv("input/digits/train.csv", dtype=str).set_index("id")["label"]
    truth = label.loc[said.ids].astype(int).to_numpy()
    own, best = (np.mean(each.mean(["identity"]).argmax(1) == truth) for each in (said, probe))
    assert (stopped["score"], stopped["best_score"]) == pytest.approx((own, best))
    assert stopped["difference"] == pytest.approx(own - best)
    assert row(found, "elsewhere")["note"] == "fold 0 is one of other folds"


def test_one_that_was_stopped_in_its_first_fold_is_shown_without_a_score(place: Path) -> None:
    Path("runs/digits/stopped/fold0/manifest.json").unlink()
    stopped = row(ranking.rank(experiment()), "stopped")
    assert (stopped["state"], stopped["done"]) == ("unfinished", [])
    assert np.isnan(stopped["score"])


def test_folds_that_are_asked_for_bring_the_unfinished_in(place: Path) -> None:
    found = ranking.rank(experiment(), [0])
    assert set(found.of("ranked")["experiment"]) == {"probe", "net", "stopped"}
    assert found.rows == experiment().folds.valid_rows(0).size
    shutil.rmtree("runs/digits/probe")
    shutil.rmtree("runs/digits/net")
    with pytest.raises(FoldcraftError, match=r"no experiment has finished fold 0, 1, 2$"):
        ranking.rank(experiment(), [0, 1, 2])
    assert ranking.rank(experiment()).folds == (0,), "the furthest have no more"


def test_less_is_better_where_the_metric_is_a_loss(place: Path) -> None:
    found = ranking.rank(experiment("competition.metric=log_loss")).of("ranked")
    assert found["score"].is_monotonic_increasing
    assert found["difference"].iloc[0] == 0 > found["difference"].iloc[1]
    assert found["verdict"].tolist() == ["best", "worse"]


def test_what_is_damaged_or_of_other_data_stands_apart(place: Path) -> None:
    runs = Path("runs/digits")
    for name in ("torn", "foreign", "mixed", "young"):
        shutil.copytree(runs / "net", runs / name)
    (runs / "torn/fold1/oof.parquet").write_bytes(b"no parquet")
    shutil.copy(runs / "elsewhere/fold0/oof.parquet", runs / "foreign/fold0/oof.parquet")
    manifest = checksums.read_json(runs / "mixed/fold1/manifest.json")
    manifest["fingerprints"]["config"] = "another"
    checksums.write_json(runs / "mixed/fold1/manifest.json", manifest)
    shutil.copytree(runs / "mixed", runs / "older")  # only the digest differs: made by another version
    settings = (runs / "mixed/fold1/config.yaml").read_text().split("\n", 1)[1]  # without the line of its checksum
    (runs / "mixed/fold1/config.yaml").write_text(settings.replace("batch: 32", "batch: 16"))
    (runs / "young/fold0/config.yaml").write_text(settings + "unheard: of\n")
    found = ranking.rank(experiment())
    assert set(found.of("ranked")["experiment"]) == {"probe", "net", "older"}
    notes = {name: row(found, name)["note"] for name in ("torn", "foreign", "mixed", "young")}
    assert "damaged predictions" in notes["torn"]
    assert "were made for different folds" in notes["foreign"]
    assert notes["mixed"] == "folds 0, 1, 2 were trained with different settings"
    assert "unheard" in notes["young"]
    assert row(found, "older")["verdict"] == row(found, "net")["verdict"]


def test_data_that_have_changed_leave_nothing_to_rank(place: Path, command: Callable) -> None:
    frame = pd.read_csv("input/digits/train.csv", dtype=str)
    frame.loc[0, "label"] = frame["label"][1]
    frame.to_csv("input/digits/train.csv", index=False)
    Path("folds/digits.csv").unlink()
    assert command("split", "--config", "c.yaml").code == 0
    said = command("compare", "--config", "c.yaml")
    assert said.code == 0
    assert said.out.count("was trained on other ids, labels or groups") == 4


def test_only_what_is_new_is_computed_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ranking.rank(experiment())
    with monkeypatch.context() as patch:
        patch.setattr(store, "read", lambda path: pytest.fail("read again"))
        history = Path("runs/digits/stopped/fold1/history.csv")
        history.write_text(history.read_text() * 2)
        again = ranking.rank(experiment(), before=first)
    assert row(again, "stopped")["note"].startswith("fold 1 at epoch 3")
    assert again.table["score"].equals(first.table["score"])
    shutil.copytree("runs/digits/probe", "runs/digits/twin")
    assert row(ranking.rank(experiment(), before=again), "twin")["verdict"] == "cannot be told"


def test_the_table_sorted_and_filtered(place: Path, command: Callable) -> None:
    def order(*words: str) -> list[str]:
        said = command("compare", "--config", "c.yaml", *words)
        assert said.code == 0, said.err
        return re.findall(r"^(probe|net|stopped|elsewhere) (?!is )", said.out, re.M)

    for name, seconds in (("probe", 500), ("net", 1)):
        for file in Path(f"runs/digits/{name}").glob("fold*/manifest.json"):
            checksums.write_json(file, {**checksums.read_json(file), "seconds": seconds})
    os.utime("runs/digits/net/fold0/manifest.json", (2e9, 2e9))
    assert order() == ["probe", "net", "stopped", "elsewhere"]
    assert order("--sort", "cost")[:2] == order("--sort", "name")[:2] == order("--sort", "time")[:2] == ["net", "probe"]
    assert order("--mode", "full") == ["net", "stopped"]
    assert order("--top", "1") == ["probe", "stopped", "elsewhere"]
    assert order("--backbone", "vit") == []
    assert "fold 1 at epoch 1 of 2" in command("compare", "--config", "c.yaml", "--fold", "0").out
    some = command("compare", "--config", "c.yaml", "--mode", "full")
    assert "worse" in some.out, "who is not shown is still the best"
    assert "2 of 4 experiments are not shown" in some.out
    assert "probe is really better than the other" in some.out
    quiet = command("compare", "--config", "c.yaml", "--quiet").out
    assert "probe is really better" in quiet
    assert "intervals:" not in quiet


def test_json_holds_all_and_is_alone(place: Path, command: Callable) -> None:
    said = json.loads(command("compare", "--config", "c.yaml", "--json").out)
    assert (said["metric"], said["folds"], said["rows"]) == ("accuracy", [0, 1, 2], 240)
    found = {one["experiment"]: one for one in said["experiments"]}
    assert found["probe"]["rank"] == 1
    assert found["stopped"]["rank"] is None
    assert found["elsewhere"]["score"] is None
    assert found["net"]["difference"] == row(ranking.rank(experiment()), "net")["difference"]


@pytest.mark.parametrize("width", [48, 80, 200])
def test_the_board_fits_a_terminal(place: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import compare as the_command

    monkeypatch.delenv("COLUMNS", raising=False)  # which says more than the terminal does
    monkeypatch.setenv("TERM", "xterm-256color")
    with screen(width) as seen:
        assert the_command.main(["--config", "c.yaml", "--quiet"]) == 0
    table = [line for line in seen.lines if not line.startswith("probe is really")]
    assert max(map(len, table)) <= width
    assert {"probe", "net", "stopped", "elsewhere"} <= set(" ".join(table).split())


def test_watching_shows_a_new_experiment_and_ends_on_ctrl_c(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import compare as the_command
    from foldcraft.views import board

    monkeypatch.setattr(board, "PAUSE", 0.1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may ignore it
    shutil.move("runs/digits/net", "net")
    with screen(160) as seen:

        def meanwhile() -> None:
            waits(lambda: "probe is the only one" in seen.text)
            shutil.move("net", "runs/digits/net")
            waits(lambda: "probe is really better than the other" in seen.text)
            os.kill(os.getpid(), signal.SIGINT)

        def waits(until: Callable[[], bool]) -> None:
            for _ in range(600):
                if until():
                    return
                threading.Event().wait(0.05)

        helper = threading.Thread(target=meanwhile)
        helper.start()
        assert the_command.main(["--config", "c.yaml", "--watch"]) == 0
        helper.join()
    signal.signal(signal.SIGINT, before)
    assert "probe is really better than the other" in seen.text
    assert seen.text.rindex("\x1b[?1049l") > seen.text.index("\x1b[?1049h"), "the screen from before is back"


def test_mistakes_are_told_in_a_line(place: Path, command: Callable) -> None:
    for words, told in (
        (["--watch"], "needs a terminal"),
        (["--top", "0"], "--top"),
        (["--fold", "7"], "no fold 7"),
        (["runs=nowhere"], "no experiment is trained yet"),
    ):
        said = command("compare", "--config", "c.yaml", *words)
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert told in said.err


def field(seed: int, right: tuple[float, ...], units: int = 300, repeats: int = 500) -> significance.RankingTest:
    answers = simulated(seed, right, units, metric="accuracy")
    scores = np.array([answers.metric(answers.truth, each) for each in answers.predicted])
    drawn = bootstrap_scores(answers.metric, answers.truth, answers.predicted, answers.units, repeats, seed)
    return significance.against_the_best(answers.metric, scores, drawn)


def test_among_equals_hardly_anybody_is_called_worse() -> None:
    found = [field(seed, (0.8,) * 12) for seed in range(100)]
    assert np.mean([each.is_worse.any() for each in found]) < 0.15
    assert np.mean([(each.behind_high < 0).any() for each in found]) > 0.5, "by intervals of their own many would be"


def test_who_is_far_behind_is_called_worse_and_who_is_near_is_not() -> None:
    found = [field(seed, (0.7, 0.9, 0.899, 0.85)) for seed in range(10)]
    assert all(each.is_worse[0] for each in found)
    assert not any(each.is_worse[each.best] for each in found)
    assert np.mean([each.is_worse[2] for each in found]) < 0.2
    assert field(0, (0.8,)).is_worse.tolist() == [False]


@pytest.mark.integration
def test_errors_of_values_are_ranked_with_the_weights_of_their_rows(command, workplace: Path) -> None:
    rows = kinds_ground.write(Path("input/kinds"))[:36]
    rows.assign(weight=np.where(np.arange(36) % 3, "1", "5")).to_csv("input/kinds/train.csv", index=False)
    path = kinds_ground.config("regression", competition={"weight": "weight", "metric_weight": True})
    for stages in ("last", "all"):
        words = ("finetune.mode=linear_probe", f"probe.stages={stages}", f"experiment={stages}")
        assert command("train", "--config", path, "--fold", "all", *words).code == 0
    experiment = Experiment.open(config_file.load(path))
    table = ranking.rank(experiment).table.set_index("experiment")
    data = experiment.competition
    for name in ("last", "all"):
        files = sorted(Path(f"runs/kinds_regression/{name}").glob("fold*/oof.parquet"))
        found = oof.load(files, None, data).at(np.arange(36))
        assert table.loc[name, "score"] == pytest.approx(data.score(found.mean))
        assert table.loc[name, "score"] != pytest.approx(data.metric(data.targets, found.mean)), "unweighted"
        assert table.loc[name, "low"] < table.loc[name, "score"] < table.loc[name, "high"]
    assert table["score"].idxmin() == table["rank"].astype(int).idxmin(), "the least error is the best"
    about_mean = np.sqrt(np.average((data.targets - data.targets.mean(0)) ** 2, axis=0, weights=data.score_weights))
    assert data.score_unit == pytest.approx(about_mean.mean()), "what is off without images"
