"""Columns beside the image: read, checked, and encoded by the rows of a fold alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldcraft.common.config import MetadataConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import metadata
from foldcraft.data.metadata import Encoder, Metadata

WANTED = MetadataConfig(numeric=["age", "size"], category=["site"])


def table(**columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns)


def read(age: list[str], site: list[str]) -> Metadata:
    return metadata.read(WANTED, table(age=age, size=["1"] * len(age), site=site), Path("train.csv"))


def test_numbers_are_numbers_and_gaps_are_gaps() -> None:
    found = read(["1", " 2.5 ", "", "NA", "1e3"], ["a", "", "nan", "a ", "07"])
    np.testing.assert_array_equal(found.numbers[:, 0], [1, 2.5, np.nan, np.nan, 1000])
    assert found.words[:, 0].tolist() == ["a", "", "", "a", "07"]
    assert found.describe() == "3 columns of metadata beside the image: age (2 missing), size, site (2 missing)"
    assert found.at(np.array([4, 0])).words[:, 0].tolist() == ["07", "a"]
    assert found.only(found.words[:, 0] == "").numbers[0, 0] == 2.5


@pytest.mark.parametrize(
    ("age", "says"),
    [
        (["1", "old"], "column 'age' is no number in 1 line, first 3: 'old'"),
        (["inf", "1"], "column 'age' is no number in 1 line, first 2: 'inf'"),
        (["1", "-1e300"], "column 'age' is beyond 1e+15 in 1 line, first 3: '-1e300'"),
    ],
)
def test_a_cell_that_is_no_number_is_told(age: list[str], says: str) -> None:
    with pytest.raises(FoldcraftError) as error:
        read(age, ["a", "a"])
    assert says in str(error.value)
    assert len(str(error.value)) < 300


def test_a_column_that_the_test_table_lacks_is_told() -> None:
    with pytest.raises(FoldcraftError, match=r"test\.csv: no column 'site' of metadata"):
        metadata.both(
            WANTED,
            (table(age=["1"], size=["1"], site=["a"]), table(age=["1"], size=["1"])),
            (Path("train.csv"), Path("test.csv")),
        )


def test_a_code_may_be_a_number_and_a_category() -> None:
    both = MetadataConfig(numeric=["zip"], category=["zip"])
    found = metadata.read(both, table(zip=["07", "10"]), Path("train.csv"))
    assert found.describe() == "1 column of metadata beside the image: zip"
    assert found.words[:, 0].tolist() == ["07", "10"]


@pytest.mark.parametrize("wrong", [{}, {"numeric": ["a", "a"]}])
def test_no_column_or_one_twice_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"names no column|more than once"):
        MetadataConfig(**wrong)


def test_the_encoder_knows_what_it_was_fitted_on_by_value() -> None:
    ages = ["10", "20", "30", "", "40", "100"]
    learned = read(ages + ["25"] * 6, ["a"] * 5 + ["b"] * 5 + ["c", ""])
    encoder = Encoder.fit(learned)
    known = np.array([10, 20, 30, 40, 100, *[25] * 6], float)
    assert encoder.names == ["age", "size", "age is missing", "site = a", "site = b", "site is rare"]
    assert encoder.mean == (pytest.approx(known.mean()), 1.0)

    asked = read(["40", "", "1e6"], ["b", "c", "never"])
    z = (40 - known.mean()) / known.std()
    expected = [[z, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1]]
    np.testing.assert_allclose(encoder(asked)[:2], expected, atol=1e-6)
    assert encoder(asked)[2, 3:].tolist() == [0, 0, 1], "what was never met is as what is rare"
    assert encoder(asked).dtype == np.float32
    assert Encoder.from_plain(json.loads(json.dumps(encoder.to_plain()))) == encoder


def test_no_flag_where_nothing_is_missing_and_nothing_rare() -> None:
    encoder = Encoder.fit(read(["1", "2"] * 3, ["a"] * 6))
    assert encoder.names == ["age", "size", "site = a"]
    np.testing.assert_array_equal(encoder(read([""], ["z"])), [[0, 0, 0]])


def test_what_is_strange_to_the_training_rows_is_told() -> None:
    learned = read(["10", "20", ""], ["a", "b", ""])
    assert read(["10", "", "15"], ["a", "b", ""]).strange(learned) == []
    assert read(["9", "21", "15"], ["a", "c", ""]).strange(learned) == [
        "age lies outside of 10 to 20, as training rows have it, in 2 test rows",
        "site is something that no training row has: c",
    ]


def test_codes_are_of_the_rows_learned_from() -> None:
    learned = read(["1"] * 12, ["b"] * 6 + ["a"] * 5 + ["c"])
    asked = read(["", "3", "4"], ["a", "b", "c"])
    np.testing.assert_array_equal(metadata.codes(asked, learned), [[np.nan, 1, 1], [3, 1, 0], [4, 1, np.nan]])


def test_cells_are_part_of_what_trained_folds_depend_on() -> None:
    found = read(["1", "2"], ["a", "b"])
    others = [read(["1", "3"], ["a", "b"]), read(["1", ""], ["a", "b"]), read(["1", "2"], ["a", "c"])]
    assert len({str(one.identity) for one in [found, *others, replace(found, drop=0.5)]}) == 5
