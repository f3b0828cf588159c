"""The audit finds each fault that is planted in a drawn competition, and says nothing where there is none."""

import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import CONFIG, Outcome, draw_shape, write_competition
from PIL import Image, ImageFilter

from foldcraft.common import config_file
from foldcraft.common.errors import FoldcraftError
from foldcraft.data.host_files.tables import read_tables
from foldcraft.data.images import contact_sheet, image_cache, image_stats
from foldcraft.data.images.contact_sheet import SheetTile
from foldcraft.predictions.experiment import with_scale
from foldcraft.study.audit import file_issues, group_file, label_errors, label_issues, leaks
from foldcraft.study.audit.finding import Finding, ImageRef
from foldcraft.views import audit_report, cli

SIDE = 32
ROWS = 66
AUDIT = Path("runs/shapes/audit")
FOREST = {"TREES": leaks.TREES, "REPEATS": leaks.REPEATS}


def shape(seed: int) -> Image.Image:
    return draw_shape(("bar", "cross", "dot")[seed % 3], seed, SIDE)


def stored(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[image_stats.ORIENTATION] = 6
    return stored(shape(8).convert("L"), "JPEG", exif=exif)


FAULTS: dict[str, Callable[[], bytes | None]] = {
    "missing": lambda: None,
    "truncated": lambda: stored(shape(1), "PNG")[:-500],
    "unreadable": lambda: b"this is no picture",
    "wrong_extension": lambda: stored(shape(3), "JPEG"),
    "animated": lambda: stored(shape(4), "PNG", save_all=True, append_images=[shape(5)]),
    "mixed_modes": lambda: stored(shape(5).convert("RGBA"), "PNG"),
    "exif_rotated": turned,
    "extreme_size": lambda: stored(shape(7).resize((SIDE * 8, SIDE * 8), Image.Resampling.NEAREST), "PNG"),
    "extreme_aspect": lambda: stored(shape(8).resize((SIDE // 2, SIDE * 2)), "PNG"),
    "constant": lambda: stored(Image.new("L", (SIDE, SIDE), 128), "PNG"),
    "very_dark": lambda: stored(shape(10).point(lambda value: value // 8), "PNG"),
    "very_bright": lambda: stored(shape(11).point(lambda value: 255 - value // 8), "PNG"),
    "very_blurred": lambda: stored(shape(12).filter(ImageFilter.GaussianBlur(6)).point(lambda v: v * 2 - 60), "PNG"),
}


def plant(folder: Path) -> dict[str, str]:
    """Replace one training image a fault; the id of each."""
    planted = {}
    for row, (name, make) in enumerate(FAULTS.items()):
        planted[name] = f"{row:03d}.{'jpg' if name == 'exif_rotated' else 'png'}"
        path = folder / "train" / planted[name]
        (folder / "train" / f"{row:03d}.png").unlink()
        content = make()
        if content is not None:
            path.write_bytes(content)
    train = pd.read_csv(folder / "train.csv", dtype=str)
    train.loc[: len(FAULTS) - 1, "id"] = list(planted.values())
    train.to_csv(folder / "train.csv", index=False)
    return planted


@pytest.fixture(scope="module", autouse=True)
def few_trees() -> Iterator[None]:
    """Small forests, drawn seldom: `test_leaks.py` has them as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaks, "TREES", 4)
        patch.setattr(leaks, "REPEATS", 3)
        yield


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], int]:
    """A competition with every fault of a file, audited; its folder, the planted ids and the exit code."""
    place = tmp_path_factory.mktemp("audited")
    before = Path.cwd()
    os.chdir(place)
    try:
        write_competition(Path("input/shapes"), ROWS, 24)
        planted = plant(Path("input/shapes"))
        Path("tiny.yaml").write_text(CONFIG)
        from audit import main

        code = main(["--config", "tiny.yaml", "--strict"])
    finally:
        os.chdir(before)
    return place / AUDIT, planted, code


def summary(folder: Path = AUDIT) -> dict[str, dict]:
    """The findings by name."""
    return {finding["name"]: finding for finding in json.loads((folder / "summary.json").read_text())["findings"]}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_bad_file_is_found_and_no_other(audited, fault: str) -> None:
    folder, planted, _ = audited
    # A truncated file is not missing, an animated one not unreadable; and so on for all pairs.
    assert summary(folder)[fault]["ids"] == [f"train/{planted[fault]}"]
    files = pd.read_csv(folder / "files.csv", dtype=str, keep_default_na=False)
    assert files[files["findings"].str.split(";").map(lambda names: fault in names)]["id"].tolist() == [planted[fault]]


def test_broken_files_are_serious_and_the_audit_goes_on_without_them(audited) -> None:
    folder, _, code = audited
    assert code == 1
    found = summary(folder)
    serious = {name for name, finding in found.items() if finding["severity"] == "serious"}
    assert {"missing", "truncated", "unreadable"} <= serious
    assert not serious & {"wrong_extension", "exif_rotated", "very_dark"}
    assert [*found][:3] == ["missing", "truncated", "unreadable"], "the worst first"
    assert (folder / "label_errors.csv").is_file(), "what needs pixels was done with the rest"


def test_each_finding_is_shown(audited) -> None:
    folder, _, _ = audited
    for name, finding in summary(folder).items():
        if name == "missing":
            assert finding["sheet"] is None
        elif finding["ids"]:
            assert image_cache.decode(folder / finding["sheet"]).width >= contact_sheet.THUMBNAIL, name
    assert not list(folder.rglob("*.tmp-*"))
    drawn = {finding["sheet"] for finding in summary(folder).values()} - {None}
    assert drawn == {f"sheets/{path.name}" for path in (folder / "sheets").iterdir()}


@pytest.fixture
def sound(shapes: Path) -> Path:
    return shapes


def edit(change: Callable[[pd.DataFrame], pd.DataFrame], name: str = "train") -> None:
    path = Path(f"input/shapes/{name}.csv")
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def audit(command: Callable[..., Outcome], path: Path, *words: str) -> Outcome:
    return command("audit", "--config", path, *words)


@pytest.mark.slow
def test_sound_data_pass_and_a_second_audit_looks_at_changed_files_only(
    sound: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = audit(command, sound, "--strict")
    assert done.code == 0, done.out + done.err
    assert not [name for name, finding in summary().items() if finding["severity"] == "serious"]
    seen = []
    look = image_stats.look
    monkeypatch.setattr(image_stats, "look", lambda path, *rest: seen.append(path.name) or look(path, *rest))
    before = {path: path.read_bytes() for path in AUDIT.rglob("*.*") if path.is_file()}
    audit(command, sound)
    assert seen == []
    assert {path: path.read_bytes() for path in before} == before
    changed = Path("input/shapes/train/007.png")
    changed.write_bytes(changed.read_bytes()[:-60])
    stale = AUDIT / "sheets" / "animated.png"
    stale.write_bytes(b"of an earlier audit")
    assert audit(command, sound, "--strict").code == 1
    assert seen == ["007.png"]
    assert summary()["truncated"]["ids"] == ["train/007.png"]
    assert (AUDIT / "sheets" / "truncated.png").is_file()
    assert not stale.exists(), "a sheet of what is found no more"


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:300] + b"?" + data[301:]])
def test_damaged_facts_are_collected_again(sound: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    tables, cache = read_tables(config_file.load(sound)), tmp_path / "facts.parquet"
    whole = image_stats.collect(tables, cache)
    cache.write_bytes(damage(cache.read_bytes()))
    pd.testing.assert_frame_equal(image_stats.collect(tables, cache), whole)


def test_facts_are_the_same_from_processes_and_from_threads(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = read_tables(config_file.load(sound))
    progress: list[int] = []
    few = image_stats.collect(tables, progress=progress.append)
    monkeypatch.setattr(image_stats, "WORTH_PROCESSES", 1)
    pd.testing.assert_frame_equal(image_stats.collect(tables), few)
    assert sum(progress) == len(few) == 60
    assert few["id"].tolist() == [*tables.train_ids, *tables.test_ids]


def of_labels(path: Path, *words: str) -> dict[str, Finding]:
    """What the labels say, by name."""
    settings = config_file.load(path, list(words))
    tables = read_tables(settings)
    return {finding.name: finding for finding in label_issues.find(tables, settings.folds.count)}


def test_labels_that_look_alike(sound: Path, command) -> None:
    def misspell(train: pd.DataFrame) -> pd.DataFrame:
        train.loc[train.index % 6 == 2, "label"] = "Dot "
        return train

    edit(misspell)
    done = audit(command, sound, "--strict")
    assert done.code == 1
    found = summary()["look_alikes"]
    assert "'Dot ' (8 rows) and 'dot' (8 rows)" in found["sentence"]
    assert pd.read_csv(AUDIT / "labels.csv").set_index("label").loc["dot", "looks_like"] == "Dot "
    assert "Dot " in done.out


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Cat ", "cat"),
        ("cat", "саt"),
        ("big cat", "big_cat"),
        ("07", "7"),
        ("7.0", "7"),
        ("-0", "0"),
        ("0" + "7" * 5000, "7" * 5000),
        ("é", "é"),
        ("a\u200bb", "ab"),
    ],
)
def test_names_that_a_person_takes_for_one(a: str, b: str) -> None:
    assert label_issues.look_alikes([a, b, "something else"]) == [sorted([a, b])]


@pytest.mark.parametrize(("a", "b"), [("1-2", "12"), ("-1", "1"), ("C++", "C"), ("cat", "cats"), ("70", "7")])
def test_names_that_are_two(a: str, b: str) -> None:
    assert label_issues.look_alikes([a, b]) == []


def test_rare_classes(sound: Path) -> None:
    def rarefy(train: pd.DataFrame) -> pd.DataFrame:
        train.loc[:1, "label"] = "once or twice"
        train.loc[2:6, "label"] = "seldom"
        return train

    edit(rarefy)
    found = of_labels(sound)
    assert "'once or twice' (2 rows)" in found["too_rare"].sentence
    assert found["too_rare"].severity == "serious"
    assert "'seldom' (5 rows)" in found["rare"].sentence
    assert found["rare"].count == 1
    assert not found.keys() - {"too_rare", "rare"}


def test_groups_with_mixed_labels(sound: Path) -> None:
    def grouped(train: pd.DataFrame) -> pd.DataFrame:
        group = [f"{row.label}{row.Index // 6}" for row in train.itertuples()]
        group[0] = group[1]
        return train.assign(group=group)

    edit(grouped)
    found = of_labels(sound, "competition.group=group")["mixed_groups"]
    assert (found.count, found.severity) == (1, "warning")
    tables = read_tables(config_file.load(sound, ["competition.group=group"]))
    assert label_issues.mixed_groups(tables).to_dict("records") == [
        {"group": "cross0", "rows": 3, "labels": "cross: 2;bar: 1"}
    ]
    assert ImageRef("train", "000.png", "bar") in found.image_rows[0]


def test_groups_that_look_alike_or_are_missing(sound: Path, command) -> None:
    """Audit and split say so, and a missing group is none that a fold could hold."""

    def grouped(train: pd.DataFrame) -> pd.DataFrame:
        group = [f"P{row // 2:02d}" for row in range(len(train))]
        group[1] = "p00 "
        return train.assign(group=["nan" if row >= 24 else name for row, name in enumerate(group)])

    edit(grouped)
    found = of_labels(sound, "competition.group=group")
    alike, missing = found["group_look_alikes"], found["missing_groups"]
    assert (alike.severity, missing.severity, missing.count) == ("serious", "warning", 24)
    assert "'P00' (1 rows) and 'p00 ' (1 rows)" in alike.sentence
    assert "24 of 48 rows have no group ('nan'): each stands by itself" in missing.sentence
    said = command("split", "--config", sound, "competition.group=group").out.splitlines()
    assert sum(alike.sentence in line for line in said) == sum(missing.sentence in line for line in said) == 1
    rows = pd.read_csv("folds/shapes.csv", comment="#")["fold"].value_counts()
    assert rows.max() < 24, "rows without a group lie in all folds"


def test_a_group_that_is_larger_than_a_fold_is_told(sound: Path) -> None:
    edit(lambda train: train.assign(group=[f"g{row // 2}" if row < 24 else "unknown" for row in range(len(train))]))
    large = of_labels(sound, "competition.group=group")["large_group"]
    assert large.sentence.startswith("group 'unknown' holds 24 of 48 rows, more than a fold")


def test_an_audit_without_any_training_image_has_findings(sound: Path, command) -> None:
    for image in Path("input/shapes/train").iterdir():
        image.unlink()
    done = audit(command, sound)
    assert (done.code, summary()["missing"]["count"]) == (0, 48)
    assert "not looked at: duplicates, leaks, hidden groups and wrong labels: input/shapes: no image of the" in done.out


def test_a_killed_process_of_an_audit_is_one_line(sound: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise BrokenProcessPool("A process in the process pool was terminated abruptly\nwhile the future was running")

    monkeypatch.setattr(image_stats, "_look_at", killed)
    done = audit(command, sound)
    assert done.code == 2
    assert done.err == "error: a process that worked for this one was killed; the machine's memory may be full\n"


def test_labels_that_only_the_test_set_or_the_sample_knows(sound: Path) -> None:
    edit(lambda test: test.assign(label=["star", *["bar"] * (len(test) - 1)]), "test")
    edit(lambda sample: sample[["id"]].assign(bar=0, cros=0, dot=0), "sample_submission")
    found = of_labels(sound)
    assert "star" in found["test_only_label"].sentence
    assert found["test_only_label"].as_json()["ids"] == ["test/048.png"]
    assert "columns that are no label (cros) and no column for cross" in found["sample_columns"].sentence
    votes = {f"{name}_vote": 0 for name in ("bar", "cross", "dot")}
    edit(lambda sample: sample[["id"]].assign(**votes), "sample_submission")
    assert "sample_columns" not in of_labels(sound), "it can be filled"
    edit(lambda sample: sample[["id"]].rename(columns={"id": "ImageId"}).assign(label="bar"), "sample_submission")
    assert not {"sample_columns", "sample_labels"} & set(of_labels(sound))
    edit(lambda sample: sample.rename(columns={"ImageId": "id"}).assign(label="cros"), "sample_submission")
    assert "cros" in of_labels(sound)["sample_labels"].sentence


def test_copies(sound: Path, command) -> None:
    """A test image that is a training image, and a mirrored training image with another label."""
    folder = Path("input/shapes")
    image_cache.decode(folder / "train" / "000.png").save(folder / "test" / "050.png")
    image_cache.decode(folder / "train" / "001.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        folder / "train/012.png"
    )
    assert audit(command, sound, "--strict").code == 1
    found = summary()
    assert found["train_test_copies"]["severity"] == "serious", "one of twelve"
    assert found["train_test_copies"]["ids"] == ["train/000.png", "test/050.png"]
    assert found["copies_apart"]["severity"] == "info", "there are no folds yet, and they will keep them together"
    assert found["copies_with_other_labels"]["ids"] == ["train/001.png", "train/012.png"]
    pairs = pd.read_csv(AUDIT / "duplicates.csv")
    assert list(pairs.columns) == ["id_a", "id_b", "where", "kind", "score"]
    assert pairs["kind"].tolist() == ["exact", "flipped"]
    assert image_cache.decode(AUDIT / "sheets" / "train_test_copies.png").width > 2 * contact_sheet.THUMBNAIL


def test_copies_in_different_folds_are_told_of_the_folds_that_are_frozen(sound: Path, command) -> None:
    command("split", "--config", sound, "folds.merge_duplicates=false")
    fold = pd.read_csv("folds/shapes.csv", comment="#").set_index("id")["fold"]
    other = fold.index[(fold != fold.iloc[0])][0]
    folder = Path("input/shapes/train")
    image_cache.decode(folder / fold.index[0]).save(folder / other)
    audit(command, sound)
    assert "lie in different folds" in summary()["copies_apart"]["sentence"]
    assert summary()["copies_apart"]["severity"] == "serious"


def test_a_label_that_file_sizes_give_away(sound: Path, command) -> None:
    for row in pd.read_csv("input/shapes/train.csv", dtype=str).itertuples():
        with open(Path("input/shapes/train") / row.id, "ab") as stream:
            stream.write(b" " * {"bar": 0, "cross": 3000, "dot": 6000}[row.label])
    assert audit(command, sound, "--strict").code == 1
    found = summary()["label_leak"]
    assert found["severity"] == "serious"
    assert "bytes 1.00" in found["sentence"]
    table = pd.read_csv(AUDIT / "leaks.csv")
    assert table[(table["question"] == "label") & (table["by"] == "bytes")]["found"].item()


@pytest.mark.slow
def test_a_test_set_of_another_look(sound: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FOREST.items():
        monkeypatch.setattr(leaks, name, value)
    for path in sorted(Path("input/shapes/test").iterdir()):
        image_cache.decode(path).point(lambda value: 255 - value).save(path)
    audit(command, sound)
    found = summary()
    assert found["train_test_look"]["severity"] == "serious"
    assert "mean_r" in found["train_test_look"]["sentence"]
    assert found["train_test_order"]["severity"] == "info", "ids that go on are nothing to worry about"


def test_ids_that_name_a_subject(sound: Path, command, caplog: pytest.LogCaptureFixture) -> None:
    def renamed(train: pd.DataFrame) -> pd.DataFrame:
        names = [f"p{row // 4:02d}_{row % 4}.png" for row in train.index]
        for old, new in zip(train["id"], names, strict=True):
            Path("input/shapes/train", old).rename(Path("input/shapes/train", new))
        return train.assign(id=names)

    edit(renamed)
    audit(command, sound)
    found = summary()["hidden_groups"]
    assert (found["count"], found["severity"]) == (12, "warning")
    assert found["ids"][:4] == [f"train/p00_{k}.png" for k in range(4)]
    groups = pd.read_csv(AUDIT / "groups.csv")
    assert len(groups) == 48
    assert set(groups["evidence"]) == {"ids"}

    hint = json.loads((AUDIT / "summary.json").read_text())
    assert "folds.groups=audit" in json.dumps(hint)
    assert not Path("folds/shapes.csv").exists(), "folds without these groups would be too good"
    assert command("split", "--config", sound, "folds.groups=audit").code == 0
    fold = pd.read_csv("folds/shapes.csv", comment="#").set_index("id")["fold"]
    assert fold.groupby(groups.set_index("id")["group"]).nunique().max() == 1
    command("split", "--config", sound, "folds.groups=null")
    assert "folds.groups=null (it was made with the audit's)" in caplog.text


def test_groups_of_other_rows_are_no_groups(tmp_path: Path) -> None:
    """Each training row is in the file; those that stand alone tie nothing."""
    found = pd.DataFrame({"id": ["a", "b"], "group": ["a", "a"], "evidence": "ids"})
    path = tmp_path / "groups.csv"
    group_file.whole(found, ["c", "b", "a"]).to_csv(path, index=False)
    assert group_file.read(path, ["c", "b", "a"]).to_dict() == {"a": "a", "b": "a"}
    for others in (["a", "b"], ["a", "b", "c", "d"]):
        with pytest.raises(FoldcraftError, match="made for other training rows"):
            group_file.read(path, others)
    group_file.whole(found[:0], ["a", "b"]).to_csv(path, index=False)
    with pytest.raises(FoldcraftError, match="no group of several rows"):
        group_file.read(path, ["a", "b"])
    with pytest.raises(FoldcraftError, match="no audit yet"):
        group_file.read(tmp_path / "none.csv", ["a"])


def some_probabilities(seed: int = 0, rows: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Well-founded probabilities (N, 3) and true classes (N,)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, rows)
    logits = rng.normal(0, 1, (rows, 3))
    logits[np.arange(rows), truth] += 4
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), truth


def test_flipped_labels_are_listed() -> None:
    probabilities, truth = some_probabilities()
    flipped = np.arange(0, 600, 20)
    given = truth.copy()
    given[flipped] = (given[flipped] + 1) % 3
    found = label_errors.judge(probabilities, given)
    hits = np.isin(np.flatnonzero(found.listed), flipped)
    assert hits.mean() > 0.9
    assert hits.sum() > 0.7 * len(flipped)
    assert (found.suggested[flipped] == truth[flipped]).mean() > 0.8
    assert found.expected == pytest.approx(30, abs=15)
    assert np.median(found.margin[flipped]) < 0 < np.median(np.delete(found.margin, flipped))
    assert label_errors.judge(probabilities, truth).listed.sum() < 15


def test_a_threshold_is_each_class_s_own() -> None:
    """A class that is never recognised with certainty keeps its rows: doubt about it is no sign of a wrong label."""
    probabilities, truth = some_probabilities(1)
    unsure = truth == 2
    probabilities[unsure] = 0.6 * np.array([1 / 2, 1 / 2, 0]) + 0.4 * np.array([0, 0, 1])
    probabilities[unsure] += np.array([0.05, -0.05, 0])  # most likely "0", at .35 of .40
    found = label_errors.judge(probabilities, truth)
    assert not found.listed[unsure].any()


def test_finished_runs_judge_the_labels_and_nothing_is_changed(sound: Path, command) -> None:
    words = ("train.epochs=1", "tta.views=[identity]")
    command("split", "--config", sound)
    rows = Path("input/shapes/train.csv").read_bytes()
    command("train", "--config", sound, "--fold", "0", *words)
    done = audit(command, sound)
    assert "labels are judged by a probe" in done.out
    assert "tiny has folds that are not trained yet" in done.out
    command("train", "--config", sound, "--fold", "all", *words)
    done = audit(command, sound)
    assert "labels are judged by a probe" not in done.out
    assert "not looked at" not in done.out
    assert Path("input/shapes/train.csv").read_bytes() == rows
    assert not set(pd.read_csv(AUDIT / "label_errors.csv")["label"]) - {"bar", "cross", "dot"}


def test_wrong_labels_are_listed_by_the_probe(sound: Path, command) -> None:
    """Ten images labelled otherwise, of shapes that the probe tells apart."""
    wrong = ["006.png", "018.png", "030.png"]
    edit(lambda train: train.assign(label=train["label"].mask(train["id"].isin(wrong), "cross")))
    audit(command, sound, "backbone.name=resnet10t", "images.size=32")
    assert wrong[0] in (AUDIT / "label_errors.csv").read_text()


def test_nothing_is_half_written(sound: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle, an audit leaves the earlier summary, whole files, and no lock."""
    audit(command, sound)
    before = (AUDIT / "summary.json").read_bytes()
    Path("input/shapes/train/000.png").write_text("no picture")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(audit_report, "draw", stop)
        assert audit(command, sound).code == 130
    assert (AUDIT / "summary.json").read_bytes() == before
    assert not list(AUDIT.rglob("*.tmp-*"))


def test_without_weights_the_rest_is_still_told(sound: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDCRAFT_WEIGHTS", "nowhere")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shape(3).save("input/shapes/train/spare.png")
    done = audit(command, sound, "backbone.weights=pretrained", "backbone.name=vit_tiny_patch16_224")
    assert done.code == 0, done.err
    assert "not looked at" in done.out
    assert "nowhere" in done.out
    assert "unlisted" in summary()


def test_a_sheet_keeps_captions_apart_and_shows_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (300, 100), colour).save(tmp_path / name)
    paths = {("train", name): tmp_path / name for name in ("a.png", "b.png", "bad.png")}
    image_rows = [[ImageRef("train", "a.png", "x" * 500), ImageRef("train", "b.png")], [ImageRef("train", "bad.png")]]
    made = audit_report.draw(Finding("pairs", "info", 2, "", "", "", image_rows), paths, (0, 65535))
    assert made.size == (
        2 * (contact_sheet.THUMBNAIL + contact_sheet.GAP) + contact_sheet.GAP,
        2 * (contact_sheet.THUMBNAIL + contact_sheet.GAP) + contact_sheet.GAP + 3 * contact_sheet.LINE,
    )
    middle = contact_sheet.GAP + contact_sheet.THUMBNAIL // 2
    assert made.getpixel((middle, middle)) == (255, 0, 0)
    assert made.getpixel((middle + contact_sheet.THUMBNAIL + contact_sheet.GAP, middle)) == (0, 0, 255)
    caption = np.asarray(made)[contact_sheet.GAP + contact_sheet.THUMBNAIL + contact_sheet.LINE :][
        : contact_sheet.LINE - 2
    ]
    assert (caption[:, contact_sheet.THUMBNAIL + contact_sheet.GAP :] == 255).all(), (
        "a long caption ends where the next tile begins"
    )
    assert (caption < 128).any()
    assert contact_sheet.enlarged(Image.new("L", (8, 8))).size == (96, 96)
    assert contact_sheet.sheet([[SheetTile(Image.new("RGB", (8, 8)), ["only"])]]).width > 8


def test_two_audits_at_once(sound: Path, command) -> None:
    from foldcraft.common.files import locked

    with locked(AUDIT / ".lock"):
        done = audit(command, sound)
    assert done.code == cli.MISTAKE
    assert "another audit is at work" in done.err


def test_depth_and_bands_that_are_left_out_are_told(sound: Path) -> None:
    """Twelve bits are scaled by what all of them fill; a fourth band without a name is infrared as well as opacity."""
    tables = read_tables(config_file.load(sound))
    for path in tables.train_paths[:9]:
        Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16).save(path)
    tables.train_paths[20].write_bytes(cv2.imencode(".tif", np.zeros((SIDE, SIDE, 4), np.uint8))[1].tobytes())
    settled, words = with_scale(config_file.load(sound), tables)
    assert settled.images.bounds == (0, 4095)
    facts = image_stats.collect(tables, bounds=settled.images.bounds)
    found = {finding.name: finding for finding in file_issues.find(facts, tables, words)}
    assert "4095 white" in found["deep"].sentence
    assert found["deep"].count == 9
    ((shown,),) = found["bands_left_out"].image_rows
    assert shown.id == tables.train_ids[20]
    assert facts["mean_g"][:9].min() > 10
