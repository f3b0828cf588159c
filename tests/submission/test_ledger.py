"""The ledger: kept whole, told what the leaderboard says, compared with it; and submissions whose rows are shuffled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Outcome
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from foldcraft.common import checksums
from foldcraft.common.errors import FoldcraftError
from foldcraft.metrics import scores
from foldcraft.predictions import store
from foldcraft.submission import build, leaderboard, ledger, shuffle_check
from foldcraft.submission.shuffle_check import SubmittedAnswers

Command = Callable[..., Outcome]
TEST = ["b", "a", "10", "07", "7"]


def entry(nested: object = "0.90", **more: object) -> dict[str, object]:
    about = {"competition": "shapes", "experiments": "a b", "weights": "0.5 0.5", "metric": "accuracy"}
    scores = {"nested": nested, "nested_low": "0.80", "nested_high": "0.95", "optimistic": "", "rows": 5}
    forecast = {"forecast": "0.93", "forecast_low": "0.78", "forecast_high": "0.96"}
    return {**about, **scores, **forecast, **more}


def frame(label: str = "bar") -> pd.DataFrame:
    return pd.DataFrame({"id": TEST, "label": label})


def in_ledger(folder: Path) -> pd.DataFrame:
    return ledger.read(folder / "ledger.csv")


# A row for each submission


def test_a_submission_has_a_row(tmp_path: Path) -> None:
    folder = tmp_path / "submissions"
    build.write(frame(), folder, "shapes_a", entry(optimistic="0.92"))
    (row,) = in_ledger(folder).to_dict("records")
    assert list(row) == ledger.COLUMNS
    assert row.pop("time")
    assert row.pop("content")
    given = {key: str(value) for key, value in entry(optimistic="0.92").items()}
    assert row == {"file": "shapes_a.csv", "public": "", "private": "", **given}


def test_a_score_that_was_filled_in_stays(tmp_path: Path) -> None:
    build.write(frame(), tmp_path, "mine", entry("0.90"))
    in_ledger(tmp_path).assign(public="0.870", private='high, "for once"').to_csv(tmp_path / "ledger.csv", index=False)
    build.write(frame(), tmp_path, "mine", entry("0.91"))
    build.write(frame("dot"), tmp_path, "mine", entry("0.92"))
    assert in_ledger(tmp_path)["file"].tolist() == ["mine.csv", "mine-2.csv"]
    assert in_ledger(tmp_path)["public"].tolist() == ["0.870", ""]
    assert in_ledger(tmp_path)["private"].tolist() == ['high, "for once"', ""]
    assert in_ledger(tmp_path)["nested"].tolist() == ["0.90", "0.92"]


def test_the_name_of_a_deleted_submission_stays_its_own(tmp_path: Path) -> None:
    first = build.write(frame(), tmp_path, "mine", entry("0.90")).path
    first.unlink()
    new = build.write(frame("dot"), tmp_path, "mine", entry("0.92"))
    assert (new.is_new, new.path.name) == (True, "mine-2.csv")
    new.path.rename(tmp_path / "best.csv")
    again = [build.write(frame(label), tmp_path, "mine", entry("0.9")).path.name for label in ("cross", "dot", "bar")]
    assert again == ["mine-3.csv", "mine-2.csv", "mine.csv"], "the same answers are written once more where they were"
    assert in_ledger(tmp_path)["file"].tolist() == ["mine.csv", "mine-2.csv", "mine-3.csv"]


def test_what_has_changed_since_it_was_written_is_noticed(tmp_path: Path) -> None:
    """A row, and a submission; what the leaderboard said is the user's to change, and an empty cell takes all of it."""
    path = build.write(frame(), tmp_path, "mine", entry("0.90")).path
    kept = tmp_path / "ledger.csv"
    whole = kept.read_text()
    kept.write_text(whole.replace("0.90", "0.98"))
    with pytest.raises(FoldcraftError, match=r"ledger\.csv: the row of mine\.csv has changed .*--take mine\.csv"):
        build.write(frame("dot"), tmp_path, "other", entry("0.92"))
    assert not (tmp_path / "other.csv").exists()
    rows = pd.read_csv(kept, dtype=str, keep_default_na=False)
    rows.assign(check="").to_csv(kept, index=False)
    assert in_ledger(tmp_path)["nested"].tolist() == ["0.98"]
    kept.write_text(whole)
    path.write_text(path.read_text().replace("bar", "bat", 1))
    with pytest.raises(FoldcraftError, match=r"mine\.csv: has changed since it was written; delete it"):
        build.write(frame(), tmp_path, "mine", entry("0.90"))
    path.unlink()
    assert build.write(frame(), tmp_path, "mine", entry("0.90")).path == path
    assert len(in_ledger(tmp_path)) == 1, "it is the same as before"


def by_spreadsheet(path: Path, separator: str, comma: str, encoding: str) -> None:
    """Save the ledger as a spreadsheet does: numbers without zeros at their end, dates as it likes them."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column in ("nested", "nested_low", "nested_high", "optimistic", "weights", "rows", "public"):
        rows[column] = [f"{float(cell):g}".replace(".", comma) if cell else "" for cell in rows[column]]
    rows["time"] = "1/2/26 3:04"
    rows["check"] = [cell.lstrip("0") if cell.isdecimal() else cell for cell in rows["check"]]
    text = rows.to_csv(index=False, sep=separator, lineterminator="\r\n") + separator * (len(rows.columns) - 1) + "\r\n"
    path.write_bytes(text.encode(encoding))


@pytest.mark.slow  # forty rows, each flushed to the disk
@pytest.mark.parametrize(
    ("separator", "comma", "encoding"), [(",", ".", "utf-8-sig"), (";", ",", "cp1252"), ("\t", ".", "utf-8")]
)
def test_a_spreadsheet_may_have_saved_the_ledger(tmp_path: Path, separator: str, comma: str, encoding: str) -> None:
    numbers = {"nested_low": "-0.10000", "nested_high": "0.95000", "optimistic": "1.00000", "weights": "1.000"}
    for place in range(40):  # some of the checksums look like numbers
        build.write(frame(), tmp_path, f"s{place}", entry("-0.07250", rows=48 + place, **numbers)).path.unlink()
    ledger.fill(tmp_path, "s3", {"public": "0.870"})
    by_spreadsheet(tmp_path / "ledger.csv", separator, comma, encoding)
    rows = in_ledger(tmp_path)
    assert len(rows) == 40
    assert set(rows["nested"]) == {"-0.0725"}
    assert rows["public"][3] == "0.87"
    build.write(frame("dot"), tmp_path, "next", entry())
    assert (tmp_path / "ledger.csv").read_text().startswith("file,time,competition,")
    assert len(in_ledger(tmp_path)) == 41


def test_a_ledger_from_before_numbers_counted_as_numbers_may_have_been_in_a_spreadsheet(tmp_path: Path) -> None:
    about = ["a.csv", "2026-01-02 03:04:05", "shapes", "a"]
    cells = [*about, "1.000", "qwk", "-0.07250", "-0.10000", "0.95000", "1.00000"]
    check = checksums.checksum(*cells, "48", "abc")[:8]
    saved = [*about, "1", "qwk", "-0.0725", "-0.1", "0.95", "1", "48", "", "", "abc", check]
    header = ",".join(name for name in [*ledger.COLUMNS, ledger.CHECK] if name not in ledger.FORECAST)
    for row in ([*cells, "48", "", "", "abc", check], saved):
        (tmp_path / "ledger.csv").write_text(f"{header}\n{','.join(row)}\n")
        assert float(in_ledger(tmp_path)["nested"][0]) == -0.0725


def test_a_ledger_from_before_forecasts_is_sound_and_gets_them(tmp_path: Path) -> None:
    cells = ["a.csv", "2026-01-02 03:04:05", "shapes", "a", "1.000", "qwk", "0.50000", "0.40000", "0.60000", "", "48"]
    numbers = ["1.0", "qwk", "0.5", "0.4", "0.6", "", "48.0", "abc"]  # as checksums count them, of all but the time
    check = checksums.checksum("a.csv", "shapes", "a", *numbers)[:8]
    header = ",".join(name for name in [*ledger.COLUMNS, ledger.CHECK] if name not in ledger.FORECAST)
    (tmp_path / "ledger.csv").write_text(f"{header}\n{','.join([*cells, '', '', 'abc', check])}\n")
    assert in_ledger(tmp_path)["forecast"].tolist() == [""]
    build.write(frame(), tmp_path, "mine", entry())
    rows = in_ledger(tmp_path)
    assert rows["forecast"].tolist() == ["", "0.93"]
    assert rows["nested"].tolist() == ["0.50000", "0.90"]
    (tmp_path / "ledger.csv").write_text((tmp_path / "ledger.csv").read_text().replace("0.93", "0.97"))
    with pytest.raises(FoldcraftError, match="the row of mine"):
        in_ledger(tmp_path)


def test_one_competitions_row_never_blocks_another_and_can_be_taken(workplace: Path, command: Command) -> None:
    folder = workplace / "submissions"
    build.write(frame(), folder, "mine", entry("0.90"))
    build.write(frame("dot"), folder, "other", entry("0.91", competition="faces"))
    kept = folder / "ledger.csv"
    kept.write_text(kept.read_text().replace("0.91", "0.98"))
    assert build.write(frame("cross"), folder, "more", entry("0.92")).is_new
    ledger.fill(folder, "mine", {"public": "0.8"})
    with pytest.raises(FoldcraftError, match="the row of other"):
        build.write(frame("cross"), folder, "faces_b", entry("0.92", competition="faces"))
    with pytest.raises(FoldcraftError, match="the row of other"):
        ledger.fill(folder, "other", {"public": "0.8"})
    shown = command("infer", "--ledger")
    assert (shown.code, "mine.csv" in shown.out, "other.csv" in shown.out) == (2, True, False)
    assert "python src/infer.py --ledger --take other.csv" in shown.err
    assert command("infer", "--ledger", "--competition", "shapes").code == 0
    assert command("infer", "--ledger", "--take", "other").out == "other.csv: taken as it is\n"
    assert in_ledger(folder)["nested"].tolist() == ["0.90", "0.98", "0.92"]


def test_what_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ledger.csv").write_text("file;public\nmine.csv;0.9\n")
    with pytest.raises(FoldcraftError, match=r"ledger\.csv: columns"):
        build.write(frame(), tmp_path, "mine", entry())
    assert (tmp_path / "ledger.csv").read_text() == "file;public\nmine.csv;0.9\n"


OLD = """file,time,experiments,weights,metric,oof,oof_low,oof_high,rows,public,private
shapes_a.csv,2026-01-02 03:04:05,a,1.000,accuracy,0.90,0.80,0.95,48,0.870,
shapes_big_a.csv,2026-01-02 03:04:06,a,1.000,macro_f1,0.91,0.81,0.96,48,,"no, not yet"
shapesque.csv,2026-01-02 03:04:07,b,1.000,accuracy,0.92,0.82,0.97,48,,
"""


def test_an_older_ledger_is_read_as_of_today_and_nothing_is_lost(workplace: Path) -> None:
    for name in ("shapes", "shapes_big"):
        (workplace / "folds" / f"{name}.csv").parent.mkdir(exist_ok=True)
        (workplace / "folds" / f"{name}.csv").touch()
    kept = workplace / "ledger.csv"
    kept.write_text(OLD)

    rows = ledger.read(kept)

    assert kept.read_text() == OLD, "reading changes nothing"
    assert rows["competition"].tolist() == ["shapes", "shapes_big", ""]
    assert rows["optimistic"].tolist() == ["", "", ""]
    build.write(frame(), workplace, "shapes_c", entry("0.93"))
    old = pd.read_csv(Path(kept), dtype=str, keep_default_na=False)
    assert list(old.columns) == [*ledger.COLUMNS, ledger.CHECK]
    assert old["nested"].tolist() == ["0.90", "0.91", "0.92", "0.93"]
    assert old["nested_low"].tolist() == ["0.80", "0.81", "0.82", "0.80"]
    assert old["private"].tolist() == ["", "no, not yet", "", ""]
    for column in ("file", "time", "experiments", "weights", "metric", "rows", "public"):
        assert [line.split(",")[list(ledger.COLUMNS).index(column)] for line in kept.read_text().split("\n")[1:4]] == (
            old[column].tolist()[:3]
        )


def test_the_competition_of_an_old_row_is_the_longest_that_fits() -> None:
    known = ["a", "a_b", "c"]
    names = ["a_net.csv", "a_b_net.csv", "a_b.csv", "c-2.csv", "cat.csv", "net_a.csv"]
    assert [ledger.competition_of(name, known) for name in names] == ["a", "a_b", "a_b", "c", "", ""]


# What the leaderboard says


@pytest.fixture
def entered(workplace: Path) -> Path:
    """Two submissions in the ledger; the folder they are in."""
    build.write(frame(), Path("submissions"), "shapes_a", entry())
    build.write(frame("dot"), Path("submissions"), "shapes_v1.5", entry(metric="log_loss"))
    return Path("submissions")


@pytest.mark.parametrize(
    "name", ["shapes_v1.5", "shapes_v1.5.csv", "submissions/shapes_v1.5", "./submissions/shapes_v1.5.csv"]
)
def test_scores_are_entered_without_a_config(entered: Path, command: Command, name: str) -> None:
    before = in_ledger(entered)
    done = command("infer", "--score", name, "public=0.812", "private=1.5")
    assert done.code == 0, done.err
    assert done.out.splitlines() == ["shapes_v1.5.csv: public score 0.812", "shapes_v1.5.csv: private score 1.5"]
    before.loc[1, ["public", "private"]] = ["0.812", "1.5"]
    pd.testing.assert_frame_equal(in_ledger(entered), before)


def test_a_score_that_is_replaced_is_named(entered: Path, command: Command) -> None:
    command("infer", "public=0.80", "--score", "shapes_a")
    again = command("infer", "--score", "shapes_a", "public=0.80")
    other = command("infer", "--score", "shapes_a", "public=0.81", "private=0.7")
    assert "was" not in again.out
    assert other.out.splitlines()[0] == "shapes_a.csv: public score 0.81, was 0.80"
    assert in_ledger(entered).loc[0, ["public", "private"]].tolist() == ["0.81", "0.7"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shapes_b", "public=0.8"], "no submission 'shapes_b'; did you mean shapes_a.csv"),
        (["runs/shapes_a.csv", "public=0.8"], "no submission 'runs/shapes_a.csv'"),
        (["shapes_a"], "no score is given"),
        (["shapes_a", "public=0,812"], "'0,812' is not a number"),
        (["shapes_a", "public=nan"], "'nan' is not a number"),
        (["shapes_a", "public="], "'' is not a number"),
        (["shapes_a", "private=0.8", "public=81.2"], "accuracy cannot be 81.2; it is from 0 to 1"),
        (["shapes_v1.5", "public=-0.1"], "log_loss cannot be -0.1"),
        (["shapes_a", "optim.lr=0.1"], "'optim.lr' is no leaderboard"),
        (["shapes_a", "0.8"], "'0.8' is not a score"),
        (["shapes_a", "public=0.8", "--config", "c.yaml"], "takes neither --config"),
    ],
)
def test_a_score_that_cannot_be_is_refused(entered: Path, command: Command, words: list[str], said: str) -> None:
    before = (entered / "ledger.csv").read_bytes()
    done = command("infer", "--score", *words)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert said in done.err
    assert (entered / "ledger.csv").read_bytes() == before


def test_metrics_of_other_targets_have_their_direction_and_bounds(tmp_path: Path) -> None:
    build.write(frame(), tmp_path, "counted", entry(metric="rmse"))
    build.write(frame("dot"), tmp_path, "explained", entry(metric="r2"))
    ledger.fill(tmp_path, "counted", {"public": "12.5"})
    ledger.fill(tmp_path, "explained", {"public": "-0.3"})
    with pytest.raises(FoldcraftError, match=r"r2 cannot be 1\.5; it is from -inf to 1"):
        ledger.fill(tmp_path, "explained", {"public": "1.5"})
    found = {one.metric: one.greater_is_better for one in leaderboard.read(tmp_path, in_ledger(tmp_path))}
    assert found == {"rmse": False, "r2": True}


# Shuffled rows


@dataclass(frozen=True)
class Model:
    """Real out-of-fold and test predictions of one classifier, of real handwritten digits."""

    oof: np.ndarray
    test: np.ndarray


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 64) in 0 to 1, and labels (N,), of real handwritten digits; reading them takes a tenth of a second."""
    pixels, labels = load_digits(return_X_y=True)
    return pixels / 16, labels


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    """Classifiers as unlike as can be, from nearly perfect to nearly useless."""
    pixels, labels = digits()
    kinds = {
        "logistic": (LogisticRegression(max_iter=200), slice(None)),
        "neighbour": (KNeighborsClassifier(3), slice(None)),
        "bayes": (GaussianNB(), slice(None)),
        "bushy": (DecisionTreeClassifier(max_depth=6, random_state=0), slice(None)),
        "small": (DecisionTreeClassifier(max_depth=3, random_state=0), slice(None)),
        "top": (LogisticRegression(max_iter=200), slice(0, 16)),  # sees a quarter of the image
    }
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    made = {}
    for name, (kind, part) in kinds.items():
        train, test = pixels[:1200, part], pixels[1200:, part]
        oof = cross_val_predict(kind, train, labels[:1200], cv=folds, method="predict_proba")
        made[name] = Model(oof, kind.fit(train, labels[:1200]).predict_proba(test))
    return made


def enter(folder: Path, name: str, model: Model, metric: str, shuffled: bool = False) -> build.Written:
    """Submit a model's answers, in the form that the metric wants."""
    judge = scores.get(metric)
    truth = digits()[1][:1200]
    order = np.random.default_rng(7).permutation(len(model.test)) if shuffled else np.arange(len(model.test))
    answers = (
        {"label": model.test.argmax(1)} if judge.wants == "labels" else {f"c{k}": model.test[:, k] for k in range(10)}
    )
    ids = [f"{row:04d}.png" for row in range(len(order))]
    table = pd.DataFrame({"id": ids, **{column: values[order] for column, values in answers.items()}})
    return build.write(table, folder, name, entry(f"{judge(truth, model.oof):.5f}", metric=metric))


@pytest.mark.integration
@pytest.mark.parametrize("metric", sorted(name for name, one in scores.METRICS.items() if not one.classes))
def test_honest_submissions_are_not_doubted_however_they_differ(tmp_path: Path, models, metric: str) -> None:
    for order in (list(models), list(models)[::-1]):
        folder = tmp_path / order[0]
        assert [enter(folder, name, models[name], metric).doubt for name in order] == [None] * len(order)
        assert not shuffle_check.find_shuffled(folder, in_ledger(folder))


@pytest.mark.integration
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "qwk", "log_loss", "roc_auc"])
@pytest.mark.parametrize("which", ["logistic", "small"])
def test_a_shuffled_submission_is_seen_among_honest_ones(tmp_path: Path, models, metric: str, which: str) -> None:
    for name in ("logistic", "neighbour", "bushy"):
        enter(tmp_path, name, models[name], metric)
    written = enter(tmp_path, "mixed", models[which], metric, shuffled=True)
    assert written.path.exists(), "a warning, no more"
    assert "mixed.csv agrees too little with the 3 best others" in str(written.doubt)
    assert abs(written.doubt.agreement) < 0.1
    assert [doubt.file for doubt in shuffle_check.find_shuffled(tmp_path, in_ledger(tmp_path))] == ["mixed.csv"]
    later = enter(tmp_path, "later", models["bayes"], metric)
    assert later.doubt is None, "an honest one is not doubted for the sake of an earlier one that was not"


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_a_shuffle_is_seen_beside_a_single_other_one(tmp_path: Path, models, metric: str) -> None:
    assert enter(tmp_path, "first", models["logistic"], metric, shuffled=True).doubt is None
    assert enter(tmp_path, "second", models["neighbour"], metric).doubt.others == ("first.csv",)
    assert {doubt.file for doubt in shuffle_check.find_shuffled(tmp_path, in_ledger(tmp_path))} == {
        "first.csv",
        "second.csv",
    }
    enter(tmp_path, "third", models["bayes"], metric)
    assert {doubt.file for doubt in shuffle_check.find_shuffled(tmp_path, in_ledger(tmp_path))} == {"first.csv"}, (
        "the majority"
    )


def test_half_a_shuffle_is_seen_where_scores_are_high(tmp_path: Path, models) -> None:
    enter(tmp_path, "honest", models["neighbour"], "accuracy")
    test = models["logistic"].test.copy()
    test[:400] = test[np.random.default_rng(0).permutation(400)]
    assert enter(tmp_path, "part", Model(models["logistic"].oof, test), "accuracy").doubt.agreement > 0.25


def test_submissions_of_other_rows_are_not_compared(tmp_path: Path, models) -> None:
    for name in ("logistic", "neighbour"):
        enter(tmp_path, name, models[name], "accuracy")
    table = pd.read_csv(tmp_path / "logistic.csv", dtype=str)
    other = table.assign(id="new" + table["id"], label=table["label"].sample(frac=1, random_state=0).to_list())
    assert build.write(other, tmp_path, "other ids", entry(0.95)).doubt is None
    shuffled = table.assign(label=table["label"].sample(frac=1, random_state=0).to_list())
    assert build.write(shuffled, tmp_path, "other host", entry(0.95, competition="x")).doubt is None
    (tmp_path / "logistic.csv").unlink()
    (tmp_path / "neighbour.csv").unlink()
    assert build.write(shuffled, tmp_path, "alone", entry(0.95)).doubt is None


def answers(labels: Sequence[object], ids: Sequence[int], nested: float = 0.9) -> SubmittedAnswers:
    table = pd.DataFrame({"label": labels, "id": ids}, dtype=str).set_index("id")
    return SubmittedAnswers("x.csv", table, scores.get("accuracy"), nested)


@given(data=st.data(), rows=st.integers(2, 40))
def test_agreement_is_cohens_kappa(data: st.DataObject, rows: int) -> None:
    one, other = (data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)) for _ in range(2))
    found = shuffle_check.agreement(answers(one, range(rows)), answers(other, range(rows)))
    if len(set(one) | set(other)) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(cohen_kappa_score(one, other))


@given(data=st.data())
def test_rows_find_each_other_by_their_ids(data: st.DataObject) -> None:
    labels = np.random.default_rng(0).integers(0, 4, 60).astype(str)
    order = data.draw(st.permutations(range(60)))
    one = SubmittedAnswers(
        "a.csv", pd.DataFrame({"label": labels, "id": range(60)}, dtype=str), scores.get("accuracy"), 0.9
    )
    other = SubmittedAnswers("b.csv", one.table.iloc[order].reset_index(drop=True), one.metric, 0.9)
    ((first, second),) = shuffle_check.alike([one, other])
    assert shuffle_check.agreement(first, second) == 1


def test_infer_warns_of_predictions_that_lost_their_rows(shapes: Path, command: Command) -> None:
    learning = ["train.epochs=8", "optim.lr=0.005", "augment.preset=none", "regularize.label_smoothing=0"]
    command("split", "--config", shapes)
    command("train", "--config", shapes, "--fold", "0", *learning)
    honest = command("infer", "--config", shapes, *learning)
    test = Path("runs/shapes/tiny/fold0/test.parquet")
    kept = store.read(test)
    moved = store.Predictions(kept.ids, kept.views, np.roll(kept.predicted, 1, axis=1), kept.origin)
    store.write(test, moved)

    done = command("infer", "--config", shapes, *learning)

    assert "warning: shapes" not in honest.out
    assert done.code == 0, "it never keeps a submission back"
    assert "wrote submissions/shapes_tiny-2.csv" in done.out
    assert "warning: shapes_tiny-2.csv agrees too little with shapes_tiny.csv" in done.out
    assert "shuffled?" in command("infer", "--ledger").out


# Out-of-fold and leaderboard


def played(
    oof: Sequence[float], public: Sequence[float | None], metric: str = "accuracy", half: float = 0.02
) -> pd.DataFrame:
    """A ledger of one competition, without the files."""
    rows = [
        {"file": f"s{k}.csv", "time": "now", "public": "" if lb is None else str(lb), "private": "", "content": ""}
        | {key: str(value) for key, value in entry(score, metric=metric).items()}
        | {"nested_low": str(score - half), "nested_high": str(score + half), "rows": "500"}
        for k, (score, lb) in enumerate(zip(oof, public, strict=True))
    ]
    return pd.DataFrame(rows)[ledger.COLUMNS]


def told(rows: pd.DataFrame) -> str:
    (one,) = leaderboard.read(Path("nowhere"), rows)
    return "\n".join(leaderboard.findings(one))


def test_scores_that_go_together_are_told_with_their_correlation() -> None:
    oof, public = [0.80, 0.82, 0.85, 0.83, 0.90], [0.79, 0.80, 0.86, None, 0.91]
    said = told(played(oof, public))
    pearson = np.corrcoef(oof[:3] + oof[4:], public[:3] + public[4:])[0, 1]
    assert f"OOF and public: Pearson {pearson:.2f} (95 % interval" in said
    assert "Spearman 1.00, of 4 submissions" in said
    assert "OOF - public: +0.0025 in the mean (-0.0100 to +0.0200); no public score lies outside" in said
    assert "best by OOF and by public: s4.csv" in said
    assert "OOF and private" not in said
    assert said.splitlines()[-1].startswith(
        "advice: trust the OOF, unless the leaderboard has many more rows than the 500"
    )


def test_a_correlation_of_three_is_not_told() -> None:
    said = told(played([0.8, 0.9, 0.7], [0.8, 0.9, 0.7]))
    assert "of 3 with both, a correlation would mean nothing" in said
    assert "Pearson" not in said
    assert "Pearson" not in told(played([0.8] * 5, [0.1, 0.2, 0.3, 0.4, 0.5])), "nor of one that does not vary"


def test_the_best_is_the_least_where_less_is_better() -> None:
    said = told(played([0.3, 0.2, 0.4], [0.35, 0.38, 0.41], "log_loss", half=0.1))
    assert "best by OOF: s1.csv; best by public: s0.csv" in said
    assert "no public score lies outside" not in said
    assert "1 of 3 lie outside their OOF interval: s1.csv" in said


@pytest.mark.parametrize(
    ("oof", "public", "metric", "said"),
    [
        ([0.80, 0.82], [None, None], "accuracy", "`python src/infer.py --score FILE public=0.812` enters"),
        ([0.80, 0.82, 0.84], [0.70, 0.83, 0.71], "accuracy", "do not trust the OOF yet: public scores are worse"),
        ([0.80, 0.82, 0.84], [0.90, 0.93, 0.91], "accuracy", "trust the OOF, unless"),
        ([0.80, 0.82, 0.84], [0.90, 0.93, 0.91], "log_loss", "do not trust the OOF yet: public scores are worse"),
        (
            [0.80, 0.82, 0.84, 0.86, 0.88],
            [0.70, 0.72, 0.74, 0.77, 0.78],
            "accuracy",
            "it is too hopeful for public, but",
        ),
        ([0.80, 0.81, 0.82, 0.83, 0.84], [0.84, 0.83, 0.82, 0.81, 0.80], "accuracy", "the better it is, the worse is"),
        ([0.80, 0.81, 0.82, 0.83, 0.84], [0.82, 0.81, 0.80, 0.83, 0.81], "accuracy", "trust the OOF, unless"),
    ],
)
def test_advice(oof: list[float], public: list[float | None], metric: str, said: str) -> None:
    rows = played(oof, public, metric, half=0.05)
    assert said in told(rows).splitlines()[-1]
    private = rows.assign(private=rows["public"], public="" if None in public else str(oof[0]))
    assert said.replace("public scores", "private scores").replace("for public", "for private") in told(private)


def test_the_table_holds_all_of_each_competition(workplace: Path, command: Command) -> None:
    assert "no submission yet" in command("infer", "--ledger").err
    rows = pd.concat([played([0.8, 0.9], [0.7, None]), played([0.5], [0.4], "log_loss").assign(competition="other")])
    Path("submissions").mkdir()
    rows.to_csv("submissions/ledger.csv", index=False)

    done = command("infer", "--ledger")

    assert done.code == 0, done.err
    assert "shapes: accuracy (more is better)" in done.out
    assert "other: log_loss (less is better)" in done.out
    line = next(line for line in done.out.splitlines() if "s0.csv" in line)
    for cell in ("now", "a b", "0.8", "0.78–0.8200000000000001", "0.7"):
        assert cell in line
    assert done.out.count("advice: ") == 2
    only = command("infer", "--ledger", "--competition", "other")
    assert "other: " in only.out
    assert "shapes: " not in only.out
    wrong = command("infer", "--ledger", "--competition", "othr")
    assert (wrong.code, "did you mean 'other'?" in wrong.err) == (2, True)


def test_of_several_labels_a_row_each_column_speaks(tmp_path: Path, models) -> None:
    """The parity of a digit and whether it is above four, and a column that no model has answered."""
    order = np.random.default_rng(7).permutation(len(models["bayes"].test))
    doubts = []
    for name, mixed in (("logistic", False), ("neighbour", False), ("bushy", False), ("bayes", True)):
        said = models[name].test.argmax(1)[order if mixed else slice(None)]
        table = pd.DataFrame({"id": range(len(said)), "age": 7, "even": said % 2 == 0, "high": said > 4})
        doubts.append(build.write(table, tmp_path, name, entry("0.9", metric="macro_recall")).doubt)
    assert doubts[:3] == [None] * 3
    assert abs(doubts[3].agreement) < 0.1
