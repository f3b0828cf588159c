"""Tables whose rows are images of answers: what belongs together, what they are called, what the sample asks for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldcraft.common.config import Config, FoldsConfig
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import folds, splitting
from foldcraft.data.competition import Competition, read
from foldcraft.data.host_files import answers
from foldcraft.submission import build

BY = {"train": ["patient", "side"], "test": "prediction_id"}
TRAIN = "image,patient,side,label\n" + "".join(
    f"i{p}{side}{view},{p},{side},{'yes' if p % 2 and side == 'L' else 'no'}\n"
    for p in range(6)
    for side in "LR"
    for view in (1, 2)
)
TEST = "image,prediction_id\nt1,9_L\nt2,9_R\nt3,9_L\n"
SAMPLE = "prediction_id,label\n9_R,no\n9_L,no\n"
BY_FILE = {"image": "{file}", "test_image": "{file}"}
Opens = Callable[..., Competition]


@pytest.fixture
def opened(tmp_path: Path) -> Opens:
    """Opens the competition of some tables and settings; of the images only names count."""

    def open_it(
        train: str = TRAIN, test: str = TEST, sample: str = SAMPLE, wanted_sample: object = "auto", **more: object
    ) -> Competition:
        for name, text in (("train", train), ("test", test), ("sample_submission", sample)):
            (tmp_path / f"{name}.csv").write_text(text)
        wanted = {
            "id": "image",
            "image": "{image}",
            "test_image": "{image}",
            "answer": {"by": BY},
            "sample": wanted_sample,
            **more,
        }
        section = {"name": "little", "folder": tmp_path, **{key: value for key, value in wanted.items() if value}}
        return read(
            Config.model_validate({"experiment": "e", "competition": section, "backbone": {"name": "n"}}), images_of=()
        )

    return open_it


def test_rows_of_an_answer_and_the_samples_answers(opened: Opens) -> None:
    data = opened()
    assert len(data.train_ids) == 24
    assert data.counted() == "12 answers of 24 images"
    assert data.answers.train_ids.tolist()[:3] == ["0_L", "0_R", "1_L"]
    assert data.answers.classes.decode(data.answers.targets)[:3] == ["no", "no", "yes"]
    assert data.answers.test_ids.tolist() == ["9_L", "9_R"]
    said = np.log(np.array([[0.1, 0.9], [0.8, 0.2]]))
    made = build.make(data, data.answers.test_ids, said)
    assert made.to_csv(index=False) == "prediction_id,label\n9_R,no\n9_L,yes\n"
    build.check(made, data)


def test_the_sample_may_ask_by_columns_or_for_each_row(opened: Opens) -> None:
    test = "image,patient,side\nt1,9,L\nt2,9,R\nt3,9,L\n"
    both = {"test": test, "answer": {"by": ["patient", "side"]}}
    said = np.log(np.array([[0.1, 0.9], [0.8, 0.2]]))
    for sample, wanted in (
        ("patient,side,label\n9,R,no\n9,L,no\n", ["no", "yes"]),
        ("image,label\nt3,no\nt2,no\nt1,no\n", ["yes", "no", "yes"]),
        ("breast,label\n9_R,no\n9_L,no\n", ["no", "yes"]),
    ):
        data = opened(sample=sample, **both)
        made = build.make(data, data.answers.test_ids, said)
        assert made["label"].tolist() == wanted, sample
        assert made.iloc[:, 0].tolist() == data.sample.iloc[:, 0].tolist()
        build.check(made, data)


def test_the_sample_may_be_none_or_go_by_order(opened: Opens) -> None:
    data = opened(wanted_sample="none")
    assert data.sample.to_dict("list") == {"prediction_id": ["9_L", "9_R"], "label": ["no", "no"]}
    for rows, wanted in ((2, ["9_L", "9_R"]), (3, ["9_L", "9_R", "9_L"])):
        sample = "key,label\n" + "".join(f"k{row},no\n" for row in range(rows))
        data = opened(sample=sample, wanted_sample={"file": "sample_submission.csv", "by": "order"})
        assert data.submission.rows.ids.tolist() == wanted


def test_a_column_of_the_training_answers_need_not_be_in_the_test_table(opened: Opens) -> None:
    by = {"train": ["who", "side"], "test": "prediction_id"}
    data = opened(derive={"who": {"from": "patient", "regex": "(.)"}}, answer={"by": by})
    assert data.answers.train_ids.tolist()[:2] == ["0_L", "0_R"]


def test_a_test_answer_may_have_one_image(opened: Opens) -> None:
    data = opened(test="image,prediction_id\nt1,9_L\nt2,9_R\n")
    assert data.answers.test_ids.tolist() == ["9_L", "9_R"]


@pytest.mark.parametrize("scheme", ["auto", "stratified", "plain"])
@pytest.mark.parametrize("group", [None, "patient"])
def test_folds_keep_an_answer_whole_with_and_without_groups(opened: Opens, scheme: str, group: str | None) -> None:
    data = opened(group=group)
    made = splitting.make(data, FoldsConfig(count=3, scheme=scheme))
    assert data.answering.torn(made.fold) == []
    if group:
        assert pd.Series(made.fold).groupby(data.groups).nunique().max() == 1
    else:
        assert len(set(data.units.tolist())) == 12


def test_folds_that_tear_an_answer_are_refused(opened: Opens, tmp_path: Path) -> None:
    data = opened()
    fold = np.arange(24) // 2 % 2
    whole = folds.Folds(data.train_ids, fold, 2, "plain", 0, data.fingerprint)
    folds.write(whole, tmp_path / "f.csv")
    np.testing.assert_array_equal(folds.read(tmp_path / "f.csv", data).fold, fold)
    fold[[0, 2]] = 1, 0
    folds.write(folds.Folds(data.train_ids, fold, 2, "plain", 0, data.fingerprint), tmp_path / "torn.csv")
    with pytest.raises(FoldcraftError, match="2 answers with images in several folds: 0_L, 0_R"):
        folds.read(tmp_path / "torn.csv", data)


def test_groups_are_joined_and_the_answers_of_one_stay_one_unit(opened: Opens) -> None:
    """A cell without a group is in that of its answer."""
    rows = TRAIN.replace("label\n", "label,group\n", 1).splitlines()
    rows = [rows[0], *(f"{row},{'' if k % 4 == 1 else f'g{k // 8}'}" for k, row in enumerate(rows[1:]))]
    data = opened(train="\n".join(rows) + "\n", group="group")
    assert data.answers.groups.tolist() == [f"g{k // 4}" for k in range(12)]


MISTAKES = [
    (
        {"train": TRAIN.replace("i1L2,1,L,yes", "i1L2,1,L,no")},
        r"1 answer with images of unequal labels, first 1_L: no, yes",
    ),
    (
        {
            "group": "site",
            "train": TRAIN.replace("label\n", "label,site\n", 1)
            .replace("no\n", "no,a\n")
            .replace("yes\n", "yes,b\n")
            .replace("i0L2,0,L,no,a", "i0L2,0,L,no,b"),
        },
        "1 answer with images of several groups, first 0_L: a, b",
    ),
    ({"answer": {"by": ["patient", "sid"]}}, r"no column 'sid' for competition.answer.by; did you mean .side.\?"),
    ({"answer": {"by": {"train": ["patient", "side"], "test": "breast"}}}, "test.csv: no column 'breast'"),
    ({"train": TRAIN.replace("i0L2,0,L", "i0L2,0,")}, "column 'side' is empty in line 3"),
    (
        {"sample": "prediction_id,label\n9_R,no\n9_X,no\n"},
        "1 ids of test.csv are not in it .9_L. and 1 of its ids are not in test.csv .9_X.",
    ),
    (
        {"sample": "prediction_id,label\n9_R,no\n9_L,no\n9_R,no\n"},
        "sample_submission.csv: answers stand in it more than once: 9_R; mend",
    ),
    ({"train": TRAIN.replace("i0L2,", "i5R1,")}, "ids occur more than once, in different answers: i5R1"),
    (
        {"train": TRAIN.replace("i0L1,0,L", "i0L1,1_L,L").replace("i0L2,0,L", "i0L2,1,L_L")},
        "two answers would both be called 1_L_L",
    ),
]


@pytest.mark.parametrize(("tables", "words"), MISTAKES)
def test_mistakes_are_told_in_one_line(opened: Opens, tmp_path: Path, tables: dict[str, str], words: str) -> None:
    with pytest.raises(FoldcraftError, match=words) as error:
        opened(**tables)
    assert len(str(error.value).replace(str(tmp_path), "")) < 300


def test_twins_are_refused_but_within_an_answer(opened: Opens) -> None:
    train = "video,file,label\nv1,a,x\nv1,b,x\nv2,c,y\nv2,d,y\nv3,e,x\n"
    test = "video,file\nw1,a\nw1,b\n"
    asked = {"train": train, "test": test, "sample": "video,label\nw1,x\n", "id": "video", **BY_FILE}
    data = opened(**asked, answer={"by": "video"})
    assert data.train_ids.tolist() == ["v1", "v1#2", "v2", "v2#2", "v3"]
    assert data.test_ids.tolist() == ["w1", "w1#2"]
    assert data.answers.train_ids.tolist() == ["v1", "v2", "v3"]
    with pytest.raises(FoldcraftError, match="ids occur more than once: v1, v2"):
        opened(**asked, answer=None)


def test_a_table_without_ids_takes_the_answers_names(opened: Opens) -> None:
    train = "video,file,label\nv1,a,x\nv1,b,x\nv2,c,y\n"
    data = opened(train, "video,file\nw1,a\n", "video,label\nw1,x\n", id=None, answer={"by": "video"}, **BY_FILE)
    assert data.train_ids.tolist() == ["v1", "v1#2", "v2"]


@given(st.lists(st.sampled_from(["a", "b", "a#2", "a#2#2", ""]), max_size=9))
def test_distinct_ids_are_distinct_and_the_first_keeps_its_own(ids: list[str]) -> None:
    made = answers.distinct(ids).tolist()
    assert len(set(made)) == len(ids)
    assert all(own.startswith(name) for own, name in zip(made, ids, strict=True))
    assert [made[ids.index(name)] for name in dict.fromkeys(ids)] == list(dict.fromkeys(ids))


def test_an_answer_of_each_row_changes_no_fingerprint(opened: Opens) -> None:
    plain = {"test": "image\nt1\nt2\n", "sample": "image,label\nt1,no\nt2,no\n"}
    without, with_it = opened(**plain, answer=None), opened(**plain, answer={"by": "image"})
    assert with_it.fingerprint == without.fingerprint == with_it.answers.fingerprint
    assert with_it.test_fingerprint == without.test_fingerprint
