"""Leaks are found and named where they are, and nowhere else; hidden groups are proposed with their doubts."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from foldcraft.study.audit import hidden_groups, leaks

ROWS = 300
ORDER = np.random.default_rng(0).permutation(1797)[: 2 * ROWS]  # the set is sorted by writer, a shift of its own
PIXELS, CLASSES = load_digits().data[ORDER], load_digits().target[ORDER]


@pytest.fixture
def facts() -> pd.DataFrame:
    """Facts of sound files: digits in two halves, with their real brightness and sizes that say nothing."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "part": ["train"] * ROWS + ["test"] * ROWS,
            "id": [f"{number:04d}.png" for number in rng.permutation(2 * ROWS)],
            "bytes": rng.integers(180, 220, 2 * ROWS),
            "width": rng.choice([60, 64, 80], 2 * ROWS),
            "height": 64,
            "mode": "L",
            "format": rng.choice(["PNG", "BMP"], 2 * ROWS),
            "has_exif": False,
            "mean_r": rng.normal(80, 5, 2 * ROWS),
            "std": PIXELS.std(1) * 16,
        }
    )


LABELS = CLASSES[:ROWS] % 3


def found(table: pd.DataFrame, question: str) -> set[str]:
    return set(table[(table["question"] == question) & table["found"]]["by"])


@pytest.mark.slow
@pytest.mark.integration
def test_sound_files_leak_nothing_but_their_look(facts: pd.DataFrame):
    table = leaks.of_metadata(facts, LABELS)
    assert list(table.columns) == leaks.COLUMNS
    assert not found(table, "label") - {"std", leaks.EVERYTHING}  # how much ink a digit has is content
    assert not found(table, "train or test")
    assert not {"height", "mode", "has_exif"} & set(table["by"])  # the same everywhere
    assert (table["low"] <= table["auc"]).all()
    assert (table["auc"] <= table["high"]).all()


def leak_by_size(facts: pd.DataFrame) -> None:
    facts.loc[: ROWS - 1, "bytes"] += 30 * LABELS


def leak_by_order(facts: pd.DataFrame) -> None:
    facts.loc[np.argsort(LABELS, kind="stable"), "id"] = [f"img_{number}.png" for number in range(ROWS)]


def leak_by_format(facts: pd.DataFrame) -> None:
    facts.loc[: ROWS - 1, "format"] = np.where(LABELS == 1, "JPEG", "PNG")


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(
    ("plant", "field"), [(leak_by_size, "bytes"), (leak_by_order, "id number"), (leak_by_format, "format")]
)
def test_a_leak_of_the_label_is_named(facts: pd.DataFrame, plant, field: str):
    plant(facts)
    table = leaks.of_metadata(facts, LABELS)
    assert {field, leaks.FILES, leaks.EVERYTHING} <= found(table, "label")
    single = table[(table["question"] == "label") & table["kind"].isin(["order", "file"])]
    assert single.loc[single["auc"].idxmax(), "by"] == field


@pytest.mark.slow
@pytest.mark.integration
def test_a_field_that_tells_the_test_set_is_named(facts: pd.DataFrame):
    facts.loc[ROWS:, "has_exif"] = True
    table = leaks.of_metadata(facts, LABELS)
    assert "has_exif" in found(table, "train or test")
    assert "has_exif" not in found(table, "label")


@pytest.mark.slow
@pytest.mark.integration
def test_what_follows_from_the_group_is_no_leak(facts: pd.DataFrame):
    """Ten camera sizes, one for each of forty persons who have one label each: nothing that holds for a new person."""
    groups = np.arange(ROWS) // 10
    labels = np.random.default_rng(1).integers(2, size=ROWS // 10)[groups]
    facts.loc[: ROWS - 1, "width"] = 100 + np.random.default_rng(2).permutation(ROWS // 10)[groups]
    naive = leaks.of_metadata(facts, labels)
    aware = leaks.of_metadata(facts, labels, groups)
    assert "width" in found(naive, "label")
    assert not found(aware, "label")


def features(shift: float) -> tuple[np.ndarray, np.ndarray]:
    pixels = PIXELS.astype(np.float16)
    test = pixels[ROWS:].copy()
    test[:150] += np.float16(shift)  # half of the test set
    return pixels[:ROWS], test


def test_adversarial_validation_tells_a_shifted_test_set_from_a_sound_one():
    train_ids, test_ids = [f"a{row}" for row in range(ROWS)], [f"b{row}" for row in range(ROWS)]
    sound = leaks.of_features(*features(0), train_ids, test_ids).iloc[0]
    shifted = leaks.of_features(*features(6), train_ids, test_ids).iloc[0]
    assert not sound["found"]
    assert shifted["found"]
    assert shifted["auc"] > sound["auc"]
    assert set(shifted["ids"].split()) <= {f"b{row}" for row in range(150)}


def test_groups_that_were_set_apart_are_no_shift():
    """Persons look alike, and some went to the test set as a whole: told by chance, not by a shift."""
    rng = np.random.default_rng(0)
    person = np.arange(2 * ROWS) // 20
    values = (rng.normal(size=(person.max() + 1, 30))[person] + 0.3 * rng.normal(size=(2 * ROWS, 30))).astype(
        np.float16
    )
    ids = [str(row) for row in range(2 * ROWS)]
    row = leaks.of_features(values[:ROWS], values[ROWS:], ids[:ROWS], ids[ROWS:], person[:ROWS]).iloc[0]
    assert row["auc"] > 0.6
    assert not row["found"]


def test_ids_that_name_a_subject_are_proposed():
    ids = [f"p{person:02d}_{shot}.png" for person in range(30) for shot in range(3)]
    made = hidden_groups.propose(ids)
    assert made.table.groupby("group")["id"].size().tolist() == [3] * 30
    assert set(made.table["evidence"]) == {"ids"}
    assert "30 possible groups" in made.says
    known = [name[:3] for name in ids]
    assert hidden_groups.propose(ids, groups=known).table.empty


@pytest.mark.parametrize("ids", [[f"{row:05d}.jpg" for row in range(90)], [f"img_{row}.png" for row in range(90)]])
def test_ids_without_a_pattern_propose_nothing(ids: list[str]):
    assert hidden_groups.propose(ids).table.empty


def test_features_propose_what_is_nearest_both_ways():
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(60), 2)
    values = rng.normal(size=(60, 40))[person] + 0.2 * rng.normal(size=(120, 40))
    ids = np.array([f"{number:05d}" for number in rng.permutation(120)])
    made = hidden_groups.propose(ids, values)
    truth = dict(zip(ids.tolist(), person.tolist(), strict=True))
    proposed = made.table.assign(person=made.table["id"].map(truth)).groupby("group")["person"]
    assert len(proposed) > 50
    assert (proposed.nunique() == 1).mean() > 0.95
    assert "uncertain" in made.says


@pytest.mark.integration
def test_ids_may_end_in_more_digits_than_a_number_has() -> None:
    """They tell the label by their order, as small ones do."""
    labels = np.repeat(["a", "b"], 30)
    for ids in ([f"x{row:02d}" for row in range(60)], [f"x{'7' * 400}{row:02d}" for row in range(60)]):
        facts = pd.DataFrame({"part": "train", "id": ids, "bytes": np.arange(60) % 7})
        found = leaks.of_metadata(facts, labels).set_index("by")
        assert found.loc["id number", "auc"] > 0.95
