"""Whatever lies in a file: it is used, or it is refused in one line. Never a traceback, a hang, or a full memory.

`make fuzz` draws ten thousand inputs; FOLDCRAFT_FUZZ says another number.
"""

import csv
import io
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import yaml
from conftest import CONFIG, Outcome
from fuzzing import DEEP, MILLION, SUFFIXES, attempt, damaged, images, inputs, json_values, one_line, spelled_out, write
from hypothesis import example, given
from hypothesis import strategies as st

from foldcraft.common import checksums, config, config_file, config_reference
from foldcraft.common.config import BackboneConfig, Config
from foldcraft.common.paths import FoldFolder
from foldcraft.data import competition, folds, splitting
from foldcraft.data.competition import Competition
from foldcraft.data.images.image_cache import ImageSpec, open_stores
from foldcraft.models import backbones, checkpoint, hardware
from foldcraft.predictions import store
from foldcraft.predictions.store import Origin, Predictions
from foldcraft.submission import build, ledger

pytestmark = pytest.mark.integration  # drawn often, each on files of its own

Command = Callable[..., Outcome]
KEYS = [name for name, *_ in config_reference.describe()]
EMPTY = "competition: {name: shapes}\nbackbone: {name: test_resnet, weights: none}\n"


@pytest.fixture
def fresh(workplace: Path) -> Iterator[Callable[[], Path]]:
    """Call it for an empty folder; the one before is deleted."""
    number = count()

    def folder() -> Path:
        shutil.rmtree(workplace / "fresh", ignore_errors=True)
        made = workplace / "fresh" / str(next(number))
        made.mkdir(parents=True)
        return made

    return folder


# Configs

odd_text = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "",
            " ",
            "\0",
            "\x1b]0;x\x07",
            "é",
            "\u202e",
            "𝔘",
            "\ud800",
            "../..",
            "/etc/passwd",
            "a" * 5000,
            "~",
            "%s{}",
            "\n\n",
            "${seed}",
            "${oc.env:HOME}",
            "${oc.env:NOTHING,x}",
            "${seed",
            "${",
            "${.seed}",
            "${a}${b}",
            "${oc.decode:[1]}",
            "\\${seed}",
            "null",
            "NaN",
            "yes",
            "0o17",
            "1_000",
            "1:30",
            "2001-13-45",
            "2001-01-01",
            "=",
            "<<",
            "!!python/none",
        ]
    ),
)
odd_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), odd_text, st.sampled_from([10**400, -0.0, 1e308])),
    lambda one: st.lists(one, max_size=4) | st.dictionaries(odd_text, one, max_size=4),
    max_leaves=12,
)
odd_yaml = st.sampled_from(
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "a: &a\n  b: *a\n",
        "a: *nothing\n",
        "<<: {seed: 3}\n",
        "train: {<<: [{lr: 0.1}, {lr: 0.2}]}\n",
        "seed: !!python/object/apply:os.system ['touch intruded']\n",
        "seed: !!python/object/apply:pathlib.Path ['x']\n",
        "seed: !!python/name:os.system\n",
        "seed: !!binary aGVsbG8=\n",
        "seed: !!set {a, b}\n",
        "seed: !!omap [a: 1]\n",
        "seed: !!timestamp 2001-99-99\n",
        "seed: !!int x\n",
        "seed: !!float ''\n",
        "seed: !!bool x\n",
        "seed: !<tag:yaml.org,2002:int> 0x\n",
        "seed: 2001-13-45\n",
        "seed: 0b\n",
        "seed: 1:99:99\n",
        "seed: " + "9" * 5000 + "\n",
        "seed: " + "[" * 20_000 + "\n",
        "seed: " + "[" * 300 + "]" * 300 + "\n",
        "- " * 5000 + "x\n",
        "".join(" " * depth + "a:\n" for depth in range(900)),
        "{" * 2000,
        "? [a, b]\n: 1\n",
        "? {a: 1}\n: 1\n",
        "1: 2\n",
        "null: 2\n",
        "true: 2\n1.5: 3\n",
        "2001-01-01: 3\n",
        "train: {1: 2}\n",
        "optim.lr: 3\n",
        "--- {}\n--- {}\n",
        "%YAML 9.9\n---\nseed: 1\n",
        "%TAG ! tag:x,2000:\n---\nseed: !y 1\n",
        "seed: |\n  x\n\ty\n",
        "\tseed: 1\n",
        "seed: 'unfinished\n",
        "extends: [a.yaml, 3]\n",
        "extends: {a: b}\n",
        "extends: ''\n",
        "extends: .\n",
        "extends: /dev/zero\n",
        'extends: "a\\0b"\n',
        "extends: ${seed}\n",
        "extends: " + "a" * 5000 + "\n",
        "soup: {'': x, '../a': y}\n",
        "experiment: ???\n",
        "competition: ???\n",
        "seed: ???\n",
        "train: null\n",
        "backbone: null\n",
        "images: []\n",
        "augment: {transforms: [{OneOf: {transforms: [{OneOf: {transforms: []}}]}}]}\n",
        "optim: {lr: .nan, clip: .inf}\n",
        "images: {max_value: .inf}\n",
    ]
)


@st.composite
def config_files(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["keys", "keys", "keys", "odd", "bytes", "text", "bomb"]))
    if kind == "bytes":
        return draw(damaged(CONFIG.encode()) | st.binary(max_size=200))
    if kind == "text":
        return draw(odd_text).encode(errors="surrogatepass")
    if kind == "bomb":
        lines = [
            f"a{k}: &a{k} [{', '.join([f'*a{k - 1}' if k else 'x'] * draw(st.integers(1, 9)))}]"
            for k in range(draw(st.integers(1, 40)))
        ]
        return (EMPTY + "augment:\n  transforms:\n" + "".join(f"    - {line}\n" for line in lines)).encode()
    if kind == "odd":
        return (draw(st.sampled_from([EMPTY, ""])) + draw(odd_yaml)).encode()
    values: dict[str, Any] = yaml.safe_load(EMPTY)
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=5)):
        place = values
        *above, leaf = key.split(".")
        for part in above:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                break
        else:
            place[leaf] = draw(odd_values)
    text = yaml.safe_dump(values, allow_unicode=draw(st.booleans()), default_flow_style=draw(st.booleans()))
    return text.encode(errors="surrogatepass")


@inputs(0.16)
@given(data=config_files())
def test_a_config(fresh: Callable[[], Path], data: bytes):
    folder = fresh()
    made = attempt(lambda: config_file.load(write(folder / "odd.yaml", data)))
    if made is not None:  # what is written into a run loads as the same
        again = write(folder / "again.yaml", made.to_yaml())
        assert attempt(lambda: config_file.load(again)) == made
    assert not Path("intruded").exists()


@inputs(0.02)
@given(width=st.integers(1, 4), depth=st.integers(1, 30), circle=st.booleans())
@example(width=2, depth=30, circle=False)
def test_a_tower_of_configs_that_extend_each_other(fresh: Callable[[], Path], width: int, depth: int, circle: bool):
    """Thirty files, each of which extends the next one twice, would be read a billion times."""
    folder = fresh()
    for level in range(depth):
        parent = f"{level + 1}.yaml" if level + 1 < depth or not circle else "0.yaml"
        write(folder / f"{level}.yaml", f"extends: [{', '.join([parent] * width)}]\n")
    write(folder / f"{depth}.yaml", EMPTY)
    attempt(lambda: config_file.load(folder / "0.yaml"))


@inputs(0.08)
@given(
    words=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(KEYS), odd_text).map("=".join),
            st.tuples(odd_text, odd_text).map("=".join),
            st.tuples(
                st.sampled_from(KEYS),
                st.sampled_from(["[", "{", "&a [*a]", "[&a x, *a]", "!!int x", "${oc.env:HOME}", "[" * 5000]),
            ).map("=".join),
            st.sampled_from(
                [
                    "=",
                    "==",
                    ".=",
                    "a..b=1",
                    "a[0]=1",
                    "train[=1",
                    "optim.lr.x=1",
                    "seed.a=1",
                    "competition=3",
                    "train={}",
                    "a.=1",
                    "[a]=1",
                    "optim.lr=9" + "9" * 5000,
                ]
            ),
        ),
        max_size=3,
    )
)
def test_words_on_the_command_line(fresh: Callable[[], Path], words: list[str]):
    path = write(fresh() / "plain.yaml", EMPTY)
    attempt(lambda: config_file.load(path, words))


# Tables

odd_cells = st.one_of(
    st.sampled_from(
        ["NA", "null", "nan", "None", "", " ", "07", "1.0", "1e5", "True", "-", "#", "x\ty", 'a"b', "a,b", "a\nb"]
    ),
    st.sampled_from(
        ["../x", "/etc/passwd", "a/../../b", "é", "ﬁ", "\u202e", "\x1b[31m", "[/red]", "{id}", "a" * 300, MILLION, "\0"]
    ),
    st.text(max_size=8),
)
cells = st.sampled_from(["a", "b", "c", "NA", "null", "nan", "07", "7", "1.0", "True", "é", "x y", "[/b]", "'"])
ENCODINGS = ["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "utf-32"]


def filled(data: bytes) -> bytes:
    """A table with its longest cells spelled out."""
    return data.replace(MILLION.encode(), spelled_out(MILLION).encode())


def as_csv(rows: list[list[str]], end: str = "\n", comma: str = ",", quoting: int = csv.QUOTE_MINIMAL) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=end, delimiter=comma, quoting=quoting, escapechar="\\")
    for row in rows:
        writer.writerow(row if row != [""] else [" "])  # an empty line cannot be told from none
    return stream.getvalue()


@st.composite
def tables(draw: st.DrawFn, columns: list[str], rows: int) -> bytes:
    """A table with those columns, more or less."""
    header = list(columns)
    if draw(st.booleans()):
        header = draw(st.lists(st.sampled_from([*columns, *columns, "extra", " id", "", "ID"]) | odd_cells, max_size=5))
    body = [[f"r{row}", *(draw(cells) for _ in header[1:])] for row in range(rows)]
    for _ in range(draw(st.integers(0, 3))):
        if body and (row := draw(st.sampled_from(body))):
            row[draw(st.integers(0, len(row) - 1))] = draw(odd_cells)
    for _ in range(draw(st.integers(0, 1))):
        if body:
            draw(st.sampled_from(body)).append(draw(cells))
    for _ in range(draw(st.integers(0, 1))):
        if body and len(row := draw(st.sampled_from(body))) > 1:
            row.pop()
    text = as_csv(
        [header, *body],
        draw(st.sampled_from(["\n", "\r\n", "\r"])),
        draw(st.sampled_from([",", ",", ",", ";", "\t"])),
        draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE])),
    )
    if draw(st.integers(0, 9)) == 0:
        text = text.replace('"', "", 1) + draw(st.sampled_from(['"', '"unfinished', "\n\n\n", " ", "\x1a"]))
    data = text.encode(draw(st.sampled_from(ENCODINGS)), errors="ignore")
    return draw(damaged(data)) if draw(st.integers(0, 4)) == 0 else data


def settings_for(folder: Path, **names: Any) -> Config:
    about = {"name": "odd", "folder": folder, "image": "x.png", "test_image": "x.png", **names}
    return Config.model_validate({"experiment": "x", "competition": about, "backbone": {"name": "test_resnet"}})


def whole_way(read: Competition, folder: Path) -> None:
    """Folds that come back as they were, and a submission as the host reads it."""
    read = replace(read, groups=None)  # all rows share one image, and would be one group
    made = splitting.make(read, config.FoldsConfig(count=2, scheme="plain"))
    folds.write(made, folder / "folds.csv")
    assert folds.read(folder / "folds.csv", read).fingerprint == made.fingerprint
    shape = (len(read.test_ids), len(read.classes))
    frame = build.make(read, read.test_ids, np.log(np.full(shape, 1 / shape[1])))
    build.check(frame, read)
    entry = dict.fromkeys(ledger.COLUMNS[2:-2], "0") | {"competition": "odd", "metric": read.metric.name}
    written = build.write(frame, folder / "submissions", "odd", entry)
    with open(written.path, encoding="utf-8", newline="") as stream:
        table = list(csv.reader(stream))
    assert [row[table[0].index("id")] for row in table[1:]] == read.sample["id"].tolist()


GOOD = {
    "train.csv": as_csv([["id", "label"], *([f"r{row}", "ab"[row % 2]] for row in range(6))]).encode(),
    "test.csv": as_csv([["id"], ["t0"], ["t1"]]).encode(),
    "sample_submission.csv": as_csv([["id", "label"], ["t0", "a"], ["t1", "a"]]).encode(),
}


@inputs(0.18)
@given(
    name=st.sampled_from(list(GOOD)),
    data=tables(["id", "label"], 6) | tables(["id"], 2) | damaged(GOOD["train.csv"]) | st.binary(max_size=100),
    image=st.sampled_from(["x.png", "x", "{id}", "{label}/{id}", "{id", "../x.png", "/x", "{}", "\0", "{id}" * 9, "."]),
)
def test_a_table(fresh: Callable[[], Path], name: str, data: bytes, image: str):
    folder = fresh()
    write(folder / "x.png", images()["png L"])
    for other, good in GOOD.items():
        write(folder / other, filled(data) if other == name else good)
    used = {} if image == "x.png" else {"image": image}
    read = attempt(lambda: competition.read(settings_for(folder, **used)))
    if read is not None:
        attempt(lambda: whole_way(read, folder))


@inputs(0.02)
@given(
    labels=st.lists(cells, min_size=4, max_size=12).filter(lambda some: len(set(some)) > 1),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    padding=st.sampled_from(["", MILLION, 'a,"b"\r\nc']),
)
def test_a_sound_table_is_read_as_it_is_meant(
    fresh: Callable[[], Path], labels: list[str], end: str, encoding: str, quoting: int, padding: str
):
    """ "NA", "null" and "07" are labels like others, whatever the editor made of the file."""
    folder = fresh()
    rows = [[f"0{number}", label, padding] for number, label in enumerate(labels)]
    write(folder / "x.png", images()["png L"])
    for name, data in {
        **GOOD,
        "train.csv": filled(as_csv([["id", "label", "note"], *rows], end, quoting=quoting).encode(encoding)),
    }.items():
        write(folder / name, data)
    read = competition.read(settings_for(folder))
    assert read.train_ids.tolist() == [row[0] for row in rows]
    assert read.classes.decode(read.targets) == labels
    whole_way(read, folder)


@inputs(0.04)
@given(
    header=st.lists(st.sampled_from(["id", "a", "b", "label", "a.1", "", "é"]), max_size=5),
    answers=st.lists(st.sampled_from(["0", "0.5", "", "NA", "a", "1e999", "x" * 1000]), min_size=2, max_size=2),
    ids=st.permutations(["t0", "t1"]) | st.lists(st.sampled_from(["t0", "t1", "t2", ""]), max_size=4),
    metric=st.sampled_from(["accuracy", "log_loss", "roc_auc", "qwk"]),
)
def test_a_sample_submission(
    fresh: Callable[[], Path], header: list[str], answers: list[str], ids: list[str], metric: str
):
    folder = fresh()
    write(folder / "x.png", images()["png L"])
    rows = [[row if name == "id" else answers[number % 2] for name in header] for number, row in enumerate(ids)]
    for name, data in {**GOOD, "sample_submission.csv": as_csv([header, *rows]).encode()}.items():
        write(folder / name, data)
    read = attempt(lambda: competition.read(settings_for(folder, metric=metric)))
    if read is not None:
        attempt(lambda: whole_way(read, folder))


@pytest.fixture
def frozen(workplace: Path) -> tuple[Competition, bytes]:
    """A competition and its folds file."""
    write(workplace / "good" / "x.png", images()["png L"])
    for name, data in GOOD.items():
        write(workplace / "good" / name, data)
    data = replace(competition.read(settings_for(workplace / "good")), groups=None)
    folds.write(splitting.make(data, config.FoldsConfig(count=2)), workplace / "folds.csv")
    return data, (workplace / "folds.csv").read_bytes()


@inputs(0.1)
@given(draw=st.data())
def test_a_folds_file(fresh: Callable[[], Path], frozen: tuple[Competition, bytes], draw: st.DataObject):
    data, good = frozen
    path = fresh() / "folds.csv"
    first, _, table = good.decode().partition("\n")
    header = json.loads(first.removeprefix("#"))
    kind = draw.draw(st.sampled_from(["bytes", "header", "consistent", "deep"]))
    if kind == "bytes":
        write(path, draw.draw(damaged(good)))
    elif kind == "header":
        key = draw.draw(st.sampled_from(sorted(header)))
        changed = draw.draw(json_values()) if draw.draw(st.booleans()) else {**header, key: draw.draw(json_values())}
        write(path, f"# {json.dumps(changed)}\n{table}")
    elif kind == "deep":
        write(path, f"# {DEEP}\n{table}")
    else:  # other ids or folds under a header that says they are right
        ids = draw.draw(
            st.lists(
                odd_cells.filter(lambda cell: len(cell) < 999) | st.sampled_from([f"r{k}" for k in range(6)]),
                max_size=8,
            )
        )
        numbers = np.array([draw.draw(st.integers(-1, 3)) for _ in ids], dtype=np.int64)
        other = folds.Folds(
            np.array(ids, dtype=str), numbers, draw.draw(st.integers(0, 3)), "plain", 0, data.fingerprint
        )
        folds.write(other, path)
    read = attempt(lambda: folds.read(path, data))
    if read is not None:
        assert read.ids.tolist() == data.train_ids.tolist()
        assert set(read.fold.tolist()) == set(range(read.count))


@inputs(0.02)
@given(
    data=damaged((",".join(ledger.COLUMNS) + "\n" + ",".join("x" * len(ledger.COLUMNS)) + "\n").encode())
    | st.binary(max_size=60)
)
def test_a_ledger(fresh: Callable[[], Path], data: bytes):
    path = write(fresh() / "ledger.csv", data)
    attempt(lambda: ledger.read(path))
    attempt(lambda: ledger.fill(path.parent, "x", {"public": "0.5"}))


# Images


@inputs(0.14)
@given(draw=st.data(), resize=st.sampled_from(["squash", "pad", "crop"]), suffix=st.sampled_from(SUFFIXES))
def test_an_image(fresh: Callable[[], Path], draw: st.DataObject, resize: str, suffix: str):
    folder = fresh()
    name = draw.draw(st.sampled_from(sorted(images())))
    data = images()[name]
    if len(data) < 20_000 and draw.draw(st.booleans()):
        data = draw.draw(damaged(data))
    path = write(folder / f"odd{suffix}", data)
    sides = draw.draw(st.sampled_from([8, 8, 600]))  # a large JPEG may be decoded at a smaller scale for the first only
    stores = attempt(lambda: open_stores([path], [ImageSpec(sides, resize)], folder / "cache", "train"))
    if stores is not None:
        assert stores[0].pixels.shape == (1, sides, sides, 3)
    assert not list(folder.rglob("*.tmp-*"))


@pytest.mark.parametrize("name", sorted(images()))
def test_an_image_of_every_kind(fresh: Callable[[], Path], name: str):
    folder = fresh()
    path = write(folder / "odd.jpg", images()[name])
    specs = [ImageSpec(16, "squash"), ImageSpec(16, "pad"), ImageSpec(16, "crop")]
    attempt(lambda: open_stores([path], specs, folder / "cache", "train"))


@inputs(0.02)
@given(draw=st.data())
def test_what_is_remembered_of_images(fresh: Callable[[], Path], draw: st.DataObject):
    folder = fresh()
    path = write(folder / "x.png", images()["png L"])
    open_stores([path], [ImageSpec(8)], folder, "train")
    ((size, time, change, digest),) = checksums.read_json(folder / "content.json").values()
    odd = json_values().map(json.dumps) | json_values().map(lambda value: json.dumps({"<path>": value})) | st.just(DEEP)
    data = draw.draw(odd.map(str.encode) | damaged(b'{"<path>": [<size>, <time>, <change>, "<digest>"]}'))
    words = {"<path>": path, "<size>": size, "<time>": time, "<change>": change, "<digest>": digest}
    for word, value in words.items():
        data = data.replace(word.encode(), str(value).encode())
    write(folder / "content.json", data if data != DEEP.encode() else DEEP)
    assert attempt(lambda: open_stores([path], [ImageSpec(8)], folder, "train")) is not None


# What runs leave behind

ORIGIN = Origin("x", 0, ("a", "b"), "d", "f", "w")


def parquet(columns: dict[str, Any], about: object) -> bytes:
    stream = io.BytesIO()
    metadata = {"foldcraft": spelled_out(about if isinstance(about, str) else json.dumps(about))}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), stream)
    return stream.getvalue()


def good_predictions(folder: Path) -> bytes:
    path = folder / "good.parquet"
    predicted = np.log(np.full((2, 3, 2), 0.5, np.float32))
    store.write(path, Predictions(np.array(["r0", "r1", "r2"]), ("identity", "hflip"), predicted, ORIGIN))
    return path.read_bytes()


@st.composite
def odd_predictions(draw: st.DrawFn) -> bytes:
    rows = draw(st.integers(0, 6))
    kinds = st.sampled_from(["text", "float", "double", "int", "null", "list", "bool", "bytes", "nan"])

    def column() -> pa.Array:
        make: dict[str, Callable[[], pa.Array]] = {
            "text": lambda: pa.array([f"r{row % 3}" for row in range(rows)]),
            "float": lambda: pa.array([-0.7] * rows, pa.float32()),
            "double": lambda: pa.array([-0.7] * rows),
            "int": lambda: pa.array([1] * rows),
            "null": lambda: pa.array([None] * rows),
            "list": lambda: pa.array([[1, 2]] * rows),
            "bool": lambda: pa.array([True] * rows),
            "bytes": lambda: pa.array([b"\xff"] * rows),
            "nan": lambda: pa.array([float("nan")] * rows, pa.float32()),
        }
        return make[draw(kinds)]()

    names = draw(st.lists(st.sampled_from(["id", "view", "logp:a", "logp:b", "logp:"]), unique=True, max_size=5))
    about: Any = {"experiment": "x", "fold": 0, "classes": ["a", "b"], "data": "d", "folds": "f", "weights": "w"}
    if draw(st.booleans()):
        about[draw(st.sampled_from([*about, "more"]))] = draw(json_values())
    about = draw(st.sampled_from([about, about, DEEP, "", "null", "[]"]))
    return parquet({name: column() for name in names}, about)


@inputs(0.08)
@given(draw=st.data())
def test_predictions(fresh: Callable[[], Path], draw: st.DataObject):
    folder = fresh()
    good = good_predictions(folder)
    path = write(folder / "odd.parquet", draw.draw(damaged(good) | odd_predictions() | st.binary(max_size=99)))
    read = attempt(lambda: store.read(path))
    if read is not None:
        assert read.predicted.shape == (len(read.views), len(read.ids), len(read.origin.classes))
        assert read.predicted.dtype == np.float32
        attempt(lambda: store.join_folds([read], read.views))
        attempt(lambda: store.average_folds([read], read.views))


class Intruder:
    """Pickled, it is a call that leaves a file behind."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("intruded"),)


def saved(state: object, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream, **options)
    return stream.getvalue()


STATE = {"identity": "x", "epoch": 3, "model": {"w": torch.arange(6.0)}, "history": [{"loss": 0.5}]}
STATES = [
    saved(STATE),
    saved(STATE, _use_new_zipfile_serialization=False),
    saved([1, 2]),
    saved({"model": Intruder()}),
    saved({"model": Intruder()}, _use_new_zipfile_serialization=False),
    pickle.dumps(Intruder(), protocol=2),
    pickle.dumps(Intruder()),
    pickle.dumps(STATE["history"]),
    b"(" * 5000 + b".",
    b"",
]


@inputs(0.07)
@given(draw=st.data())
def test_a_checkpoint(fresh: Callable[[], Path], draw: st.DataObject):
    data = draw.draw(st.sampled_from(STATES).flatmap(damaged) | st.binary(max_size=200))
    path = write(fresh() / "last.ckpt", data)
    state = attempt(lambda: checkpoint.load_state(path))
    assert state is None or isinstance(state, dict)
    assert not Path("intruded").exists()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], dict[str, Any], bytes]:
    """Weights, blueprint and the file of a small net."""
    net, blueprint = backbones.build(BackboneConfig(name="test_resnet", weights="none"), 3, 32)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    checkpoint.save_model(path, net.state_dict(), blueprint, {"identity": "x"})
    return net.state_dict(), json.loads(blueprint.to_json()), path.read_bytes()


@inputs(0.06)
@given(draw=st.data())
def test_a_model_file(fresh: Callable[[], Path], model_file: tuple, draw: st.DataObject):
    weights, blueprint, good = model_file
    kind = draw.draw(st.sampled_from(["bytes", "header", "blueprint", "blueprint", "metadata", "pickle"]))
    path = fresh() / "model.safetensors"
    if kind == "bytes":
        write(path, draw.draw(damaged(good)))
    elif kind == "pickle":
        write(path, draw.draw(st.sampled_from(STATES)))
    elif kind == "header":
        size = int.from_bytes(good[:8], "little")
        head = draw.draw(damaged(good[8 : 8 + size]))
        write(path, len(head).to_bytes(8, "little") + head + good[8 + size :])
    else:
        odd = st.one_of(
            json_values(),
            st.sampled_from(
                ["hf-hub:timm/resnet10t.c3_in1k", "local-dir:/tmp", "resnet18", "test_vit", "../x", ["head"], 10**9]
            ),
            st.sampled_from(
                [{"num_classes": 10**9}, {"checkpoint_path": "/etc/passwd"}, {"pretrained": True}, {"num_classes": 3}]
            ),
        )
        changed = {**blueprint, draw.draw(st.sampled_from([*blueprint, "more"])): draw.draw(odd)}
        about: Any = {"blueprint": json.dumps(changed), "about": {}}
        if kind == "metadata":
            about = draw.draw(json_values() | st.just({"blueprint": DEEP, "about": {}}))
        text = draw.draw(st.sampled_from([json.dumps(about), json.dumps(about), DEEP]))
        write(path, safetensors.torch.save(weights, {"foldcraft": spelled_out(text)}))
    attempt(lambda: checkpoint.load_model(path))
    attempt(lambda: checkpoint.read_about(path))
    assert not Path("intruded").exists()


@inputs(0.03)
@given(data=st.one_of(json_values().map(json.dumps), st.just(DEEP), st.binary(max_size=40)))
def test_small_json_files(fresh: Callable[[], Path], data: bytes | str):
    folder = FoldFolder(fresh(), 0)
    write(folder.manifest, data)
    read = attempt(folder.read_manifest)
    assert read is None or isinstance(read, dict)
    memory = write(folder.path / "hardware.json", data)
    chosen = attempt(lambda: hardware.for_inference(config.MachineConfig(device="cpu"), memory))
    assert chosen is not None


# The commands


@inputs(0.02)
@given(draw=st.data())
def test_a_command(workplace: Path, command: Command, draw: st.DataObject):
    """Exit code 0, or 2 and one line on stderr; whichever file is odd."""
    shutil.rmtree(workplace / "input", ignore_errors=True)
    shutil.rmtree(workplace / "folds", ignore_errors=True)
    for part, names in {"train": [f"r{k}" for k in range(6)], "test": ["t0", "t1"]}.items():
        for name in names:
            write(Path(f"input/shapes/{part}/{name}.png"), images()["png L"])
    for name, data in GOOD.items():
        write(Path("input/shapes") / name, data)
    path = write(Path("configs/tiny.yaml"), CONFIG.replace("count: 3", "count: 2"))
    odd = draw.draw(st.sampled_from(["config", "table", "folds", "words", "image", "nothing"]))
    words = []
    if odd == "config":
        write(path, draw.draw(config_files()))
    elif odd == "table":
        name = draw.draw(st.sampled_from(list(GOOD)))
        write(Path("input/shapes") / name, filled(draw.draw(tables(["id", "label"], 6) | damaged(GOOD[name]))))
    elif odd == "folds":
        write(Path("folds/shapes.csv"), draw.draw(st.binary(max_size=40)))
    elif odd == "image":
        write(Path("input/shapes/train/r0.png"), draw.draw(st.sampled_from(sorted(images().values()))))
    elif odd == "words":
        words = draw.draw(st.lists(odd_text.map(lambda text: f"seed={text}"), max_size=2))
    others = ["check --show=augmentations", "train", "infer", "check --show=net", "compare"]
    for name in ("split", draw.draw(st.sampled_from(others))):
        arguments = ["--config", path, *words, *(["--fold", "7"] if name == "train" else [])]
        outcome = attempt(lambda name=name, arguments=arguments: command(*name.split(), *arguments))
        assert outcome is not None
        assert outcome.code in (0, 2), outcome
        assert "Traceback" not in outcome.out + outcome.err
        if outcome.code:
            one_line(outcome.err.rstrip("\n"))
            assert outcome.err.startswith("error: ")
