"""Folds: what a split promises for any data, and that frozen folds are read back as they were made or not at all."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tables import competition

from foldcraft.common.config import FoldsConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import folds, splitting
from foldcraft.data.competition import Competition
from foldcraft.data.groups import joined_groups, with_shared_files

QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = [f"{row:03d}" for row in range(12)]
TEXT = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" ,\"'#"), min_size=1, max_size=6)


def in_order(data: Competition, order: np.ndarray) -> Competition:
    """The same rows as another train.csv might list them."""
    groups = None if data.groups is None else data.groups[order]
    return replace(data, train_ids=data.train_ids[order], target=data.target.at(order), groups=groups)


@st.composite
def plain_data(draw: st.DrawFn) -> tuple[Competition, int]:
    """Classes of very different sizes, none smaller than the number of folds; that number."""
    count = draw(st.integers(2, 6))
    sizes = draw(st.lists(st.integers(count, 4 * count), min_size=2, max_size=5))
    labels = [f"{k}" for k, size in enumerate(sizes) for _ in range(size)]
    return competition(draw(st.permutations(labels))), count


@st.composite
def grouped_data(draw: st.DrawFn) -> tuple[Competition, int]:
    """Groups of one to many rows, at least as many as folds; the number of folds."""
    count = draw(st.integers(2, 5))
    groups = draw(st.lists(st.integers(0, 11), min_size=4 * count, max_size=40))
    groups += list(range(count)) * 2
    labels = [f"{k}" for k in draw(st.lists(st.integers(0, 2), min_size=len(groups), max_size=len(groups)))]
    labels = ["0"] * count + ["1"] * count + ["2"] * count + labels[3 * count :]
    return competition(labels, [f"g{group}" for group in groups]), count


def counts(made: folds.Folds, data: Competition) -> np.ndarray:
    """Rows of each class in each fold (count, K)."""
    size = len(data.classes)
    return np.stack([np.bincount(data.targets[made.valid_rows(k)], minlength=size) for k in range(made.count)])


def check_partition(made: folds.Folds, data: Competition) -> None:
    """Every row is judged in exactly one fold and learned from in all others; no fold is empty."""
    valid = np.concatenate([made.valid_rows(k) for k in range(made.count)])
    assert sorted(valid.tolist()) == list(range(len(data.targets)))
    for k in range(made.count):
        assert len(made.valid_rows(k)) > 0
        both = np.concatenate([made.valid_rows(k), made.train_rows(k)])
        assert sorted(both.tolist()) == list(range(len(data.targets)))


@QUICK
@given(plain_data(), st.integers(0, 2**31))
def test_stratified_folds_hold_each_class_in_equal_parts(drawn: tuple[Competition, int], seed: int):
    data, count = drawn
    made = splitting.make(data, FoldsConfig(count=count, seed=seed))
    check_partition(made, data)
    assert made.scheme == "stratified"
    assert np.ptp(counts(made, data), axis=0).max() <= 1


@QUICK
@given(grouped_data(), st.integers(0, 2**31))
def test_groups_never_cross_folds(drawn: tuple[Competition, int], seed: int):
    data, count = drawn
    made = splitting.make(data, FoldsConfig(count=count, seed=seed))
    check_partition(made, data)
    assert made.scheme == "stratified_group"
    assert data.groups is not None
    for group in np.unique(data.groups):
        assert len(set(made.fold[data.groups == group].tolist())) == 1


@QUICK
@given(plain_data(), st.integers(0, 2**31))
def test_plain_folds_hold_equal_numbers_of_rows(drawn: tuple[Competition, int], seed: int):
    data, count = drawn
    made = splitting.make(data, FoldsConfig(count=count, seed=seed, scheme="plain"))
    check_partition(made, data)
    assert np.ptp(counts(made, data).sum(1)) <= 1


@QUICK
@given(plain_data() | grouped_data(), st.integers(0, 2**31))
def test_the_seed_alone_decides(drawn: tuple[Competition, int], seed: int):
    data, count = drawn
    np.random.seed(seed % 1000)  # the global state must not matter
    made = splitting.make(data, FoldsConfig(count=count, seed=seed))
    np.random.seed(1)
    again = splitting.make(data, FoldsConfig(count=count, seed=seed))
    assert np.array_equal(made.fold, again.fold)
    assert made.fingerprint == again.fingerprint


def test_another_seed_gives_other_folds():
    data = competition(["x", "y"] * 20)
    made = [splitting.make(data, FoldsConfig(count=4, seed=seed)) for seed in range(5)]
    assert len({one.fingerprint for one in made}) == 5


@QUICK
@given(plain_data() | grouped_data(), st.data())
def test_written_folds_are_read_back_for_any_order_of_rows(
    tmp_path: Path, drawn: tuple[Competition, int], data: st.DataObject
):
    """Whatever the ids look like, a row keeps its fold."""
    rows, count = drawn
    size = len(rows.targets)
    ids = data.draw(st.lists(TEXT, min_size=size, max_size=size, unique=True), label="ids")
    rows = replace(rows, train_ids=np.array(ids))
    made = splitting.make(rows, FoldsConfig(count=count))
    folds.write(made, tmp_path / "folds.csv")
    order = np.array(data.draw(st.permutations(range(size)), label="order"))
    again = folds.read(tmp_path / "folds.csv", in_order(rows, order))
    assert again.ids.tolist() == rows.train_ids[order].tolist()
    assert np.array_equal(again.fold, made.fold[order])
    assert (again.count, again.scheme, again.seed) == (made.count, made.scheme, made.seed)
    assert again.fingerprint == made.fingerprint


@pytest.mark.parametrize("ids", [["NA", "null", "nan", "None"], ["007", "7", "7.0", "1e3"], ["id", "fold", "#", "{}"]])
def test_ids_that_look_like_something_else_survive(tmp_path: Path, ids: list[str]):
    data = competition(["x", "y", "x", "y"], ids=ids)
    made = splitting.make(data, FoldsConfig(count=2))
    folds.write(made, tmp_path / "folds.csv")
    again = folds.read(tmp_path / "folds.csv", data)
    assert again.ids.tolist() == ids
    assert np.array_equal(again.fold, made.fold)


@QUICK
@given(plain_data() | grouped_data())
def test_balance_adds_up(drawn: tuple[Competition, int]):
    data, count = drawn
    made = splitting.make(data, FoldsConfig(count=count))
    table = folds.balance(made, data)
    parts, whole = table.iloc[:, :count], table["all"]
    assert list(table.columns) == [*(f"fold {k}" for k in range(count)), "all"]
    grouped = ["groups"] if data.groups is not None else []
    assert list(table.index) == ["rows", *grouped, *data.classes.names]
    assert (parts.sum(axis=1) == whole).all()  # groups too, for none is in two folds
    assert (table.iloc[-len(data.classes) :].sum() == table.loc["rows"]).all()
    assert whole["rows"] == len(data.targets)
    assert not grouped or whole["groups"] == len(set(data.groups.tolist()))


@pytest.mark.parametrize(
    ("labels", "groups", "asked", "message"),
    [
        ("xy", None, {"count": 3, "scheme": "plain"}, "fewer rows than the 3 folds"),
        ("xyxyxy", "aabbbb", {"count": 3}, "fewer groups (2) than the 3 folds"),
        ("xyxyxy", None, {"count": 3, "scheme": "stratified_group"}, "competition.group"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(labels: str, groups: str | None, asked: dict, message: str):
    data = competition(list(labels), list(groups) if groups else None)
    with pytest.raises(FoldcraftError, match="folds") as error:
        splitting.make(data, FoldsConfig(**asked))
    assert message in str(error.value)


@pytest.mark.parametrize("scheme", ["auto", "stratified", "plain"])
@pytest.mark.parametrize("labels", ["xxxxxy", "aabbccddee"])
def test_rare_classes_are_no_obstacle(labels: str, scheme: str):
    data = competition(list(labels))
    check_partition(splitting.make(data, FoldsConfig(count=3, scheme=scheme)), data)


@pytest.mark.parametrize("scheme", ["auto", "stratified", "stratified_group", "plain"])
def test_every_scheme_keeps_groups_whole(scheme: str):
    """Twenty groups of three, and a class of two rows, which cannot be in each of five folds."""
    groups = [f"g{row // 3}" for row in range(60)]
    data = competition(["rare" if row in (4, 40) else "xy"[row % 2] for row in range(60)], groups)
    made = splitting.make(data, FoldsConfig(count=5, scheme=scheme))
    check_partition(made, data)
    assert folds.torn_groups(made, data) == 0


@QUICK
@given(st.integers(2, 8), st.integers(0, 3), st.data())
def test_no_fold_is_empty_where_there_are_as_many_groups_as_folds(count: int, more: int, drawn: st.DataObject):
    sizes = drawn.draw(st.lists(st.integers(1, 30), min_size=count + more, max_size=count + more))
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    labels = drawn.draw(st.lists(st.sampled_from("xxxxy"), min_size=len(groups), max_size=len(groups)))
    data = competition([*labels[:-1], "z"], groups)
    made = splitting.make(data, FoldsConfig(count=count, seed=drawn.draw(st.integers(0, 9))))
    check_partition(made, data)
    assert folds.torn_groups(made, data) == 0


def test_five_groups_fill_five_folds():
    sizes = [50, 1, 1, 1, 50]
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    data = competition(["xy"[row % 2] for row in range(len(groups))], groups)
    for seed in range(10):
        assert sorted(np.bincount(splitting.make(data, FoldsConfig(count=5, seed=seed)).fold)) == sorted(sizes)


def test_rows_of_one_file_are_a_group(shapes: Path, command):
    """Twenty photos with three labels each, as hosts of several questions a photo write them."""
    table = pd.read_csv("input/shapes/train.csv", dtype=str)
    table["photo"] = [f"{row % 16:03d}.png" for row in range(48)]
    table["id"] = [f"{name}-{row // 16}" for row, name in enumerate(table["photo"])]
    table.to_csv("input/shapes/train.csv", index=False)
    words = ["--config", shapes, "competition.image=train/{photo}", "competition.test_image=test/{id}"]
    done = command("split", *words)
    assert done.code == 0, done.err
    assert "16 image files have several rows each; the rows of a file stay together" in done.out
    made = pd.read_csv("folds/shapes.csv", skiprows=1, dtype={"id": str})
    assert made["fold"].groupby(made["id"].str[:3]).nunique().eq(1).all()
    again = table.sample(frac=1, random_state=0)
    again.to_csv("input/shapes/train.csv", index=False)
    assert "is there and fits" in command("split", *words).out, "the order of rows does not matter"


@pytest.mark.parametrize("seed", range(20))
def test_joined_groups_are_what_hangs_together(seed: int):
    rng = np.random.default_rng(seed)
    names = np.array([f"g{name:02d}" for name in rng.integers(0, 20, 50)])
    keys = [int(key) if key < 6 else None for key in rng.integers(0, 12, 50)]
    wanted = names.copy()
    for _ in names:  # each round passes the smallest name one link on
        for same in ([names == name for name in set(names)], [np.array(keys) == key for key in set(keys) - {None}]):
            for linked in same:
                wanted[linked] = min(wanted[linked])
    assert joined_groups(names, keys).tolist() == wanted.tolist()


def test_rows_of_one_file_join_their_groups():
    groups, ids = np.array(["c", "b", "b", "a", "d"]), np.array(list("12345"))
    paths = [Path(name) for name in ("p", "q", "p", "r", "r")]
    assert with_shared_files(groups, ids, paths).tolist() == ["b", "b", "b", "a", "a"]
    assert with_shared_files(None, ids, paths).tolist() == ["1", "2", "1", "4", "4"]
    assert with_shared_files(groups, ids, [Path(name) for name in "pqrst"]) is groups


@pytest.fixture
def frozen(tmp_path: Path) -> tuple[Path, Competition]:
    """Three frozen folds of twelve rows."""
    data = competition(["x", "y"] * 6)
    folds.write(splitting.make(data, FoldsConfig(count=3)), tmp_path / "folds.csv")
    return tmp_path / "folds.csv", data


def _header(**changes: object) -> Callable[[str], str]:
    def edit(text: str) -> str:
        first, rest = text.split("\n", 1)
        return f"# {json.dumps(json.loads(first[1:]) | changes)}\n{rest}"

    return edit


def _move_a_row(text: str) -> str:
    *rows, last = text.strip().split("\n")
    row_id, fold = last.split(",")
    return "\n".join([*rows, f"{row_id},{(int(fold) + 1) % 3}"]) + "\n"


EDITS = {
    "row moved": _move_a_row,
    "row dropped": lambda text: text.rsplit("\n", 2)[0] + "\n",
    "row added": lambda text: text + "zzz,0\n",
    "no number": lambda text: text + "zzz,first\n",
    "column renamed": lambda text: text.replace("fold\n", "part\n"),
    "other header": lambda text: "# []\n" + text.split("\n", 1)[1],
    "empty": lambda text: "",
    "fewer folds": _header(count=2),
    "more folds": _header(count=4),
    "folds in words": _header(count="three"),
    "other data": _header(data="0123456789abcdef"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_file_is_refused(frozen: tuple[Path, Competition], edit: Callable[[str], str]):
    path, data = frozen
    assert edit(path.read_text()) != path.read_text()
    path.write_text(edit(path.read_text()))
    with pytest.raises(FoldcraftError, match=r"folds\.csv.*git"):
        folds.read(path, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: replace(data, target=data.target.with_truth(1 - data.targets)), "other labels or groups"),
        (lambda data: replace(data, groups=np.array(["g", "h"] * 6)), "other labels or groups"),
        (lambda data: in_order(data, np.arange(11)), "0 ids are new, 1 are gone"),
        (lambda data: competition(["x", "y"] * 7), "2 ids are new, 0 are gone"),
    ],
    ids=["labels", "groups", "gone", "new"],
)
def test_folds_of_other_data_are_refused(
    frozen: tuple[Path, Competition], change: Callable[[Competition], Competition], message: str
):
    path, data = frozen
    with pytest.raises(FoldcraftError, match="was made for other") as error:
        folds.read(path, change(data))
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_folds_that_are_written_by_hand_are_taken_and_told(frozen: tuple[Path, Competition], caplog):
    path, data = frozen
    made = folds.read(path, data)
    path.write_text(path.read_text().split("\n", 1)[1])
    assert folds.read(path, data).fingerprint == made.fingerprint
    assert "taken as 3 folds written by hand" in caplog.text
    assert folds.read(path, data).scheme == "by_hand", "it has a header now, and is held to it"
    path.write_text(_move_a_row(path.read_text()))
    with pytest.raises(FoldcraftError, match="has been edited"):
        folds.read(path, data)


def test_spaces_in_a_header_by_hand_do_no_harm(frozen: tuple[Path, Competition]):
    path, data = frozen
    path.write_text("id, fold\n" + "".join(f"{name}, {row % 2}\n" for row, name in enumerate(NAMES)))
    assert folds.read(path, data).fold.tolist() == [row % 2 for row in range(len(NAMES))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,fold\n" + "".join(f"r{row:03d},{row % 2}\n" for row in range(11)), "lacks"),
        ("id,fold\nzzz,0\n", "has 1 others"),
        ("id,fold\n" + "".join(f"{name},{k % 2}\n" for k, name in enumerate([*NAMES, NAMES[0]])), r"1 twice \(000\)"),
        (
            "image,fold\n000,0\n",
            "it has no header of ours, and the columns image, fold; one written by hand has id,fold",
        ),
        ("id,fold\n", "it has no rows"),
        (
            "id,fold\n" + "".join(f"{name},{k % 2}{'.0' * (k > 5)}\n" for k, name in enumerate(NAMES)),
            "'0' and '0.0' are",
        ),
    ],
)
def test_folds_by_hand_must_be_of_these_rows(frozen: tuple[Path, Competition], text: str, message: str):
    path, data = frozen
    path.write_text(text)
    with pytest.raises(FoldcraftError, match=message):
        folds.read(path, data)


def test_the_host_s_folds_are_taken_as_they_are():
    data = replace(competition(["x", "y"] * 3), host_folds=np.array(["10", "2", "2", "10", "3", "3"]))
    made = splitting.make(data, FoldsConfig(column="fold"))
    assert made.fold.tolist() == [2, 0, 0, 2, 1, 1]
    assert (made.count, made.scheme) == (3, "column")
    torn = replace(data, groups=np.array(["g", "g", "h", "i", "j", "k"]))
    with pytest.raises(FoldcraftError, match=r"folds\.column: 1 groups lie in several folds, 'g'"):
        splitting.make(torn, FoldsConfig(column="fold"))
