"""Miniatures of what hosts hand out are read by a few lines of settings: rows, ids, labels, groups, images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import BESIDE

from foldcraft.common.config import Config
from foldcraft.data.competition import Competition, of
from foldcraft.data.tables import Tables, read_tables
from foldcraft.submission import form_inference

FORMATS = Path(os.environ.get("FOLDCRAFT_FORMATS", BESIDE / "formats"))
MAKE = FORMATS / "make.py"
pytestmark = pytest.mark.skipif(
    not MAKE.is_file(), reason=f"no miniatures at {FORMATS}; set FOLDCRAFT_FORMATS to have this tested"
)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all miniatures."""
    place = tmp_path_factory.mktemp("hosts")
    subprocess.run([sys.executable, MAKE, place], check=True)
    return place


BOOSTCAMP = """
train: train/train.csv
test: eval/info.csv
sample: eval/info.csv
files: "train/images/{path}/*"
derive:
  state: {from: stem, map: {"mask*": 0, "incorrect*": 1, "normal*": 2}}
  band: {from: age, bins: [30, 60]}
  ans: {value: "6*state + 3*(gender == 'female') + band"}
  name: {format: "{path}/{stem}"}
id: {train: name, test: ImageID}
target: ans
group: path
test_image: "eval/images/{ImageID}"
"""
DOGS = """
train: train/*.jpg
derive: {label: {from: stem, regex: '^(\\w+)\\.'}}
id: {train: file, test: id}
metric: log_loss
submission: {positive: dog}
"""
SEEDLINGS = """
train: train/*/*.png
target: folder
id: file
test_image: test/{@id}
metric: accuracy
"""
APTOS = """
id: id_code
target: diagnosis
metric: qwk
image: train_images/{id_code}
test_image: test_images/{id_code}
"""
CASSAVA = """
id: image_id
image: train_images/{@id}
test_image: test_images/{@id}
metric: accuracy
"""
PP2020 = """
id: image_id
target: {columns: [healthy, multiple_diseases, rust, scab], kind: soft}
image: images/{@id}
test_image: images/{@id}
metric: kl
"""
PP2021 = """
id: image
target: {column: labels, separator: " ", kind: multilabel}
image: train_images/{@id}
test_image: test_images/{@id}
metric: sample_f1
"""
RANZCR = """
id: StudyInstanceUID
group: PatientID
target: {kind: multilabel, columns: ["ETT - Abnormal", "NGT - Normal", "CVC - Normal"]}
image: train/{@id}.jpg
test_image: test/{@id}.jpg
metric: mean_auc
"""
ISIC = """
id: image_name
target: target
group: patient_id
image: jpeg/train/{@id}
test_image: jpeg/test/{@id}
metric: roc_auc
"""
PAW = """
id: Id
target: {column: Pawpularity, kind: regression, range: [1, 100]}
metric: rmse
"""
CSIRO = """
derive: {image: {from: sample_id, regex: "^(.+)__"}}
pivot: {rows: image, columns: target_name, values: target}
id: image
target: {columns: [Dry_Clover_g, Dry_Dead_g, Dry_Green_g, Dry_Total_g, GDM_g], kind: regression}
image: "{image_path}"
test_image: "{image_path}"
metric: rmse
"""
HMS = """
id: {train: label_id, test: eeg_id}
target: {columns: "*_vote", kind: soft}
group: patient_id
image: train_spectrograms_png/{@id}
test_image: test_spectrograms_png/{@id}
metric: kl
"""
BENGALI = """
id: image_id
target: {columns: [grapheme_root, vowel_diacritic, consonant_diacritic], kind: multioutput}
image: train_png/{@id}
test_image: test_png/{@id}
metric: macro_recall
"""
FRAMES = """
derive: {video: {from: filename, regex: '^(.+)\\.'}}
files: train_frames/{video}/*
test_files: test_frames/{video}/*
id: _file
group: filename
sample: none
test: sample_submission.csv
metric: log_loss
"""
RSNA = """
id: image_id
target: cancer
group: patient_id
image: train_images/{patient_id}/{image_id}
test_image: test_images/{patient_id}/{image_id}
sample: none
metric: roc_auc
"""
FOLDCOL = """
weight: weight
metric: macro_f1
"""
DIGITREC = """
id: row
image: {pixels: "pixel*", shape: [28, 28]}
test_image: {pixels: "pixel*", shape: [28, 28]}
metric: accuracy
"""
HPA = """
id: Id
target: {column: Target, separator: " ", kind: multilabel}
image: {channels: ["train/{@id}_red.png", "train/{@id}_green.png", "train/{@id}_blue.png", "train/{@id}_yellow.png"]}
test_image: {channels: ["test/{@id}_red.png", "test/{@id}_green.png", "test/{@id}_blue.png", "test/{@id}_yellow.png"]}
metric: macro_f1
"""
WHALE = """
id: image
target: individual_id
image: train_images/{@id}
test_image: test_images/{@id}
metric: {name: map_at_k, k: 5}
"""
BIRDS = """
derive: {name: {from: img_path, regex: '([^/]+)\\.jpg$'}}
id: {train: name, test: id}
image: "{img_path}"
test_image: "{img_path}"
metric: macro_f1
"""
# By name: the settings; training rows, test rows, what is predicted, groups; a training id and a test id.
HOSTS = {
    "boostcamp": (BOOSTCAMP, 168, 30, 15, 24, "000001_female_Asian_20/incorrect_mask", None),
    "dogs": (DOGS, 80, 30, 2, None, "train/cat.2.jpg", "10"),
    "seedlings": (SEEDLINGS, 70, 25, 5, None, None, None),
    "aptos": (APTOS, 70, 25, 5, None, None, None),
    "cassava": (CASSAVA, 70, 20, 5, None, "1000015159.jpg", "2216849948.jpg"),
    "pp2020": (PP2020, 72, 24, 4, None, "Train_2", "Test_0"),
    "pp2021": (PP2021, 84, 21, 5, None, None, None),
    "ranzcr": (RANZCR, 80, 20, 3, 27, None, None),
    "isic2020": (ISIC, 80, 20, 2, 20, "ISIC_2637013", "ISIC_0052060"),
    "paw": (PAW, 80, 16, 1, None, None, None),
    "csiro": (CSIRO, 40, 1, 5, None, "ID1011485658", "ID1001187975"),
    "hms": (HMS, 80, 1, 6, 10, "127492641", "3911565283"),
    "bengali": (BENGALI, 72, 6, 13, None, "Train_2", "Test_0"),
    "frames": (FRAMES, 120, 36, 2, 40, "train_frames/video_000/002.jpg", "test_frames/clip_000/000.jpg"),
    "rsna_bc": (RSNA, 88, 16, 2, 22, "462822615", "462822701"),
    "foldcol": (FOLDCOL, 75, 15, 3, None, "2.jpg", "900.jpg"),
    "digitrec": (DIGITREC, 80, 28, 10, None, "3", "1"),
    "hpa": (HPA, 60, 12, 6, None, None, None),
    "happywhale": (WHALE, 54, 15, 12, None, None, None),
    "dacon_birds": (BIRDS, 60, 20, 4, None, "TRAIN_00002", "TEST_00000"),
}


def tables_of(folder: Path, settings: str) -> Tables:
    competition = {"name": folder.name, "folder": folder, **yaml.safe_load(settings)}
    return read_tables(
        Config.model_validate({"experiment": "e", "competition": competition, "backbone": {"name": "test_resnet"}})
    )


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_is_read_as_it_is(hosts: Path, name: str):
    settings, train, test, width, groups, first, first_test = HOSTS[name]
    tables = tables_of(hosts / name, settings)
    data: Competition = of(tables)
    assert (len(data.train_ids), len(data.test_ids), data.space.width) == (train, test, width)
    assert len(set(data.train_ids.tolist())) == train
    assert (None if data.groups is None else len(set(data.groups.tolist()))) == groups
    assert first in (None, data.train_ids[2] if first != HOSTS["boostcamp"][5] else data.train_ids[0])
    assert first_test in (None, *data.test_ids.tolist())
    assert all(len(note) < 300 for note in tables.image_notes)
    form_inference.tried(data)
    assert not tables.missing
    assert all(path.is_file() for path in (*data.train_paths, *data.test_paths))


def test_a_mask_s_label_is_made_of_file_sex_and_age(hosts: Path):
    data = of(tables_of(hosts / "boostcamp", BOOSTCAMP))
    label = dict(zip(data.train_ids.tolist(), data.classes.decode(data.targets), strict=True))
    assert label["000001_female_Asian_20/incorrect_mask"] == "9"
    assert label["000002_male_Asian_25/mask1"] == "0"
    assert label["000006_male_Asian_60/normal"] == "14"


def test_one_row_a_target_becomes_one_an_image(hosts: Path):
    tables = tables_of(hosts / "csiro", CSIRO)
    lines = (hosts / "csiro" / "train.csv").read_text().splitlines()
    want = [float(line.rpartition(",")[2]) for line in lines[6:11]]
    assert of(tables).targets[1].tolist() == pytest.approx(want)
    assert len(tables.sample) == 5
    assert any("sample_id" in note and "left out" in note for note in tables.image_notes)
