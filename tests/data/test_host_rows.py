"""Rows from tables of any kind and from files; joined, unfolded, pivoted, derived; and what is refused."""

import gzip
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from foldcraft.common.config import CompetitionConfig, Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import competition
from foldcraft.data.host_files import expression, host_rows, table_file
from foldcraft.data.host_files.host_rows import HostRows
from foldcraft.data.host_files.tables import Tables, read_tables
from foldcraft.data.images import image_paths

TRAIN = "id,sex,age,label\na1,female,20,x\na2,male,60,y\na10,female,,x\n"
SAMPLE = "id,label\nb1,x\nb2,x\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.csv").write_text(TRAIN)
    (tmp_path / "sample_submission.csv").write_text(SAMPLE)
    return tmp_path


def read(folder: Path, settings: str = "") -> HostRows:
    names = {"name": "x", "folder": folder, **(yaml.safe_load(settings) or {})}
    return host_rows.read(folder, CompetitionConfig.model_validate(names))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("encoding", "separator", "how"),
    [
        ("utf-8", ",", ""),
        ("utf-8-sig", ";", "separated by semicolon"),
        ("utf-16", "\t", "UTF-16, separated by tab"),
        ("cp949", ",", "CP949"),
    ],
)
def test_a_table_of_any_kind(tmp_path: Path, encoding: str, separator: str, how: str):
    rows = [
        ["아이디", "설명"],
        ["007", "고양이, 개" if separator != "," else "고양이"],
        ["1.0", "새;\t" if separator == "," else "새"],
    ]
    (tmp_path / "t.csv").write_bytes("\n".join(separator.join(row) for row in rows).encode(encoding))
    read = table_file.read(tmp_path / "t.csv", "id")
    assert [list(read.frame.columns), *read.frame.to_numpy().tolist()] == rows
    assert read.how == how


def test_latin_1_and_packed_tables(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes("id,name\na,é\nb,Ära\nc,naïve\n".encode("latin-1"))
    latin = table_file.read(tmp_path / "a.csv", "id")
    assert latin.how == "Latin-1"
    assert latin.frame["name"].tolist() == ["é", "Ära", "naïve"]
    with zipfile.ZipFile(tmp_path / "b.csv.zip", "w") as packed:
        packed.writestr("b.csv", TRAIN)
        packed.writestr("__MACOSX/._b.csv", "\0")
    (tmp_path / "c.tsv.gz").write_bytes(gzip.compress(TRAIN.replace(",", "\t").encode()))
    zipped, gzipped = (table_file.read(tmp_path / name, "id") for name in ("b.csv.zip", "c.tsv.gz"))
    assert zipped.frame.equals(gzipped.frame)
    assert (zipped.how, gzipped.how) == ("zipped", "gzipped, separated by tab")


def test_two_encodings_in_one_table_are_refused(tmp_path: Path):
    rows = [f"{k},".encode() + ("é".encode(("utf-8", "latin-1")[k % 2])) for k in range(12)]
    (tmp_path / "t.csv").write_bytes(b"\n".join([b"id,label", *rows]))
    with pytest.raises(FoldcraftError, match="some of it is UTF-8, line 3 is not"):
        table_file.read(tmp_path / "t.csv", "id")


def test_commas_at_the_end_of_lines_are_no_columns(tmp_path: Path):
    (tmp_path / "t.csv").write_text("id,grade,,, \na,1,,,\nb,2,,,\n")
    read = table_file.read(tmp_path / "t.csv", "id")
    assert list(read.frame.columns) == ["id", "grade"]
    assert read.how == "CSV without 3 columns that have no name and no cell"
    (tmp_path / "t.csv").write_text("id,grade,,\na,1,,\nb,2,,3\n")
    assert list(table_file.read(tmp_path / "t.csv", "id").frame.columns) == ["id", "grade", ""], "that holds something"
    (tmp_path / "t.csv").write_text("id,grade,,\na,1,2,3\n")
    with pytest.raises(FoldcraftError, match="2 columns have no name, and cells"):
        table_file.read(tmp_path / "t.csv", "id")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('[{"id": "a"}]', "JSON"),
        ('{"images": [\n1]}', "JSON"),
        ("<!DOCTYPE html>\n<html></html>", "HTML"),
        ("version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    ],
)
def test_what_is_no_table_is_told(tmp_path: Path, text: str, kind: str):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FoldcraftError, match=f"no table, but {kind}"):
        table_file.read(tmp_path / "t.csv", "id")


def test_parquet_is_text_as_well(tmp_path: Path):
    table = {"id": [7, 8], "w": [3.0, np.nan], "p": np.array([0.1, 2.5], "float32"), "s": ["07", None], "l": [[1], [2]]}
    pd.DataFrame(table).to_parquet(tmp_path / "t.parquet")
    read = table_file.read(tmp_path / "t.parquet", "id")
    assert read.frame.to_dict("list") == {"id": ["7", "8"], "w": ["3", ""], "p": ["0.1", "2.5"], "s": ["07", ""]}
    assert "without l" in read.how


def test_damaged_text_is_refused(tmp_path: Path):
    korean = "id,말\n" + "".join(f"{row},고양이\n" for row in range(9))
    damaged = bytearray(korean.encode())
    damaged[40] = 0xFF
    (tmp_path / "t.csv").write_bytes(damaged)
    with pytest.raises(FoldcraftError, match="damaged UTF-8 in line 4"):
        table_file.read(tmp_path / "t.csv", "id")


def test_rows_are_files_sorted_as_people_do(folder: Path):
    touch(folder, *(f"train/{label}/{n}.jpg" for label in "ab" for n in (10, 2)), "train/a/._2.jpg", "train/Thumbs.db")
    touch(folder, "train/b/3.png")
    rows = read(folder, "train: train/*/*.jpg")
    assert rows.train["file"].tolist() == ["train/a/2.jpg", "train/a/10.jpg", "train/b/2.jpg", "train/b/10.jpg"]
    assert rows.train[["stem", "folder", "row"]].iloc[1].tolist() == ["10", "a", "2"]
    assert (rows.names.image, rows.names.id.train) == ("{_file}", "_file")
    assert any("train/b/3.png" in note for note in rows.notes), "what lies beside is told"
    assert rows.test["id"].tolist() == ["b1", "b2"]


def test_what_lies_among_images_and_is_none_is_no_row(folder: Path):
    touch(folder, "train/a1.jpg", "train/a1.xml", "train/read me.TXT", "test/1.jpg", "test/list.csv", "test/raw")
    touch(folder, "p/a1/1.jpg", "p/a1/meta.json", "p/a2/meta.json", "p/a10/1.jpg")
    rows = read(folder, "train: train/*\ntest: test/*\nid: file\nsample: none")
    assert rows.train["file"].tolist() == ["train/a1.jpg"]
    assert rows.test["file"].tolist() == ["test/1.jpg", "test/raw"], "what has no extension may be an image"
    assert any("2 files left out, being no image: train/a1.xml, train/read me.TXT" in note for note in rows.notes)
    assert read(folder, "train: train/*.xml\nid: {train: file, test: id}").train["stem"].tolist() == ["a1"], "asked for"
    assert read(folder, "train: train/*\nid: file\nsample: none").test["file"].tolist() == ["test/1.jpg", "test/raw"]
    with pytest.raises(FoldcraftError, match=r"1 of 3 train rows have no file, first row 2 with 'p/a2/\*'"):
        read(folder, 'files: "p/{id}/*"\nid: {train: file, test: id}')
    with pytest.raises(FoldcraftError, match=r"'\*' fits no image, only sample_submission.csv, train.csv"):
        read(folder, 'train: "*"\nid: {train: file, test: id}')


def test_a_pattern_that_fits_nothing_says_what_is_there(folder: Path):
    touch(folder, "train/a/1.jpg")
    with pytest.raises(
        FoldcraftError, match=r"'train/\*/\*\.png' fits no file; train/ holds a/; a file is train/a/1\.jpg"
    ):
        read(folder, "train: train/*/*.png")
    with pytest.raises(FoldcraftError, match="leave the input folder"):
        read(folder, "train: ../*/*.png")


def test_a_missing_table_says_what_is_there(folder: Path):
    (folder / "train.csv").rename(folder / "labels.csv")
    with pytest.raises(FoldcraftError, match=r"train\.csv: no such file; tables there are: labels\.csv, sample_sub"):
        read(folder)


def test_a_row_unfolds_into_its_files(folder: Path):
    touch(folder, *(f"p/{row}/{n}.jpg" for row in ("a1", "a2", "a10") for n in (1, 2)))
    rows = read(folder, 'files: "p/{id}/*"\nderive: {name: {format: "{id}/{stem}"}}\nid: {train: name, test: id}')
    assert rows.train["name"].tolist() == ["a1/1", "a1/2", "a2/1", "a2/2", "a10/1", "a10/2"]
    with pytest.raises(FoldcraftError, match=r"3 of 3 train rows have no file, first row 1 with 'q/a1/\*'"):
        read(folder, 'files: "q/{id}/*"')
    with pytest.raises(FoldcraftError, match=r"p/a1/1\.jpg is a file of 3 train rows: 1, 2, 3"):
        read(folder, 'files: "p/*/*"')


def test_a_cell_is_no_pattern(folder: Path):
    (folder / "train.csv").write_text("id,label\n[ab],x\n*,y\n")
    touch(folder, "p/[ab]/1.jpg", "p/a/1.jpg")
    with pytest.raises(FoldcraftError, match=r"1 of 2 train rows have no file, first row 2"):
        read(folder, 'files: "p/{id}/*"')


def test_tables_are_joined_by_what_they_share(folder: Path):
    (folder / "more.csv").write_text("id,site\na10,p\na1,q\nzz,r\n")
    rows = read(folder, "join: more.csv")
    assert rows.train["site"].tolist() == ["q", "", "p"]
    assert any("1 of 3 train rows are not in more.csv ('a2', ...)" in note for note in rows.notes)
    (folder / "more.csv").write_text("id,site\na1,p\na1,q\n")
    with pytest.raises(FoldcraftError, match=r"more\.csv has id 'a1' in several rows, which would multiply ours"):
        read(folder, "join: more.csv")
    (folder / "more.csv").write_text("id,site\n1,p\n2,q\n")
    with pytest.raises(FoldcraftError, match=r"no training row is in more\.csv: by id the first is 'a1', its"):
        read(folder, "join: more.csv")


def test_a_long_table_becomes_wide(folder: Path):
    (folder / "train.csv").write_text("image,part,v,place\nm,u,1,p\nn,u,2,q\nm,w,3,p\n")
    rows = read(folder, "pivot: {rows: image, columns: part, values: v}\nid: {train: image, test: id}")
    assert rows.train[["image", "place", "u", "w", "row"]].to_numpy().tolist() == [
        ["m", "p", "1", "3", "1"],
        ["n", "q", "2", "", "2"],
    ]
    (folder / "train.csv").write_text("image,part,v\nm,u,1\nm,u,2\n")
    with pytest.raises(FoldcraftError, match="row 'm' has 'u' twice"):
        read(folder, "pivot: {rows: image, columns: part, values: v}")


def test_what_a_long_table_lacks_and_spaces_in_it_are_told(folder: Path):
    (folder / "train.csv").write_text("image,part,v\nm ,u,1\nn,u,2\nm,w ,3\n")
    rows = read(folder, "pivot: {rows: image, columns: part, values: v}\nid: {train: image, test: id}")
    assert rows.train[["image", "u", "w"]].to_numpy().tolist() == [["m", "1", "3"], ["n", "2", ""]]
    assert any("1 of 4 values have no row, and are not known" in note for note in rows.notes)
    assert any("spaces around 1 cell of 'part' are left out" in note for note in rows.notes)


def test_what_a_derivation_leaves_or_passes_over_is_told(folder: Path):
    (folder / "sample_submission.csv").write_text("id,band,label\nb1,q,x\n")
    (folder / "test.csv").write_text("id,band\nb1,q\n")
    rows = read(folder, "derive: {band: {from: id, map: {'a1*': 1, 'A*': 2, 'b*': 4, '*': 3}}}")
    assert rows.train["band"].tolist() == ["1", "3", "1"]
    assert any("derive.band: no train row comes to 'A*', 'b*'" in note for note in rows.notes)
    assert rows.test["band"].tolist() == ["q"]
    assert any("the test rows have such a column of their own, which is taken" in note for note in rows.notes)
    needed = "derive: {band: {from: stem}}\ntrain: p/*\ntest_image: 'p/{band}'\nid: {train: band, test: id}"
    touch(folder, "p/q", "p/r")
    assert read(folder, needed).test["band"].tolist() == ["q"], "what test rows have of their own needs no source"


@pytest.mark.parametrize(
    ("how", "cells"),
    [
        ("{from: id, map: {'a1*': 1, '*': 0}}", ["1", "0", "1"]),
        ("{from: id, regex: '([0-9]+)$'}", ["1", "2", "10"]),
        ("{from: age, bins: [20, 60], default: none}", ["1", "2", "none"]),
        ("{value: \"3*(sex == 'female') + row/2\"}", ["3.5", "1", "4.5"]),
        ("{value: \"not (age == '')\"}", ["1", "1", "0"]),
        ("{value: \"sex in ('male', 'female') and row < 3\"}", ["1", "1", "0"]),
        ("{format: '{sex}-{@id}'}", ["female-a1", "male-a2", "female-a10"]),
        ("{from: sex}", ["female", "male", "female"]),
    ],
)
def test_a_column_is_derived(folder: Path, how: str, cells: list[str]):
    assert read(folder, f"derive: {{new: {how}}}").train["new"].tolist() == cells


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("{from: sex, map: {'m*': 0}}", "2 of 3 train rows get no value: row 1, 3, with sex 'female'"),
        ("{from: age, bins: [30]}", "1 of 3 train rows get no value: row 3, with age ''"),
        ("{value: 'age < 30'}", "1 of 3 train rows get no value: row 3"),
        ("{from: id, regex: '^a'}", "has no group"),
        ("{from: id, regex: '(a'}", "is no pattern"),
        ("{value: \"sex == 'femal'\"}", "no row has 'femal' in column 'sex'; did you mean 'female'?"),
        ("{value: sex + 1}", "column 'sex' is no number in row 1: 'female'"),
        ("{value: sexx}", "no column 'sexx'; did you mean 'sex'?"),
        ("{value: row / 0}", "get no value"),
        ("{from: agee}", "no column 'agee'; did you mean 'age'?"),
        ("{from: age, value: age}", "value names its columns itself"),
        ("{map: {a: b}}", "map looks at one column"),
        ("{}", "says nothing"),
    ],
)
def test_a_column_that_cannot_be_derived_is_named(folder: Path, how: str, message: str):
    with pytest.raises(FoldcraftError) as error:
        read(folder, f"derive: {{new: {how}}}")
    assert message in str(error.value)
    assert len(str(error.value)) < 300


def test_what_arithmetic_does_not_define_is_no_value(folder: Path):
    half = "row > 9 or 1 / (row - 2) > 0.5"
    assert read(folder, f"derive: {{n: {{value: '{half}', default: gone}}}}").train["n"].tolist() == ["0", "gone", "1"]
    with pytest.raises(FoldcraftError, match="1 of 3 train rows get no value: row 2, with row '2'"):
        read(folder, f"derive: {{new: {{value: '{half}'}}}}")
    for guarded in ("row != 2 and 1 / (row - 2) > 0.5", "not (row == 2 or 1 / (row - 2) <= 0.5)"):
        assert read(folder, f"derive: {{n: {{value: {guarded}}}}}").train["n"].tolist() == ["0", "0", "1"], guarded
    guarded = "age == '' or age + 1 > 30"
    assert read(folder, f'derive: {{n: {{value: "{guarded}"}}}}').train["n"].tolist() == ["0", "1", "1"]


@pytest.mark.parametrize("name", ["나이", "cafe\u0301", "\ufb01eld", "Größe_m²", "x℃"])
def test_names_in_an_expression_are_taken_as_they_are_written(folder: Path, name: str):
    (folder / "train.csv").write_text(f"id,{name}\na,3\nb,4\n")
    for text in (f"{name} > 3", f"{{{name}}}>3", f"1*({name}>3)"):
        assert read(folder, f'derive: {{m: {{value: "{text}"}}}}').train["m"].tolist() == ["0", "1"], text


def test_numbers_that_arithmetic_would_round_are_refused(folder: Path):
    (folder / "train.csv").write_text("id,n\na,9007199254740993\nb,9007199254740992\n")
    assert read(folder, "derive: {m: {value: n}}").train["m"].tolist() == ["9007199254740993", "9007199254740992"]
    assert read(folder, "derive: {m: {value: \"n == '9007199254740993'\"}}").train["m"].tolist() == ["1", "0"]
    for text in ("n + 0", "n == 9007199254740993", "n in (1, 2)"):
        with pytest.raises(FoldcraftError, match=r"column 'n' holds 9007199254740993 in row 1, which .* rounds"):
            read(folder, f"derive: {{m: {{value: '{text}'}}}}")


@pytest.mark.parametrize(
    "text",
    [
        *("__import__('os')", "id.upper()", "row[0]", "lambda: 1", "[x for x in id]", "9**9**9", "row**row", "row**99"),
        *(
            "f'{id}'",
            "(row := 1)",
            "1 if row else 2",
            "-" * 1500 + "1",
            "(" * 500 + "1" + ")" * 500,
            "1e999",
            "9" * 5000,
        ),
        *("row @ row", "row << 99", "True", "", "row; row", "+".join(["1"] * 900), "row in id", "b'a'", "1j", "..."),
    ],
)
def test_an_expression_is_arithmetic_and_nothing_else(text: str):
    with pytest.raises(FoldcraftError, match=r"derive\.x: ") as error:
        expression.read(text, "derive.x")
    assert len(str(error.value)) < 300


def test_a_pattern_that_never_ends_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("foldcraft.data.host_files.regex_groups.LIMIT", 0.5)
    (folder / "train.csv").write_text(f"id,label\n{'a' * 40}!,x\nb,y\n")
    with pytest.raises(FoldcraftError, match="is not done with 2 cells after"):
        read(folder, "derive: {new: {from: id, regex: '(a+)+$'}}")


def test_what_the_sample_has_to_do_with_the_test_rows(folder: Path):
    settings = {"name": "x", "folder": folder, "test": "test.csv", "id": {"train": "id", "test": "row"}}
    (folder / "test.csv").write_text("pixel\n7\n8\n")

    def tables(sample: object) -> pd.DataFrame:
        values = {"experiment": "e", "competition": {**settings, "sample": sample}, "backbone": {"name": "test_resnet"}}
        return read_tables(Config.model_validate(values))

    by_order = tables({"file": "sample_submission.csv", "by": "order"})
    assert (by_order.sample_rows.column, by_order.sample_rows.ids.tolist()) == ("id", ["1", "2"])
    assert tables("none").sample.to_numpy().tolist() == [["1", "x"], ["2", "x"]]
    with pytest.raises(FoldcraftError, match="no column 'row', known: id, label"):
        tables("sample_submission.csv")


@pytest.mark.parametrize(("ids", "refused"), [(("b2", "b1"), True), (("b1", "b2"), False), (("zz", "b1"), True)])
def test_a_sample_by_order_has_no_ids_of_other_test_rows(folder: Path, ids: tuple[str, str], refused: bool):
    (folder / "test.csv").write_text("id\nb1\nb2\n")
    (folder / "sample_submission.csv").write_text("".join(f"{name}\n" for name in ("k,y", *(f"{i},x" for i in ids))))
    about = {"name": "x", "folder": folder, "sample": {"file": "sample_submission.csv", "by": "order"}}
    config = {"experiment": "e", "competition": about, "backbone": {"name": "test_resnet"}}
    if refused:
        with pytest.raises(FoldcraftError, match=r"row 2 has the id of another test row: 'b1'|row 1 has .*'b2'"):
            read_tables(Config.model_validate(config))
    else:
        assert read_tables(Config.model_validate(config)).sample_rows.ids.tolist() == ["b1", "b2"]


def test_a_column_may_be_derived_from_one_that_comes_after_it(folder: Path):
    settings = """
derive:
  both: {format: "{band}-{sex}"}
  band: {from: row, bins: [2]}
"""
    assert read(folder, settings).train["both"].tolist() == ["0-female", "1-male", "1-female"]
    with pytest.raises(FoldcraftError, match="no column 'b'"):
        read(folder, "derive: {a: {from: b}, b: {from: a}}")


def test_a_derived_path_does_not_leave_the_folder(folder: Path):
    settings = {"name": "x", "folder": folder, "derive": {"p": {"format": "../{id}"}}, "image": "{p}"}
    values = {"experiment": "e", "competition": settings, "backbone": {"name": "test_resnet"}}
    with pytest.raises(FoldcraftError, match="leave the input folder"):
        read_tables(Config.model_validate(values))


def test_groups_of_several_columns_are_rows_alike_in_all(folder: Path):
    settings = {"name": "x", "folder": folder, "group": ["sex", "label"]}
    values = {"experiment": "e", "competition": settings, "backbone": {"name": "test_resnet"}}
    assert read_tables(Config.model_validate(values)).groups.tolist() == ["female / x", "male / y", "female / x"]


def tables_of(folder: Path, **settings: object) -> Tables:
    about = {"name": "x", "folder": folder, **settings}
    return read_tables(
        Config.model_validate({"experiment": "e", "competition": about, "backbone": {"name": "test_resnet"}})
    )


def test_test_rows_whose_image_is_that_of_another_row_are_told(folder: Path):
    touch(folder, "train/a1", "train/a2", "train/a10")
    assert not any("image" in note for note in tables_of(folder).image_notes)
    notes = tables_of(folder, test_image="train/a2").image_notes
    assert "warning: 2 test rows have the image of a training row, first train/a2" in notes
    assert "competition.test_image: 1 image of several test rows each, first train/a2 of 2" in notes


def test_the_id_is_no_target_and_ids_may_be_numbered(folder: Path):
    with pytest.raises(FoldcraftError, match=r"competition\.target: 'id' is the id of the rows as well"):
        tables_of(folder, target="id")
    (folder / "train.csv").write_text(TRAIN.replace("a10", "a2"))
    with pytest.raises(FoldcraftError, match=r"ids occur more than once: a2; .*competition\.id={train: row"):
        tables_of(folder)
    assert tables_of(folder, id={"train": "row", "test": "id"}).train_ids.tolist() == ["1", "2", "3"]


def test_a_name_that_is_no_text_is_told(folder: Path):
    (folder / "train").mkdir()
    os.close(os.open(os.fsencode(folder / "train") + b"/\xff.png", os.O_CREAT))
    with pytest.raises(
        FoldcraftError, match=r"competition\.train: the name of 1 file is no UTF-8, as train/\\udcff\.png"
    ):
        read(folder, "train: train/*")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("train: " + "q" * 900 + ".csv", "no such file"),
        ("join: [" + "q" * 900 + ".csv]", "no such file"),
        ("id: " + "q" * 900, "no column"),
        ("image: '" + "long_folder/" * 4 + "{id}.png'", "3 images are missing"),
    ],
)
def test_long_names_make_no_long_messages(folder: Path, settings: str, words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    columns = ",".join(f"a very long column name that goes on and on {k}" for k in range(20))
    (folder / "train.csv").write_text(f"key,label,{columns}\n" + "a1,x\n")
    if "images" in words:
        (folder / "train.csv").write_text("id,label\n" + "".join(f"{'name' * 10}{k},x{k}\n" for k in range(3)))
        touch(folder, *(f"{'folder' * 9}{k}/1.png" for k in range(6)), "test/b1.png", "test/b2.png")
    about = {"name": "x", "folder": folder.name, **yaml.safe_load(settings)}
    config = Config.model_validate({"experiment": "e", "competition": about, "backbone": {"name": "test_resnet"}})
    with pytest.raises(FoldcraftError, match=words) as error:
        competition.read(config)
    assert len(str(error.value)) < 300, str(error.value)


def test_spaces_around_a_name_and_links_to_nowhere(folder: Path):
    (folder / "train.csv").write_text("id,label\na1.png ,x\na2.png,y\n")
    touch(folder, "train/a1.png", "test/b1", "test/b2")
    (folder / "train" / "a2.png").symlink_to("gone.png")
    found = tables_of(folder)
    assert found.train_paths[0] == folder / "train" / "a1.png"
    assert any("1 image found under another spelling" in note for note in found.image_notes)
    assert image_paths.Folder(folder).nearest("train/a2.png") == "train/a2.png is a link to nowhere"
