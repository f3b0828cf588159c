"""A first config from a host's folder: tables, ids, target, images, groups, form; what cannot be told is said."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import ROOT, Outcome

from foldcraft.common.config import CompetitionConfig
from foldcraft.data.host_files import host_rows
from foldcraft.study.start import run
from foldcraft.study.start.draft import Draft

COLUMNS = {"ranzcr": 11, "csiro": 5, "bengali": 3, "hms": 6, "pp2020": 4}  # of the target

# What each miniature's config has to say: id, target, image and the answers' form. None: nothing is said.
HOSTS: dict[str, dict[str, Any]] = {
    "boostcamp": {"id": {"train": "file", "test": "ImageID"}, "test_image": "eval/images/{ImageID}", "group": "path"},
    "dogs": {"target": "label", "test_image": "test/{id}.jpg", "submission": {"positive": "dog"}},
    "seedlings": {"target": "folder", "train": "train/*/*", "test_image": "test/{file}", "submission": None},
    "aptos": {"id": "id_code", "target": "diagnosis", "image": "train_images/{id_code}.png"},
    "cassava": {"id": "image_id", "target": "label", "image": "train_images/{image_id}", "test": "auto"},
    "pp2020": {"id": "image_id", "image": "images/{image_id}.jpg", "kind": "multilabel"},
    "pp2021": {"target": {"column": "labels", "kind": "multilabel", "separator": " "}, "image": "train_images/{image}"},
    "ranzcr": {"kind": "multilabel", "group": "PatientID", "image": "train/{StudyInstanceUID}.jpg"},
    "isic2020": {"target": "target", "group": "patient_id", "image": "jpeg/train/{image_name}.jpg"},
    "paw": {"target": {"column": "Pawpularity", "kind": "regression"}, "image": "train/{Id}.jpg", "metric": "rmse"},
    "csiro": {"kind": "regression", "id": "image_id", "submission": {"row": "{@id}__{@target}"}},
    "hms": {"kind": "soft", "group": "patient_id", "image": "train_spectrograms_png/{label_id}.png"},
    "bengali": {"kind": "multioutput", "id": "image_id", "submission": {"row": "{@id}_{@target}"}},
    "frames": {"target": "label", "answer": {"by": "filename", "combine": "mean"}, "submission": {"positive": "FAKE"}},
    "rsna_bc": {
        "target": "cancer",
        "answer": {"by": {"train": ["patient_id", "laterality"], "test": "prediction_id"}, "combine": "mean"},
        "image": "train_images/{patient_id}/{image_id}.png",
    },
    "foldcol": {"target": "label", "weight": "weight", "image": "train/{id}"},
    "digitrec": {"id": "row", "target": "label", "image": {"pixels": "pixel*", "shape": [28, 28]}},
    "hpa": {"target": {"column": "Target", "kind": "multilabel", "separator": " "}, "id": "Id"},
    "happywhale": {"target": "individual_id", "submission": {"form": "top_k", "k": 5}, "image": "train_images/{image}"},
    "dacon_birds": {"id": {"train": "img_path", "test": "id"}, "target": "label", "image": "{img_path}"},
}


def said(made: Draft) -> dict[str, Any]:
    about = {key: value for key, value, _ in made.lines}
    kind = about["target"].get("kind") if isinstance(about.get("target"), dict) else "single"
    return {**about, "kind": kind}


@pytest.mark.parametrize("name", HOSTS)
def test_a_hosts_folder_is_understood(hosts: Path, name: str) -> None:
    made = run.draft(hosts / name, name)
    found = said(made)
    assert {key: found.get(key) for key in HOSTS[name]} == HOSTS[name]
    if name in COLUMNS:
        assert len(found["target"]["columns"]) == COLUMNS[name]
    if name == "foldcol":
        assert made.settings()["folds"] == {"column": "fold"}
    if name == "boostcamp":
        assert any("incorrect_mask, mask1" in text for text in made.open)
        assert any("'ans'" in text for text in made.open)
    if name == "paw":
        assert any("metadata: {numeric: [Subject Focus, Eyes," in text for text in made.open)
    if name == "hpa":
        assert sorted(Path(path).stem for path in found["image"]["channels"]) == [
            f"{{Id}}_{colour}" for colour in ("blue", "green", "red", "yellow")
        ]


Rows = dict[str, list[object]]


def lay_out(folder: Path, tables: dict[str, Rows], images: list[str]) -> Path:
    """A host's folder; of its images only the names are looked at."""
    for path in images:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    for path, rows in tables.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(folder / path, index=False)
    return folder


def test_images_in_folders_of_their_class_and_a_table_of_drivers(tmp_path: Path) -> None:
    names, classes = [f"img_{k * 7}.jpg" for k in range(30)], [f"c{k % 3}" for k in range(30)]
    rows = {"subject": [f"p{k // 3}" for k in range(30)], "classname": classes, "img": names}
    sample = {"img": ["img_1.jpg", "img_3.jpg"], "c0": [0.3, 0.3], "c1": [0.3, 0.3], "c2": [0.4, 0.4]}
    images = [f"imgs/train/{label}/{name}" for label, name in zip(classes, names, strict=True)]
    images += [f"imgs/test/{name}" for name in sample["img"]]
    found = said(run.draft(lay_out(tmp_path, {"drivers.csv": rows, "sample_submission.csv": sample}, images), "x"))
    assert found["image"] == "imgs/train/{classname}/{img}"
    assert (found["target"], found["group"], found["id"]) == ("classname", "subject", "img")
    assert found["metric"] == "log_loss"


def test_labels_and_metadata_in_two_tables_and_no_sample(tmp_path: Path) -> None:
    ids = [f"ISIC_{k:04d}" for k in range(24)]
    truth: Rows = {"image": ids, **{name: [float(k % 3 == j) for k in range(24)] for j, name in enumerate("ABC")}}
    about: Rows = {"image": ids, "age": [50] * 24, "lesion_id": [f"L{k // 2}" for k in range(24)]}
    tables = {"Training_GroundTruth.csv": truth, "Training_Metadata.csv": about}
    tests: Rows = {"image": ["ISIC_0100", "ISIC_0101"], "age": [50, 60]}
    images = [f"Training_Input/{name}.jpg" for name in ids] + [f"Test_Input/{name}.jpg" for name in tests["image"]]
    found = said(run.draft(lay_out(tmp_path, {**tables, "Test_Metadata.csv": tests}, images), "x"))
    assert (found["train"], found["join"]) == ("Training_GroundTruth.csv", ["Training_Metadata.csv"])
    assert found["target"] == {"columns": ["A", "B", "C"], "kind": "soft"}
    assert (found["group"], found["sample"]) == ("lesion_id", "none")


def test_several_images_whose_names_begin_with_the_row(tmp_path: Path) -> None:
    pets, tests = [f"{k * 7919:09x}" for k in range(20)], ["aa1", "bb2"]
    rows: Rows = {"PetID": pets, "Age": [k % 7 for k in range(20)], "Speed": [k % 5 for k in range(20)]}
    images = [f"train_images/{pet}-{n}.jpg" for k, pet in enumerate(pets) for n in range(1, 2 + k % 3)]
    images += [f"test_images/{pet}-1.jpg" for pet in tests]
    tables = {"train.csv": rows, "test.csv": {"PetID": tests, "Age": [1, 2]}}
    folder = lay_out(tmp_path, {**tables, "sample_submission.csv": {"PetID": tests, "Speed": [0, 0]}}, images)
    found = said(run.draft(folder, "x"))
    assert (found["files"], found["test_files"]) == ("train_images/{PetID}-*", "test_images/{PetID}-*")
    assert (found["target"], found["answer"]) == ("Speed", {"by": "PetID", "combine": "mean"})


def test_lists_whose_labels_are_never_alone(tmp_path: Path) -> None:
    tags = ["haze primary", "clear primary road", "cloudy", "clear primary water"]
    rows: Rows = {"image_name": [f"train_{k}" for k in range(24)], "tags": [tags[k % 4] for k in range(24)]}
    sample: Rows = {"image_name": ["test_0", "test_1"], "tags": ["primary clear road water"] * 2}
    images = [f"train-jpg/train_{k}.jpg" for k in range(24)] + ["test-jpg/test_0.jpg", "test-jpg/test_1.jpg"]
    folder = lay_out(tmp_path, {"train_v2.csv": rows, "sample_submission_v2.csv": sample}, images)
    assert said(run.draft(folder, "x"))["target"] == {"column": "tags", "kind": "multilabel", "separator": " "}


def test_labels_of_several_words_are_no_lists(tmp_path: Path) -> None:
    birds = ["Ruddy Shelduck", "Gray Wagtail", "Gray Heron"]
    rows: Rows = {"id": [f"a{k}" for k in range(21)], "label": [birds[k % 3] for k in range(21)]}
    images = [f"train/a{k}.png" for k in range(21)] + ["test/b.png"]
    tables = {"train.csv": rows, "sample_submission.csv": {"id": ["b"], "label": ["Gray Heron"]}}
    assert said(run.draft(lay_out(tmp_path, tables, images), "x"))["target"] == "label"


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("Submissions are evaluated by the macro F1 score.", "macro_f1"),
        ("<h2>Evaluation</h2> scored using the <b>quadratic weighted kappa</b>, not accuracy", "qwk"),
        ("Our data are accurate. Metric: log loss", "log_loss"),
    ],
)
def test_a_description_names_the_metric(tmp_path: Path, text: str, metric: str) -> None:
    rows: Rows = {"id": [f"a{k}.png" for k in range(9)], "label": [k % 3 for k in range(9)]}
    tables = {"train.csv": rows, "sample_submission.csv": {"id": ["b.png"], "label": [0]}}
    folder = lay_out(tmp_path, tables, [*(f"train/a{k}.png" for k in range(9)), "test/b.png"])
    (folder / "README.md").write_text(text)
    made = run.draft(folder, "x")
    assert said(made)["metric"] == metric
    assert "metric" not in made.guesses


def test_the_command_writes_a_config_that_reads_and_overwrites_nothing(
    shapes: Path, command: Callable[..., Outcome]
) -> None:
    folder = Path("input/shapes")
    shutil.copytree(ROOT / "configs" / "recipes", "configs/recipes")
    done = command("start", folder, "--name", "fresh")
    assert done.code == 0, done.err
    assert "read: " in done.out
    assert "next: python src/split.py --show --config configs/fresh/probe.yaml" in done.out
    text = Path("configs/fresh/competition.yaml").read_text()
    assert yaml.safe_load(text)["competition"]["target"] == "label"
    again = command("start", folder, "--name", "fresh")
    assert (again.code, Path("configs/fresh/competition.yaml").read_text()) == (2, text)
    assert "is there already" in again.err


def test_what_is_no_hosts_folder_is_told(tmp_path: Path, command: Callable[..., Outcome]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "tests_only" / "test").mkdir(parents=True)
    (tmp_path / "tests_only" / "test" / "a.png").touch()
    for name, words in (("nowhere", "no such folder"), ("empty", "neither"), ("tests_only", "no training")):
        done = command("start", tmp_path / name)
        assert done.code == 2
        assert words in done.err
        assert len(done.err) < 300


def plain(folder: Path, label: str = "label", cells: Sequence[str] = ("x", "y", "z"), key: str = "id") -> Path:
    """Thirty rows and a sample, with an image each."""
    ids = [f"a{k}.png" for k in range(30)]
    rows: Rows = {key: ids, label: [cells[k % len(cells)] for k in range(30)]}
    sample: Rows = {key: ["b1.png", "b2.png"], label: [cells[0]] * 2}
    images = [*(f"train/{name}" for name in ids), "test/b1.png", "test/b2.png"]
    return lay_out(folder, {"train.csv": rows, "sample_submission.csv": sample}, images)


@pytest.mark.parametrize("cell", ["y\n\nfolds: {column: q}", "y\u2028folds: 1", "# y", 'y"', "y: ["])
def test_what_stands_in_a_table_stays_within_its_line(tmp_path: Path, cell: str) -> None:
    made = run.draft(plain(tmp_path, cell, ("x", cell)), "x")
    text = made.text(f"Drafted from {tmp_path}\nfolds: 1")
    assert yaml.safe_load(text) == made.settings()
    assert made.settings()["competition"]["target"] == cell


def test_a_name_lies_below_configs(tmp_path: Path, command: Callable[..., Outcome], workplace: Path) -> None:
    folder = plain(workplace / "input" / "새")
    for words, told in (([], "'새' has no letter or digit"), (["--name", "../../x"], "no name of a competition")):
        done = command("start", folder, *words)
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert told in done.err
    assert not (workplace / "configs").exists()
    assert not (workplace.parent / "x").exists()
    done = command("start", folder, "--name", "birds")
    assert "read: 30 training rows" in done.out, "elsewhere than in a clone there are no recipes to extend"


def test_a_pipe_is_not_waited_for_and_a_brace_is_no_field(tmp_path: Path) -> None:
    folder = plain(tmp_path, key="{id}")
    os.mkfifo(folder / "pipe.csv")
    made = run.draft(folder, "x")
    assert said(made)["target"] == "label"
    assert any("no column of the training rows leads" in text for text in made.open)


def test_pixels_in_columns_that_are_called_by_numbers(tmp_path: Path) -> None:
    pixels: Rows = {str(k): [k % 250] * 12 for k in range(784)}
    train: Rows = {"id": list(range(12)), "digit": [k % 4 for k in range(12)], **pixels}
    test: Rows = {"id": [100, 101], **{name: cells[:2] for name, cells in pixels.items()}}
    tables = {"train.csv": train, "test.csv": test, "submission.csv": {"id": [100, 101], "digit": [0, 0]}}
    made = run.draft(lay_out(tmp_path, tables, []), "x")
    assert said(made)["image"] == {"pixels": "[0-9]*", "shape": [28, 28]}
    assert not any("beside the image" in text for text in made.open)


def test_a_thousand_columns_hide_no_image(tmp_path: Path) -> None:
    folder = plain(tmp_path)
    table = pd.read_csv(folder / "train.csv")
    more = pd.DataFrame({f"c{k}": [k * row % 7 for row in range(30)] for k in range(1000)})
    pd.concat([table, more], axis=1).to_csv(folder / "train.csv", index=False)
    assert said(run.draft(folder, "x"))["image"] == "train/{id}"


def test_a_second_sample_is_no_training_table(tmp_path: Path) -> None:
    images = [f"train/{label}/{k}.jpg" for label in ("ALB", "NoF") for k in range(9)] + ["test_stg1/1.jpg"]
    images += ["test_stg2/2.jpg", "additional/ALB/7.jpg"]
    tables: dict[str, Rows] = {
        f"sample_submission_stg{k}.csv": {"image": ["1.jpg", "2.jpg"][:k], "ALB": [0.5] * k, "NoF": [0.5] * k}
        for k in (1, 2)
    }
    made = run.draft(lay_out(tmp_path, tables, images), "x")
    assert (said(made)["train"], said(made)["target"], said(made)["metric"]) == ("train/*/*", "folder", "log_loss")
    assert "sample" in made.guesses, "which of two samples is asked for is told"
    assert any("1 image in additional/ALB" in text for text in made.open)


def labelled(ids: Sequence[object], name: str = "id", label: str = "label") -> Rows:
    return {name: list(ids), label: [k % 3 for k in range(len(ids))]}


# Rows, a sample, images; and what the draft has to say of them.
LAYOUTS: dict[str, tuple[dict[str, Rows], list[str], dict[str, Any]]] = {
    "folders within a row's folder": (
        {"train_labels.csv": labelled([f"{k:05d}" for k in range(20)]), "sample_submission.csv": labelled(["90000"])},
        [f"train/{k:05d}/{kind}/{n}.png" for k in range(20) for kind in "ab" for n in (1, 2)]
        + [f"test/90000/a/{n}.png" for n in (1, 2)],
        {"files": "train/{id}/*/*", "test_files": "test/{id}/*/*"},
    ),
    "left and right of a person": (
        {
            "trainLabels.csv": labelled([f"{k}_{side}" for k in range(12) for side in ("left", "right")], "image"),
            "sampleSubmission.csv": labelled(["91_left", "91_right"], "image"),
        },
        [f"train/{k}_{side}.jpg" for k in range(12) for side in ("left", "right")] + ["test/91_left.jpg"],
        {"group": "group_in_name", "id": "image"},
    ),
    "few patients": (
        {
            "train.csv": {**labelled([f"a{k}" for k in range(24)]), "patient": [f"p{k % 4}" for k in range(24)]},
            "sample_submission.csv": labelled(["b"]),
        },
        [*(f"train/a{k}.png" for k in range(24)), "test/b.png"],
        {"group": "patient"},
    ),
    "a row an image twice": (
        {
            "Train.csv": labelled(["A", "A", *(f"B{k}" for k in range(20))], "UID"),
            "Test.csv": {"UID": ["T"]},
            "SampleSubmission.csv": labelled(["T"], "UID"),
        },
        ["Images/A.jpg", "Images/T.jpg", *(f"Images/B{k}.jpg" for k in range(20))],
        {"id": {"train": "row", "test": "UID"}, "image": "Images/{UID}.jpg"},
    ),
    "two columns, long": (
        {
            "stage_2_train.csv": labelled([f"ID_{k}_{part}" for k in range(20) for part in ("any", "subdural")], "ID")
            | {"Label": [k % 2 for k in range(40)]},
            "stage_2_sample_submission.csv": {"ID": ["ID_90_any", "ID_90_subdural"], "Label": [0.5, 0.5]},
        },
        [*(f"stage_2_train/ID_{k}.png" for k in range(20)), "stage_2_test/ID_90.png"],
        {
            "pivot": {"rows": "image_id", "columns": "part_of_id", "values": "Label"},
            "target": {"columns": ["any", "subdural"], "kind": "multilabel"},
            "submission": {"row": "{@id}_{@target}"},
            "image": "stage_2_train/{image_id}.png",
        },
    ),
    "folders that no column names": (
        {"train.csv": labelled([f"N{k}" for k in range(12)]), "sample_submission.csv": labelled(["M1", "M2"])},
        [f"train/{'uv'[k % 2]}/{k % 5}/N{k}.JPG" for k in range(12)] + ["test/0/M1.JPG", "test/1/M2.JPG"],
        {"train": "train/*/*/*", "test": "test/*/*", "join": ["train.csv"], "derive": {"id": {"from": "stem"}}},
    ),
    "numbers with and without zeros": (
        {"answer.csv": labelled(range(12), "index"), "sample_submission.csv": labelled([50000], "index")},
        [*(f"train_2nd/{k:05d}.png" for k in range(12)), "test_2nd/50000.png"],
        {"train": "train_2nd/*", "join": ["answer.csv"], "test": "auto", "test_image": "test_2nd/{index}.png"},
    ),
    "photos of a place": (
        {
            "train.csv": labelled(range(9), "place"),
            "train_photo_to_place.csv": {"photo": list(range(100, 118)), "place": [k // 2 for k in range(18)]},
            "test_photo_to_place.csv": {"photo": [201, 202], "place": ["t", "t"]},
            "sample_submission.csv": labelled(["t"], "place"),
        },
        [*(f"train_photos/{k}.jpg" for k in range(100, 118)), "test_photos/201.jpg", "test_photos/202.jpg"],
        {
            "train": "train_photo_to_place.csv",
            "join": ["train.csv"],
            "id": "photo",
            "answer": {"by": "place", "combine": "mean"},
        },
    ),
    "means and deviations": (
        {
            "train.csv": {"id": [f"a{k}" for k in range(20)]}
            | {f"X{j}_{what}": [k / 7 + j for k in range(20)] for what in ("sd", "mean") for j in (4, 11)},
            "test.csv": {"id": ["b"]},
            "sample_submission.csv": {"id": ["b"], "X4": [1.5], "X11": [2.5]},
        },
        [*(f"train_images/a{k}.png" for k in range(20)), "test_images/b.png"],
        {"target": {"columns": ["X4_mean", "X11_mean"], "kind": "regression"}},
    ),
    "an answer with a confidence": (
        {
            "train.csv": labelled([f"a{k}" for k in range(12)], label="landmark_id"),
            "sample_submission.csv": {"id": ["b", "c"], "landmark_id": [0, 0], "conf": [1.0, 1.0]},
        },
        [*(f"train/a{k}.png" for k in range(12)), "test/b.png", "test/c.png"],
        {"target": "landmark_id"},
    ),
    "labels of the test rows": (
        {
            "a. Training Labels.csv": labelled([f"a{k}" for k in range(12)], "Image name", "Retinopathy grade"),
            "b. Testing Labels.csv": labelled(["b", "c", "d"], "Image name", "Retinopathy grade"),
        },
        [*(f"a. Training Set/a{k}.jpg" for k in range(12)), *(f"b. Testing Set/{k}.jpg" for k in "bcd")],
        {"train": "a. Training Labels.csv", "test": "b. Testing Labels.csv", "target": "Retinopathy grade"},
    ),
    "a contest is no test": (
        {"train.csv": labelled([f"a{k}" for k in range(12)]), "sample_submission.csv": labelled(["b"])},
        [*(f"contest/a{k}.jpg" for k in range(12)), "contest/b.jpg"],
        {"image": "contest/{id}.jpg", "test_image": "contest/{id}.jpg"},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_more_layouts_are_understood(tmp_path: Path, name: str) -> None:
    tables, images, wanted = LAYOUTS[name]
    made = run.draft(lay_out(tmp_path, tables, images), "x")
    assert {key: said(made).get(key) for key in wanted} == wanted
    config = CompetitionConfig.model_validate({**made.settings()["competition"], "folder": tmp_path})
    assert host_rows.read(tmp_path, config).train.shape[0] > 0, "the rows are read as it says"


def test_what_leads_to_no_image_says_why(tmp_path: Path) -> None:
    pixels = " ".join(str(k % 200) for k in range(48 * 48))
    tables = {"train.csv": {"emotion": [k % 3 for k in range(9)], "pixels": [f"{k} {pixels}" for k in range(9)]}}
    made = run.draft(lay_out(tmp_path, {**tables, "test.csv": {"pixels": [pixels]}}, []), "x")
    assert said(made)["id"] == "row", "an image is no id"
    assert any("the cells of 'pixels' hold 2305 numbers each" in text for text in made.open)
    lay_out(tmp_path / "json", {}, ["train/0/1/a.png", "train/2/3/4/b.png", "test/c.png"])
    (tmp_path / "json" / "metadata.json").write_text("{}")
    made = run.draft(tmp_path / "json", "x")
    assert said(made)["train"] == "train/**"
    assert any("write what metadata.json says as CSV" in text for text in made.open)
