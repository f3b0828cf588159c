"""Predictions: what is written is read, strangers are not joined, and means over views and folds are as defined."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from tables import class_space

from foldcraft.common.errors import FoldcraftError
from foldcraft.predictions import store
from foldcraft.predictions.store import Origin, Predictions, average_folds, join_folds

ORIGIN = Origin("plain", 0, ("bar", "cross", "dot"), "data1", "folds1", "weights1")
VIEWS = ("identity", "hflip")


def made(ids: list[str], origin: Origin = ORIGIN, views: tuple[str, ...] = VIEWS, seed: int = 0) -> Predictions:
    logits = np.random.default_rng(seed).normal(0, 2, (len(views), len(ids), len(origin.classes)))
    return Predictions(np.array(ids), views, log_softmax(logits, axis=2).astype(np.float32), origin)


def names(first: int, count: int) -> list[str]:
    return [f"{row:03d}" for row in range(first, first + count)]


@pytest.mark.parametrize("classes", [("bar", "cross", "dot"), ("", "id", "view", "é, 0"), ("0", "1")])
def test_what_is_written_is_read(tmp_path: Path, classes: tuple[str, ...]) -> None:
    written = made(["7", "07", "a/é.png"], replace(ORIGIN, classes=classes, fold=3))
    store.write(tmp_path / "deep" / "oof.parquet", written)
    read = store.read(tmp_path / "deep" / "oof.parquet")
    assert read.ids.tolist() == written.ids.tolist()
    assert (read.views, read.origin) == (written.views, written.origin)
    assert read.predicted.dtype == np.float32
    assert np.array_equal(read.predicted, written.predicted)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["oof.parquet"]


def test_the_file_is_a_plain_table(tmp_path: Path) -> None:
    """One row an id and view, so that others can read it too."""
    store.write(tmp_path / "oof.parquet", made(["x", "y"]))
    table = pq.read_table(tmp_path / "oof.parquet").to_pandas()
    assert table["id"].tolist() == ["x", "y", "x", "y"]
    assert table["view"].tolist() == ["identity", "identity", "hflip", "hflip"]
    np.testing.assert_allclose(np.exp(table.drop(columns=["id", "view"])).sum(axis=1), 1, rtol=1e-5)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "oof.parquet"
    store.write(path, made(names(0, 40)))
    whole, table = path.read_bytes(), pq.read_table(path)
    damaged = {
        "cut": lambda: path.write_bytes(whole[: len(whole) // 2]),
        "empty": lambda: path.write_bytes(b""),
        "not ours": lambda: pq.write_table(table.replace_schema_metadata(None), path),
        "a class lost": lambda: pq.write_table(table.drop_columns(["logp:dot"]), path),
        "rows lost": lambda: pq.write_table(table.slice(0, 79), path),
        "rows of a view in another order": lambda: pq.write_table(
            table.take([*range(40), *reversed(range(40, 80))]), path
        ),
        "missing": path.unlink,
    }
    for what, damage in damaged.items():
        path.write_bytes(whole)
        damage()
        with pytest.raises(FoldcraftError, match=r"oof\.parquet: damaged predictions"):
            pytest.fail(f"{what}: {store.read(path)}")


@pytest.mark.parametrize(
    ("what", "other"), [("classes", ("bar", "dot", "cross")), ("data", "data2"), ("folds", "folds2")]
)
@pytest.mark.parametrize("join", [join_folds, average_folds])
def test_strangers_are_not_joined(join, what: str, other: object) -> None:
    mine, strange = made(names(0, 3)), made(names(3, 3), replace(ORIGIN, experiment="strange", fold=1, **{what: other}))
    with pytest.raises(FoldcraftError, match=f"plain .*strange .*different {what}"):
        join([mine, strange], VIEWS)


def test_folds_that_share_a_row_are_not_joined() -> None:
    with pytest.raises(FoldcraftError, match="share rows"):
        join_folds([made(names(0, 3)), made(names(2, 3), replace(ORIGIN, fold=1))], VIEWS)


def test_test_predictions_of_other_rows_are_not_averaged() -> None:
    for other in (names(1, 3), names(0, 2), names(0, 3)[::-1]):
        with pytest.raises(FoldcraftError, match="other rows"):
            average_folds([made(names(0, 3)), made(other, replace(ORIGIN, fold=1))], VIEWS)


def test_a_view_that_was_not_predicted_is_named() -> None:
    with pytest.raises(FoldcraftError, match=r"plain.*rot90"):
        made(names(0, 3)).mean(["identity", "rot90"])


def test_the_mean_over_views_is_the_geometric_mean() -> None:
    some = made(names(0, 5), views=("identity", "hflip", "vflip"))
    probabilities = np.exp(some.predicted.astype(float))
    product = np.sqrt(probabilities[0] * probabilities[2])
    np.testing.assert_allclose(np.exp(some.mean(["vflip", "identity"])), product / product.sum(1, keepdims=True))
    np.testing.assert_allclose(some.mean(["hflip"]), some.predicted[1], atol=1e-6)


def test_folds_are_averaged_in_log_space() -> None:
    parts = [made(names(0, 4), replace(ORIGIN, fold=fold), seed=fold) for fold in range(3)]
    averaged = average_folds(parts, VIEWS)
    product = np.exp(np.sum([part.predicted for part in parts], axis=0) / 3)
    np.testing.assert_allclose(np.exp(averaged.predicted), product / product.sum(2, keepdims=True), rtol=1e-5)
    assert averaged.views == tuple(VIEWS)
    assert averaged.ids.tolist() == names(0, 4)
    assert averaged.origin == replace(ORIGIN, fold=-1)


@given(data=st.data())
def test_the_order_of_folds_and_rows_does_not_matter(data: st.DataObject) -> None:
    whole = made(names(0, 12))
    order = data.draw(st.permutations(range(12)))
    first, second = data.draw(st.integers(1, 10)), 11
    cuts = [order[:first], order[first:second], order[second:]]
    parts = [
        Predictions(whole.ids[rows], VIEWS, whole.predicted[:, rows], replace(ORIGIN, fold=fold))
        for fold, rows in enumerate(cuts)
    ]
    joined = join_folds(data.draw(st.permutations([part for part in parts if len(part.ids)])), VIEWS)
    np.testing.assert_array_equal(joined.of_rows(whole.ids), whole.of_views(VIEWS))


def test_probabilities_that_do_not_sum_to_one_are_seen() -> None:
    good = made(names(0, 3)).predicted[0]
    space = class_space(good.shape[1])
    assert space.is_valid(good)
    for bad in (np.nan, np.inf, good[1, 1] + 0.5):
        broken = good.copy()
        broken[1, 1] = bad
        assert not space.is_valid(broken)
