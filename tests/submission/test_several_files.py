"""A submission of several files: each is filled with its part, and one zip holds them."""

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CONFIG, Outcome, draw_shape

from foldcraft.common.config import Config
from foldcraft.common.errors import FoldcraftError
from foldcraft.data import competition as tables
from foldcraft.data.submission_forms.several import SubmissionFiles
from foldcraft.submission import form_inference

pytestmark = pytest.mark.integration

IDS = ["t2", "t10", "t1", "07"]
HEADS = {"root": ["oak", "elm", "oak", "elm"], "vowel": ["a", "i", "o", "a"], "tone": ["x", "y", "x", "y"]}
TABLES = ["size.csv", "more/where.csv"]


def found(folder: Path, samples: dict[str, pd.DataFrame], **names: object) -> SubmissionFiles:
    """Of a competition of three labels, the forms of some samples."""
    pd.DataFrame({"id": [f"a{k}" for k in range(4)], **HEADS}).to_csv(folder / "train.csv", index=False)
    pd.DataFrame({"id": sorted(IDS)}).to_csv(folder / "test.csv", index=False)
    (folder / "all.png").touch()
    for name, sample in samples.items():
        (folder / name).parent.mkdir(exist_ok=True)
        sample.to_csv(folder / name, index=False)
    about = {"name": "drawn", "folder": folder, "image": "all.png", "test_image": "all.png", "sample": list(samples)}
    about |= {"target": {"columns": list(HEADS), "kind": "multioutput"}, "metric": "mean_accuracy"}
    settings = {"experiment": "x", "competition": about | names, "backbone": {"name": "test_resnet"}}
    return form_inference.tried(tables.read(Config.model_validate(settings)))


def sample(columns: dict[str, object], ids: list[str] = IDS, column: str = "id") -> pd.DataFrame:
    return pd.DataFrame({column: ids, **columns})


@pytest.mark.parametrize("seed", range(3))
def test_each_file_has_its_part_whatever_the_order_of_rows(tmp_path: Path, seed: int) -> None:
    mixed = np.random.default_rng(seed).permutation(4)
    samples = {
        "one.csv": sample({"Vowel": "a", "note": "left"}),
        "two.csv": sample({"p_oak": 0.5, "p_elm": 0.5}, IDS[::-1], "file"),
        "three.csv": sample({"vowel": "a", "root": "oak"}, [IDS[k] for k in mixed]),
    }
    files = found(tmp_path, samples)
    roots, vowels = {"t2": 0, "t10": 1, "t1": 1, "07": 0}, {"t2": 2, "t10": 0, "t1": 1, "07": 2}  # elm, oak; a, i, o
    ids = np.array(IDS)[mixed]
    shares = [[np.eye(2)[roots[row]] * 0.8 + 0.1, np.eye(3)[vowels[row]] * 0.7 + 0.1, [0.5, 0.5]] for row in ids]
    made = files.filled(ids, np.log([np.concatenate(row) for row in shares]))
    assert list(made) == list(samples)
    said = [["aio"[vowels[row]] for row in IDS], [["elm", "oak"][roots[row]] for row in IDS]]
    assert made["one.csv"].to_dict("list") == {"id": IDS, "Vowel": said[0], "note": ["left"] * 4}
    oak = np.array([0.9 if roots[row] else 0.1 for row in IDS[::-1]])
    assert made["two.csv"]["file"].tolist() == IDS[::-1]
    np.testing.assert_allclose(made["two.csv"][["p_oak", "p_elm"]], np.stack([oak, 1 - oak], 1), atol=1e-6)
    order = [IDS[k] for k in mixed]
    again = {"id": order, "vowel": [said[0][k] for k in mixed], "root": [said[1][k] for k in mixed]}
    assert made["three.csv"].to_dict("list") == again
    assert files.lines()[0] == "submission one.csv: column 'Vowel' holds labels; note left as in the sample"
    assert files.lines()[3:] == ["submission: no file asks for tone"]


@pytest.mark.parametrize(
    ("second", "place", "said"),
    [
        ({"two.csv": sample({"colour": "red"})}, "two.csv", "asks for nothing that is predicted: columns colour"),
        ({"more/one.csv": sample({"tone": "x"})}, "competition.sample", "two files are called 'one.csv'"),
        ({"two.csv": sample({"tone": "x"}, ["t2", "t10", "t1", "08"])}, "two.csv", "08"),
    ],
)
def test_a_file_that_cannot_be_filled_is_refused(
    tmp_path: Path, second: dict[str, pd.DataFrame], place: str, said: str
) -> None:
    with pytest.raises(FoldcraftError) as error:
        found(tmp_path, {"one.csv": sample({"root": "oak"}), **second})
    assert place in str(error.value)
    assert said in str(error.value)


def test_what_fits_one_sample_alone_is_refused(tmp_path: Path) -> None:
    samples = {"one.csv": sample({"root": "oak"}), "two.csv": sample({"colour": "red"})}
    with pytest.raises(FoldcraftError, match=r"two.csv.*nothing that is predicted.*may ask for root"):
        found(tmp_path, samples, target="root", metric="accuracy")
    with pytest.raises(FoldcraftError, match="given tables of one sample, and there are several"):
        found(tmp_path, samples, target="root", metric={"code": "host.py"})


@pytest.fixture
def blobs(workplace: Path) -> Path:
    """Three values, the third of which no file asks for, and a sample of all; the config's path."""
    folder, rng = workplace / "input" / "blobs", np.random.default_rng(0)
    names = [f"{row:03d}.png" for row in range(36)]
    for part, rows in (("train", names[:24]), ("test", names[24:])):
        (folder / part).mkdir(parents=True)
        for seed, row in enumerate(rows):
            draw_shape("dot", seed).save(folder / part / row)
    values = {name: rng.random(36).round(3) for name in ("width", "height", "x", "y")}
    table = pd.DataFrame({"id": names, **values})
    table[:24].to_csv(folder / "train.csv", index=False)
    test = table[24:].assign(width=0, height=0, x=0, y=0)
    test[["id"]].to_csv(folder / "test.csv", index=False)
    test.to_csv(folder / "sample_submission.csv", index=False)
    test.sample(frac=1, random_state=1)[["id", "height", "width"]].to_csv(folder / "size.csv", index=False)
    (folder / "more").mkdir()
    where = test[::-1].rename(columns={"id": "picture", "x": "X"}).assign(unit="px")
    where[["unit", "X", "picture", "width"]].to_csv(folder / "more" / "where.csv", index=False)
    path = workplace / "configs" / "tiny.yaml"
    path.parent.mkdir()
    section = "{name: blobs, metric: rmse, target: {columns: [width, height, x, y], kind: regression}}"
    text = CONFIG.replace("{name: shapes, metric: accuracy}", section)
    path.write_text(text.replace("count: 3", "count: 2").replace("epochs: 2", "epochs: 1"))
    return path


def test_a_run_writes_one_zip_of_all_files(blobs: Path, command: Callable[..., Outcome]) -> None:
    several = f"competition.sample=[{','.join(TABLES)}]"
    done = command("split", "--config", blobs, several)
    assert done.code == 0, done.err
    told = [line for line in done.out.splitlines() if line.startswith("submission")]
    assert [line.partition(":")[0] for line in told] == ["submission size.csv", "submission where.csv", "submission"]
    assert told[2] == "submission: no file asks for y"
    done = command("train", "--config", blobs, several, "--fold", "all")
    assert done.code == 0, done.err
    for file in ("size.csv", "where.csv"):
        assert (done.out + done.err).count(f"submission {file}: ") == 1
    done = command("infer", "--config", blobs, several)
    assert done.code == 0, done.err
    assert "24 rows in 2 files" in done.out
    path = Path("submissions/blobs_tiny.zip")
    with zipfile.ZipFile(path) as packed:
        assert packed.namelist() == ["size.csv", "where.csv"]
        size, where = (list(csv.DictReader(io.StringIO(packed.read(name).decode()))) for name in packed.namelist())
    ledger = pd.read_csv("submissions/ledger.csv")
    assert ledger["file"].tolist() == [path.name]

    plain = command("infer", "--config", blobs, "--name", "plain")
    assert plain.code == 0, plain.err
    with open("submissions/plain.csv", newline="") as file:
        wanted = {row["id"]: row for row in csv.DictReader(file)}
    folder = Path("input/blobs")
    assert [row["id"] for row in size] == pd.read_csv(folder / "size.csv")["id"].tolist()
    columns = ("id", "height", "width")
    assert size == [{key: wanted[row["id"]][key] for key in columns} for row in size]
    assert [row["picture"] for row in where] == list(wanted)[::-1]
    rows = [wanted[row["picture"]] for row in where]
    assert where == [{"unit": "px", "X": row["x"], "picture": row["id"], "width": row["width"]} for row in rows]
    assert len({row["x"] for row in rows}) > 1

    before = path.read_bytes()
    assert "the same as" in command("infer", "--config", blobs, several).out
    refused = command("infer", "--config", blobs, several, "--out", "mine.csv")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "write --out submission.zip" in refused.err
    assert command("infer", "--config", blobs, several, "--out", "mine.zip").code == 0
    assert Path("mine.zip").read_bytes() == before == path.read_bytes()
    scored = command("infer", "--score", "blobs_tiny", "public=0.3")
    assert "blobs_tiny.zip: public score 0.3" in scored.out
    for name, *words in (("infer", "--ledger"), ("split", "--config", blobs, several, "--show")):
        done = command(name, *words)
        assert done.code == 0, done.err
