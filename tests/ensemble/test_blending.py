"""Experiments come together only where they belong together, row by row."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax
from tables import competition

from foldcraft.common.errors import FoldcraftError
from foldcraft.predictions.oof import OOF, common_rows
from foldcraft.predictions.store import Origin

ROWS = np.arange(30)


def predicted(name: str, rows: np.ndarray = ROWS) -> OOF:
    predicted = log_softmax(np.random.default_rng(0).normal(0, 1, (2, len(rows), 3)), axis=2).astype(np.float32)
    data = competition(["a", "b", "c"] * 10)
    origin = Origin(name, -1, ("a", "b", "c"), "data", "folds", name)
    return OOF(data, rows, rows % 3, ("identity", "hflip"), predicted, origin)


@pytest.mark.parametrize("what", ["data", "folds", "classes"])
def test_experiments_made_for_something_else_are_refused(what: str) -> None:
    one, other = predicted("one"), predicted("other")
    strange = replace(other, origin=replace(other.origin, **{what: ("c", "b", "a") if what == "classes" else "else"}))
    with pytest.raises(FoldcraftError, match="one and other were made for different"):
        common_rows([one, strange])


def test_only_rows_that_all_have_predicted_are_judged() -> None:
    part = predicted("part", ROWS[20:5:-1])
    assert common_rows([predicted("whole"), part]).tolist() == list(range(6, 21))
    some = part.at(ROWS[6:21])
    np.testing.assert_array_equal(some.predicted, part.predicted[:, ::-1])
    np.testing.assert_array_equal(some.folds, ROWS[6:21] % 3)
    np.testing.assert_array_equal(some.ids, part.competition.train_ids[6:21])
    with pytest.raises(FoldcraftError, match="no row is predicted by all of part, rest"):
        common_rows([part, predicted("rest", ROWS[21:])])


def test_blending_a_way_by_name(shapes, command) -> None:
    command("split", "--config", shapes)
    assert command("train", "--config", shapes, "--fold", "0,1", "train.epochs=1").code == 0
    longer = ["train.epochs=1", "experiment=twin"]
    twin = shapes.with_name("twin.yaml")
    twin.write_text(shapes.read_text() + "seed: 1\n")
    assert command("train", "--config", twin, "--fold", "0,1", *longer).code == 0
    wanted = command("infer", "--config", shapes, twin, "train.epochs=1", "--method", "stacking")
    assert wanted.code == 0
    assert "stacking" in wanted.out
    assert "greedy" not in wanted.out
    assert "class priors" not in wanted.out, "they are kept without a word"
    asked = command("infer", "--config", shapes, twin, "train.epochs=1", "competition.test_prior=auto")
    assert "class priors of the test set: not moved, p=" in asked.out, asked.err
    wrong = command("infer", "--config", shapes, "train.epochs=1", "--method", "greedyy")
    assert wrong.code == 2
    assert "did you mean 'greedy'" in wrong.err
