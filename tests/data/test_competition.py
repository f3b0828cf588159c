"""Competition folders: any column names, text that stays text, images found where the template says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from foldcraft.common.config import Config
from foldcraft.common.config_file import load
from foldcraft.common.errors import FoldcraftError
from foldcraft.common.fingerprint import of_rows
from foldcraft.data.competition import Competition, read
from foldcraft.data.images import image_kinds
from foldcraft.models import backbones

ROWS = [("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train.csv and test.csv of four rows each, with images a.png to d.png in train/ and test/."""
    write_tables(tmp_path, "id,label\na,x\nb,y\nc,x\nd,y\n", "id\na\nb\nc\nd\n")
    for part in ("train", "test"):
        draw(*(tmp_path / part / f"{name}.png" for name, _ in ROWS))
    return tmp_path


def write_tables(folder: Path, train: str, test: str) -> None:
    """The three CSVs; the sample is the test table with one more column."""
    header, *rows = test.splitlines()
    sample = [f"{header},answer", *(f"{row},x" for row in rows)]
    for name, text in (("train", train), ("test", test), ("sample_submission", "\n".join(sample) + "\n")):
        (folder / f"{name}.csv").write_bytes(text.encode())


def draw(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)


def config(folder: Path, **competition: object) -> Config:
    settings = {"name": "little", "folder": folder, **competition}
    return Config.model_validate({"experiment": "e", "competition": settings, "backbone": {"name": "test_resnet"}})


def open_it(folder: Path, **competition: object) -> Competition:
    return read(config(folder, **competition))


def labels_of(data: Competition) -> list[str]:
    return data.classes.decode(data.targets)


def test_rows_are_in_the_order_of_the_csv_and_classes_are_sorted(folder: Path):
    write_tables(folder, "id,label\nd,zebra\na,Ant\nc,ant\nb,10\n", "id\nc\na\n")
    data = open_it(folder)
    assert data.train_ids.tolist() == ["d", "a", "c", "b"]
    assert data.test_ids.tolist() == ["c", "a"]
    assert data.classes.names == ("10", "Ant", "ant", "zebra")
    assert data.targets.tolist() == [3, 1, 2, 0]
    assert [path.name for path in data.train_paths] == ["d.png", "a.png", "c.png", "b.png"]
    assert data.test_paths == (folder / "test" / "c.png", folder / "test" / "a.png")


def test_columns_may_have_any_name(folder: Path):
    """Blanks, dots, letters of other alphabets, in any order, beside columns that nobody asked for."""
    train = "Größe,Art des Tieres,photo.id,Bild Nr\n1,x,p,a\n2,y,p,b\n3,x,q,c\n4,y,q,d\n"
    write_tables(folder, train, "Bild Nr\nb\nd\n")
    data = open_it(
        folder,
        id="Bild Nr",
        target="Art des Tieres",
        group="photo.id",
        image="train/{Bild Nr}",
        test_image="test/{Bild Nr}",
    )
    assert data.train_ids.tolist() == ["a", "b", "c", "d"]
    assert labels_of(data) == ["x", "y", "x", "y"]
    assert data.groups is not None
    assert data.groups.tolist() == ["p", "p", "q", "q"]
    assert data.id_column == "Bild Nr"


def test_ids_labels_and_groups_stay_text(folder: Path):
    """No number loses its zeros, and no word is taken for a missing value or a truth value."""
    write_tables(
        folder,
        "id,label,group\n007,07,NA\n7,NA,1.0\n1e3,None,1\nnull,7,true\nTrue,nan,NULL\n",
        "id\n007\n7\n",
    )
    for name in ("007", "7", "1e3", "null", "True"):
        draw(folder / "train" / f"{name}.png", folder / "test" / f"{name}.png")
    data = open_it(folder, group="group")
    assert data.train_ids.tolist() == ["007", "7", "1e3", "null", "True"]
    assert labels_of(data) == ["07", "NA", "None", "7", "nan"]
    assert data.groups is not None
    assert data.groups.tolist() == ["no group: 007", "1.0", "1", "true", "no group: True"], "NA and NULL are no groups"
    assert data.test_ids.tolist() == ["007", "7"]
    assert data.sample["id"].tolist() == ["007", "7"]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_csvs_from_any_editor(folder: Path, bom: bytes, ending: bytes):
    expected = open_it(folder)
    for table in folder.glob("*.csv"):
        table.write_bytes(bom + table.read_bytes().replace(b"\n", ending))
    data = open_it(folder)
    assert labels_of(data) == labels_of(expected)
    assert data.fingerprint == expected.fingerprint
    assert data.test_fingerprint == expected.test_fingerprint
    assert list(data.sample.columns) == ["id", "answer"]


def read_with_image(folder: Path, row_id: str, file: str) -> Competition:
    """A competition whose first training row and only test row have that id, once each has found that file."""
    write_tables(folder, f"id,label\n{row_id},x\nb,y\n", f"id\n{row_id}\n")
    for part in ("train", "test"):
        path = folder / part / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    data = open_it(folder)
    assert data.train_paths == (folder / "train" / file, folder / "train" / "b.png")
    assert data.test_paths == (folder / "test" / file,)
    return data


@pytest.mark.parametrize(
    ("row_id", "file"),
    [
        ("one", "one.png"),
        ("one.png", "one.png"),
        ("one", "one.JPG"),
        ("one", "one.tiff"),
        ("one.v2", "one.v2.webp"),
        ("one.png", "one.png.jpg"),
        ("deep/er/one", "deep/er/one.png"),
        ("deep/one.png", "deep/one.png"),
        ("one", "one"),
    ],
)
def test_an_id_finds_its_image(folder: Path, row_id: str, file: str):
    """With or without extension, with or without a folder."""
    read_with_image(folder, row_id, file)


@pytest.mark.parametrize(
    ("row_id", "file"),
    [
        ("one.jpg", "one.JPG"),
        ("One", "one.png"),
        ("caf\u00e9", "cafe\u0301.png"),
        ("cafe\u0301.png", "caf\u00e9.png"),
        ("deep\\one.png", "deep/one.png"),
        ("deep\\One", "Deep/one.PNG"),
        ("one", "one.jp2"),
        ("one", "one.jfif"),
        ("one", "one.jpe"),
        ("one", "one.ppm"),
    ],
)
def test_another_spelling_finds_its_image_and_says_so(folder: Path, row_id: str, file: str):
    data = read_with_image(folder, row_id, file)
    assert "competition.image: 1 image found under another spelling" in data.image_notes[0]
    assert "test" in data.image_notes[1]


def test_another_spelling_is_not_guessed_where_it_could_be_two(folder: Path):
    """`A` and `a` have one file between them, `B` has two."""
    for name in ("a.png", "b.png"):
        (folder / "train" / name).unlink()
    draw(folder / "train" / "a.PNG", folder / "train" / "b.Png", folder / "train" / "b.pnG")
    write_tables(folder, "id,label\nA,x\na.png,y\nB.png,x\n", "id\na\n")
    with pytest.raises(FoldcraftError, match=r"3 images are missing: train/A, train/a\.png, train/B\.png"):
        open_it(folder)


def test_of_a_missing_image_the_nearest_is_named(folder: Path):
    (folder / "train").rename(folder / "moved")
    (folder / "train").mkdir()
    (folder / "moved").rename(folder / "train" / "train")
    with pytest.raises(FoldcraftError, match=r"4 images are missing: .*for train/a there is train/train/a\.png: mend"):
        open_it(folder)
    with pytest.raises(FoldcraftError, match=r"there is no folder images, only test, train"):
        open_it(folder, image="images/{id}x.png")
    (folder / "test" / "a.png").rename(folder / "test" / "imga.png")
    with pytest.raises(FoldcraftError, match=r"nearest to test/img_a is test/imga\.png"):
        open_it(folder, image="train/train/{id}", test_image="test/img_{id}")


def test_backslashes_do_not_lead_out_of_the_folder(folder: Path):
    write_tables(folder, "id,label\n..\\..\\a,x\nb,y\n", "id\na\n")
    with pytest.raises(FoldcraftError, match="leave the input folder"):
        open_it(folder)


def test_every_kind_that_is_read_has_its_extensions(folder: Path):
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in image_kinds.KINDS}
    assert known == {*image_kinds.IMAGE_SUFFIXES, *image_kinds.RARE_SUFFIXES}


def test_the_home_folder_may_be_written_short(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("FOLDCRAFT_WEIGHTS", "~/weights")
    assert config(Path("~/data")).folder == folder / "data"
    assert backbones.weights_folder() == folder / "weights"
    (folder / "base.yaml").write_text("{experiment: e, runs: ~/runs, competition: {name: x}, backbone: {name: y}}")
    (folder / "own.yaml").write_text("extends: ~/base.yaml")
    assert load(Path("~/own.yaml")).runs == folder / "runs"


def test_what_is_no_image_does_not_count(folder: Path):
    for name in ("a.txt", "a.json", "a.png.bak"):
        (folder / "train" / name).touch()
    assert open_it(folder).train_paths[0] == folder / "train" / "a.png"


def test_an_extension_that_could_be_two_is_refused_until_it_is_said(folder: Path):
    draw(folder / "train" / "b.jpg")
    with pytest.raises(FoldcraftError, match=r"could be any of b\.jpg, b\.png") as error:
        open_it(folder)
    assert str(folder / "train" / "b") in str(error.value)
    assert open_it(folder, image="train/{id}.png").train_paths[1] == folder / "train" / "b.png"


def test_the_template_may_use_any_column(folder: Path):
    write_tables(folder, "id,label,place,photo.file\n1,x,east,a\n2,y,west,a\n", "id,when\n3,2024\n")
    draw(folder / "pictures" / "east" / "x-a.bmp", folder / "pictures" / "west" / "y-a.png", folder / "2024" / "3.jpg")
    data = open_it(folder, image="pictures/{place}/{label}-{photo.file}", test_image="{when}/{id}.jpg")
    assert data.train_paths == (
        folder / "pictures" / "east" / "x-a.bmp",
        folder / "pictures" / "west" / "y-a.png",
    )
    assert data.test_paths == (folder / "2024" / "3.jpg",)


@pytest.mark.parametrize(
    "template", ["train/{idd}", "train/{}", "train/{id", "train/id}", "train/{id:d}", "train/{id.name}"]
)
def test_a_template_that_cannot_be_filled_in_names_its_key(folder: Path, template: str):
    with pytest.raises(FoldcraftError, match=r"competition\.image"):
        open_it(folder, image=template)


@pytest.mark.parametrize("template", ["train", "train/", "."])
def test_a_template_that_names_a_folder_finds_no_image(folder: Path, template: str):
    with pytest.raises(FoldcraftError, match="4 images are missing"):
        open_it(folder, image=template)


@pytest.mark.parametrize(
    ("row_id", "template"),
    [("a", "../{id}"), ("../a", "train/{id}"), ("x/../../../a", "train/{id}"), ("/etc/hostname", "{id}")],
)
def test_a_path_that_leaves_the_folder_is_refused(folder: Path, row_id: str, template: str):
    draw(folder.parent / "a.png")
    write_tables(folder, f"id,label\n{row_id},x\nb,y\n", "id\na\n")
    with pytest.raises(FoldcraftError, match="leave the input folder") as error:
        open_it(folder, image=template)
    assert template.format(id=row_id) in str(error.value)


def test_all_missing_images_are_named_at_once(folder: Path):
    for name in ("a", "c", "d"):
        (folder / "train" / f"{name}.png").unlink()
    with pytest.raises(FoldcraftError, match=r"3 images are missing: train/a, train/c, train/d"):
        open_it(folder)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("id,label\na,x\na,y\nb,x\n", "more than once: a"),
        ("id,label\na,x\n ,y\n", "'id' is empty in line 3"),
        ("id,label\na,x\nb,\nc, \n", "'label' is empty in line 3, 4"),
        ("id,label\na,x\nb,x\n", "only one class, 'x'"),
        ("id,label\n", "no rows"),
        ("", "is empty; download it again"),
        ("id,lable\na,x\n", "no column 'label', did you mean 'lable'"),
        ('id,label\na,"x\n', 'a quote in line 2 (a,"x) is never closed'),
        ("id,label,label\na,x,y\nb,y,x\n", "more than one column is called 'label'"),
        ("id,label\na,x,1\nb,y,1\n", "not a readable CSV"),
        ("id,note,label\na,1,x\nb,1\n", "'label' is empty in line 3"),
        ("id,label\na,x\0\nb,y\n", "NUL"),
    ],
)
def test_a_table_that_is_not_sound_is_named(folder: Path, train: str, message: str):
    (folder / "train.csv").write_text(train)
    with pytest.raises(FoldcraftError, match=r"train\.csv") as error:
        open_it(folder)
    assert message in str(error.value)


def noted(folder: Path, **lines: str) -> Path:
    """A table of 60 rows with a free-text column, some of whose lines (line4: of the file) are others."""
    rows = ["id,label,note", *(f"a{row:02d},{'xy'[row % 2]},plain" for row in range(60))]
    for name, text in lines.items():
        rows[int(name.removeprefix("line")) - 1] = text
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    draw(*(folder / "train" / f"a{row:02d}.png" for row in range(60)))
    return folder


@pytest.mark.parametrize(
    "lines",
    [
        {"line5": 'a03,y,"blurred', "line11": 'a09,y,tape 3"'},
        {"line5": 'a03,y,"blurred', "line6": 'a04,x,tape 3"'},
        {"line5": 'a03,y,"blurred, a bit', "line11": 'a09,y,tape 3"'},
        {"line5": 'a03,y,"blurred', "line11": 'a09,y,"taped"'},
        {"line5": 'a03,y,"blurred'},
        {"line5": '"a03,y,plain', "line11": 'a09,y,tape 3"'},
        {"line3": 'a01,y,"two\nhonest lines"', "line5": 'a03,y,"blurred', "line11": 'a09,y,tape 3"'},
    ],
    ids=["far", "near", "commas", "before a quoted cell", "never closed", "in the id", "after a line break"],
)
def test_a_quote_that_swallows_rows_is_refused(folder: Path, lines: dict[str, str]):
    line = 6 if "line3" in lines else 5
    with pytest.raises(FoldcraftError, match=rf"train\.csv: a quote in line {line} \(\"?a03") as error:
        open_it(noted(folder, **lines))
    assert len(str(error.value)) < 300 + len(str(folder))


@pytest.mark.parametrize(
    "note",
    ['tape 3"', 'blurred "much', '"two\nlines"', '"a, b\nc, d, e\n\nf"', '"said ""a\nb"" twice"', "'single", "“curly"],
)
def test_honest_quotes_lose_no_row(folder: Path, note: str):
    assert len(open_it(noted(folder, line5=f"a03,y,{note}")).train_ids) == 60


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"target": "pixl9"}, ["no column 'pixl9', did you mean 'pixel", "train.csv"]),
        ({"id": "ImageID"}, ["no column 'ImageID', known: age, ", "and 779 more", "train.csv"]),
        ({"image": "train/{file}"}, ["no column for {file}; known: label, pixel1, ", "and 779 more"]),
    ],
)
def test_a_mistake_about_columns_is_short_and_names_the_closest_first(folder: Path, settings: dict, told: list[str]):
    names = ["age", *(f"pixel{number}" for number in range(1, 785))]
    rows = "".join(f"{row},{label}{',0' * 785}\n" for row, label in ROWS)
    write_tables(folder, f"id,label,{','.join(names)}\n{rows}", "id\na\n")
    with pytest.raises(FoldcraftError) as error:
        open_it(folder, **settings)
    assert all(word in str(error.value) for word in told), str(error.value)
    assert len(str(error.value)) < 300 + len(str(folder))


def test_of_many_missing_images_a_few_are_named(folder: Path):
    write_tables(folder, "id,label\n" + "".join(f"{'n' * 90}{row},{row % 2}\n" for row in range(500)), "id\na\n")
    with pytest.raises(FoldcraftError, match=r"500 images are missing.*and 497 more.*audit\.py lists") as error:
        open_it(folder)
    assert len(str(error.value)) < 300 + len(str(folder))


def test_of_a_missing_test_image_what_is_near_is_told_in_a_line(folder: Path):
    write_tables(folder, "id,label\na,x\nb,y\n", "".join(["id\n", *(f"{'n' * 30}{row}.png\n" for row in range(4))]))
    for name in ("train/a", "train/b", *(f"test/{'n' * 30}{row}" for row in range(3))):
        Image.new("L", (4, 4)).save(folder / f"{name}.png")
    with pytest.raises(FoldcraftError, match=r"1 image is missing: test/n+….*nearest to .*images\.on_error") as error:
        open_it(folder)
    assert len(str(error.value)) < 300 + len(str(folder))


def test_a_table_in_another_encoding_is_read_and_named(folder: Path):
    (folder / "train.csv").write_bytes("id,label\na,é\nb,x\n".encode("latin-1"))
    data = open_it(folder)
    assert labels_of(data) == ["é", "x"]
    assert data.image_notes == ("competition.train: train.csv is read as Latin-1",)


def test_an_unknown_metric_is_named(folder: Path):
    with pytest.raises(FoldcraftError, match=r"competition\.metric.*did you mean 'macro_f1'"):
        open_it(folder, metric="macro_f2")


def test_a_metric_for_two_classes_refuses_three(folder: Path):
    assert open_it(folder, metric="f1").metric.name == "f1"
    write_tables(folder, "id,label\na,x\nb,y\nc,z\nd,y\n", "id\na\nb\nc\nd\n")
    with pytest.raises(FoldcraftError, match=r"competition\.metric: f1 is made for 2 classes, there are 3"):
        open_it(folder, metric="f1")


@pytest.mark.parametrize(
    ("labels", "order", "names"),
    [
        ("10 2 1 11", None, "1 2 10 11"),
        ("-1 1 0.5 1e1", None, "-1 0.5 1 1e1"),
        ("10 2 none 1", None, "1 10 2 none"),
        ("mild none severe fair", ["none", "mild", "fair", "severe"], "none mild fair severe"),
        ("2 10 1 3", [3, 10, 2, 1], "3 10 2 1"),
    ],
)
def test_classes_stand_in_the_order_of_their_values(folder: Path, labels: str, order: list | None, names: str):
    rows = zip("abcd", labels.split(), strict=True)
    write_tables(folder, "id,label\n" + "".join(f"{row},{label}\n" for row, label in rows), "id\na\n")
    assert open_it(folder, order=order).classes.names == tuple(names.split())


def test_qwk_counts_the_distance_between_grades(folder: Path):
    """To say 10 where it is 2 is one grade off; by alphabet it would be two."""
    write_tables(folder, "id,label\na,1\nb,2\nc,10\nd,11\n", "id\na\n")
    data = open_it(folder, metric="qwk")
    said = np.eye(4)[data.classes.encode(["1", "10", "10", "11"])]
    assert data.metric(data.targets, said) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (None, "competition.order: grades need an order, and the labels are no numbers: x, y; name all"),
        (["x"], "competition.order: lacks y; name each label of train.csv once"),
        (["x", "y", "z"], "competition.order: has z, which no row has"),
    ],
)
def test_grades_in_words_need_an_order(folder: Path, order: list | None, message: str):
    with pytest.raises(FoldcraftError) as error:
        open_it(folder, metric="qwk", order=order)
    assert str(error.value).startswith(message)
    assert open_it(folder, metric="qwk", order=["y", "x"]).classes.names == ("y", "x")


def test_the_fingerprint_knows_ids_labels_and_groups_but_not_their_order(folder: Path):
    table = pd.read_csv(folder / "train.csv", dtype=str).assign(group=["g", "g", "h", "h"])

    def fingerprint(frame: pd.DataFrame, group: str | None = "group") -> str:
        frame.to_csv(folder / "train.csv", index=False)
        return open_it(folder, group=group).fingerprint

    first = fingerprint(table)
    assert fingerprint(table[::-1]) == first
    assert fingerprint(table.assign(other=1)) == first
    assert fingerprint(table.assign(label=["x", "y", "x", "x"])) != first
    assert fingerprint(table.assign(group=["g", "g", "h", "i"])) != first
    assert fingerprint(table[:3]) != first
    assert fingerprint(table, group=None) != first


@pytest.mark.parametrize("nothing", ["nan", "", " ", "NaN", "n/a", "None", "<NA>"])
def test_a_row_whose_group_is_missing_stands_by_itself(folder: Path, nothing: str):
    write_tables(folder, f"id,label,group\na,x,{nothing}\nb,y,{nothing}\nc,x,p\nd,y,p\n", "id\na\n")
    data = open_it(folder, group="group")
    assert len(set(data.units.tolist())) == 3
    assert data.units[2] == data.units[3] == "p"
    as_before = [("a", "x", nothing), ("b", "y", nothing), ("c", "x", "p"), ("d", "y", "p")]
    assert data.fingerprint == of_rows(as_before), "folds and runs of these rows are still theirs"


def test_without_groups_every_row_stands_for_itself(folder: Path):
    data = open_it(folder)
    assert data.groups is None
    assert np.array_equal(data.units, data.train_ids)
