"""Miniatures of what hosts hand out are read by a few lines of settings: rows, ids, labels, groups, images."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT, recipe

from foldcraft.common.config import Config
from foldcraft.data.competition import Competition, of
from foldcraft.data.host_files.tables import Tables, read_tables
from foldcraft.submission import form_inference

# By name: training rows, test rows, what is predicted, groups; a training id and a test id.
HOSTS = {
    "boostcamp": (168, 30, 15, 24, "train/images/000001_female_Asian_20/mask2.jpg", None),
    "dogs": (80, 30, 2, None, "train/cat.2.jpg", "10"),
    "seedlings": (70, 25, 5, None, None, None),
    "aptos": (70, 25, 5, None, None, None),
    "cassava": (70, 20, 5, None, "1000015159.jpg", "2216849948.jpg"),
    "pp2020": (72, 24, 4, None, "Train_2", "Test_0"),
    "pp2021": (84, 21, 5, None, None, None),
    "ranzcr": (80, 20, 11, 27, None, None),
    "isic2020": (80, 20, 2, 20, "ISIC_2637013", "ISIC_0052060"),
    "paw": (80, 16, 1, None, None, None),
    "csiro": (40, 1, 5, None, "ID1011485658", "ID1001187975"),
    "hms": (80, 1, 6, 10, "127492641", "3911565283"),
    "bengali": (72, 6, 13, None, "Train_2", "Test_0"),
    "frames": (120, 36, 2, 40, "train_frames/video_000/002.jpg", "clip_000.mp4#2"),
    "rsna_bc": (88, 16, 2, 22, "462822615", "462822701"),
    "foldcol": (75, 15, 3, None, "2.jpg", "900.jpg"),
    "digitrec": (80, 28, 10, None, "3", "1"),
    "hpa": (60, 12, 6, None, None, None),
    "happywhale": (54, 15, 12, None, None, None),
    "dacon_birds": (60, 20, 4, None, "./train/TRAIN_00002.jpg", "TEST_00000"),
}


def tables_of(folder: Path) -> Tables:
    competition = {"name": folder.name, "folder": folder, **yaml.safe_load(recipe(folder.name))}
    return read_tables(
        Config.model_validate({"experiment": "e", "competition": competition, "backbone": {"name": "test_resnet"}})
    )


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_is_read_as_it_is(hosts: Path, name: str):
    train, test, width, groups, first, first_test = HOSTS[name]
    tables = tables_of(hosts / name)
    data: Competition = of(tables)
    assert (len(data.train_ids), len(data.test_ids), data.space.width) == (train, test, width)
    assert len(set(data.train_ids.tolist())) == train
    assert (None if data.groups is None else len(set(data.groups.tolist()))) == groups
    assert first in (None, data.train_ids[2])
    assert first_test in (None, *data.test_ids.tolist())
    assert all(len(note) < 300 for note in tables.image_notes)
    form_inference.tried(data)
    assert not tables.missing
    assert all(path.is_file() for path in (*data.train_paths, *data.test_paths))


def test_a_mask_s_label_is_made_of_file_sex_and_age(hosts: Path):
    data = of(tables_of(hosts / "boostcamp"))
    stems = [Path(name).with_suffix("").as_posix().removeprefix("train/images/") for name in data.train_ids.tolist()]
    label = dict(zip(stems, data.classes.decode(data.targets), strict=True))
    assert label["000001_female_Asian_20/incorrect_mask"] == "9"
    assert label["000002_male_Asian_25/mask1"] == "0"
    assert label["000006_male_Asian_60/normal"] == "14"


def test_the_example_of_the_readme_reads_its_host(hosts: Path):
    text = (ROOT / "README.md").read_text()
    about = yaml.safe_load(text.partition("<<'YAML'\n")[2].partition("\nYAML\n")[0])["competition"]
    settings = {"experiment": "e", "backbone": {"name": "test_resnet"}}
    folder = hosts / "boostcamp"
    config = Config.model_validate({**settings, "competition": {**about, "folder": folder}})
    data = of(read_tables(config))
    assert data.target.written == of(tables_of(folder)).target.written
    assert data.groups.tolist() == of(tables_of(folder)).groups.tolist()


def test_one_row_a_target_becomes_one_an_image(hosts: Path):
    tables = tables_of(hosts / "csiro")
    lines = (hosts / "csiro" / "train.csv").read_text().splitlines()
    want = [float(line.rpartition(",")[2]) for line in lines[6:11]]
    assert of(tables).targets[1].tolist() == pytest.approx(want)
    assert len(tables.sample) == 5
    assert any("sample_id" in note and "left out" in note for note in tables.image_notes)
